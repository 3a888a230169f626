"""The importance-weighted bound."""

from math import log

import torch
from torch import Tensor

from pyro_lvm.objectives.objective import Objective, valued
from pyro_lvm.objectives.table import Table


class IWAE(Objective):
    r"""$\mathcal L_K = E\left[\log \frac1K \sum_k w_k\right] \le \log p(x)$, with $w_k = p(x, z_k) / q(z_k \mid x)$.

    The mean of weights is taken per datum, over unscaled probabilities; the scale of a subsampled plate or of
    `poutine.scale` stands outside the logarithm, so that the bound stays one (`pyro.infer.RenyiELBO` puts it inside).
    $\mathcal L_1$ is the ELBO and $\mathcal L_K$ grows with K. Latents that cannot be reparameterised get the score
    function's gradient, with the other particles' bound as a baseline.

    Args:
        num_particles: K.
        vectorize_particles, max_plate_nesting: see `Objective`.

    Raises:
        ValueError: where a latent lies outside the data plate, or sites of a datum have different scales.

    References:
        Burda, Grosse & Salakhutdinov (2015), Importance Weighted Autoencoders. Mnih & Rezende (2016), Variational
        Inference for Monte Carlo Objectives.

    Example:
        >>> from pyro_lvm import guides, models
        >>> _ = torch.manual_seed(0)
        >>> model = models.ProbabilisticPCA(4, latent_dim=2)
        >>> loose = guides.LinearNormal(4, latent_dim=2)
        >>> x = torch.randn(500, 4)
        >>> IWAE(1).loss(model, loose, x) > IWAE(50).loss(model, loose, x)
        True
    """

    def __init__(
        self,
        num_particles: int,
        *,
        vectorize_particles: bool = True,
        max_plate_nesting: int | float = float("inf"),
    ) -> None:
        super().__init__(num_particles, vectorize_particles=vectorize_particles, max_plate_nesting=max_plate_nesting)

    def bound(self, table: Table) -> Tensor:
        """Σ scale · log (1/K) Σ_k w_k, nats, summed over data."""
        if table.global_latents:
            names = ", ".join(f"'{name}'" for name in table.global_latents)
            raise ValueError(
                f"IWAE averages weights datum by datum, but all data share the latent {names}: a sum over data inside "
                "its logarithm is no bound under subsampling. Use ELBO, or put the latent and the data in one plate."
            )
        K, scale = table.num_particles, table.common_scale("IWAE")
        log_w = table.log_weight()  # (K, *plates)
        bound = log_w.logsumexp(0) - log(K)  # (*plates)
        value = (scale * bound).sum()
        log_q = table.log_q_by_score()
        if log_q is None:
            return value
        reward = (bound - _without_each(log_w)).detach()  # (K, *plates)
        return valued(value, (scale * log_q * reward).sum())


def _without_each(log_w: Tensor) -> Tensor:
    """log (1/(K−1)) Σ_{j≠k} w_j for every k, (K, ...); 0 for K = 1."""
    K = len(log_w)
    if K == 1:
        return torch.zeros_like(log_w)
    log_w = log_w.detach()
    others = log_w.unsqueeze(0).expand(K, *log_w.shape).clone()  # subtracting w_k from the sum would cancel
    others[torch.arange(K), torch.arange(K)] = -torch.inf
    return others.logsumexp(1) - log(K - 1)
