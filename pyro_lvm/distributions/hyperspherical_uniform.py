"""The uniform density on a sphere."""

from math import lgamma, log, pi
from typing import Any

import torch
from pyro.distributions import TorchDistribution, constraints
from torch import Size, Tensor


class HypersphericalUniform(TorchDistribution):
    r"""$p(z) = \Gamma(m/2) / (2 \pi^{m/2})$ on the sphere $S^{m-1} = \{z \in \mathbb R^m : \|z\| = 1\}$.

    Args:
        dim: m, the number of coordinates: 2 for the circle, 3 for the sphere of everyday life.
        dtype, device: of the draws; PyTorch's defaults where left out.

    Shapes:
        Batch shape (), event shape (m,).

    Raises:
        ValueError: where `dim` < 2.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> p = HypersphericalUniform(3)
        >>> p.log_prob(p.sample((2,)))  # −log 4π
        tensor([-2.5310, -2.5310])
    """

    arg_constraints = {}  # noqa: RUF012
    support = constraints.sphere
    has_rsample = True

    def __init__(
        self,
        dim: int,
        *,
        dtype: torch.dtype | None = None,
        device: torch.device | None = None,
        validate_args: bool | None = None,
    ) -> None:
        if dim < 2:
            raise ValueError(f"'dim' counts the coordinates of a sphere's points and must be at least 2, not {dim}.")
        # What is constant needs no values, but a device and a precision that draws and densities have.
        self._zero = torch.zeros((), dtype=dtype, device=device)
        super().__init__(Size(), Size((dim,)), validate_args=validate_args)

    def expand(self, batch_shape: Any, _instance: Any = None) -> "HypersphericalUniform":
        """The same density with a larger batch."""
        new = self._get_checked_instance(HypersphericalUniform, _instance)
        new._zero = self._zero
        super(HypersphericalUniform, new).__init__(Size(batch_shape), self.event_shape, validate_args=False)
        new._validate_args = self._validate_args
        return new

    @property
    def mean(self) -> Tensor:
        """0, (..., m)."""
        return self._zero.expand(self.batch_shape + self.event_shape)

    def rsample(self, sample_shape: Any = Size()) -> Tensor:  # noqa: B008
        """Draws (*sample_shape, ..., m)."""
        return uniform_directions(self._extended_shape(sample_shape), self._zero)

    def log_prob(self, value: Tensor) -> Tensor:
        """log p(z), (...), nats."""
        if self._validate_args:
            self._validate_sample(value)
        batch = torch.broadcast_shapes(value.shape[:-1], self.batch_shape)
        return torch.full(batch, -log_area(self.event_shape[0]), dtype=value.dtype, device=value.device)

    def entropy(self) -> Tensor:
        """log of the sphere's area, (...), nats."""
        return (self._zero + log_area(self.event_shape[0])).expand(self.batch_shape)


def log_area(dim: int) -> float:
    r"""$\log(2 \pi^{m/2} / \Gamma(m/2))$ for m = `dim`."""
    return log(2) + dim / 2 * log(pi) - lgamma(dim / 2)


def uniform_directions(shape: Size, like: Tensor) -> Tensor:
    """Unit vectors of any number of coordinates, ±1 where it is one; device and precision of `like`."""
    noise = torch.randn(shape, dtype=like.dtype, device=like.device)
    # In single precision one normal in millions is exactly 0, which has no direction.
    noise = torch.where(noise == 0, torch.finfo(like.dtype).eps, noise)
    return noise / torch.linalg.vector_norm(noise, dim=-1, keepdim=True)
