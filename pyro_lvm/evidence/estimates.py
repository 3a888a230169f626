"""What estimates of log p(x), one per datum, have in common."""

from collections.abc import Callable
from math import log

import torch
from torch import Tensor

from pyro_lvm.objectives.table import Table

__all__ = ["Estimates", "of_each_datum"]


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


def of_each_datum(table: Table, x: Tensor, read: Callable[[Table], Tensor], what: str) -> Tensor:
    """What is read of the latents that each datum has of its own, (K, *common plates), as (K, B).

    Raises:
        ValueError: for programs without a data plate over x, or that subsample it themselves.
    """
    local = table.without_global_latents()
    if not any(dim == -1 for _, dim in local.common_plates):
        raise ValueError(
            f"the programs have no plate at dim -1 around all data and their latents, so there is no {what} per datum: "
            "put both under `pyro.plate('data', len(x), dim=-1)`."
        )
    values = read(local)
    values = values.flatten(1, -2).sum(1) if values.dim() > 2 else values
    if values.shape[-1] != len(x):
        raise ValueError(
            f"the programs' data plate has {values.shape[-1]} elements for {len(x)} data: programs that subsample by "
            f"themselves have no {what} per datum; let them take minibatches through 'x' and 'size'."
        )
    return values
