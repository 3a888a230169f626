"""Densities of a location and a scale, rounded to levels."""

from abc import ABC, abstractmethod
from typing import Any

import torch
from pyro.distributions import TorchDistribution
from torch import Size, Tensor
from torch.distributions import constraints

from pyro_lvm.sizes import checked_levels

__all__ = ["Discretized"]

# In levels. With less, what is far from the location would overflow single precision; what a bin's width from an edge
# already has no probability to speak of does not tell smaller scales apart.
_MINIMUM_SCALE = 1e-6


class Discretized(TorchDistribution, ABC):
    """A variable μ + s·noise rounded to the nearest of the levels 0, …, L − 1, abstract.

    The first bin is open to the left and the last to the right, so that the probabilities sum to 1. Scales below 10⁻⁶
    count as that.

    Args:
        loc: μ, in levels, (...).
        scale: s > 0, in levels, (...).
        levels: L.
    """

    arg_constraints = {"loc": constraints.real, "scale": constraints.positive}  # noqa: RUF012

    def __init__(self, loc: Tensor, scale: Tensor, levels: int, validate_args: bool | None = None) -> None:
        self.loc, self.scale = torch.broadcast_tensors(loc, scale)
        self.levels = checked_levels(levels)
        super().__init__(self.loc.shape, validate_args=validate_args)

    @abstractmethod
    def noise(self, shape: Size) -> Tensor:
        """Draws of the variable with location 0 and scale 1, in the precision and on the device of μ."""

    @abstractmethod
    def log_mass(self, value: Tensor, scale: Tensor) -> Tensor:
        """log p(k), (...), nats, with scales that are not too small."""

    @constraints.dependent_property(is_discrete=True, event_dim=0)
    def support(self) -> Any:
        """The levels."""
        return constraints.integer_interval(0, self.levels - 1)

    def expand(self, batch_shape: Any, _instance: Any = None) -> "Discretized":
        """The same distribution for a larger batch."""
        return type(self)(self.loc.expand(batch_shape), self.scale.expand(batch_shape), self.levels, False)

    def sample(self, sample_shape: Any = Size()) -> Tensor:  # noqa: B008  # PyTorch's own signature
        """Levels (*sample_shape, ...): a draw, rounded, and what lies outside in the outer bins."""
        with torch.no_grad():
            noise = self.noise(self._extended_shape(sample_shape))
            y = self.loc + self.scale.clamp_min(_MINIMUM_SCALE) * noise
            return y.round().clamp(0, self.levels - 1)

    def log_prob(self, value: Tensor) -> Tensor:
        """log p(k), (...), nats."""
        if self._validate_args:
            self._validate_sample(value)
        return self.log_mass(value, self.scale.clamp_min(_MINIMUM_SCALE))
