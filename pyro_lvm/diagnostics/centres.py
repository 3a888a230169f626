"""A pair without chance: data to the centres of their latents, and latents to the centre of their data."""

from collections.abc import Callable, Mapping
from typing import Any, final

import torch
from pyro.distributions.constraints import sphere
from pyro.poutine.messenger import Messenger
from pyro.poutine.util import site_is_subsample
from torch import Tensor

from pyro_lvm.diagnostics.drawing import Sampler, centre, checked, undisturbed

Latents = dict[str, Tensor]

# Values of all sites that one run of the programs may hold, in numbers; see `drawing`.
_NUMBERS_PER_RUN = 2**17


@final
class Centres:
    r"""Runs of a pair in which every draw is the centre of what it would be drawn from, given the draws before it.

    For one normal latent that is $z = E_q[z \mid x]$, and $x = E[x \mid z]$ for a normal likelihood. The centre is the
    mean where the density tells one, for points on a sphere the mean's direction; else the mode, or the mean of 64
    draws; for separate values the mode.

    Latents are passed on with the data's dimension first, (N, *latent_shape), and those that all data share without.

    Args:
        model, guide: the pair; programs that accept only `x` are taken too.
        x: some data, at least one, (B, *data_shape).

    Raises:
        ValueError: where `x` is no batch of data, the programs do not fit one another, no observed site has the shape
            of the data, or no continuous latent is a datum's own.
    """

    def __init__(self, model: Callable[..., Any], guide: Callable[..., Any], x: Tensor) -> None:
        x = checked(model, guide, x)
        sampler = Sampler(model, guide, x[:2])
        if sampler.data_site is None:
            raise ValueError("'model' must observe a site of the shape of 'x' for its data to be drawn, but none is.")
        self._model, self._guide, self._x, self._site = sampler.model, sampler.guide, x[:1], sampler.data_site
        if not sampler.variables[self._site].per_datum:
            raise ValueError(
                "'model' must declare that data are independent, with `pyro.plate(\"data\", len(x))` around them, for "
                "the latents of one to be told from those of another."
            )
        own = {name: sampler.variables[name] for name in sampler.latents if sampler.variables[name].per_datum}
        self._dims = {name: next(p.dim for p in of.plates if p.name == "datum") for name, of in own.items()}
        self._numbers = x[0].numel()
        self._dims[self._site] = next(p.dim for p in sampler.variables[self._site].plates if p.name == "datum")
        with torch.random.fork_rng():
            densities = self.densities(self.encode(x[:1]))
        self.continuous = [name for name in own if name in densities and not own[name].is_discrete]
        self.spheres = {name for name in self.continuous if _on_a_sphere(densities[name])}
        self._numbers = sum(density.shape().numel() for density in densities.values())
        if not self.continuous:
            raise ValueError(
                "'model' has no continuous latent that each datum has of its own: there is nothing to move in it."
            )

    def site(self, name: str | None) -> str:
        """The continuous latent of that name, or the only one.

        Raises:
            ValueError: where there is none of that name, or there are several and none is named.
        """
        if name is None and len(self.continuous) == 1:
            return self.continuous[0]
        if name is None or name not in self.continuous:
            raise ValueError(
                f"'site' must name one of a datum's continuous latents, {', '.join(self.continuous)}, not {name!r}."
            )
        return name

    @property
    def device(self) -> torch.device:
        """Where the programs are."""
        return self._x.device

    def is_shared(self, name: str) -> bool:
        """Whether all data share that latent."""
        return name not in self._dims

    def encode(self, x: Tensor) -> Latents:
        """The latents of data (N, *data_shape)."""
        x = x.to(self._x)
        parts = []
        for batch in x.split(max(1, _NUMBERS_PER_RUN // self._numbers)):
            with undisturbed(self._guide):
                run = self._run(self._guide, batch, {})
            parts.append({name: self._datum_first(name, value, run) for name, value in run.values.items()})
        return {n: torch.cat([part[n] for part in parts]) if n in self._dims else v for n, v in parts[0].items()}

    def decode(self, latents: Latents, residuals: Latents | None = None) -> Tensor:
        """The data (N, *data_shape) of latents; those left out are at the centre, plus a residual where there is one.

        Args:
            latents: by site, (N, *latent_shape).
            residuals: by site, of the same shape.
        """
        residuals = residuals or {}
        N = next(len(value) for name, value in {**residuals, **latents}.items() if name in self._dims)
        rows = max(1, _NUMBERS_PER_RUN // self._numbers)
        parts = [
            self._given(self._rows(latents, i, rows), self._rows(residuals, i, rows), min(rows, N - i))
            for i in range(0, N, rows)
        ]
        return torch.cat([self._datum_first(self._site, run.values[self._site], run) for run in parts])

    def densities(self, latents: Latents) -> dict[str, Any]:
        """What the model draws each site of a single datum from, given those latents and centres for the others."""
        return self._given(latents, {}, 1).densities

    def below(self, site: str, latents: Latents) -> Latents:
        """How far the latents of one datum that the model draws after `site` lie from their centres under the model.

        Those that are points on spheres or separate values have no residual, and are left out.
        """
        run = self._given(latents, {}, 1)
        names = list(run.values)
        after = [name for name in names[names.index(site) + 1 :] if name in self.continuous]
        return {
            name: latents[name] - self._datum_first(name, centre(run.densities[name])[0], run)
            for name in after
            if name not in self.spheres
        }

    def _given(self, latents: Latents, residuals: Latents, N: int) -> "_AtCentres":
        with undisturbed(self._model):
            return self._run(self._model, self._x.expand(N, *self._x.shape[1:]), latents, residuals)

    def _run(self, program: Any, x: Tensor, latents: Latents, residuals: Latents | None = None) -> "_AtCentres":
        """One run; the data's dimension of what is given goes where the programs have it."""
        with _AtCentres(latents, residuals or {}, self._dims) as run:
            program(x)
        return run

    def _rows(self, latents: Latents, start: int, number: int) -> Latents:
        return {n: value[start : start + number] if n in self._dims else value for n, value in latents.items()}

    def _datum_first(self, name: str, value: Tensor, run: "_AtCentres") -> Tensor:
        if name not in self._dims:
            return value
        return value.movedim(self._dims[name] - run.densities[name].event_dim, 0)


class _AtCentres(Messenger):
    """Answers sample statements with the values given, else with the centre of their density.

    Attributes:
        values, densities: by site, in the order of the program.
    """

    def __init__(self, latents: Mapping[str, Tensor], residuals: Mapping[str, Tensor], dims: Mapping[str, int]) -> None:
        super().__init__()
        self._latents, self._residuals, self._dims = latents, residuals, dims
        self.values: Latents = {}
        self.densities: dict[str, Any] = {}

    def _pyro_sample(self, msg: Any) -> None:
        name, density, observed = msg["name"], msg["fn"], msg["value"] if msg["is_observed"] else None
        recorded = bool((msg["infer"] or {}).get("_deterministic", False))  # by `pyro.deterministic`
        if site_is_subsample(msg) or recorded or (observed is not None and observed.numel() == 0):  # `pyro.factor`
            return
        if name in self._latents:
            value = self._placed(name, density, self._latents[name])
        else:
            value = _latent_centre(density) if observed is None else centre(density)[0]
            if name in self._residuals:
                value = value + self._placed(name, density, self._residuals[name])
        msg["value"], msg["done"], msg["is_observed"] = value, True, False
        self.values[name], self.densities[name] = value, density

    def _placed(self, name: str, density: Any, value: Tensor) -> Tensor:
        return value.movedim(0, self._dims[name] - density.event_dim) if name in self._dims else value


def _latent_centre(density: Any) -> Tensor:
    """A centre that is itself a value of the latent."""
    support = _support(density)
    if support is not None and support.is_discrete:
        try:
            mode: Tensor = density.mode
        except (NotImplementedError, AttributeError):
            mode = density.sample()
        return mode.nan_to_num(0.0)  # of a fair coin
    value = centre(density)[0]
    return value / value.norm(dim=-1, keepdim=True) if _on_a_sphere(density) else value


def _on_a_sphere(density: Any) -> bool:
    support = _support(density)
    while isinstance(support, torch.distributions.constraints.independent):
        support = support.base_constraint
    return support is sphere


def _support(density: Any) -> Any:
    try:
        return density.support
    except NotImplementedError:
        return None
