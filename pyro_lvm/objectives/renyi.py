"""Rényi's variational bounds, from below and from above."""

from math import isfinite
from typing import Any

import torch
from torch import Tensor

from pyro_lvm.capture import being_captured
from pyro_lvm.objectives.importance_weighted import ImportanceWeighted, log_mean, read
from pyro_lvm.objectives.objective import valued
from pyro_lvm.objectives.table import Table


class Renyi(ImportanceWeighted):
    r"""$\mathcal L_\alpha = \frac{1}{1 - \alpha} \log E_q\left[w^{1 - \alpha}\right]$, the mean taken over K draws.

    α = 0 is `IWAE`, α → 1 the `ELBO`, and the bound falls as α grows: for α > 0 it lies below log p(x). For α < 0 it
    lies above, but only for the expectation inside the logarithm: with K draws the estimate is biased downwards, and
    lies above or below.

    Args:
        alpha: α, any number but 1.
        num_particles: K.
        vectorize_particles, max_plate_nesting: see `Objective`.

    Raises:
        ValueError: for α = 1 or not finite; see `ImportanceWeighted` for the others.

    References:
        Li & Turner (2016), Rényi Divergence Variational Inference.

    Example:
        >>> import torch
        >>> from pyro_lvm import guides, models
        >>> _ = torch.manual_seed(0)
        >>> model = models.ProbabilisticPCA(4, latent_dim=2)
        >>> loose = guides.LinearNormal(4, latent_dim=2)
        >>> x = torch.randn(500, 4)
        >>> Renyi(2.0, 50).loss(model, loose, x) > Renyi(0.5, 50).loss(model, loose, x)
        True
    """

    def __init__(
        self,
        alpha: float,
        num_particles: int = 10,
        *,
        vectorize_particles: bool = True,
        max_plate_nesting: int | float = float("inf"),
    ) -> None:
        super().__init__(num_particles, vectorize_particles=vectorize_particles, max_plate_nesting=max_plate_nesting)
        if alpha == 1:
            raise ValueError("'alpha' = 1 divides by 0: the bound's limit there is the ELBO, use objectives.ELBO.")
        if not isfinite(alpha):
            raise ValueError(f"'alpha' must be a finite number, not {alpha!r}.")
        self.alpha = alpha

    def per_datum(self, log_w: Tensor) -> Tensor:
        """The bound of a datum's log-weights."""
        return log_mean(log_w, 1 - self.alpha)


class CUBO(ImportanceWeighted):
    r"""$\mathcal U_n = \frac1n \log E_q[w^n] \ge \log p(x)$, n > 1: an upper bound, which the guide descends.

    The guide's gradient is that of $\exp(n\, (\mathcal U_n - c)) / n$, whose minimum is the same, by the score
    function: it climbs $\frac{n - 1}{n} E_q[e^{-nc} w^n \log q_\phi(z \mid x)]$, draws held fixed. (Through the draws,
    a guide would lower its estimate by leaving for where the weights are small.) With a number c, `log_scale`, the
    gradient is unbiased, and data count by how close their $\mathcal U_n$ comes to c. Left out, each datum's own
    estimate takes c's place: every datum counts the same, at a bias of order 1/K. The bound itself holds for the
    expectation inside the logarithm; its estimate from K draws is biased downwards.

    An upper bound says nothing about where the evidence is high, so the model climbs the lower bound $\log \frac1K
    \sum_k w_k$. The loss is $+\mathcal U_n$; what early stopping compares is the model's bound.

    Args:
        n: the power, above 1; 2 is the χ²-divergence's.
        num_particles: K.
        log_scale: c, nats per datum.
        vectorize_particles, max_plate_nesting: see `Objective`.

    Raises:
        ValueError: for n ≤ 1, and where data share a latent; see `ImportanceWeighted` for the others.
        FloatingPointError: where a weight's power overflows.

    References:
        Dieng et al. (2017), Variational Inference via χ Upper Bound Minimization.

    Example:
        >>> import torch
        >>> from pyro_lvm import guides, models, objectives
        >>> _ = torch.manual_seed(0)
        >>> model = models.ProbabilisticPCA(4, latent_dim=2)
        >>> exact, x = guides.ExactPPCA(model), torch.randn(5, 4)
        >>> round(CUBO(2, 10).loss(model, exact, x), 3) == -round(objectives.ELBO().loss(model, exact, x), 3)
        True
    """

    is_upper_bound = True
    _gradient = "density"

    def __init__(
        self,
        n: float = 2.0,
        num_particles: int = 10,
        *,
        log_scale: float | None = None,
        vectorize_particles: bool = True,
        max_plate_nesting: int | float = float("inf"),
    ) -> None:
        super().__init__(num_particles, vectorize_particles=vectorize_particles, max_plate_nesting=max_plate_nesting)
        if not 1 < n < float("inf"):
            raise ValueError(f"'n' is the power of the weights and must be above 1, not {n!r}; for n = 1 use IWAE.")
        if log_scale is not None and not isfinite(log_scale):
            raise ValueError(f"'log_scale' must be a finite number of nats, not {log_scale!r}.")
        self.n, self.log_scale = n, log_scale

    def per_datum(self, log_w: Tensor) -> Tensor:
        """U_n of log-weights (K, *plates), (*plates)."""
        upper = log_mean(log_w, self.n)
        if not being_captured() and bool((upper == torch.inf).any()):
            raise FloatingPointError(
                f"CUBO's weights overflow: n · log w reaches {self.n * float(log_w.max()):.4g} nats. The guide leaves "
                "out where the model has mass, or 'n' is too large."
            )
        return upper

    def bound(self, table: Table) -> Tensor:
        """Σ scale · U_n, nats, summed over data: an upper bound, with what model and guide climb as its descent."""
        if table.global_latents:
            names = ", ".join(f"'{name}'" for name in table.global_latents)
            raise ValueError(
                f"CUBO is an upper bound datum by datum, but all data share the latent {names}, and an ELBO over it "
                "would make it neither an upper nor a lower bound: use ELBO or IWAE."
            )
        scale, log_w = table.common_scale("CUBO"), table.log_weight().detach()  # (K, *plates)
        upper = self.per_datum(log_w)
        models, guides = scale * log_w.softmax(0), scale * (self.n - 1) / self.n * self._powers(log_w)
        terms = [models * table.per_datum(site.log_p) for site in table.sites.values()]
        terms += [guides * table.per_datum(site.log_q) for site in table.latents]
        return valued((scale * upper).sum(), -sum(terms[1:], terms[0]).sum())

    def judge(self, table: Table) -> Tensor:
        """The model's bound, which is to rise."""
        return read(table, "CUBO", log_mean)

    def differentiable_loss(self, model: Any, guide: Any, *args: Any, **kwargs: Any) -> Tensor:
        """The upper bound, to call `backward` on."""
        return self.bound(self.table(model, guide, *args, **kwargs))

    def _powers(self, log_w: Tensor) -> Tensor:
        """w_k^n / K in units of exp(n c), (K, *plates)."""
        if self.log_scale is None:
            return (self.n * log_w).softmax(0)
        powers = (self.n * (log_w - self.log_scale)).exp() / len(log_w)
        if not being_captured() and bool((powers == torch.inf).any()):
            raise FloatingPointError(
                f"CUBO's exp(n (log w − c)) overflows: a log-weight is {float(log_w.max()):.4g} nats, and 'log_scale' "
                f"is {self.log_scale:g}. Set 'log_scale' near the largest log p(x), or leave it out."
            )
        return powers
