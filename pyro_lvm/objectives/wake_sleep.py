"""Wake-sleep: the guide learns from the model's dreams or its own weighed draws, without a gradient through them."""

from typing import Any, Literal

import pyro.poutine as poutine
import torch
from pyro.poutine.uncondition_messenger import UnconditionMessenger
from torch import Tensor

from pyro_lvm.objectives.elbo import likelihoods, scaled_kl, total
from pyro_lvm.objectives.importance_weighted import ImportanceWeighted, log_mean, own, read
from pyro_lvm.objectives.objective import Objective, valued
from pyro_lvm.objectives.table import Table


class WakeSleep(Objective):
    r"""Awake, θ climbs $E_{q(z \mid x)}[\log p_\theta(x, z)]$; asleep, φ climbs $E_{p(x, z)}[\log q_\phi(z \mid x)]$.

    The value is the ELBO, which is what θ climbs; φ descends $\mathrm{KL}(p(z \mid x) \| q)$ over the model's own data
    instead, with no gradient through any draw, so that discrete latents are as good as others.

    Args:
        num_particles: K, draws from the guide per datum; one dream a datum.
        vectorize_particles, max_plate_nesting: see `Objective`.

    Raises:
        ValueError: where the programs' data are none of their arguments, so that dreams cannot take their place.

    References:
        Hinton et al. (1995), The Wake-Sleep Algorithm for Unsupervised Neural Networks.

    Example:
        >>> from pyro_lvm import guides, models
        >>> _ = torch.manual_seed(0)
        >>> model = models.ProbabilisticPCA(4, latent_dim=2)
        >>> WakeSleep().loss(model, guides.LinearNormal(4, latent_dim=2), torch.zeros(3, 4)) > 0
        True
    """

    def table(self, model: Any, guide: Any, *args: Any, **kwargs: Any) -> Table:
        """The table this objective reads for these arguments of the programs."""
        return self._run(model, guide, args, kwargs, gradient="density")

    def bound(self, table: Table) -> Tensor:
        """The evidence lower bound, with the wake phase's gradient."""
        joint = total(table, {name: site.scale_p * site.log_p for name, site in table.sites.items()})
        elbo = total(table, likelihoods(table)) - total(table, {s.name: scaled_kl(s) for s in table.latents})
        return valued(elbo.mean(0).sum().detach(), joint.mean(0).sum())

    def differentiable_loss(self, model: Any, guide: Any, *args: Any, **kwargs: Any) -> Tensor:
        """Minus the bound, to call `backward` on."""
        loss = super().differentiable_loss(model, guide, *args, **kwargs)
        return valued(loss, -sleep(model, guide, args, kwargs)) if torch.is_grad_enabled() else loss


class ReweightedWakeSleep(ImportanceWeighted):
    r"""θ climbs $\log \frac1K \sum_k w_k$, φ climbs $\sum_k \tilde w_k \log q_\phi(z_k \mid x)$ or the model's dreams.

    No gradient passes through a draw, so that discrete latents are as good as others. The value is θ's bound, `IWAE`'s.

    Args:
        num_particles: K.
        phi: what the guide learns from: "wake", its own draws of data by their weights; "sleep", dreams of the model;
            "both", their sum.
        vectorize_particles, max_plate_nesting: see `Objective`.

    Raises:
        ValueError: for data that dreams cannot take the place of; see `ImportanceWeighted` for the others.

    References:
        Bornschein & Bengio (2015), Reweighted Wake-Sleep. Le et al. (2019), Revisiting Reweighted Wake-Sleep for Models
        with Stochastic Control Flow.

    Example:
        >>> from pyro_lvm import guides, models
        >>> _ = torch.manual_seed(0)
        >>> model = models.ProbabilisticPCA(4, latent_dim=2)
        >>> ReweightedWakeSleep(5).loss(model, guides.LinearNormal(4, latent_dim=2), torch.zeros(3, 4)) > 0
        True
    """

    _gradient = "density"

    def __init__(
        self,
        num_particles: int = 10,
        phi: Literal["wake", "sleep", "both"] = "wake",
        *,
        vectorize_particles: bool = True,
        max_plate_nesting: int | float = float("inf"),
    ) -> None:
        super().__init__(num_particles, vectorize_particles=vectorize_particles, max_plate_nesting=max_plate_nesting)
        if phi not in ("wake", "sleep", "both"):
            raise ValueError(f"'phi' must be 'wake', 'sleep' or 'both', not {phi!r}.")
        self.phi = phi

    def per_datum(self, log_w: Tensor) -> Tensor:
        """log (1/K) Σ_k w_k."""
        return log_mean(log_w)

    def bound(self, table: Table) -> Tensor:
        """θ's bound, with θ's gradient and, where it learns awake, φ's."""
        local = own(table, "ReweightedWakeSleep")
        if table.global_latents:
            names = ", ".join(f"'{name}'" for name in table.global_latents)
            raise ValueError(
                f"ReweightedWakeSleep weighs a datum's draws, but all data share the latent {names}, whose draw has no "
                "weight: use IWAE, which has the ELBO for it."
            )
        with torch.no_grad():
            value = read(table, "ReweightedWakeSleep", self.per_datum)
        share = local.common_scale("ReweightedWakeSleep") * local.log_weight().detach().softmax(0)  # (K, *plates)
        # Of data log q is 0.
        terms = [site.log_p if self.phi == "sleep" else site.log_p + site.log_q for site in table.sites.values()]
        gained = [(share * table.per_datum(term)).sum() for term in terms]
        return valued(value, sum(gained[1:], gained[0]))

    def differentiable_loss(self, model: Any, guide: Any, *args: Any, **kwargs: Any) -> Tensor:
        """Minus the bound, to call `backward` on."""
        loss = super().differentiable_loss(model, guide, *args, **kwargs)
        if self.phi == "wake" or not torch.is_grad_enabled():
            return loss
        return valued(loss, -sleep(model, guide, args, kwargs))


class _Dream(UnconditionMessenger):
    """Draws data anew, but not what `pyro.deterministic` computes, which it records as an observed site."""

    def _pyro_sample(self, msg: Any) -> None:
        if not msg["infer"].get("_deterministic", False):
            super()._pyro_sample(msg)


def sleep(model: Any, guide: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    """Σ scale · log q(z | x) of latents and data that the model dreamt, as many as there are; nats."""
    with torch.no_grad():
        dream = poutine.trace(_Dream()(model)).get_trace(*args, **kwargs)
    samples: list[Any] = [site for site in dream.nodes.values() if site["type"] == "sample"]
    sites = [site for site in samples if not site["infer"].get("_deterministic", False)]
    data = [site for site in sites if site["infer"].get("was_observed")]
    dreamt = {id(site["infer"]["obs"]): site["value"] for site in data}
    if len(dreamt) < len(data) or not all(any(site["infer"]["obs"] is arg for arg in args) for site in data):
        raise ValueError(
            "the sleep phase puts dreams in the place of data, but an observed site's data are none of the model's "
            "arguments, or two sites' are one: observe an argument as it is, `obs=x`, or learn awake "
            "(ReweightedWakeSleep, phi='wake')."
        )
    seen = tuple(dreamt[id(arg)].to(arg.dtype) if id(arg) in dreamt else arg for arg in args)
    latents = {site["name"]: site["value"] for site in sites if not site["infer"].get("was_observed")}
    trace = poutine.trace(poutine.replay(guide, trace=dream)).get_trace(*seen, **kwargs)
    trace.compute_log_prob(site_filter=lambda name, _: name in latents)
    inferred = [trace.nodes[name] for name in latents if name in trace.nodes]
    return sum(site["log_prob"].sum() for site in inferred)
