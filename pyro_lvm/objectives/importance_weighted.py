"""What bounds over importance weights share: a datum's own weights, scales outside, and latents that data share."""

from abc import abstractmethod
from collections.abc import Callable
from math import log
from typing import Any

import torch
from torch import Tensor

from pyro_lvm.objectives.objective import Objective, valued
from pyro_lvm.objectives.score import without_each
from pyro_lvm.objectives.table import Gradient, Table, draw


class ImportanceWeighted(Objective):
    r"""$\sum_n s_n B(w_{n1}, \dots, w_{nK})$ with a bound B of a datum's weights, abstract.

    The weights are a datum's own, over unscaled probabilities; the scale $s_n$ of a subsampled plate or of
    `poutine.scale` stands outside B, so that the bound stays one.

    Latents β that all data share are drawn once for all K particles, and the bound is the ELBO over them and B over the
    others: $E_{q(\beta)}[\log p(\beta) - \log q(\beta) + \sum_n s_n B(\dots)]$. With a β for every particle, a datum's
    weights would average over different ones, and their sum over data would bound nothing.

    Latents that cannot be reparameterised get the score function's gradient, with VIMCO's baseline.

    Raises:
        ValueError: where data share all latents, or sites of a datum have different scales.
    """

    _gradient: Gradient = "both"

    @abstractmethod
    def per_datum(self, log_w: Tensor) -> Tensor:
        """B of log-weights (K, *plates), (*plates), nats."""

    def table(self, model: Any, guide: Any, *args: Any, **kwargs: Any) -> Table:
        """The table this objective reads for these arguments of the programs."""
        return self._weights(model, guide, args, kwargs, gradient=self._gradient)

    def _weights(self, model: Any, guide: Any, args: Any, kwargs: Any, **reading: Any) -> Table:
        if self.num_particles == 1:
            return self._run(model, guide, args, kwargs, **reading)
        shared = self._structure(model, guide, args, kwargs).global_latents
        through_draws = reading.get("gradient", "both") in ("both", "draws")
        with torch.set_grad_enabled(torch.is_grad_enabled() and through_draws):
            draws = draw(guide, args, kwargs, shared) if shared else {}
        return self._run(model, guide, args, kwargs, draws=draws, **reading)

    def bound(self, table: Table) -> Tensor:
        """The bound, nats, summed over data."""
        return read(table, type(self).__name__, self.per_datum)


def read(table: Table, objective: str, per_datum: Callable[[Tensor], Tensor]) -> Tensor:
    """Σ scale · B, and the ELBO of what data share, from a table: nats, summed over data.

    Args:
        objective: its name, for errors.
        per_datum: B of log-weights (K, *plates), (*plates).
    """
    local = own(table, objective)
    log_w = local.log_weight()  # (K, *plates)
    scale = local.common_scale(objective)
    bound = per_datum(log_w)  # (*plates)
    value = (scale * bound).sum()
    log_q = local.log_q_by_score()
    if log_q is not None:
        reward = (bound - without_each(log_w, per_datum)).detach()
        value = valued(value, (scale * log_q * reward).sum())
    shared = [table.sites[name] for name in table.global_latents]
    for site in shared:
        value = value + (site.scale_p * site.log_p - site.scale_q * site.log_q).mean(0).sum()
    for site in shared:
        if site.needs_score:
            value = valued(value, site.log_q.mean(0).sum() * value.detach())
    return value


def own(table: Table, objective: str) -> Table:
    """The part of a table that is a datum's own.

    Raises:
        ValueError: where there is none, or what data share was drawn anew for every particle.
    """
    shared = [table.sites[name] for name in table.global_latents]
    names = ", ".join(f"'{site.name}'" for site in shared)
    if shared and len(shared) == len(table.latents):
        raise ValueError(
            f"{objective} averages weights datum by datum, but all data share the latent {names}: a sum over data "
            "inside its logarithm is no bound under subsampling. Use ELBO, or put the latent and the data in one plate."
        )
    if any(len(site.value) > 1 for site in shared):
        raise ValueError(
            f"{objective} needs one draw of {names} for all particles: get the table from the objective's own `table`."
        )
    return table.without_global_latents()


def log_mean(log_w: Tensor, power: float = 1.0) -> Tensor:
    r"""$\frac1r \log \frac1K \sum_k w_k^r$ of log-weights (K, ...), (...)."""
    return ((power * log_w).logsumexp(0) - log(len(log_w))) / power
