"""The level that a number lies in."""

from typing import Any

import torch
from pyro.distributions import TorchDistribution
from torch import Size, Tensor
from torch.distributions import constraints

from pyro_lvm.sizes import checked_levels


class KnownLevel(TorchDistribution):
    r"""$p(k \mid z) = [k = \lfloor z \rfloor]$ for levels 0 to L − 1: certain, the outer levels reach to infinity.

    Args:
        z: any number, (...).
        levels: L.

    Raises:
        ValueError: where `levels` < 2.

    References:
        Theis, van den Oord & Bethge (2016), A Note on the Evaluation of Generative Models.

    Example:
        >>> p = KnownLevel(torch.tensor([-7.0, 1.5, 99.0]), levels=4)
        >>> p.sample().tolist(), p.log_prob(torch.tensor([0.0, 1.0, 2.0])).tolist()
        ([0.0, 1.0, 3.0], [0.0, 0.0, -inf])
    """

    arg_constraints = {"z": constraints.real}  # noqa: RUF012

    def __init__(self, z: Tensor, levels: int, validate_args: bool | None = None) -> None:
        self.z, self.levels = z, checked_levels(levels)
        super().__init__(z.shape, validate_args=validate_args)

    @constraints.dependent_property(is_discrete=True, event_dim=0)
    def support(self) -> Any:
        """The levels."""
        return constraints.integer_interval(0, self.levels - 1)

    @property
    def mean(self) -> Tensor:
        """The level itself, (...)."""
        return self.z.detach().floor().clamp(0, self.levels - 1)

    def expand(self, batch_shape: Any, _instance: Any = None) -> "KnownLevel":
        """The same distribution for a larger batch."""
        return KnownLevel(self.z.expand(batch_shape), self.levels, validate_args=False)

    def sample(self, sample_shape: Any = Size()) -> Tensor:  # noqa: B008  # PyTorch's own signature
        """The level, (*sample_shape, ...)."""
        return self.mean.expand(self._extended_shape(sample_shape)).clone()

    def log_prob(self, value: Tensor) -> Tensor:
        """0 or −∞, (...), nats."""
        if self._validate_args:
            self._validate_sample(value)
        impossible = torch.full((), -torch.inf, dtype=self.z.dtype, device=self.z.device)
        return torch.where(value == self.mean, torch.zeros_like(impossible), impossible)
