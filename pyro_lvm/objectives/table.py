"""The table of log-weights: what every objective and every evidence estimate is read from.

Running a guide and replaying the model over K particles gives, per site, log p and log q. The entries are *unscaled*:
plate and subsampling scales stand beside them, to be applied outside any logarithm of a mean.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pyro
import pyro.poutine as poutine
import torch
from pyro.poutine.util import prune_subsample_sites
from torch import Tensor
from torch.distributions import kl_divergence

__all__ = ["Site", "Table", "plate_nesting", "run"]

_PARTICLES = "num_particles_vectorized"  # Pyro's own name for the plate, which its error messages know

Scale = float | Tensor


@dataclass(frozen=True)
class Site:
    """One `pyro.sample` statement of a pair: a latent of both programs, or data of the model.

    Attributes:
        log_p, log_q: log-probabilities under model and guide, (K, *plates), masked, not scaled; log_q is 0 for data.
        scale_p, scale_q: what plates and `poutine.scale` multiply them by.
        plates: the vectorised plates around it, as (name, dim), dim negative; the particles' is not among them.
        is_latent: whether the guide samples it.
        is_reparameterised: whether gradients reach q through its draws; otherwise only through log q.
        kl: KL(q ‖ p) given the other latents, (K, *plates), where asked for, registered and valid; else None.
    """

    name: str
    log_p: Tensor
    log_q: Tensor
    scale_p: Scale
    scale_q: Scale
    plates: frozenset[tuple[str, int]]
    is_latent: bool
    is_reparameterised: bool
    kl: Tensor | None

    @property
    def log_weight(self) -> Tensor:
        """log p − log q, (K, *plates)."""
        return self.log_p - self.log_q if self.is_latent else self.log_p

    @property
    def needs_score(self) -> bool:
        """Whether q's parameters get a gradient through log q alone, as the score function's."""
        return self.is_latent and not self.is_reparameterised and self.log_q.requires_grad


@dataclass(frozen=True)
class Table:
    """Log p and log q of K particles, site by site; dimensions are (K, *plates), the data plate last.

    Attributes:
        sites: by name, in the model's order.
        num_particles: K.
    """

    sites: dict[str, Site]
    num_particles: int

    @property
    def latents(self) -> list[Site]:
        """The sites that are inferred."""
        return [site for site in self.sites.values() if site.is_latent]

    @cached_property
    def common_plates(self) -> frozenset[tuple[str, int]]:
        """The plates around every site: their elements are independent of one another, each has a weight of its own."""
        return frozenset.intersection(*(site.plates for site in self.sites.values()))

    @cached_property
    def global_latents(self) -> list[str]:
        """Names of the latents that data share: those outside all the plates that all data are in."""
        around = frozenset.intersection(*(site.plates for site in self.sites.values() if not site.is_latent))
        return [site.name for site in self.latents if not site.plates & around]

    def without_global_latents(self) -> "Table":
        """The table of what belongs to single data, given the global latents drawn."""
        return Table({n: s for n, s in self.sites.items() if n not in self.global_latents}, self.num_particles)

    def per_datum(self, values: Tensor) -> Tensor:
        """Sums what a site gives, (K, *plates), over the plates that are not common; these become 1."""
        kept = {dim for _, dim in self.common_plates}
        summed = [dim for dim in range(1 - values.dim(), 0) if dim not in kept]
        return values.sum(summed, keepdim=True) if summed else values

    def log_weight(self) -> Tensor:
        r"""$\log w_k = \log p(x, z_k) - \log q(z_k \mid x)$, (K, *common plates), unscaled."""
        terms = [self.per_datum(site.log_weight) for site in self.sites.values()]
        return sum(terms[1:], terms[0])

    def divergences(self) -> dict[str, float]:
        """E[log q − log p] of every latent, in closed form where the table has it: nats, summed over the batch."""
        kls = {site.name: -site.log_weight if site.kl is None else site.kl for site in self.latents}  # (K, *plates)
        return {name: kl.mean(0).sum().item() for name, kl in kls.items()}

    def log_q_by_score(self) -> Tensor | None:
        """The sum of log q over the latents that are not reparameterised, (K, *common plates); None without any."""
        terms = [self.per_datum(site.log_q) for site in self.sites.values() if site.needs_score]
        return sum(terms[1:], terms[0]) if terms else None

    def common_scale(self, objective: str) -> Scale:
        """The one scale of all sites, to stand outside the logarithm of a mean of weights.

        Raises:
            ValueError: where sites have different scales: none can then be taken outside.
        """
        scales = {site.name: (site.scale_p, site.scale_q)[: 1 + site.is_latent] for site in self.sites.values()}
        values = [torch.as_tensor(scale, dtype=torch.float64) for pair in scales.values() for scale in pair]
        if not all(bool(torch.isclose(value, values[0]).all()) for value in values[1:]):
            shown = "; ".join(f"'{n}' {', '.join(_show(s) for s in pair)}" for n, pair in scales.items())
            raise ValueError(
                f"{objective} takes the scale of a datum outside its logarithm, so its sites must share one, but they "
                f"have: {shown}. Put `poutine.scale` around the whole of both programs, and subsample no inner plate."
            )
        return next(iter(scales.values()))[0]


def run(
    model: Callable[..., Any],
    guide: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    *,
    num_particles: int = 1,
    nesting: int = 0,
    vectorize: bool = True,
    with_kl: bool = False,
) -> Table:
    """Runs the pair and returns its table.

    Args:
        num_particles: K; a single particle runs the programs as they are.
        nesting: number of nested plates, from `plate_nesting`; read only where several particles are vectorised.
        vectorize: all particles in one run, under a plate to the left of the programs' own; else one after another.
        with_kl: compute each latent's divergence in closed form where there is one.

    Raises:
        ValueError: where a latent of one program is missing from the other, or nothing is observed.
    """
    if num_particles > 1 and not vectorize:
        return _stack([run(model, guide, args, kwargs, with_kl=with_kl) for _ in range(num_particles)])
    if num_particles == 1:
        return _table(*_traces(model, guide, args, kwargs), 1, with_kl)
    plate = pyro.plate(_PARTICLES, num_particles, dim=-nesting - 1)
    try:
        traces = _traces(plate(model), plate(guide), args, kwargs)
    except (RuntimeError, IndexError, ValueError) as error:
        raise RuntimeError(
            f"{str(error).splitlines()[0]} (the programs were run on {num_particles} particles at once, which adds a "
            "dimension on the left of their latents; if they cannot take it, ask for vectorize_particles=False)"
        ) from error
    return _table(*traces, num_particles, with_kl)


def plate_nesting(
    model: Callable[..., Any], guide: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> int:
    """The largest number of nested plates in a pair, found by running it once; the random state stays as it was."""
    with torch.random.fork_rng(), torch.no_grad():
        model_trace, guide_trace = _traces(model, guide, args, kwargs)
    return _nesting(_samples(model_trace), _samples(guide_trace))


def _traces(
    model: Callable[..., Any], guide: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[poutine.Trace, poutine.Trace]:
    guide_trace = poutine.trace(guide).get_trace(*args, **kwargs)
    model_trace = poutine.trace(poutine.replay(model, trace=guide_trace)).get_trace(*args, **kwargs)
    return model_trace, guide_trace


def _table(model_trace: poutine.Trace, guide_trace: poutine.Trace, num_particles: int, with_kl: bool) -> Table:
    model_sites, guide_sites = _samples(model_trace), _samples(guide_trace)
    inferred = {name: site for name, site in guide_sites.items() if not site["is_observed"]}
    _check_latents(model_sites, inferred)
    nesting = _nesting(model_sites, guide_sites)
    vectorized = num_particles > 1
    order = {name: i for i, name in enumerate(inferred)}
    sites, latest = {}, -1
    auxiliary = {name: site for name, site in inferred.items() if name not in model_sites}
    for name, site in (auxiliary | model_sites).items():
        p, q = model_sites.get(name), inferred.get(name)
        kl = None
        if q is not None:
            # A divergence in closed form stands for an expectation over this latent alone: everything p depends on
            # must have been drawn before it in the guide too.
            if with_kl and p is not None and order[name] > latest:
                kl = _kl(q, p, nesting, vectorized)
            latest = max(latest, order[name])
        zero = torch.zeros(())
        log_q = _log_prob(q, nesting, vectorized) if q is not None else zero
        sites[name] = Site(
            name=name,
            log_p=_log_prob(p, nesting, vectorized) if p is not None else zero.expand_as(log_q),
            log_q=log_q,
            scale_p=site["scale"],
            scale_q=q["scale"] if q is not None else site["scale"],
            plates=frozenset((frame.name, frame.dim) for frame in _frames(site)),
            is_latent=q is not None,
            is_reparameterised=q is None or bool(q["fn"].has_rsample),
            kl=kl,
        )
    return Table(sites, num_particles)


def _check_latents(model_sites: dict[str, Any], inferred: dict[str, Any]) -> None:
    latent = {name for name, site in model_sites.items() if not site["is_observed"]}
    missing = [name for name in model_sites if name in latent and name not in inferred]
    if missing:
        raise ValueError(
            f"the model's latent {_quote(missing)} is not in the guide: sample it there under the same name (a "
            "discrete latent that is only enumerated needs `pyro.infer.TraceEnum_ELBO`), or, if it is data, observe it."
        )
    extra = [n for n, site in inferred.items() if n not in latent and not site["infer"].get("is_auxiliary")]
    if extra:
        raise ValueError(f"the guide's latent {_quote(extra)} is not one of the model's: sample it there too.")
    if len(latent) == len(model_sites):
        raise ValueError("the model observes nothing: its data site needs `obs=x`.")


def _samples(trace: poutine.Trace) -> dict[str, Any]:
    nodes = prune_subsample_sites(trace).nodes
    # `pyro.deterministic` records a value as an observed site, which has no density.
    return {
        name: site
        for name, site in nodes.items()
        if site["type"] == "sample" and not (site["infer"] or {}).get("_deterministic", False)
    }


def _frames(site: Any) -> list[Any]:
    return [frame for frame in site["cond_indep_stack"] if frame.vectorized and frame.name != _PARTICLES]


def _nesting(*programs: dict[str, Any]) -> int:
    return max((-frame.dim for sites in programs for site in sites.values() for frame in _frames(site)), default=0)


def _log_prob(site: Any, nesting: int, vectorized: bool) -> Tensor:
    try:
        log_prob = site["fn"].log_prob(site["value"], *site["args"], **site["kwargs"])
    except ValueError as error:
        raise ValueError(f"at site '{site['name']}': {str(error).splitlines()[0]}") from error
    return _aligned(log_prob, site["mask"], nesting, vectorized)


def _kl(q: Any, p: Any, nesting: int, vectorized: bool) -> Tensor | None:
    try:
        kl = kl_divergence(q["fn"], p["fn"])
    except NotImplementedError:
        return None
    return _aligned(kl, p["mask"], nesting, vectorized)


def _aligned(values: Tensor, mask: Tensor | bool | None, nesting: int, vectorized: bool) -> Tensor:
    """Masks, and aligns to (K, *plates): the particles first, a 1 for every plate the site is not in."""
    if mask is not None and mask is not True:
        values = torch.where(torch.as_tensor(mask, device=values.device), values, 0.0)
    shape = (1,) * (nesting + vectorized - values.dim()) + tuple(values.shape)
    return values.reshape(shape if vectorized else (1, *shape))


def _stack(tables: list[Table]) -> Table:
    """K tables of one particle as one table."""
    sites = {}
    for name, site in tables[0].sites.items():
        rows = [table.sites[name] for table in tables]
        kls = [row.kl for row in rows if row.kl is not None]
        sites[name] = Site(
            name=name,
            log_p=torch.cat([row.log_p for row in rows]),
            log_q=torch.cat([row.log_q for row in rows]) if site.is_latent else site.log_q,
            scale_p=site.scale_p,
            scale_q=site.scale_q,
            plates=site.plates,
            is_latent=site.is_latent,
            is_reparameterised=site.is_reparameterised,
            kl=torch.cat(kls) if len(kls) == len(rows) else None,
        )
    return Table(sites, len(tables))


def _quote(names: list[str]) -> str:
    return ", ".join(f"'{name}'" for name in names)


def _show(scale: Scale) -> str:
    return f"a tensor {tuple(scale.shape)}" if isinstance(scale, Tensor) and scale.dim() else f"{float(scale):.6g}"
