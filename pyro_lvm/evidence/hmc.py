"""Hamiltonian moves of all of a program's latents at once: one row of the data, one chain."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from pyro.poutine.messenger import Messenger
from torch import Tensor
from torch.distributions import biject_to
from torch.distributions.transforms import Transform

from pyro_lvm.evidence.log_likelihood import datum_log_weight
from pyro_lvm.objectives.table import Table, run
from pyro_lvm.programs import Pair

__all__ = ["State", "Unconstrained", "transition"]

# Leapfrog steps of one length bring a chain on a Gaussian back to where it was after a full period; a length drawn for
# every transition, whatever the state, breaks that and leaves the target invariant all the same.
_JITTER = 0.5


@dataclass(frozen=True)
class State:
    """Where the chains are, and the two densities between which they are annealed.

    Attributes:
        u: latents in unconstrained space, (R, d).
        log_start: log f_0, the guide's or the prior's density of u, (R,).
        log_weight: log p(x, z) − log f_0, (R,): what β multiplies.
    """

    u: Tensor
    log_start: Tensor
    log_weight: Tensor

    def log_density(self, beta: float) -> Tensor:
        """log f_β = (1 − β) log f_0 + β log p(x, z), (R,)."""
        return self.log_start + beta * self.log_weight


@dataclass(frozen=True)
class _Place:
    """Where a latent stands in a chain's vector.

    Attributes:
        columns: its part of the vector.
        shape, row: of its unconstrained value for a single datum, (*plates, *event), and which of these is the datum's.
        like, latent_row: a value itself for a single datum, and which of its dimensions is the datum's.
    """

    columns: slice
    shape: tuple[int, ...]
    row: int
    like: Tensor
    latent_row: int

    def pack(self, value: Tensor) -> Tensor:
        """(*plates, *event) to (R, columns)."""
        return value.movedim(self.row, 0).flatten(1) if value.dim() > 1 else value.unsqueeze(-1)

    def unpack(self, u: Tensor) -> Tensor:
        """The inverse, from the whole vectors (R, d)."""
        row = self.row % len(self.shape)
        rest = self.shape[:row] + self.shape[row + 1 :]
        return u[:, self.columns].reshape(len(u), *rest).movedim(0, row)


class Unconstrained:
    r"""The latents of a pair as vectors free of constraints, one for each row of x, and their density.

    A latent z with support S is moved as u, z = T(u) with PyTorch's bijection T from the reals to S; its densities are
    those of u, $f(T(u))\,|\det \partial T/\partial u|$. Chains of the same datum are rows of their own, so that the
    programs meet nothing but a batch.

    Args:
        programs: the pair; a guide of None stands for the model's prior.
        x: data, (R, *data_shape).

    Raises:
        ValueError: for latents that are discrete, shared by all data, auxiliary, or on a set without a bijection.
    """

    def __init__(self, programs: Pair, x: Tensor) -> None:
        self.programs, self.x = programs, x
        self.places: dict[str, _Place] = {}
        self.dim = 0
        with torch.no_grad():
            seen, table = self._run(x[:1])
        if table.global_latents:
            raise ValueError(
                f"the latent '{table.global_latents[0]}' is shared by all data, so no datum has a chain of its own: "
                "annealing needs every latent inside the data plate."
            )
        for site in table.latents:
            fn, value, auxiliary = seen[site.name]
            if auxiliary:
                raise ValueError(
                    f"the latent '{site.name}' is the guide's alone, and annealing ends at the model's posterior of "
                    "the model's latents: leave the guide out, or use one without auxiliary latents."
                )
            bijection = _bijection(site.name, fn)
            u = bijection.inv(value)
            row, latent_row = -1 - bijection.domain.event_dim, -1 - bijection.codomain.event_dim
            columns = slice(self.dim, self.dim + u.numel())
            self.places[site.name] = _Place(columns, tuple(u.shape), row, value, latent_row)
            self.dim += u.numel()

    def draw(self) -> Tensor:
        """Latents from f_0, (R, d)."""
        with torch.no_grad():
            seen, _ = self._run(self.x)
        return self._packed(seen)

    def pack(self, latents: Mapping[str, Tensor]) -> Tensor:
        """Given latents, each with its datum's dimension first, (R, d)."""
        shaped = {name: value.movedim(0, self.places[name].latent_row) for name, value in latents.items()}
        with torch.no_grad():
            seen, _ = self._run(self.x, shaped)
        return self._packed(seen)

    def by_datum(self, latents: Mapping[str, Any], n: int) -> dict[str, Tensor]:
        """Latents of n data, shaped as the programs draw them, with the data's dimension moved to the front.

        Raises:
            ValueError: where one is missing, unknown or of another shape.
        """
        if set(latents) != set(self.places):
            raise ValueError(
                f"'latents' must hold the model's latents {_quote(self.places)}, but it holds {_quote(latents)}."
            )
        moved = {}
        for name, place in self.places.items():
            value = torch.as_tensor(latents[name]).to(place.like)
            shape = list(place.like.shape)
            shape[place.latent_row] = n
            if value.shape != torch.Size(shape):
                raise ValueError(
                    f"'latents' holds '{name}' of shape {tuple(value.shape)}, but the model draws it for {n} data with "
                    f"the shape {tuple(shape)}."
                )
            moved[name] = value.movedim(place.latent_row, 0)
        return moved

    def state(self, u: Tensor) -> State:
        """The densities at u."""
        answers = _Answers(self.places, u)
        with answers:
            table = run(*self.programs, (self.x,), {})
        log_q = torch.stack([_per_row(table.per_datum(site.log_q)) for site in table.latents]).sum(0)
        return State(u, log_q + answers.log_det, datum_log_weight(table, self.x)[0])

    def gradient(self, u: Tensor, beta: float) -> Tensor:
        """∇ log f_β at u, (R, d)."""
        with torch.enable_grad():
            u = u.detach().requires_grad_()
            (gradient,) = torch.autograd.grad(self.state(u).log_density(beta).sum(), u)
        return gradient

    def _run(self, x: Tensor, latents: Mapping[str, Tensor] | None = None) -> tuple[dict[str, Any], Table]:
        notes = _Notes()
        with notes:
            table = run(*self.programs, (x,), {}, draws=latents)
        return notes.seen, table

    def _packed(self, seen: dict[str, Any]) -> Tensor:
        parts = []
        for name, place in self.places.items():
            fn, value, _ = seen[name]
            parts.append(place.pack(_bijection(name, fn).inv(value)))
        return torch.cat(parts, -1)


def transition(
    density: Unconstrained, state: State, beta: float, step_size: Tensor, leapfrog_steps: int
) -> tuple[State, Tensor]:
    r"""One Hamiltonian Monte Carlo transition that leaves f_β invariant: new momenta, leapfrog, accept or reject.

    The leapfrog is the one that ends on half steps of the position: one gradient a step, and none where a transition
    starts at another β than the last one ended at.

    Args:
        step_size: one for each chain, (R,).

    Returns:
        The chains' states, and the probability with which each moved, (R,): 0 for trajectories that diverged.

    References:
        Neal (2011), MCMC Using Hamiltonian Dynamics.
    """
    momentum = torch.randn_like(state.u)
    step = step_size.to(state.u).unsqueeze(-1)  # (R, 1)
    step = step * (1 + _JITTER * (2 * torch.rand_like(step) - 1))
    u, v = state.u + step / 2 * momentum, momentum
    alive = u.isfinite().all(-1, keepdim=True)
    for i in range(leapfrog_steps):
        # A chain that diverged waits where it started, lest a program be run on NaN.
        u = torch.where(alive, u, state.u)
        v = v + step * density.gradient(u, beta)
        u = u + (step if i < leapfrog_steps - 1 else step / 2) * v
        alive = alive & u.isfinite().all(-1, keepdim=True)
    proposal = density.state(torch.where(alive, u, state.u))
    gain = proposal.log_density(beta) - state.log_density(beta)
    log_accept = gain - (v.square().sum(-1) - momentum.square().sum(-1)) / 2
    log_accept = torch.where(alive.squeeze(-1) & ~log_accept.isnan(), log_accept, -torch.inf)
    accepted = torch.rand_like(log_accept).log() < log_accept
    moved = State(
        torch.where(accepted.unsqueeze(-1), proposal.u, state.u),
        torch.where(accepted, proposal.log_start, state.log_start),
        torch.where(accepted, proposal.log_weight, state.log_weight),
    )
    return moved, log_accept.clamp_max(0).exp()


class _Notes(Messenger):
    """Remembers what was drawn, and from what, by the program that drew it."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: dict[str, tuple[Any, Tensor, bool]] = {}

    def _pyro_post_sample(self, msg: Any) -> None:
        if not msg["is_observed"] and msg["name"] not in self.seen:
            self.seen[msg["name"]] = msg["fn"], msg["value"], bool(msg["infer"].get("is_auxiliary"))


class _Answers(Messenger):
    """Answers the latents' statements from vectors, and adds up log |det ∂z/∂u|, (R,)."""

    def __init__(self, places: Mapping[str, _Place], u: Tensor) -> None:
        super().__init__()
        self.places, self.u = places, u
        self.log_det = u.new_zeros(len(u))

    def _pyro_sample(self, msg: Any) -> None:
        if msg["name"] not in self.places or msg["done"]:
            return
        # Made anew at every statement: a latent's support may hang on the latents before it.
        bijection = _bijection(msg["name"], msg["fn"])
        u = self.places[msg["name"]].unpack(self.u)
        z = bijection(u)
        self.log_det = self.log_det + _per_row(bijection.log_abs_det_jacobian(u, z))
        msg["value"], msg["done"] = z, True


def _bijection(name: str, fn: Any) -> Transform:
    """From the reals to the support of a latent's distribution."""
    support = fn.support
    if support.is_discrete:
        raise ValueError(
            f"the latent '{name}' is discrete, and Hamiltonian transitions move along gradients: sum it out in the "
            "model, or use log_likelihood."
        )
    try:
        return biject_to(support)
    except NotImplementedError:
        raise ValueError(
            f"the latent '{name}' has the support {support}, to which PyTorch knows no bijection: register one with "
            "torch.distributions.biject_to, or use log_likelihood."
        ) from None


def _quote(names: Iterable[str]) -> str:
    return ", ".join(f"'{name}'" for name in names) or "none"


def _per_row(values: Tensor) -> Tensor:
    """Sums (..., R) to (R,)."""
    return values.reshape(-1, values.shape[-1]).sum(0)
