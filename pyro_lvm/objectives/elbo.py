"""The evidence lower bound."""

from typing import Any

import torch
from torch import Tensor

from pyro_lvm.objectives.objective import Objective, leave_one_out, valued
from pyro_lvm.objectives.table import Site, Table


class ELBO(Objective):
    r"""$\mathcal L = E_{q(z \mid x)}[\log p(x, z) - \log q(z \mid x)] \le \log p(x)$, estimated with K draws.

    With `analytic_kl` the divergence of each latent's q from its p is taken in closed form where
    `torch.distributions.kl_divergence` knows one and the latent's parents are drawn before it in the guide; every other
    term is sampled. Both estimators are unbiased. Latents that cannot be reparameterised get the score function's
    gradient, with the other particles' mean as a baseline where K > 1.

    Args:
        num_particles: K.
        analytic_kl: use divergences in closed form.
        vectorize_particles, max_plate_nesting: see `Objective`.

    References:
        Jordan et al. (1999), An Introduction to Variational Methods for Graphical Models. Kingma & Welling (2014),
        Auto-Encoding Variational Bayes: estimators A (sampled) and B (analytic).

    Example:
        >>> import torch
        >>> from pyro_lvm import guides, models
        >>> _ = torch.manual_seed(0)
        >>> model = models.ProbabilisticPCA(4, latent_dim=2)
        >>> exact = guides.ExactPPCA(model)
        >>> x = torch.randn(3, 4)
        >>> round(ELBO().loss(model, exact, x), 3) == round(ELBO(50).loss(model, exact, x), 3)  # −log p(x), always
        True
    """

    def __init__(
        self,
        num_particles: int = 1,
        *,
        analytic_kl: bool = False,
        vectorize_particles: bool = True,
        max_plate_nesting: int | float = float("inf"),
    ) -> None:
        super().__init__(num_particles, vectorize_particles=vectorize_particles, max_plate_nesting=max_plate_nesting)
        self._analytic_kl = analytic_kl

    def table(self, model: Any, guide: Any, *args: Any, **kwargs: Any) -> Table:
        """The table this objective reads for these arguments of the programs."""
        return self._run(model, guide, args, kwargs, with_kl=self._analytic_kl)

    def bound(self, table: Table) -> Tensor:
        """The mean over particles of Σ scale · (log p − log q), nats, summed over data."""
        terms = [table.per_datum(_term(site)) for site in table.sites.values()]  # (K, *common plates)
        value = sum((term.mean(0).sum() for term in terms[1:]), terms[0].mean(0).sum())
        log_q = table.log_q_by_score()
        if log_q is None:
            return value
        reward = sum(terms[1:], terms[0]).detach()
        return valued(value, (log_q * (reward - leave_one_out(reward))).mean(0).sum())


def _term(site: Site) -> Tensor:
    """What a site adds to the bound, scaled, (K, *plates)."""
    if not site.is_latent:
        return site.scale_p * site.log_p
    if site.kl is not None and bool(torch.as_tensor(site.scale_p == site.scale_q).all()):
        return -site.scale_q * site.kl
    return site.scale_p * site.log_p - site.scale_q * site.log_q
