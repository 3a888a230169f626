"""Bounds between the ELBO and the importance-weighted bound, which trade tightness for the guide's signal."""

from typing import Any

import torch
from torch import Tensor

from pyro_lvm.objectives.importance_weighted import ImportanceWeighted, log_mean, read
from pyro_lvm.objectives.objective import valued


class CIWAE(ImportanceWeighted):
    r"""$\beta\, \frac1K \sum_k \log w_k + (1 - \beta) \log \frac1K \sum_k w_k$: a combination of ELBO and IWAE.

    Args:
        num_particles: K.
        beta: weight of the ELBO, from 0 to 1.
        vectorize_particles, max_plate_nesting: see `Objective`.

    Raises:
        ValueError: for a β outside [0, 1]; see `ImportanceWeighted` for the others.

    References:
        Rainforth et al. (2018), Tighter Variational Bounds Are Not Necessarily Better.

    Example:
        >>> import torch
        >>> from pyro_lvm import guides, models
        >>> _ = torch.manual_seed(0)
        >>> model = models.ProbabilisticPCA(4, latent_dim=2)
        >>> CIWAE(10, beta=0.5).loss(model, guides.LinearNormal(4, latent_dim=2), torch.zeros(3, 4)) > 0
        True
    """

    def __init__(
        self,
        num_particles: int,
        beta: float = 0.5,
        *,
        vectorize_particles: bool = True,
        max_plate_nesting: int | float = float("inf"),
    ) -> None:
        super().__init__(num_particles, vectorize_particles=vectorize_particles, max_plate_nesting=max_plate_nesting)
        if not 0 <= beta <= 1:
            raise ValueError(f"'beta' is the share of the ELBO and must lie between 0 and 1, not {beta!r}.")
        self.beta = beta

    def per_datum(self, log_w: Tensor) -> Tensor:
        """The combination of a datum's log-weights."""
        return self.beta * log_w.mean(0) + (1 - self.beta) * log_mean(log_w)


class MIWAE(ImportanceWeighted):
    r"""$\frac1M \sum_m \log \frac{M}{K} \sum_{k \in m} w_k$, M importance-weighted bounds of K/M draws each.

    Args:
        num_particles: K, draws per datum in all.
        groups: M, a divisor of K.
        vectorize_particles, max_plate_nesting: see `Objective`.

    Raises:
        ValueError: where K is no multiple of M; see `ImportanceWeighted` for the others.

    References:
        Rainforth et al. (2018), Tighter Variational Bounds Are Not Necessarily Better.

    Example:
        >>> import torch
        >>> from pyro_lvm import guides, models
        >>> _ = torch.manual_seed(0)
        >>> model = models.ProbabilisticPCA(4, latent_dim=2)
        >>> MIWAE(12, groups=3).loss(model, guides.LinearNormal(4, latent_dim=2), torch.zeros(3, 4)) > 0
        True
    """

    def __init__(
        self,
        num_particles: int,
        groups: int,
        *,
        vectorize_particles: bool = True,
        max_plate_nesting: int | float = float("inf"),
    ) -> None:
        super().__init__(num_particles, vectorize_particles=vectorize_particles, max_plate_nesting=max_plate_nesting)
        _check_groups(num_particles, groups)
        self.groups = groups

    def per_datum(self, log_w: Tensor) -> Tensor:
        """The mean of the groups' bounds."""
        return _mean_of_groups(log_w, self.groups)


class PIWAE(ImportanceWeighted):
    r"""The model by `IWAE`, the guide by `MIWAE`: a tight bound for the one, a strong signal for the other.

    The value is the model's bound, $\log \frac1K \sum_k w_k$. The programs run twice a step, once with each held
    constant: in one run, what reaches the guide through the model's density would carry the model's weights.

    Args:
        num_particles: K, draws per datum in all.
        groups: M of the guide's bound, a divisor of K.
        vectorize_particles, max_plate_nesting: see `Objective`.

    Raises:
        ValueError: where K is no multiple of M; see `ImportanceWeighted` for the others.

    References:
        Rainforth et al. (2018), Tighter Variational Bounds Are Not Necessarily Better.

    Example:
        >>> import torch
        >>> from pyro_lvm import guides, models
        >>> _ = torch.manual_seed(0)
        >>> model = models.ProbabilisticPCA(4, latent_dim=2)
        >>> PIWAE(12, groups=3).loss(model, guides.LinearNormal(4, latent_dim=2), torch.zeros(3, 4)) > 0
        True
    """

    def __init__(
        self,
        num_particles: int,
        groups: int,
        *,
        vectorize_particles: bool = True,
        max_plate_nesting: int | float = float("inf"),
    ) -> None:
        super().__init__(num_particles, vectorize_particles=vectorize_particles, max_plate_nesting=max_plate_nesting)
        _check_groups(num_particles, groups)
        self.groups = groups

    def per_datum(self, log_w: Tensor) -> Tensor:
        """log (1/K) Σ_k w_k."""
        return log_mean(log_w)

    def differentiable_loss(self, model: Any, guide: Any, *args: Any, **kwargs: Any) -> Tensor:
        """Minus the model's bound, to call `backward` on."""
        if not torch.is_grad_enabled():
            return super().differentiable_loss(model, guide, *args, **kwargs)
        models = self._weights(model, guide, args, kwargs, gradient="none")
        guides = self._weights(model, guide, args, kwargs, constant_model=True)
        signal = read(guides, "PIWAE", lambda log_w: _mean_of_groups(log_w, self.groups))
        return -valued(self.bound(models), signal)


def _mean_of_groups(log_w: Tensor, groups: int) -> Tensor:
    grouped = log_w.unflatten(0, (groups, -1))  # (M, K/M, *plates)
    return log_mean(grouped.transpose(0, 1)).mean(0)


def _check_groups(num_particles: int, groups: Any) -> None:
    if not isinstance(groups, int) or groups < 1 or num_particles % groups:
        raise ValueError(f"'groups' must divide the {num_particles} particles into equal parts, but is {groups!r}.")
