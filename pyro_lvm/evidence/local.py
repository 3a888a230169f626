"""Families of posteriors with parameters of each datum's own, all data at once: the q* of the gap decomposition.

Draws are values by name, (K, *plates, *event) for each latent, the last plate the data's; densities are (K, B).
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import cos, log, pi
from typing import Any, TypeVar

import pyro.poutine as poutine
import torch
from pyro.poutine.util import prune_subsample_sites
from torch import Size, Tensor
from torch.distributions import Independent, biject_to, constraints, transform_to

from pyro_lvm.objectives.table import run
from pyro_lvm.programs import Program
from pyro_lvm.progress import Advance

__all__ = ["Family", "Flow", "FullNormal", "GuideFamily", "Latents", "log_joint", "maximise", "moments"]

Draws = Mapping[str, Tensor]


def log_joint(model: Program, x: Tensor, latents: "Latents", draws: Draws, *, vectorize: bool) -> Tensor:
    """log p(x, z) of given draws, (K, B), unscaled."""
    K = len(next(iter(draws.values())))
    if K > 1 and vectorize:
        aligned = {name: latents.beside_particles(name, value) for name, value in draws.items()}
        parts = [run(model, None, (x,), {}, num_particles=K, nesting=latents.nesting, draws=aligned)]
    else:
        parts = [run(model, None, (x,), {}, draws={name: value[k] for name, value in draws.items()}) for k in range(K)]
    terms = [[_per_datum(site.log_p) for site in table.sites.values()] for table in parts]
    return torch.cat([sum(rest, first) for first, *rest in terms])


class Latents:
    """The latents of a batch as the guide samples them, each datum's independent of the others'.

    Args:
        guide: the program to look at.
        x: the batch, (B, *data_shape).
        nesting: the pair's number of nested plates.

    Attributes:
        fns: the distributions at the guide's latent sites, batch shape (*plates), the data plate last.

    Raises:
        ValueError: for latents whose distribution hangs on another latent's draw, is not reparameterised, is masked or
            has no free parameters: what "the same family with other parameters" means is then unclear.
    """

    def __init__(self, guide: Program, x: Tensor, nesting: int) -> None:
        self.nesting, self.size = nesting, len(x)
        with torch.no_grad():
            sites, other = _latent_sites(guide, x), _latent_sites(guide, x)
        for name, site in sites.items():
            if site["mask"] is not None and site["mask"] is not True:
                raise ValueError(
                    f"the guide's latent '{name}' is masked: 'gaps' needs the same latents for every datum."
                )
            if not site["fn"].has_rsample:
                raise ValueError(
                    f"the guide's latent '{name}', {_kind(site['fn'])}, is not reparameterised, and 'gaps' optimises "
                    "through the draws: give a guide with continuous, reparameterised latents."
                )
        with torch.no_grad():
            self._check_independence(guide, x, sites, other)
        self.fns: dict[str, Any] = {name: site["fn"] for name, site in sites.items()}

    @staticmethod
    def _check_independence(guide: Program, x: Tensor, sites: Any, other: Any) -> None:
        # Two runs that differ in nothing but the latents' draws; what the program itself draws (dropout) is the same.
        runs = []
        for given in (sites, other):
            values = {name: site["value"] for name, site in given.items()}
            with torch.random.fork_rng():
                torch.manual_seed(0)
                runs.append(_latent_sites(poutine.condition(guide, data=values), x, names=set(values)))
        for name in sites:
            one, two = (parameters(each[name]["fn"], name) for each in runs)
            if any(not torch.equal(one[key], two[key]) for key in one):
                raise ValueError(
                    f"the distribution of the guide's latent '{name}' hangs on the draw of another latent, so a datum "
                    "has no parameters of it to optimise: give a guide whose latents are independent given the data."
                )

    def beside_particles(self, name: str, value: Tensor) -> Tensor:
        """A draw (K, *plates, *event) with the particles to the left of all the pair's plates."""
        missing = self.nesting - len(self.fns[name].batch_shape)
        return value.reshape(len(value), *(1,) * missing, *value.shape[1:])

    def coordinates(self, draws: Draws) -> tuple[Tensor, Tensor]:
        """All latents of a datum in a row, each made real and free, (K, B, M), and log |∂u/∂z|, (K, B)."""
        parts, log_det = [], torch.zeros(())
        for name, fn in self.fns.items():
            z, to_z = draws[name], biject_to(fn.support)
            u = to_z.inv(z)
            log_det = log_det - _per_datum(_rows(to_z.log_abs_det_jacobian(u, z), fn).sum(-1))
            parts.append(_rows(u, fn))
        return torch.cat(parts, dim=-1), log_det

    def draws(self, u: Tensor) -> dict[str, Tensor]:
        """The values that have these coordinates."""
        values, start = {}, 0
        for name, fn in self.fns.items():
            to_z = biject_to(fn.support)
            plates, event = fn.batch_shape[:-1], to_z.inverse_shape(fn.event_shape)
            features = Size((*plates, *event)).numel()
            part = u[..., start : start + features].reshape(*u.shape[:-1], *plates, *event)  # (K, B, *plates, *event)
            values[name] = to_z(part.movedim(1, 1 + len(plates)))
            start += features
        return values


class Family(ABC):
    """Distributions of all latents of a batch, each datum's with parameters of its own."""

    parameters: list[Tensor]
    pace = 1.0  # how long its steps are to be beside other families'

    @abstractmethod
    def rsample(self, K: int) -> dict[str, Tensor]:
        """K reparameterised draws."""

    @abstractmethod
    def log_prob(self, draws: Draws, *, constant: bool = False) -> Tensor:
        """log q(z), (K, B); with `constant` no gradient reaches the parameters but through the draws."""


@dataclass
class _Free:
    """A parameter as transform(start + unit · offset)."""

    start: Tensor
    unit: Tensor
    offset: Tensor
    constraint: Any

    def value(self, constant: bool) -> Tensor:
        offset = self.offset.detach() if constant else self.offset
        return transform_to(self.constraint)(self.start + self.unit * offset)


AnyFamily = TypeVar("AnyFamily", bound=Family)


class GuideFamily(Family):
    """The guide's own family, from the guide's own parameters, which are then free for every datum.

    Args:
        latents: as the guide samples them.
    """

    def __init__(self, latents: Latents) -> None:
        self._fns, self._free = latents.fns, {}
        with torch.no_grad():
            for name, fn in latents.fns.items():
                # Locations are moved in units of q's own width: steps of one size then suit any latent.
                spread = biject_to(fn.support).inv(fn.sample((_DRAWS_FOR_MOMENTS,))).std(0)
                self._free[name] = {key: _free(value, fn, key, spread) for key, value in parameters(fn, name).items()}
        self.parameters = [free.offset for site in self._free.values() for free in site.values()]

    def rsample(self, K: int) -> dict[str, Tensor]:
        """K reparameterised draws."""
        return {name: self._distribution(name, False).rsample((K,)) for name in self._fns}

    def log_prob(self, draws: Draws, *, constant: bool = False) -> Tensor:
        """log q(z), (K, B)."""
        terms = [_per_datum(self._distribution(name, constant).log_prob(draws[name])) for name in self._fns]
        return sum(terms[1:], terms[0])

    def _distribution(self, name: str, constant: bool) -> Any:
        values = {key: free.value(constant) for key, free in self._free[name].items()}
        fn, reinterpreted = _base(self._fns[name])
        return type(fn)(**values).to_event(reinterpreted)


class FullNormal(Family):
    """A normal over all coordinates of a datum, N(m + C μ, C L Lᵀ Cᵀ), with μ and L free.

    Args:
        latents: what it is over.
        mean, scale_tril: m (B, M) and C (B, M, M), where it starts: μ = 0 and L = I.
    """

    def __init__(self, latents: Latents, mean: Tensor, scale_tril: Tensor) -> None:
        self.latents, self.mean, self.scale_tril = latents, mean, scale_tril
        self.parameters = [torch.zeros_like(mean), torch.zeros_like(scale_tril)]

    def rsample(self, K: int) -> dict[str, Tensor]:
        """K reparameterised draws."""
        return self.latents.draws(self.place(torch.randn(K, *self.mean.shape).to(self.mean)))

    def log_prob(self, draws: Draws, *, constant: bool = False) -> Tensor:
        """log q(z), (K, B)."""
        u, log_det_u = self.latents.coordinates(draws)
        v, log_det_v = self.standardise(u, constant=constant)
        return _log_standard_normal(v) + log_det_v + log_det_u

    def place(self, v: Tensor) -> Tensor:
        """Coordinates u of standardised ones, (K, B, M)."""
        mean, scale_tril = self._placed(constant=False)
        return mean + (scale_tril @ v.unsqueeze(-1)).squeeze(-1)

    def standardise(self, u: Tensor, *, constant: bool) -> tuple[Tensor, Tensor]:
        """The other way, and log |∂v/∂u|, (B,)."""
        mean, scale_tril = self._placed(constant)
        v = torch.linalg.solve_triangular(scale_tril, (u - mean).permute(1, 2, 0), upper=False).permute(2, 0, 1)
        return v, -scale_tril.diagonal(dim1=-2, dim2=-1).log().sum(-1)

    def _placed(self, constant: bool) -> tuple[Tensor, Tensor]:
        mu, raw = (p.detach() if constant else p for p in self.parameters)
        lower = raw.tril(-1) + torch.diag_embed(raw.diagonal(dim1=-2, dim2=-1).exp())
        return self.mean + (self.scale_tril @ mu.unsqueeze(-1)).squeeze(-1), self.scale_tril @ lower


class Flow(Family):
    r"""A normalising flow on top of a normal, $q(u) = \mathcal N(T(v) \mid 0, I)\,|\det \partial T / \partial u|$.

    $v = L^{-1}(u - m)$, with m and L the normal's. T is a chain of couplings: half of the coordinates pass a monotone
    rational-quadratic spline and an affine map whose parameters a network with one hidden layer makes of the others.
    Each datum has networks of its own. At the start T is the identity. A single coordinate has splines and affine maps
    of no input.

    Args:
        normal: where it starts; it is copied.
        couplings: their number.
        hidden: width of the networks.
        bins: of the splines, on [−5, 5].

    References:
        Dinh, Sohl-Dickstein & Bengio (2017), Density Estimation Using Real NVP. Durkan et al. (2019), Neural Spline
        Flows.
    """

    pace = 0.2  # its many weights move together

    def __init__(self, normal: FullNormal, couplings: int = 4, hidden: int = 16, bins: int = 8) -> None:
        self._normal = FullNormal(normal.latents, *(p.detach() for p in normal._placed(constant=True)))
        B, M = normal.mean.shape
        self._bins, self._per_value = bins, 2 + 3 * bins - 1
        self._networks, self._masks = [], []
        for i in range(couplings):
            # True stays. Where there is one coordinate, none does.
            mask = (torch.arange(M, device=normal.mean.device) + i) % 2 == 0
            mask = mask if M > 1 else torch.zeros_like(mask)
            seen, out = int(mask.sum()), (M - int(mask.sum())) * self._per_value
            first = torch.randn(B, hidden, seen).to(normal.mean) / max(seen, 1) ** 0.5
            bias = torch.randn(B, hidden).to(normal.mean)
            self._networks.append([first, bias, first.new_zeros(B, out, hidden), first.new_zeros(B, out)])
            self._masks.append(mask)
        self.parameters = self._normal.parameters + [weight for network in self._networks for weight in network]

    def rsample(self, K: int) -> dict[str, Tensor]:
        """K reparameterised draws."""
        noise = torch.randn(K, *self._normal.mean.shape).to(self._normal.mean)
        return self._normal.latents.draws(self._normal.place(self.transform().inv(noise)))

    def log_prob(self, draws: Draws, *, constant: bool = False) -> Tensor:
        """log q(z), (K, B)."""
        u, log_det_u = self._normal.latents.coordinates(draws)
        v, log_det_v = self._normal.standardise(u, constant=constant)
        noise, log_det_noise = self.transform(constant=constant).call_and_ladj(v)
        return _log_standard_normal(noise) + log_det_noise + log_det_v + log_det_u

    def transform(self, *, constant: bool = False) -> Any:
        """T, from v to standard normal noise, both (K, B, M)."""
        from pyro_lvm.transforms.zuko_transforms import ComposedTransform, CouplingTransform

        couplings = []
        for network, mask in zip(self._networks, self._masks, strict=True):
            weights = [weight.detach() if constant else weight for weight in network]
            couplings.append(CouplingTransform(lambda seen, weights=weights: self._monotone(seen, *weights), mask))
        return ComposedTransform(*couplings)

    def _monotone(self, seen: Tensor, first: Tensor, bias: Tensor, second: Tensor, shift: Tensor) -> Any:
        from pyro_lvm.transforms.zuko_transforms import (
            ComposedTransform,
            DependentTransform,
            MonotonicAffineTransform,
            MonotonicRQSTransform,
        )

        hidden = (torch.einsum("kbi,bhi->kbh", seen, first) + bias).tanh()
        # By the width, so that a step of Adam moves the outputs about as far as their own shift.
        raw = torch.einsum("kbh,boh->kbo", hidden, second) / hidden.shape[-1] + shift
        raw = raw.unflatten(-1, (-1, self._per_value))  # (K, B, coordinates, values)
        slide, widths, heights, derivatives = raw.split((2, self._bins, self._bins, self._bins - 1), dim=-1)
        spline = MonotonicRQSTransform(widths, heights, derivatives)
        return DependentTransform(ComposedTransform(spline, MonotonicAffineTransform(slide[..., 0], slide[..., 1])), 1)


def maximise(
    family: AnyFamily,
    log_p: Callable[[Draws], Tensor],
    *,
    steps: int,
    draws: int,
    learning_rate: float,
    advance: Advance,
) -> AnyFamily:
    """Maximises every datum's ELBO over the family's parameters, by Adam with a learning rate that goes to 0.

    The score of q, zero in expectation, is left out of the gradient: where q reaches the posterior no noise is left.

    Args:
        log_p: log p(x, z) of draws, (K, B).
        steps, draws: how many, and how many draws of each datum each takes.
        advance: called after each step.

    Returns:
        The family, its parameters now free of gradients.

    References:
        Roeder, Wu & Duvenaud (2017), Sticking the Landing.
    """
    for parameter in family.parameters:
        parameter.requires_grad_(True)
    learning_rate = family.pace * learning_rate
    # A short memory of squared gradients: those of the first steps, from far off, would slow all that come after.
    optimiser = torch.optim.Adam(family.parameters, lr=learning_rate, betas=(0.9, 0.95), eps=_NO_SLOPE)
    for step in range(steps):
        for group in optimiser.param_groups:
            group["lr"] = learning_rate * (1 + cos(pi * step / steps)) / 2
        with torch.enable_grad():
            z = family.rsample(draws)
            loss = -(log_p(z) - family.log_prob(z, constant=True)).mean(0).sum()
        optimiser.zero_grad()
        # Adam works entry by entry, so a sum over data is one optimisation for each of them.
        loss.backward(inputs=family.parameters)
        optimiser.step()
        advance(1, "")
    for parameter in family.parameters:
        parameter.requires_grad_(False)
        parameter.grad = None
    return family


def moments(family: Family, latents: Latents) -> tuple[Tensor, Tensor]:
    """Mean (B, M) and Cholesky factor of the covariance (B, M, M) of a family's coordinates, from draws of it."""
    with torch.no_grad():
        u, _ = latents.coordinates(family.rsample(_DRAWS_FOR_MOMENTS + 10 * _features(latents)))
        mean = u.mean(0)
        deviations = (u - mean).movedim(0, -1)  # (B, M, K)
        covariance = deviations @ deviations.mT / u.shape[0]
        return mean, torch.linalg.cholesky(covariance)


_DRAWS_FOR_MOMENTS = 500

# Nats per unit of a parameter. Adam takes full steps along however small a gradient, and so would walk away at random
# from an optimum where it starts; along gradients below this it takes small ones.
_NO_SLOPE = 1e-2


def parameters(fn: Any, name: str) -> dict[str, Tensor]:
    """The parameters that make up a distribution, each with the batch shape, by the names its class takes them by.

    Raises:
        ValueError: where it is not made of parameters.
    """
    fn, _ = _base(fn)
    constrained = dict(type(fn).arg_constraints) if isinstance(type(fn).arg_constraints, dict) else {}
    if "scale_tril" in constrained:  # one of three names for the same
        constrained = {key: constrained[key] for key in ("loc", "scale_tril") if key in constrained}
    alternatives = {"probs", "logits"} <= set(constrained)
    if not constrained or alternatives or any(map(_is_entangled, constrained.values())):
        raise ValueError(
            f"the guide's latent '{name}', {_kind(fn)}, is not made of parameters that can be freed one by one: 'gaps' "
            "takes guides whose latents are normals, or other distributions of parameters alone."
        )
    values = {}
    for key, constraint in constrained.items():
        value = getattr(fn, key)
        values[key] = value.expand(fn.batch_shape + value.shape[value.dim() - constraint.event_dim :]).detach().clone()
    return values


def _free(value: Tensor, fn: Any, key: str, spread: Tensor) -> _Free:
    constraint = _base(fn)[0].arg_constraints[key]
    start = transform_to(constraint).inv(value)
    unit = torch.ones_like(start)
    if constraint in (constraints.real, constraints.real_vector) and start.shape == spread.shape:
        unit = spread
    elif key == "scale_tril":  # the diagonal is free in its logarithm, which has no unit
        unit = (spread.unsqueeze(-1) * unit).tril(-1) + torch.diag_embed(torch.ones_like(spread))
    return _Free(start, unit, torch.zeros_like(start), constraint)


def _base(fn: Any) -> tuple[Any, int]:
    """What is under the declarations of independence, and the number of dimensions they concern."""
    reinterpreted = 0
    while isinstance(fn, Independent):
        fn, reinterpreted = fn.base_dist, reinterpreted + fn.reinterpreted_batch_ndims
    return fn, reinterpreted


def _is_entangled(constraint: Any) -> bool:
    try:
        transform_to(constraint)
    except NotImplementedError:
        return True
    return bool(constraint.is_discrete)


def _latent_sites(guide: Callable[..., Any], x: Tensor, names: set[str] | None = None) -> dict[str, Any]:
    nodes = prune_subsample_sites(poutine.trace(guide).get_trace(x)).nodes
    sampled = {name: node for name, node in nodes.items() if node["type"] == "sample"}
    return {name: node for name, node in sampled.items() if (name in names if names else not node["is_observed"])}


def _rows(values: Tensor, fn: Any) -> Tensor:
    """(K, *plates, *event) as (K, B, everything else)."""
    return values.movedim(len(fn.batch_shape), 1).reshape(len(values), fn.batch_shape[-1], -1)


def _per_datum(values: Tensor) -> Tensor:
    """What a site gives, (K, *plates), summed over all plates but the data's."""
    return values.flatten(1, -2).sum(1) if values.dim() > 2 else values


def _log_standard_normal(values: Tensor) -> Tensor:
    return -0.5 * (values.square() + log(2 * pi)).sum(-1)


def _features(latents: Latents) -> int:
    return sum(Size((*fn.batch_shape[:-1], *fn.event_shape)).numel() for fn in latents.fns.values())


def _kind(fn: Any) -> str:
    return f"of type {type(_base(fn)[0]).__name__}"


def check_settings(num_particles: int, steps: int, draws_per_step: int, learning_rate: float) -> None:
    """Refuses what posteriors of single data cannot be optimised or judged by."""
    for name, value, least in (
        ("num_particles", num_particles, 2),
        ("steps", steps, 1),
        ("draws_per_step", draws_per_step, 1),
    ):
        if not isinstance(value, int) or value < least:
            raise ValueError(f"'{name}' is a whole number and must be at least {least}, not {value!r}.")
    if not 0 < learning_rate < float("inf"):
        raise ValueError(f"'learning_rate' must be positive and finite, not {learning_rate!r}.")
