"""Densities that diffusions are written with as programs."""

from collections.abc import Sequence
from typing import Any, final

import pyro.distributions as dist
import torch
from pyro.distributions import TorchDistribution
from torch import Size, Tensor
from torch.distributions import constraints

from pyro_lvm.diffusion.process import ForwardProcess
from pyro_lvm.diffusion.reverse import Reverse
from pyro_lvm.distributions import BoundedDensity

__all__ = ["Denoising", "ReverseChain", "standard_normal"]


def standard_normal(shape: tuple[int, ...], like: Tensor) -> TorchDistribution:
    """N(0, I) over arrays of a shape, in the precision and on the device of `like`."""
    zeros = torch.zeros(shape, dtype=like.dtype, device=like.device)
    return dist.Normal(zeros, torch.ones_like(zeros)).to_event(len(shape))


@final
class ReverseChain(TorchDistribution):
    """Where a reverse process leads from noise: a density that can be sampled, and scored by a bound alone.

    Args:
        reverse: p(z_s | z_t).
        times: to go through, from 1 downwards; a draw is of the last.
        like: a tensor with the precision and device of the draws.
        condition: further arguments of the process.
    """

    arg_constraints = {}  # noqa: RUF012  # as in every distribution

    def __init__(
        self,
        reverse: Reverse,
        times: Sequence[float],
        like: Tensor,
        condition: tuple[Tensor, ...] = (),
        batch_shape: Size = Size(),  # noqa: B008
        validate_args: bool | None = None,
    ) -> None:
        self._reverse, self._times, self._like, self._condition = reverse, times, like.detach(), condition
        super().__init__(batch_shape, Size(reverse.data_shape), validate_args=validate_args)

    @constraints.dependent_property(is_discrete=False)
    def support(self) -> Any:
        """All real arrays."""
        return constraints.independent(constraints.real, len(self.event_shape))

    def expand(self, batch_shape: Any, _instance: Any = None) -> "ReverseChain":
        """The same distribution for a larger batch."""
        return ReverseChain(
            self._reverse, self._times, self._like, self._condition, Size(batch_shape), validate_args=False
        )

    def sample(self, sample_shape: Any = Size()) -> Tensor:  # noqa: B008  # PyTorch's own signature
        """Draws (*sample_shape, ..., *data_shape)."""
        with torch.no_grad():
            shape = self._extended_shape(sample_shape)
            z = torch.randn(shape, dtype=self._like.dtype, device=self._like.device)
            return self._reverse.draw(z, self._times, *self._condition)

    def log_prob(self, value: Tensor) -> Tensor:
        """There is none in closed form."""
        raise NotImplementedError(
            "the density of a diffusion's draws is an integral over all its steps: use its bound."
        )


@final
class Denoising(BoundedDensity):
    r"""Of all noised versions of a datum between two ends of a diffusion, $-\tfrac12 (-\ell'(t)) \|\varepsilon -
    \hat\varepsilon_\theta(z_t, t)\|^2$ at one z_t: its mean over uniform t is minus their divergence.

    Args:
        process: the forward process.
        reverse: the network.
        x: scaled data, (B, *data_shape).
        t: times, (..., B).
        condition: further arguments of the network.
    """

    arg_constraints = {}  # noqa: RUF012  # as in every distribution

    def __init__(
        self,
        process: ForwardProcess,
        reverse: Reverse,
        x: Tensor,
        t: Tensor,
        condition: tuple[Tensor, ...] = (),
        validate_args: bool | None = None,
    ) -> None:
        self._process, self._reverse, self._x, self._t, self._condition = process, reverse, x, t, condition
        super().__init__(t.shape, Size(process.data_shape), validate_args=validate_args)

    @constraints.dependent_property(is_discrete=False)
    def support(self) -> Any:
        """All real arrays."""
        return constraints.independent(constraints.real, len(self.event_shape))

    def expand(self, batch_shape: Any, _instance: Any = None) -> "Denoising":
        """The same for a larger batch."""
        t = self._t.expand(batch_shape)
        return Denoising(self._process, self._reverse, self._x, t, self._condition, validate_args=False)

    def sample(self, sample_shape: Any = Size()) -> Tensor:  # noqa: B008  # PyTorch's own signature
        """Draws from q(z_t | x)."""
        return self._process.marginal(self._x, self._t).sample(sample_shape)

    def log_prob(self, value: Tensor) -> Tensor:
        """The estimate, (...), nats."""
        prediction = self._reverse.predict(value, self._t, *self._condition)
        error = self._process.noise_error(self._x, value, self._t, prediction.noise)
        return 0.5 * self._process.schedule.slope(self._t) * error
