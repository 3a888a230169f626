"""The table of log-weights: what every objective and every evidence estimate is read from.

Running a guide and replaying the model over K particles gives, per site, log p and log q. The entries are *unscaled*:
plate and subsampling scales stand beside them, to be applied outside any logarithm of a mean.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from math import prod
from typing import Any, Literal

import pyro
import pyro.poutine as poutine
import torch
from pyro.distributions import ExpandedDistribution, MaskedDistribution
from pyro.poutine.messenger import Messenger
from pyro.poutine.util import prune_subsample_sites
from torch import Tensor
from torch.distributions import Independent, kl_divergence

from pyro_lvm.distributions import BoundedDensity
from pyro_lvm.programs import Constant

__all__ = ["Gradient", "Recorded", "Site", "Structure", "Table", "draw", "run", "structure"]

_PARTICLES = "num_particles_vectorized"  # Pyro's own name for the plate, which its error messages know

Program = Callable[..., Any]
Scale = float | Tensor

# Where q's own parameters get their gradient from: through the draws and log q, through the draws alone (sticking the
# landing), through log q at draws held fixed (wake-sleep), or nowhere.
Gradient = Literal["both", "draws", "density", "none"]


@dataclass(frozen=True)
class Site:
    """One `pyro.sample` statement of a pair: a latent of both programs, or data of the model.

    Attributes:
        log_p, log_q: log-probabilities under model and guide, (K, *plates), masked, not scaled; log_q is 0 for data.
        value: what was drawn or observed, (K, *plates, *event); K may be 1 where all particles share it.
        scale_p, scale_q: what plates and `poutine.scale` multiply log_p and log_q by.
        plates: the vectorised plates around it, as (name, dim), dim negative; the particles' is not among them.
        inner_scale: what one datum's value stands for many of, where a plate inside the data's, left of dim −1, is
            subsampled; else 1. A part of both scales.
        is_bounded: whether log_p is itself an estimate of a lower bound; see `distributions.BoundedDensity`.
        is_latent: whether the guide samples it.
        is_reparameterised: whether gradients reach q through its draws; otherwise only through log q.
        kl: KL(q ‖ p) given the other latents, (K, *plates), where asked for, registered and valid; else None.
        kl_by_dimension: the same dimension by dimension, (K, *plates, *dimensions), sampled where it has no closed form
            or none is asked for; None where not asked for, or where q or p does not factorise over dimensions.
        baseline: Pyro's options of that name on the guide's statement, `infer={"baseline": {...}}`.
        handles: the draws as the programs got them, one for each of their runs.
    """

    name: str
    log_p: Tensor
    log_q: Tensor
    value: Tensor
    scale_p: Scale
    scale_q: Scale
    plates: frozenset[tuple[str, int]]
    inner_scale: float
    is_bounded: bool
    is_latent: bool
    is_reparameterised: bool
    kl: Tensor | None
    kl_by_dimension: Tensor | None
    baseline: Mapping[str, Any]
    handles: tuple[Tensor, ...]

    @property
    def event_dim(self) -> int:
        """The number of dimensions of one value."""
        return self.value.dim() - self.log_p.dim()

    def count(self) -> Tensor:
        """What the elements of its plates amount to, Σ scale: the number of data in the whole set, for a minibatch."""
        shape = self.log_p.shape[1:]
        return torch.as_tensor(self.scale_p, dtype=self.log_p.dtype, device=self.log_p.device).expand(shape).sum()

    @property
    def log_weight(self) -> Tensor:
        """log p − log q, (K, *plates)."""
        return self.log_p - self.log_q if self.is_latent else self.log_p

    @property
    def divergence(self) -> Tensor:
        """log q − log p of a latent, or its mean in closed form where the table has it, (K, *plates)."""
        return -self.log_weight if self.kl is None else self.kl

    @property
    def needs_score(self) -> bool:
        """Whether q's parameters get a gradient through log q alone, as the score function's."""
        return self.is_latent and not self.is_reparameterised and self.log_q.requires_grad


@dataclass(frozen=True)
class Recorded:
    """What a model says of itself by `pyro.deterministic(name, value, event_dim=0)`, for objectives that ask for it.

    Attributes:
        value: numbers, (K, *plates).
        scale: what plates and `poutine.scale` multiply them by.
        inner_scale: as a site's.
    """

    value: Tensor
    scale: Scale
    inner_scale: float

    def total(self) -> Tensor:
        """Their mean over draws, summed over the plates, scaled."""
        return (self.scale * self.value).mean(0).sum()


@dataclass(frozen=True)
class Table:
    """Log p and log q of K particles, site by site; dimensions are (K, *plates), the data plate last.

    Attributes:
        sites: by name, in the model's order.
        num_particles: K.
        recorded: what the model records, by name.
    """

    sites: dict[str, Site]
    num_particles: int
    recorded: dict[str, Recorded] = field(default_factory=dict)

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
        local = {name: site for name, site in self.sites.items() if name not in self.global_latents}
        return Table(local, self.num_particles, self.recorded)

    def per_datum(self, values: Tensor) -> Tensor:
        """Sums what a site gives, (K, *plates), over the plates that are not common; these become 1."""
        kept = {dim for _, dim in self.common_plates}
        summed = [dim for dim in range(1 - values.dim(), 0) if dim not in kept]
        return values.sum(summed, keepdim=True) if summed else values

    def log_weight(self) -> Tensor:
        r"""$\log w_k = \log p(x, z_k) - \log q(z_k \mid x)$, (K, *common plates), unscaled."""
        terms = [self.per_datum(site.log_weight) for site in self.sites.values()]
        return sum(terms[1:], terms[0])

    def num_data(self) -> Tensor:
        """The number of data the table stands for: of the whole set, for a minibatch of it."""
        return torch.stack([site.count() for site in self.sites.values() if not site.is_latent]).min()

    def reconstruction(self) -> float:
        """E[log p(x | z)]: nats, summed over the batch, scaled within a datum alone."""
        data = [site for site in self.sites.values() if not site.is_latent]
        return sum(site.inner_scale * site.log_p.mean(0).sum().item() for site in data)

    def divergences(self) -> dict[str, float]:
        """E[log q − log p] of every latent, in closed form where the table has it: nats, summed over the batch.

        Scaled within a datum alone, where its inner plates are subsampled.
        """
        return {site.name: site.inner_scale * site.divergence.mean(0).sum().item() for site in self.latents}

    def bound(self) -> Tensor:
        """log p − log q with divergences in closed form where the table has them, (K, *common plates).

        Its mean over draws is a datum's evidence lower bound; scaled within a datum alone.
        """
        terms = [s.inner_scale * (-s.divergence if s.is_latent else s.log_p) for s in self.sites.values()]
        parts = [self.per_datum(term) for term in terms]
        return sum(parts[1:], parts[0])

    @property
    def without_weights(self) -> str | None:
        """Why the log-weights of the pair are themselves estimates, in words; None where they are exact."""
        for site in self.sites.values():
            if site.inner_scale != 1:
                return f"that of '{site.name}' stands for the rest of a plate inside the data's that is subsampled"
            if site.is_bounded:
                return f"that of '{site.name}' is an estimate of a lower bound"
        return None

    def check_weights(self, what: str) -> None:
        """Refuses a pair whose log-weights are themselves estimates: means of their exponentials are no evidence.

        Raises:
            ValueError: for such a pair.
        """
        reason = self.without_weights
        if reason is not None:
            raise ValueError(
                f"{what} weighs draws by p/q, and this pair has no exact log-weight: {reason}. What is known of it is "
                "its bound: use the objective ELBO and `evidence.lower_bound`."
            )

    def weigh_draws(self, factor: Tensor) -> None:
        """Multiplies the gradients that reach q through the draws by `factor`, (K, *plates)."""
        for site in self.latents:
            # One run of the programs has all the particles, or as many runs have one each.
            factors = [factor] if len(site.handles) == 1 else list(factor.unsqueeze(1))
            for handle, f in zip(site.handles, factors, strict=True):
                if handle.requires_grad:
                    f = f.reshape(*f.shape, *(1,) * site.event_dim)
                    handle.register_hook(lambda g, f=f: (g * f).reshape(g.shape))

    def log_q_by_score(self) -> Tensor | None:
        """The sum of log q over the latents that are not reparameterised, (K, *common plates); None without any."""
        terms = [self.per_datum(site.log_q) for site in self.sites.values() if site.needs_score]
        return sum(terms[1:], terms[0]) if terms else None

    def common_scale(self, objective: str) -> Scale:
        """The one scale of all sites, to stand outside the logarithm of a mean of weights.

        Raises:
            ValueError: where sites have different scales: none can then be taken outside; for a pair without exact
                weights.
        """
        self.check_weights(objective)
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
    model: Program,
    guide: Program | None,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    *,
    num_particles: int = 1,
    nesting: int = 0,
    vectorize: bool = True,
    with_kl: bool = False,
    by_dimension: bool = False,
    gradient: Gradient = "both",
    constant_model: bool = False,
    draws: Mapping[str, Tensor] | None = None,
) -> Table:
    """Runs the pair and returns its table.

    Args:
        guide: None stands for the model's own prior.
        num_particles: K; a single particle runs the programs as they are.
        nesting: number of nested plates, from `structure`; read only where several particles are vectorised.
        vectorize: all particles in one run, under a plate to the left of the programs' own; else one after another.
        with_kl: compute each latent's divergence in closed form where there is one.
        by_dimension: compute each latent's divergence dimension by dimension.
        gradient: where q's own parameters get their gradient from; see `Gradient`.
        constant_model: whether the model's own parameters get none.
        draws: values of some latents, to stand for the guide's own draws; what has no particle's dimension is shared.

    Raises:
        ValueError: where a latent of one program is missing from the other, or nothing is observed.
    """
    ways = (gradient, constant_model, draws or {})
    if num_particles > 1 and not vectorize:
        return _stack(
            [
                _table(*_traces(model, guide, args, kwargs, *ways), 1, with_kl, by_dimension)
                for _ in range(num_particles)
            ],
            shared=draws or {},
        )
    if num_particles == 1:
        return _table(*_traces(model, guide, args, kwargs, *ways), 1, with_kl, by_dimension)
    plate = pyro.plate(_PARTICLES, num_particles, dim=-nesting - 1)
    try:
        with plate:
            traces = _traces(model, guide, args, kwargs, *ways)
    except (RuntimeError, IndexError, ValueError) as error:
        raise RuntimeError(
            f"{str(error).splitlines()[0]} (the programs were run on {num_particles} particles at once, which adds a "
            "dimension on the left of their latents; if they cannot take it, ask for vectorize_particles=False)"
        ) from error
    return _table(*traces, num_particles, with_kl, by_dimension)


@dataclass(frozen=True)
class Structure:
    """What does not change from one run of a pair to the next.

    Attributes:
        nesting: the largest number of nested plates.
        global_latents: names of the latents that all data share; see `Table.global_latents`.
    """

    nesting: int
    global_latents: tuple[str, ...]


def structure(model: Program, guide: Program | None, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Structure:
    """A pair's structure, found by running it once; the random state stays as it was."""
    with torch.random.fork_rng(), torch.no_grad():
        traces = _traces(model, guide, args, kwargs, "both", False, {})
        table = _table(*traces, 1, False, False)
    return Structure(_nesting(*(_samples(trace) for trace in traces)), tuple(table.global_latents))


def draw(guide: Program, args: tuple[Any, ...], kwargs: dict[str, Any], names: Sequence[str]) -> dict[str, Tensor]:
    """One draw of some of a guide's latents, to be given to several runs of it."""
    nodes: dict[str, Any] = poutine.trace(guide).get_trace(*args, **kwargs).nodes
    return {name: nodes[name]["value"] for name in names}


class _Given(Messenger):
    """Answers a program's sample statements with values drawn before."""

    def __init__(self, values: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.values = values

    def _pyro_sample(self, msg: Any) -> None:
        if msg["name"] in self.values and not msg["is_observed"]:
            msg["value"], msg["done"] = self.values[msg["name"]], True


def _traces(
    model: Program,
    guide: Program | None,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    gradient: Gradient,
    constant_model: bool,
    draws: Mapping[str, Tensor],
) -> tuple[poutine.Trace, poutine.Trace]:
    if guide is None:
        with _Given(draws):
            trace = poutine.trace(model).get_trace(*args, **kwargs)
        return trace, trace
    with_grad = torch.is_grad_enabled()
    with _Given(draws), torch.set_grad_enabled(with_grad and gradient in ("both", "draws")):
        guide_trace = poutine.trace(guide).get_trace(*args, **kwargs)
        if gradient == "none":
            _score(guide_trace)
    if with_grad and gradient in ("draws", "density"):
        # The draws have been made with their own graph, and are scored in a second run that sees them as given: only so
        # is what reaches a latent through a density apart from what passes through it on the way to another one.
        drawn = {n: site["value"] for n, site in _samples(guide_trace).items() if not site["is_observed"]}
        # Views: gradients to be weighed on their way to the draws are weighed here, and not on the way between draws.
        views = {name: value.view_as(value) for name, value in drawn.items()}
        with _Given(views), Constant(guide, active=gradient == "draws"):
            guide_trace = poutine.trace(guide).get_trace(*args, **kwargs)
            if gradient == "draws":
                _score(guide_trace)
    with Constant(model, active=constant_model):
        model_trace = poutine.trace(poutine.replay(model, trace=guide_trace)).get_trace(*args, **kwargs)
        if constant_model:
            _score(model_trace)
    return model_trace, guide_trace


def _score(trace: poutine.Trace) -> None:
    """Takes a trace's densities while its program's parameters are held.

    Outside all plates a distribution has such a parameter as it is, which is free again once it is let go.
    """
    for site in _samples(trace).values():
        with suppress(ValueError):  # a value outside the support: raised where the table is made
            site["density"] = _density(site)


def _table(
    model_trace: poutine.Trace, guide_trace: poutine.Trace, num_particles: int, with_kl: bool, by_dimension: bool
) -> Table:
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
        kl = kl_by_dimension = None
        if q is not None:
            # A divergence in closed form stands for an expectation over this latent alone: everything p depends on
            # must have been drawn before it in the guide too.
            closed = with_kl and order[name] > latest
            if closed and p is not None:
                kl = _kl(q, p, nesting, vectorized)
            if by_dimension and p is not None:
                kl_by_dimension = _kl_by_dimension(q, p, closed, nesting, vectorized)
            latest = max(latest, order[name])
        zero = torch.zeros(())
        log_q = _log_prob(q, nesting, vectorized) if q is not None else zero
        event_dim = site["fn"].event_dim
        handle = site["value"] if q is None else q["value"]
        log_p = zero.expand_as(log_q)
        if p is not None:  # the prior in a guide's place has one density for both
            log_p = log_q if p is q else _log_prob(p, nesting, vectorized)
        sites[name] = Site(
            name=name,
            log_p=log_p,
            log_q=log_q,
            value=_left(handle, nesting, vectorized, event_dim),
            scale_p=site["scale"],
            scale_q=q["scale"] if q is not None else site["scale"],
            plates=frozenset((frame.name, frame.dim) for frame in _frames(site)),
            inner_scale=_inner_scale(site),
            is_bounded=p is not None and _is_bounded(p["fn"]),
            is_latent=q is not None,
            is_reparameterised=q is None or bool(q["fn"].has_rsample),
            kl=kl,
            kl_by_dimension=kl_by_dimension,
            baseline={} if q is None else q["infer"].get("baseline", {}),
            handles=(handle,),
        )
    return Table(sites, num_particles, _recorded(model_trace, nesting, vectorized))


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
    return {n: site for n, site in nodes.items() if site["type"] == "sample" and not _is_deterministic(site)}


def _is_deterministic(site: Any) -> bool:
    # `pyro.deterministic` records a value as an observed site, which has no density.
    return bool((site["infer"] or {}).get("_deterministic", False))


def _recorded(trace: poutine.Trace, nesting: int, vectorized: bool) -> dict[str, Recorded]:
    """What the model records of every element of its plates."""
    nodes: dict[str, Any] = trace.nodes
    sites = {n: site for n, site in nodes.items() if site["type"] == "sample" and _is_deterministic(site)}
    return {
        name: Recorded(_left(site["value"], nesting, vectorized, 0), site["scale"], _inner_scale(site))
        for name, site in sites.items()
        if not site["fn"].event_dim
    }


def _is_bounded(fn: Any) -> bool:
    while isinstance(fn, (Independent, ExpandedDistribution, MaskedDistribution)):
        fn = fn.base_dist
    return isinstance(fn, BoundedDensity)


def _frames(site: Any) -> list[Any]:
    return [frame for frame in site["cond_indep_stack"] if frame.vectorized and frame.name != _PARTICLES]


def _inner_scale(site: Any) -> float:
    # A plate made in a loop, `for i in pyro.plate(...)`, is no dimension, and is not among the frames.
    return prod(frame.full_size / frame.size for frame in _frames(site) if frame.dim < -1)


def _nesting(*programs: dict[str, Any]) -> int:
    return max((-frame.dim for sites in programs for site in sites.values() for frame in _frames(site)), default=0)


def _log_prob(site: Any, nesting: int, vectorized: bool) -> Tensor:
    try:
        log_prob = site["density"] if "density" in site else _density(site)
    except ValueError as error:
        raise ValueError(f"at site '{site['name']}': {str(error).splitlines()[0]}") from error
    return _aligned(log_prob, site["mask"], nesting, vectorized)


def _density(site: Any) -> Tensor:
    log_prob: Tensor = site["fn"].log_prob(site["value"], *site["args"], **site["kwargs"])
    return log_prob


def _kl(q: Any, p: Any, nesting: int, vectorized: bool) -> Tensor | None:
    try:
        kl = kl_divergence(q["fn"], p["fn"])
    except NotImplementedError:
        return None
    if not isinstance(kl, Tensor):  # Pyro's 0 for densities that `mask(False)` takes away
        kl = torch.zeros(q["fn"].batch_shape)
    return _aligned(kl, p["mask"], nesting, vectorized)


def _kl_by_dimension(q: Any, p: Any, closed: bool, nesting: int, vectorized: bool) -> Tensor | None:
    """What each dimension adds to E[log q − log p], (K, *plates, *dimensions); None where they do not factorise."""
    independent = min(_independent_dims(q["fn"]), _independent_dims(p["fn"]))
    if not independent:
        return None
    fn_q, fn_p = (_dimensions(site["fn"], independent) for site in (q, p))
    try:
        kl = kl_divergence(fn_q, fn_p) if closed else None
    except NotImplementedError:
        kl = None
    if kl is None:
        kl = fn_q.log_prob(q["value"]) - fn_p.log_prob(q["value"])  # (K, *plates, *dimensions)
    return _aligned(kl, p["mask"], nesting, vectorized, independent)


def _independent_dims(fn: Any) -> int:
    return fn.reinterpreted_batch_ndims if isinstance(fn, Independent) else 0


def _dimensions(fn: Any, independent: int) -> Any:
    """The distribution of single dimensions, the last `independent` of a value counted as a batch."""
    left = fn.reinterpreted_batch_ndims - independent
    return fn.base_dist.to_event(left) if left else fn.base_dist


def _aligned(values: Tensor, mask: Tensor | bool | None, nesting: int, vectorized: bool, event_dim: int = 0) -> Tensor:
    """Masks, and aligns to (K, *plates, *event): the particles first, a 1 for every plate the site is not in."""
    if mask is not None and mask is not True:
        mask = torch.as_tensor(mask, device=values.device)
        values = torch.where(mask.reshape((*mask.shape, *(1,) * event_dim)), values, 0.0)
    return _left(values, nesting, vectorized, event_dim)


def _left(values: Tensor, nesting: int, vectorized: bool, event_dim: int) -> Tensor:
    shape = (1,) * (nesting + vectorized + event_dim - values.dim()) + tuple(values.shape)
    return values.reshape(shape if vectorized else (1, *shape))


def _stack(tables: list[Table], shared: Mapping[str, Tensor]) -> Table:
    """K tables of one particle as one table; the values of `shared` are the same in all."""
    sites = {}
    for name, first in tables[0].sites.items():
        rows = [table.sites[name] for table in tables]
        stacked: dict[str, Any] = {field.name: getattr(first, field.name) for field in fields(Site)}
        for column in ("log_p", "log_q", "value", "kl", "kl_by_dimension"):
            if column == "value" and name in shared:
                continue
            parts = [getattr(row, column) for row in rows]
            if column == "log_p" or (first.is_latent and parts[0] is not None):  # data are the same for all
                stacked[column] = torch.cat(parts)
        stacked["handles"] = tuple(row.handles[0] for row in rows)
        sites[name] = Site(**stacked)
    recorded = {
        name: replace(first, value=torch.cat([table.recorded[name].value for table in tables]))
        for name, first in tables[0].recorded.items()
    }
    return Table(sites, len(tables), recorded)


def _quote(names: list[str]) -> str:
    return ", ".join(f"'{name}'" for name in names)


def _show(scale: Scale) -> str:
    return f"a tensor {tuple(scale.shape)}" if isinstance(scale, Tensor) and scale.dim() else f"{float(scale):.6g}"
