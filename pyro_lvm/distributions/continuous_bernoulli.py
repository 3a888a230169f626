"""The continuous Bernoulli with a normaliser that holds for every logit."""

from typing import Any

import torch
from pyro.distributions import TorchDistribution
from torch import Size, Tensor
from torch.distributions import constraints

# Below this |η| series are used, which leave out at most η⁶/181440 of log Z, |η|³/192 of a draw, |η|³/720 of a mean.
_SMALL = 0.02


class ContinuousBernoulli(TorchDistribution):
    r"""$p(x) = e^{\eta x} / Z(\eta)$ on [0, 1], $Z(\eta) = (e^\eta - 1)/\eta$.

    PyTorch's own (2.13) takes its normaliser and its draws from a probability that is clamped away from 0 and 1. In
    single precision it integrates to 0.94 at |η| = 17, 0.80 at 20 and 0.16 at 100, and its draws stay where they are at
    16; in double precision the same begins at 37. It takes every |η| < 0.004 for 0 when it draws.

    Args:
        logits: η, (...).

    References:
        Loaiza-Ganem & Cunningham (2019), The Continuous Bernoulli: Fixing a Pervasive Error in Variational
        Autoencoders.

    Example:
        >>> ContinuousBernoulli(torch.tensor([-100.0, 0.0, 100.0])).mean
        tensor([0.0100, 0.5000, 0.9900])
    """

    arg_constraints = {"logits": constraints.real}  # noqa: RUF012
    support = constraints.unit_interval
    has_rsample = True

    def __init__(self, logits: Tensor, validate_args: bool | None = None) -> None:
        self.logits = logits
        super().__init__(logits.shape, validate_args=validate_args)

    def expand(self, batch_shape: Any, _instance: Any = None) -> "ContinuousBernoulli":
        """The same distribution for a larger batch."""
        return ContinuousBernoulli(self.logits.expand(batch_shape), validate_args=False)

    @property
    def mean(self) -> Tensor:
        """E[x] = 1/(1 − exp(−η)) − 1/η, (...)."""
        small, size = self._sizes()
        # Of the distance from the end where the density is lowest.
        far = torch.where(small, 0.5 + self._size() / 12, 1 + 1 / torch.expm1(size) - 1 / size)
        return torch.where(self.logits < 0, 1 - far, far)

    def rsample(self, sample_shape: Any = Size()) -> Tensor:  # noqa: B008
        """Draws (*sample_shape, ...), by the inverse of the distribution function."""
        shape = self._extended_shape(sample_shape)
        u = torch.rand(shape, dtype=self.logits.dtype, device=self.logits.device)
        small, size = self._sizes()
        # The distance from the end where the density is highest.
        exact = -torch.log1p(u * torch.expm1(-size)) / size
        a = torch.where(small, self._size(), 0.0)
        series = u * (1 - (1 - u) * a * (0.5 - (1 - 2 * u) * a / 6))
        distance = torch.where(small, series, exact)
        return torch.where(self.logits < 0, distance, 1 - distance)

    def log_prob(self, value: Tensor) -> Tensor:
        """log p(x), (...), nats."""
        if self._validate_args:
            self._validate_sample(value)
        small, size = self._sizes()
        # p(x) = exp(−|η| d) / Z(−|η|), with d the distance from the end where the density is highest: nothing cancels.
        distance = torch.where(self.logits < 0, value, 1 - value)
        exact = (-torch.expm1(-size)).log() - size.log()
        a = torch.where(small, self._size(), 0.0)
        series = a * (-0.5 + a * (1 / 24 - a.square() / 2880))
        return -self._size() * distance - torch.where(small, series, exact)

    def _size(self) -> Tensor:
        """|η|, with the derivative 1 at 0, where that of `abs` is 0: there the upper end counts as the denser one."""
        return torch.where(self.logits < 0, -self.logits, self.logits)

    def _sizes(self) -> tuple[Tensor, Tensor]:
        """Where |η| is small, and |η|, 1 where it is: neither branch may be infinite, or its gradient is NaN."""
        size = self._size()
        small = size < _SMALL
        return small, torch.where(small, 1.0, size)
