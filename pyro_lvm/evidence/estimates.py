"""What estimates of log p(x), one per datum, have in common."""

from math import log

import torch
from torch import Tensor

__all__ = ["Estimates"]


class _Mean(Tensor):
    """A number that may also be called, as PyTorch's `tensor.mean()` is."""

    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    def __call__(self) -> Tensor:
        return self.as_subclass(Tensor)

    def __repr__(self) -> str:  # type: ignore[override]
        return repr(self())

    def __format__(self, specification: str) -> str:
        return format(self.item(), specification)


class Estimates(Tensor):
    """Estimates, one per datum, (N,), nats: a tensor that knows how good it is, abstract.

    Attributes:
        mean: their mean, nats per datum.
        standard_error: of each estimate, (N,), nats: the Monte Carlo error.
        mean_standard_error: the Monte Carlo error of the mean, nats per datum.
        sampling_error: the error of the mean as one over the population the data come from, nats per datum.
        bits_per_dimension: −mean / (D log 2), for discrete data of D values.
        num_particles, features: K, D.
        is_discrete: whether the likelihood of the data is a probability, and not a density.
    """

    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    standard_error: Tensor
    mean_standard_error: Tensor
    num_particles: int
    features: int
    is_discrete: bool

    @property
    def mean(self) -> _Mean:  # type: ignore[override]
        """Nats per datum."""
        return torch.Tensor.mean(self.as_subclass(Tensor)).as_subclass(_Mean)

    @property
    def sampling_error(self) -> Tensor:
        """Nats per datum."""
        return self.as_subclass(Tensor).std() / len(self) ** 0.5

    @property
    def bits_per_dimension(self) -> Tensor:
        """Bits."""
        return -self.mean() / (self.features * log(2))
