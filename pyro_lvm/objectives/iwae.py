"""The importance-weighted bound."""

from typing import Literal

import torch
from torch import Tensor

from pyro_lvm.objectives.importance_weighted import ImportanceWeighted, log_mean, own
from pyro_lvm.objectives.objective import valued
from pyro_lvm.objectives.table import Table


class IWAE(ImportanceWeighted):
    r"""$\mathcal L_K = E\left[\log \frac1K \sum_k w_k\right] \le \log p(x)$, with $w_k = p(x, z_k) / q(z_k \mid x)$.

    $\mathcal L_1$ is the ELBO and $\mathcal L_K$ grows with K. (`pyro.infer.RenyiELBO` puts plate scales inside the
    logarithm, where they break the bound; here they stand outside.)

    Three estimators of the guide's gradient, with $\tilde w_k = w_k / \sum_j w_j$:

    - "standard": of the bound as it is; unbiased, but its signal-to-noise ratio falls with K.
    - "stl", sticking the landing, without the score of q: $\sum_k \tilde w_k\, \partial_z \log w_k\, \partial_\phi
      z_k$. It vanishes at the exact posterior; unbiased for K = 1, biased for K > 1.
    - "dreg", doubly reparameterised: $\sum_k \tilde w_k^2\, \partial_z \log w_k\, \partial_\phi z_k$. Unbiased for
      every K, and its signal-to-noise ratio grows with K. (Where data share a latent, its own parameters get the
      path's gradient, which for K > 1 does not vanish at the exact posterior.)

    The model's gradient is the same for all. Latents that cannot be reparameterised get the score function's
    gradient with VIMCO's baseline, which only "standard" has. Latents that all data share: see `ImportanceWeighted`.

    Args:
        num_particles: K.
        gradient: "standard", "stl" or "dreg".
        vectorize_particles, max_plate_nesting: see `Objective`.

    Raises:
        ValueError: where data share all latents, sites of a datum have different scales, or "stl" or "dreg" meets a
            latent that is not reparameterised.

    References:
        Burda, Grosse & Salakhutdinov (2015), Importance Weighted Autoencoders. Mnih & Rezende (2016), Variational
        Inference for Monte Carlo Objectives. Roeder, Wu & Duvenaud (2017), Sticking the Landing. Tucker et al. (2018),
        Doubly Reparameterized Gradient Estimators for Monte Carlo Objectives. Rainforth et al. (2018), Tighter
        Variational Bounds Are Not Necessarily Better.

    Example:
        >>> import torch
        >>> from pyro_lvm import guides, models
        >>> _ = torch.manual_seed(0)
        >>> model = models.ProbabilisticPCA(4, latent_dim=2)
        >>> loose = guides.LinearNormal(4, latent_dim=2)
        >>> x = torch.randn(500, 4)
        >>> IWAE(1).loss(model, loose, x) > IWAE(50, gradient="dreg").loss(model, loose, x)
        True
    """

    def __init__(
        self,
        num_particles: int,
        *,
        gradient: Literal["standard", "stl", "dreg"] = "standard",
        vectorize_particles: bool = True,
        max_plate_nesting: int | float = float("inf"),
    ) -> None:
        super().__init__(num_particles, vectorize_particles=vectorize_particles, max_plate_nesting=max_plate_nesting)
        if gradient not in ("standard", "stl", "dreg"):
            raise ValueError(f"'gradient' must be 'standard', 'stl' or 'dreg', not {gradient!r}.")
        self.gradient = gradient
        self._gradient = "both" if gradient == "standard" else "draws"

    def per_datum(self, log_w: Tensor) -> Tensor:
        """log (1/K) Σ_k w_k."""
        return log_mean(log_w)

    def bound(self, table: Table) -> Tensor:
        """Σ scale · log (1/K) Σ_k w_k, nats, summed over data."""
        value = super().bound(table)
        if self.gradient == "standard":
            return value
        local = own(table, "IWAE")
        for site in table.latents:
            if not site.is_reparameterised:
                raise ValueError(
                    f"IWAE's gradient {self.gradient!r} reaches the guide through its draws, but '{site.name}' is not "
                    "reparameterised: use gradient='standard', which has the score function's for it."
                )
        if self.gradient == "dreg" and value.requires_grad:
            # The bound's own gradient has w̃_k; what goes on to the guide is weighed once more.
            share = local.log_weight().detach().softmax(0)  # (K, *plates)
            local.weigh_draws(share)
            value = self._without_score_of_shared(table, local, local.common_scale("IWAE") * share, value)
        return value

    def _without_score_of_shared(self, table: Table, local: Table, share: Tensor, value: Tensor) -> Tensor:
        """Takes from what data share the score of q(z | β): what reaches β through z is weighed in its stead."""
        handles = [h for name in table.global_latents for h in table.sites[name].handles if h.requires_grad]
        terms = [(share * local.per_datum(site.log_q)).sum() for site in local.latents]
        log_q = sum(terms[1:], terms[0])
        if table.num_particles == 1 or not handles or not log_q.requires_grad:
            return value
        scores = torch.autograd.grad(log_q, handles, retain_graph=True, allow_unused=True)
        terms = [(score * handle).sum() for score, handle in zip(scores, handles, strict=True) if score is not None]
        return valued(value, sum(terms[1:], terms[0])) if terms else value
