"""A density over vectors as a density over arrays."""

from collections.abc import Sequence

import pyro.distributions as dist
from pyro.distributions import TorchDistribution
from torch import Size
from torch.distributions.transforms import ReshapeTransform


def reshaped(distribution: TorchDistribution, shape: Sequence[int]) -> TorchDistribution:
    """The density of x.reshape(shape) where x, a vector, has the given one; the volume does not change.

    Args:
        distribution: with event shape (D,).
        shape: whose product is D.

    Example:
        >>> import torch
        >>> reshaped(dist.Normal(torch.zeros(6), 1.0).to_event(1), (2, 3)).event_shape
        torch.Size([2, 3])
    """
    if tuple(shape) == tuple(distribution.event_shape):
        return distribution
    return dist.TransformedDistribution(distribution, [ReshapeTransform(distribution.event_shape, Size(shape))])
