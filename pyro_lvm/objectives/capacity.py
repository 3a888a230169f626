"""Constrained training: a bound on the information, or on the reconstruction error, kept by a multiplier."""

from math import isfinite
from typing import Any

import torch
from torch import Tensor

from pyro_lvm.objectives.elbo import likelihoods, scaled_kl, total, weighed
from pyro_lvm.objectives.objective import Objective, valued
from pyro_lvm.objectives.table import Table
from pyro_lvm.objectives.whole_batch import over_whole_batch

_FURTHEST = 7.0  # of log μ from 0: a factor of about 1,000


class Capacity(Objective):
    r"""Least $E_q[-\log p(x \mid z)]$ with $\mathrm{KL} \le \lambda$, or least KL with the former at most $\kappa$.

    Per datum, on average over the data. The programs climb the Lagrangian, $E_q[\log p(x \mid z)] - \mu\,
    \mathrm{KL}$ or $\mu\, E_q[\log p(x \mid z)] - \mathrm{KL}$, and $\log \mu$ rises or falls at every step by `rate`
    times the moving average of how far the constraint is missed, in nats, taken as ±1 at most. μ and the average are
    the objective's state. The *value* is the evidence lower bound, which compares across values of μ.

    Args:
        kl: λ ≥ 0, nats per datum.
        reconstruction: κ, nats per datum; negative for densities that exceed 1. One of the two is to be given.
        num_particles: K.
        rate: of the multiplier, per step.
        decay: of the moving average.
        analytic_kl: see `ELBO`.
        vectorize_particles, max_plate_nesting: see `Objective`.

    Raises:
        ValueError: unless exactly one constraint is given; for a negative λ, a κ that is not finite, a rate that is not
            positive or a decay outside [0, 1).

    References:
        Rezende & Viola (2018), Taming VAEs (GECO). Burgess et al. (2018), Understanding Disentangling in β-VAE.

    Example:
        >>> import torch
        >>> from pyro_lvm import guides, models
        >>> _ = torch.manual_seed(0)
        >>> model, guide = models.ProbabilisticPCA(4, latent_dim=2), guides.LinearNormal(4, latent_dim=2)
        >>> objective = Capacity(kl=0.1)
        >>> for _ in range(20):
        ...     loss = objective.loss_and_grads(model, guide, 3 * torch.randn(50, 4))
        >>> objective.multiplier > 1  # the guide uses more than 0.1 nats a datum
        True
    """

    def __init__(
        self,
        kl: float | None = None,
        *,
        reconstruction: float | None = None,
        num_particles: int = 1,
        rate: float = 0.01,
        decay: float = 0.9,
        analytic_kl: bool = False,
        vectorize_particles: bool = True,
        max_plate_nesting: int | float = float("inf"),
    ) -> None:
        super().__init__(num_particles, vectorize_particles=vectorize_particles, max_plate_nesting=max_plate_nesting)
        if (kl is None) == (reconstruction is None):
            raise ValueError("Capacity keeps one constraint: give 'kl', the most nats a datum, or 'reconstruction'.")
        if kl is not None and not 0 <= kl < float("inf"):
            raise ValueError(f"'kl' is the most divergence a datum, in nats, and must be 0 or more, not {kl!r}.")
        if reconstruction is not None and not isfinite(reconstruction):
            raise ValueError(
                f"'reconstruction' is the most error a datum, in nats, and must be finite, not {reconstruction!r}."
            )
        if not rate > 0:
            raise ValueError(f"'rate' must be positive, not {rate!r}.")
        if not 0 <= decay < 1:
            raise ValueError(f"'decay' must lie in [0, 1), not {decay!r}.")
        self._of_kl, self._limit = (False, reconstruction) if reconstruction is not None else (True, kl or 0.0)
        self._rate, self._decay, self._analytic_kl = rate, decay, analytic_kl

    @property
    def multiplier(self) -> float:
        """μ, now."""
        return float(self._log_multiplier().exp())

    def table(self, model: Any, guide: Any, *args: Any, **kwargs: Any) -> Table:
        """The table this objective reads for these arguments of the programs."""
        return self._run(model, guide, args, kwargs, with_kl=self._analytic_kl)

    def bound(self, table: Table) -> Tensor:
        """The evidence lower bound, with the Lagrangian's gradient; a step of training moves the multiplier."""
        likelihood, divergence = likelihoods(table), {site.name: scaled_kl(site) for site in table.latents}
        reconstruction, kl = (total(table, terms).detach().mean(0).sum() for terms in (likelihood, divergence))
        mu = self._log_multiplier().exp()
        weight_of_likelihood, weight_of_kl = (1.0, mu) if self._of_kl else (mu, 1.0)
        lagrangian = {name: weight_of_likelihood * term for name, term in likelihood.items()}
        lagrangian |= {name: -weight_of_kl * term for name, term in divergence.items()}
        if torch.is_grad_enabled():
            missed = (kl if self._of_kl else -reconstruction) / table.num_data() - self._limit
            self._move(over_whole_batch(missed))
        return valued(reconstruction - kl, weighed(table, lagrangian, kl.new_zeros(()), self.state))

    def _log_multiplier(self) -> Tensor:
        return self.state.get("log_multiplier", torch.zeros(()))

    def _move(self, excess: Tensor) -> None:
        average = self._decay * self.state.get("excess", excess) + (1 - self._decay) * excess
        log_mu = self._log_multiplier().to(excess) + self._rate * average.clamp(-1.0, 1.0)
        # A constraint that holds by itself would send μ to 0, from where it takes as long to come back.
        self.state |= {"excess": average, "log_multiplier": log_mu.clamp(-_FURTHEST, _FURTHEST)}
