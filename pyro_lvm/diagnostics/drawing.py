"""Draws from a pair with the log-probabilities they have, site by site: what the diagnostics are read from."""

import inspect
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from typing import Any, final

import pyro
import pyro.poutine as poutine
import torch
from pyro.poutine import Trace
from torch import Tensor, nn

from pyro_lvm.objectives.table import Table, run, structure
from pyro_lvm.preflight import as_tensor, check_pair
from pyro_lvm.programs import Program, pair

PARTICLES = "num_particles_vectorized"  # the plate of the draws, by the name Pyro's error messages know

# Values of all sites that one run of the programs may hold, in numbers. Networks need some tens of times as much, so a
# run stays at some hundred megabytes; larger runs are not faster, since they leave the processor's caches.
_NUMBERS_PER_RUN = 2**17

_DRAWS_OF_A_MEAN = 64  # where a density tells neither its mean nor its mode


@final
@dataclass(frozen=True)
class Plate:
    """A plate as a dimension of arrays: what it is called there, where it lies (negative), and its size."""

    name: str
    dim: int
    size: int


@final
@dataclass(frozen=True)
class Variable:
    """How the values of one site lie in memory, and what their dimensions are called.

    Attributes:
        plates: those around the site, the data's first (it is called `"datum"`), then from left to right.
        own: names of the dimensions that are not plates.
        is_latent: whether the guide samples it.
        is_discrete: whether it takes separate values only.
    """

    name: str
    plates: tuple[Plate, ...]
    own: tuple[str, ...] = ()
    is_latent: bool = False
    is_discrete: bool = False

    @property
    def per_datum(self) -> bool:
        """Whether every datum has a value of its own."""
        return "datum" in [plate.name for plate in self.plates]

    def align(self, values: Tensor, event_dim: int = 0) -> Tensor:
        """From (K, *batch, *event), with a 1 for each plate the site is not in, to (K, *plates, *own)."""
        batch = values.dim() - event_dim
        at = [batch + plate.dim for plate in self.plates]
        sizes = list(values.shape)
        for i, plate in zip(at, self.plates, strict=True):
            sizes[i] = plate.size
        others = [i for i in range(1, batch) if i not in at]
        # A dimension of a batch that no plate declares belongs to the value; those of size 1 are other sites' plates.
        kept, dropped = [i for i in others if sizes[i] > 1], [i for i in others if sizes[i] == 1]
        values = values.expand(sizes).permute(*dropped, 0, *at, *kept, *range(batch, values.dim()))
        return values.reshape(values.shape[len(dropped) :])


@final
@dataclass(frozen=True)
class Draws:
    """K draws of some sites of one or both programs.

    Attributes:
        values: by site, (K, *plates, *own), in the order of `Variable.plates` and `Variable.own`.
        densities: by site, what they were drawn from.
        table: log-probabilities, where both programs were run.
    """

    values: dict[str, Tensor]
    densities: dict[str, Any]
    table: Table | None = None


def checked(model: Callable[..., Any], guide: Callable[..., Any], x: Any) -> Tensor:
    """The data as the pair takes them, after running it on some of them with all checks on.

    Raises:
        ValueError: where the data do not go through the programs, or lie outside the likelihood's support.
        FloatingPointError: where the programs give NaN.
    """
    programs = pair(model, guide)
    x = as_tensor(x, "x", programs)

    def log_weights(rows: Tensor) -> Tensor:
        return torch.stack([site.log_weight.sum() for site in run(*programs, (rows,), {}).sites.values()])

    with undisturbed(*programs):
        check_pair(programs, x, "x", log_weights)
    return x


@final
class Sampler:
    """Draws from a pair on one batch of data.

    No gradients are followed, modules are run in evaluation mode and given back as they were, and Pyro's parameter
    store is not touched. Making one runs the programs a few times and leaves the random state as it was.

    Args:
        model, guide: the pair, also a user's own whose programs accept `x` only.
        x: the batch, (B, *data_shape).
        size: number of data in the whole set, where x is a minibatch; it scales plates, draws do not depend on it.

    Raises:
        ValueError: where `x` is no batch of data, or the programs do not fit one another.
    """

    def __init__(
        self, model: Callable[..., Any], guide: Callable[..., Any], x: Tensor, *, size: int | None = None
    ) -> None:
        self.model, self.guide = pair(model, guide)
        x = as_tensor(x, "x", (self.model, self.guide))
        self.x, self.arguments = x, {} if size is None else {"size": size}
        self.vectorized = False
        with undisturbed(self.model, self.guide), torch.random.fork_rng():
            self.nesting = structure(self.model, self.guide, (x,), self.arguments).nesting
            table, guide_trace, model_trace = self._run_pair(1)
            self.variables = _variables(table, guide_trace, model_trace, len(x))
            self.log_weight = Variable("log_weight", _common_plates(table, self.variables))
            observed: dict[str, Any] = {
                n: model_trace.nodes[n] for n, variable in self.variables.items() if not variable.is_latent
            }
            self.observed = {
                n: self._aligned(node["value"], node["fn"].event_dim, self.variables[n], False)[0]
                for n, node in observed.items()
            }
            self.data_site = next((n for n, value in self.observed.items() if value.shape == x.shape), None)
            sites: list[Any] = [
                (guide_trace if v.is_latent else model_trace).nodes[n] for n, v in self.variables.items()
            ]
            self._numbers = sum(site["value"].numel() for site in sites)
            self.event_dims = {site["name"]: site["fn"].event_dim for site in sites}
            if all(_is_plated(site) for site in sites):
                self.vectorized = self._takes_many(self.posterior)

    @property
    def latents(self) -> list[str]:
        """Names of the sites that the guide samples, in the order of the table."""
        return [name for name, variable in self.variables.items() if variable.is_latent]

    def chunks(self, draws: int, *, of_prior: bool = False) -> Iterator[int]:
        """Numbers of draws that sum to `draws`, each small enough for one run of the programs."""
        vectorized = self._prior_is_vectorized if of_prior else self.vectorized
        most = max(1, _NUMBERS_PER_RUN // max(1, self._numbers)) if vectorized else 1
        while draws > 0:
            yield min(most, draws)
            draws -= most

    def posterior(self, draws: int, latents: Mapping[str, Tensor] | None = None) -> tuple[Draws, Draws]:
        """Latents from the guide with their table, and data drawn anew given these very latents.

        Args:
            draws: K.
            latents: drawn by other means, K of each, (K, *shape) as the programs draw one; from the guide otherwise.
        """
        with undisturbed(self.model, self.guide):
            table, guide_trace, model_trace = self._run_pair(draws, latents)
            again = self._drawn_anew(guide_trace, model_trace, draws)
        return self._draws(guide_trace, draws, self.latents, table), self._draws(again, draws, list(self.observed))

    def scored(self, draws: int, latents: Mapping[str, Tensor] | None = None) -> Draws:
        """The first of what `posterior` gives; no data are drawn."""
        with undisturbed(self.model, self.guide):
            table, guide_trace, _ = self._run_pair(draws, latents)
        return self._draws(guide_trace, draws, self.latents, table)

    def guide_only(self, draws: int) -> Draws:
        """Latents from the guide; the model is not run."""
        with undisturbed(self.guide):
            return self._draws(self._trace(self.guide, draws), draws, self.latents)

    def new_data(self, draws: int) -> Draws:
        """Latents and data from the model given those latents from the guide that data share: all, where none is."""
        with undisturbed(self.model, self.guide):
            guide_trace = self._trace(self.guide, draws)
            for name in self.latents:
                if self.variables[name].per_datum:
                    guide_trace.remove_node(name)
            trace = self._trace(poutine.uncondition(poutine.replay(self.model, trace=guide_trace)), draws)
        return self._draws(trace, draws, list(self.variables))

    def prior(self, draws: int) -> Draws:
        """Latents and data from the model alone, as many data as `x` holds.

        A program that runs without data does; one that needs `x` is given it for its shape, and draws it anew.
        """
        with undisturbed(self.model):
            if _runs_without_data(self.model):
                trace = self._trace(lambda *_, **__: self.model(size=len(self.x)), draws)
            else:
                trace = self._trace(poutine.uncondition(self.model), draws)
        return self._draws(trace, draws, list(self.variables))

    def means(self, drawn: Draws, name: str) -> Tensor | None:
        """The means of what a site was drawn from, of its values' shape; None where its density tells none."""
        density, values = drawn.densities[name], drawn.values[name]
        with torch.no_grad():
            mean = _mean(density)
        return None if mean is None else self._aligned(mean, density.event_dim, self.variables[name], len(values) > 1)

    def centres(self, drawn: Draws, name: str) -> tuple[Tensor, str]:
        """The best single guess at what a site holds given what was drawn before it, and what that guess is."""
        density = drawn.densities[name]
        value, kind = centre(density)
        vectorized = len(drawn.values[name]) > 1
        return self._aligned(value, density.event_dim, self.variables[name], vectorized), kind

    def _in_programs_shape(self, latents: Mapping[str, Tensor], draws: int) -> dict[str, Tensor]:
        """Several draws as the programs have them under the plate of draws, which is left of all others."""
        if draws == 1:
            return {name: value[0] for name, value in latents.items()}
        missing = {name: self.nesting - (value.dim() - 1 - self.event_dims[name]) for name, value in latents.items()}
        return {name: value.reshape(draws, *(1,) * missing[name], *value.shape[1:]) for name, value in latents.items()}

    def _run_pair(self, draws: int, latents: Mapping[str, Tensor] | None = None) -> tuple[Table, Trace, Trace]:
        given = None if latents is None else self._in_programs_shape(latents, draws)
        # The table is `objectives.table`'s own; the traces it is made from are kept on the way.
        model, guide = poutine.trace(self.model), poutine.trace(self.guide)
        table = run(model, guide, (self.x,), self.arguments, num_particles=draws, nesting=self.nesting, draws=given)
        return table, guide.trace, model.trace

    def _trace(self, program: Callable[..., Any], draws: int) -> Trace:
        if draws > 1:
            program = pyro.plate(PARTICLES, draws, dim=-self.nesting - 1)(program)
        return poutine.trace(program).get_trace(self.x, **self.arguments)

    def _drawn_anew(self, guide_trace: Trace, model_trace: Trace, draws: int) -> Trace:
        """The model's trace with data from p(x | z) in place of the observed ones, the latents being the guide's."""
        if len(self.observed) > 1:  # one may depend on another's value
            return self._trace(poutine.uncondition(poutine.replay(self.model, trace=guide_trace)), draws)
        for name in self.observed:  # the density of the only one is known: the decoder need not run again
            site: Any = model_trace.nodes[name]
            site["value"] = site["fn"](*site["args"], **site["kwargs"])
        return model_trace

    def _draws(self, trace: Trace, draws: int, names: list[str], table: Table | None = None) -> Draws:
        nodes: dict[str, Any] = {name: trace.nodes[name] for name in names if name in trace.nodes}
        values = {
            name: self._aligned(node["value"], node["fn"].event_dim, self.variables[name], draws > 1)
            for name, node in nodes.items()
        }
        return Draws(values, {name: node["fn"] for name, node in nodes.items()}, table)

    def _aligned(self, values: Tensor, event_dim: int, variable: Variable, vectorized: bool) -> Tensor:
        if not vectorized:
            missing = max(0, self.nesting - (values.dim() - event_dim))
            values = values.reshape((1,) * (missing + 1) + tuple(values.shape))
        return variable.align(values, event_dim)

    @cached_property
    def _prior_is_vectorized(self) -> bool:
        # Tried where it is asked for only: a draw from a diffusion takes as many runs of a network as it has steps.
        with torch.random.fork_rng():
            return self.vectorized and self._takes_many(self.prior)

    def _takes_many(self, draw: Callable[[int], object]) -> bool:
        """Whether the programs, which ran, also run on several draws at once."""
        try:
            with suppress(NotImplementedError):  # a prior that cannot be sampled is no matter of dimensions
                draw(2)
        except Exception as error:  # whatever it is, the added dimension is what it is about
            first = next(iter(str(error).splitlines()), type(error).__name__)
            warnings.warn(
                f"the programs are run once for every draw, which is slow: they do not take several at once, in a "
                f"dimension on the left of their latents ({first})",
                stacklevel=4,
            )
            return False
        return True


def centre(density: Any) -> tuple[Tensor, str]:
    """The best single guess at a draw of a density, and what it is: its mean, else its mode, else a mean of draws."""
    with torch.no_grad():
        mean = _mean(density)
        if mean is not None:
            return mean, "mean"
        try:
            return density.mode, "mode"
        except (NotImplementedError, AttributeError):
            return density.sample((_DRAWS_OF_A_MEAN,)).mean(0), f"mean of {_DRAWS_OF_A_MEAN} draws"


@contextmanager
def undisturbed(*programs: Program) -> Iterator[None]:
    """Without gradients and outer handlers; modules in evaluation mode, afterwards as they were."""
    originals = [program.original for program in programs]
    modules = {module for program in originals if isinstance(program, nn.Module) for module in program.modules()}
    training = [module for module in modules if module.training]
    for module in training:
        module.training = False
    try:
        with torch.no_grad(), poutine.block():
            yield
    finally:
        for module in training:
            module.training = True


def _runs_without_data(program: Program) -> bool:
    original = program.original
    signature = inspect.signature(original.forward if isinstance(original, nn.Module) else original)
    try:
        signature.bind(size=1)
    except TypeError:
        return False
    return program.accepts_size


def _variables(table: Table, guide_trace: Trace, model_trace: Trace, batch: int) -> dict[str, Variable]:
    nodes: dict[str, Any] = {
        name: (guide_trace if site.is_latent else model_trace).nodes[name] for name, site in table.sites.items()
    }
    nodes = {name: node for name, node in nodes.items() if node["value"].numel() > 0}  # a `pyro.factor` has no value
    frames = {
        name: {f.name: f for f in node["cond_indep_stack"] if f.vectorized and f.name != PARTICLES}
        for name, node in nodes.items()
    }
    data_plate = _data_plate(frames, [name for name in nodes if not table.sites[name].is_latent], batch)
    taken = {*nodes, "chain", "draw", "datum"}
    variables = {}
    for name, node in nodes.items():
        plates = [
            Plate("datum" if f.name == data_plate else f"{f.name}_plate" if f.name in taken else f.name, f.dim, f.size)
            for f in frames[name].values()
        ]
        plates.sort(key=lambda plate: (plate.name != "datum", plate.dim))
        fn, declared = node["fn"], {plate.dim for plate in plates}
        undeclared = [i for i, n in enumerate(fn.batch_shape) if n > 1 and i - len(fn.batch_shape) not in declared]
        n = fn.event_dim + len(undeclared)
        own = (f"{name}_dim",) if n == 1 else tuple(f"{name}_dim_{i}" for i in range(n))
        variables[name] = Variable(name, tuple(plates), own, table.sites[name].is_latent, _is_discrete(fn))
    return variables


def _data_plate(frames: dict[str, dict[str, Any]], observed: list[str], batch: int) -> str | None:
    """The plate of the data: around everything observed, of as many elements, preferably around the latents too."""
    around = [
        frame
        for frame in (frames[observed[0]].values() if observed else ())
        if frame.size == batch and all(frame.name in frames[name] for name in observed)
    ]
    around.sort(key=lambda frame: (-sum(frame.name in f for f in frames.values()), frame.name != "data", -frame.dim))
    return around[0].name if around else None


def _common_plates(table: Table, variables: dict[str, Variable]) -> tuple[Plate, ...]:
    dims = {dim for _, dim in table.common_plates}
    return tuple(plate for plate in next(iter(variables.values())).plates if plate.dim in dims)


def _is_plated(site: Any) -> bool:
    declared = {frame.dim for frame in site["cond_indep_stack"] if frame.vectorized}
    shape = site["fn"].batch_shape
    return all(n == 1 or i - len(shape) in declared for i, n in enumerate(shape))


def _is_discrete(distribution: Any) -> bool:
    try:
        return bool(distribution.support.is_discrete)
    except NotImplementedError:
        return bool(distribution.has_enumerate_support)


def _mean(distribution: Any) -> Tensor | None:
    """The mean, or None where the density does not tell one, or tells that it has none."""
    try:
        mean: Tensor = distribution.mean
    except (NotImplementedError, AttributeError):
        return None
    whole = mean.shape == distribution.shape() and bool(mean.isfinite().all())  # a categorical's is NaN
    return mean if whole else None
