"""The aggregated posterior of a pair over N data: draws from it, and its density at any draw."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import log
from typing import Any, final

import pyro
import pyro.poutine as poutine
import torch
from pyro.distributions import Delta
from pyro.poutine.util import prune_subsample_sites
from torch import Tensor
from torch.distributions import Independent, LowRankMultivariateNormal, MultivariateNormal, Normal

from pyro_lvm.diagnostics.drawing import PARTICLES, Sampler, undisturbed
from pyro_lvm.evidence.gaps import Estimate
from pyro_lvm.evidence.memory import bytes_per_row
from pyro_lvm.objectives.table import Table, draw, run
from pyro_lvm.progress import progress_bar

_BYTES = 2**28  # intermediate values of one run of the programs
_COLUMNS = 256  # data that draws are held against at once: the fewer, the more draws share one run of the encoder
_ROUNDING = 1e-3  # of log-densities that are computed in two ways, in single precision, relative to their size

Values = Mapping[str, Tensor]


@final
@dataclass(frozen=True)
class Points:
    """S draws of all latents that a datum has of its own.

    Attributes:
        values: by site, in the guide's order, (S, *plates but the data's, *event).
        log_p, log_q: of each site given those that its program drew before it, (S, sites), nats; for draws from the
            prior both are the prior's.
        log_p_by_dimension: (S, D), where there is one latent and its prior is a product over dimensions; else None.
        reconstruction: log p(x | z) of the datum that it was drawn for, (S,), nats.
        owner: the number of that datum, (S,); None for draws from the prior.
    """

    values: dict[str, Tensor]
    log_p: Tensor
    log_q: Tensor
    log_p_by_dimension: Tensor | None
    reconstruction: Tensor
    owner: Tensor | None

    def __len__(self) -> int:
        return len(self.log_p)

    def per_datum(self, values: Tensor) -> Estimate:
        """The mean over a datum's draws of what each draw has, (S,), with its Monte Carlo error."""
        assert self.owner is not None
        rows = values.reshape(-1, int(self.owner[-1]) + 1)  # (K, N)
        return Estimate(rows.mean(0), rows.std(0) / len(rows) ** 0.5)

    def features(self, names: Sequence[str]) -> Tensor:
        """Latents of a draw in a row of real numbers, (S, M)."""
        return torch.cat([self.values[name].reshape(len(self), -1).double() for name in names], dim=1)


@final
@dataclass(frozen=True)
class Density:
    r"""$\log q(z) = \log \frac1N \sum_n q(z \mid x_n)$ of S draws, nats.

    Attributes:
        log_q: of the first site, the first two, ... in the guide's order, (S, sites); the last column is of all.
        by_others: the same from the N − 1 data that a draw was not drawn for, (S, sites).
        by_dimension: of every dimension by itself, (S, D); None where q(z | x) does not tell that, or there are several
            latents.
    """

    log_q: Tensor
    by_others: Tensor
    by_dimension: Tensor | None


@final
class AggregatedPosterior:
    r"""$q(z) = \frac1N \sum_n q(z \mid x_n)$ over all latents that a datum has of its own, jointly.

    Latents that all data share are drawn once from the guide, and everything is given them. S draws take S·N
    densities, computed in blocks that bound the memory.

    Args:
        model, guide: the pair; programs that accept only `x` are taken too.
        x: the data, as `drawing.checked` returns them, (N, *data_shape), N ≥ 2.
        progress: show a bar on a terminal while densities are computed.

    Attributes:
        names, model_names: of the latents, in the order in which the guide draws them, and the model.
        without_weights: why the pair's log p or log q is itself an estimate, in words; None where they are exact.

    Raises:
        ValueError: where there is no such latent, or the guide cannot score draws that it made for other data.
    """

    def __init__(self, model: Any, guide: Any, x: Tensor, *, progress: bool = True) -> None:
        if len(x) < 2:
            raise ValueError(f"'x' must hold at least two data for an aggregated posterior, not {len(x)}.")
        self.x, self._progress = x, progress
        self._sampler = Sampler(model, guide, x[:2])
        variables = self._sampler.variables
        own = [name for name in self._sampler.latents if variables[name].per_datum]
        if not own:
            raise ValueError(
                "no latent belongs to single data, so there is no aggregated posterior: put what a datum has of its "
                "own under `pyro.plate('data', len(x), dim=-1)`, in the model and in the guide."
            )
        self._depth = {name: max(-plate.dim for plate in variables[name].plates) for name in own}
        dim = next(plate.dim for plate in variables[own[0]].plates if plate.name == "datum")
        self._datum = 1 + self._sampler.nesting + dim  # where the data's plate lies in (K, *plates)
        shared = [name for name in self._sampler.latents if name not in own]
        with undisturbed(self._sampler.model, self._sampler.guide):
            self._shared = draw(self._sampler.guide, (x[:2],), {}, shared)
            nodes: dict[str, Any] = prune_subsample_sites(poutine.trace(self._sampler.guide).get_trace(x[:2])).nodes
        self.names, self.model_names = [name for name in nodes if name in own], own
        table, _ = self._run(x[:2], 1)
        self.without_weights = table.without_weights
        self._check_guide(table, nodes)

    @property
    def latents(self) -> str:
        """Their names, for a sentence."""
        return ", ".join(f"'{name}'" for name in self.names)

    def draws(self, num_particles: int) -> Points:
        """K draws from every datum's own posterior, (K·N,), those of a datum N apart."""
        parts = []
        for rows in self.x.split(max(1, _BYTES // self._bytes_per_datum)):
            chunks = [self._drawn(rows, K) for K in self._chunks(num_particles, self._bytes_per_datum * len(rows))]
            parts.append([torch.cat(column) for column in zip(*chunks, strict=True)])
        return self._points([torch.cat(column, dim=1) for column in zip(*parts, strict=True)], from_prior=False)

    def prior(self, draws: int) -> Points:
        """Draws from the model's prior, (S,).

        Raises:
            ValueError: where it cannot be sampled, or is not one prior for all data.
        """
        self.check_prior()
        try:
            with torch.random.fork_rng():
                self._drawn(self.x[:1], 1, from_prior=True)
        except NotImplementedError as error:
            reason = next(iter(str(error).splitlines()), "no way to is implemented")
            raise ValueError(f"the model's prior of {self.latents} cannot be sampled ({reason}).") from error
        chunks = [self._drawn(self.x[:1], K, from_prior=True) for K in self._chunks(draws, self._bytes_per_datum)]
        return self._points([torch.cat(column) for column in zip(*chunks, strict=True)], from_prior=True)

    def density(self, points: Points) -> Density:
        """The aggregated posterior's, at these draws."""
        S, N = len(points), len(self.x)
        log_q, by_others = torch.full((2, S, len(self.names)), -torch.inf, dtype=torch.float64, device=self.x.device)
        by_dimension: Tensor | None = None
        numbers = torch.arange(S, device=self.x.device)
        B = min(N, _COLUMNS, max(1, _BYTES // self._bytes_per_datum))
        per_pair = bytes_per_row(lambda i: self._log_q(_taken(points, i), self.x[:1]), numbers)
        with progress_bar("aggregated posterior", S, self._progress) as advance:
            for i in numbers.split(max(1, _BYTES // (B * per_pair)) if self._sampler.vectorized else 1):
                for start in range(0, N, B):
                    block, dims = self._log_q(_taken(points, i), self.x[start : start + B])  # (K, B, sites), (K, B, D)
                    log_q[i] = torch.logaddexp(log_q[i], block.logsumexp(1))
                    if points.owner is not None:
                        data = torch.arange(start, start + block.shape[1], device=self.x.device)
                        block = block.masked_fill((points.owner[i, None] == data).unsqueeze(-1), -torch.inf)
                    by_others[i] = torch.logaddexp(by_others[i], block.logsumexp(1))
                    if dims is not None:
                        if by_dimension is None:
                            by_dimension = dims.new_full((S, dims.shape[-1]), -torch.inf)
                        by_dimension[i] = torch.logaddexp(by_dimension[i], dims.logsumexp(1))
                advance(len(i), "")
        others = N if points.owner is None else N - 1
        by_dimension = None if by_dimension is None else by_dimension - log(N)
        return Density(log_q - log(N), by_others - log(others), by_dimension)

    def check_prior(self) -> None:
        """Refuses a model whose latents have another density for every datum, so that data have no common prior.

        Raises:
            ValueError: for such a model.
        """
        with torch.random.fork_rng():
            points = self._points(self._drawn(self.x[:2], 1), from_prior=False)
            given = self._beside(_taken(points, torch.zeros(1, dtype=torch.int64, device=self.x.device)), 2)
            table, _ = self._run(self.x[:2], 1, given=given)
        for name in self.names:
            log_p = self._rows(table.sites[name].log_p)
            if self.without_weights is None and not _agree(log_p[:, 0], log_p[:, -1]):
                raise ValueError(
                    f"the model's density of '{name}' hangs on the datum itself, as that of an auxiliary variable or "
                    "of what follows other data does, so there is no one prior to hold all codes against."
                )

    def _check_guide(self, table: Table, nodes: dict[str, Any]) -> None:
        for name in self.names:
            if table.sites[name].inner_scale != 1:
                raise ValueError(
                    f"the latent '{name}' is one of a plate inside the data's that is subsampled, as a diffusion's "
                    "times are, so a draw is not all that a datum has of its own."
                )
            if nodes[name]["mask"] is not None and nodes[name]["mask"] is not True:
                raise ValueError(f"the guide's latent '{name}' is masked, so data have not all the same latents.")
            if isinstance(_base(nodes[name]["fn"])[0], Delta):
                raise ValueError(f"the guide's latent '{name}' is a point, not a distribution, and has no density.")
        with torch.random.fork_rng():
            points = self._points(self._drawn(self.x[:2], 1), from_prior=False)
            try:
                again = self._log_q(points.values, self.x[:2])[0].diagonal().T  # (2, sites)
                agree, reason = _agree(again, points.log_q.cumsum(-1)), "scored anew, its draws have another density"
            except ValueError:  # of Pyro's validation, which prints all the numbers
                agree, reason = False, "they lie where it has no density for those"
            except (NotImplementedError, RuntimeError) as error:
                agree, reason = False, next(iter(str(error).splitlines()), type(error).__name__)
        if not agree:
            raise ValueError(
                f"the guide cannot score draws of {self.latents} that it made for other data ({reason}), so its "
                "aggregated posterior has no density that could be computed."
            )

    @cached_property
    def _bytes_per_datum(self) -> int:
        """What one draw for a datum takes."""
        return bytes_per_row(lambda rows: self._run(rows, 1), self.x)

    def _chunks(self, draws: int, bytes_per_draw: int) -> Iterator[int]:
        most = max(1, _BYTES // bytes_per_draw) if self._sampler.vectorized else 1
        while draws > 0:
            yield min(most, draws)
            draws -= most

    def _run(
        self, x: Tensor, draws: int, *, given: Values | None = None, from_prior: bool = False
    ) -> tuple[Table, dict[str, Any]]:
        """The table, and the model's sites."""
        model, guide = poutine.trace(self._sampler.model), None if from_prior else self._sampler.guide
        values = {**self._shared, **(given or {})}
        with undisturbed(self._sampler.model, self._sampler.guide):
            table = run(model, guide, (x,), {}, num_particles=draws, nesting=self._sampler.nesting, draws=values)
        return table, model.trace.nodes

    def _drawn(self, x: Tensor, draws: int, *, from_prior: bool = False) -> list[Tensor]:
        """The columns of `Points` as far as they are tensors, each (K, B, ...)."""
        table, nodes = self._run(x, draws, from_prior=from_prior)
        size, sites = (draws, len(x)), [table.sites[name] for name in self.names]
        values = [self._rows(site.value, site.event_dim) for site in sites]
        data = [_summed(self._rows(site.log_p), size) for site in table.sites.values() if not site.is_latent]
        by_dimension = torch.empty(*size, 0)
        if len(sites) == 1 and self.names[0] in nodes:
            fn, own = _factors(nodes[self.names[0]]["fn"])
            if fn is not None:
                by_dimension = _flat(self._rows(fn.log_prob(sites[0].value), own), size)
        return [
            *[value.expand(*size, *value.shape[2:]) for value in values],
            torch.stack([_summed(self._rows(site.log_p), size) for site in sites], -1),
            torch.stack([_summed(self._rows(site.log_q), size) for site in sites], -1),
            by_dimension,
            sum(data[1:], data[0]),
        ]

    def _points(self, columns: list[Tensor], *, from_prior: bool) -> Points:
        K, B = columns[0].shape[:2]
        *values, log_p, log_q, by_dimension, reconstruction = [column.flatten(0, 1) for column in columns]
        return Points(
            dict(zip(self.names, values, strict=True)),
            log_p,
            log_q,
            by_dimension if by_dimension.shape[-1] else None,
            reconstruction,
            None if from_prior else torch.arange(B, device=self.x.device).repeat(K),
        )

    def _log_q(self, values: Values, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """log q of K given draws for each of B data, (K, B, sites), site on site, and by dimension, (K, B, D)."""
        K = len(values[self.names[0]])
        if K > 1 and not self._sampler.vectorized:
            parts = [self._log_q({name: value[k : k + 1] for name, value in values.items()}, x) for k in range(K)]
            single = [dims for _, dims in parts if dims is not None]
            return torch.cat([log_q for log_q, _ in parts]), torch.cat(single) if single else None
        size = (K, len(x))
        program = poutine.condition(self._sampler.guide, data={**self._shared, **self._beside(values, len(x))})
        if K > 1:
            program = pyro.plate(PARTICLES, K, dim=-self._sampler.nesting - 1)(program)
        terms, dims = [], None
        with undisturbed(self._sampler.model, self._sampler.guide):
            nodes: dict[str, Any] = poutine.trace(program).get_trace(x).nodes
            for fn, value in ((nodes[name]["fn"], nodes[name]["value"]) for name in self.names):
                factors, own = _factors(fn)
                if len(self.names) > 1 or factors is None:
                    terms.append(_summed(self._rows(fn.log_prob(value)), size))
                if len(self.names) == 1:
                    marginals, own = (factors, own) if factors is not None else _marginals(fn)
                    if marginals is not None:
                        dims = _flat(self._rows(marginals.log_prob(value), own), size)
        if not terms and dims is not None:
            terms.append(dims.sum(-1))
        return torch.stack(terms, -1).cumsum(-1), dims

    def _beside(self, values: Values, batch: int) -> dict[str, Tensor]:
        """Draws (K, ...) as the programs take them: each for all data, the draws on the left of all plates."""
        given = {}
        for name, value in values.items():
            value = value.unsqueeze(1).movedim(1, self._datum)  # (K, *plates, *event)
            value = value.expand(*value.shape[: self._datum], batch, *value.shape[self._datum + 1 :])
            if len(value) == 1:  # as the program itself would draw it
                value = value.reshape(value.shape[1 + self._sampler.nesting - self._depth[name] :])
            given[name] = value
        return given

    def _rows(self, values: Tensor, own: int = 0) -> Tensor:
        """What the programs give, (K, *plates, *own), with dimensions of 1 on the left left out, as (K, B, ...)."""
        missing = 1 + self._sampler.nesting + own - values.dim()
        return values.reshape((1,) * missing + tuple(values.shape)).movedim(self._datum, 1)


def check_particles(num_particles: int) -> None:
    """Refuses fewer draws of a datum than tell their own variance."""
    if not isinstance(num_particles, int) or num_particles < 2:
        raise ValueError(
            f"'num_particles' is a number of draws and must be at least 2, to know their error, not {num_particles!r}."
        )


def _taken(points: Points, numbers: Tensor) -> dict[str, Tensor]:
    return {name: value[numbers] for name, value in points.values.items()}


def _summed(values: Tensor, size: tuple[int, int]) -> Tensor:
    """(K, B), summed over what is left of each."""
    return _flat(values, size).sum(-1)


def _flat(values: Tensor, size: tuple[int, int]) -> Tensor:
    """(K, B, everything else), in double precision: sums over many data lose digits otherwise."""
    return values.flatten(2).double().expand(*size, -1) if values.dim() > 2 else values.double().expand(size)[..., None]


def _agree(one: Tensor, other: Tensor) -> bool:
    return bool(torch.isclose(one.double(), other.double(), rtol=_ROUNDING, atol=_ROUNDING).all())


def _base(fn: Any) -> tuple[Any, int]:
    """What is under the declarations of independence, and the number of dimensions they concern."""
    independent = 0
    while isinstance(fn, Independent):
        fn, independent = fn.base_dist, independent + fn.reinterpreted_batch_ndims
    return fn, independent


def _factors(fn: Any) -> tuple[Any | None, int]:
    """The distribution of single dimensions and how many of these it has, where they are independent of each other."""
    base, independent = _base(fn)
    return (base, independent) if independent or not fn.event_dim else (None, 0)


def _marginals(fn: Any) -> tuple[Any | None, int]:
    """The same where they depend on each other, and each by itself is known nonetheless."""
    if isinstance(fn, (MultivariateNormal, LowRankMultivariateNormal)):
        return Normal(fn.mean, fn.variance.sqrt()), 1
    return None, 0
