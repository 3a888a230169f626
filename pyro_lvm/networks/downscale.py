"""A smaller version of a datum, by a fixed rule."""

from collections.abc import Sequence
from typing import final

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, pad

from pyro_lvm.configuration import Part
from pyro_lvm.networks.inputs import checked_input
from pyro_lvm.sizes import check_sizes, checked_shape


@final
class Downscale(Part):
    r"""$d(x)_b = \lfloor \bar x_b + \tfrac12 \rfloor$: the mean of every block, rounded to the nearest level.

    Blocks are squares of the last two dimensions, every channel for itself, or stretches of a vector. Where their size
    does not divide the datum's, the last ones are smaller. A half is rounded up, so that of zeros and ones the majority
    wins, and one in a draw. The result has the datum's own levels, and no parameter takes part.

    Args:
        in_shape: shape of a datum (an int D is the shape (D,)).
        factor: side of a block, f.

    Attributes:
        out_shape: shape of the result, ⌈H / f⌉ for every H.

    Shapes:
        (..., *in_shape) to (..., *out_shape).

    Raises:
        ValueError: where a size is less than 1, `factor` less than 2, or the input is of another shape.

    Example:
        >>> down = Downscale((2, 4), 2)
        >>> down(torch.tensor([[0.0, 3.0, 0.0, 0.0], [1.0, 2.0, 0.0, 1.0]]))
        tensor([[2., 0.]])
    """

    count: Tensor

    def __init__(self, in_shape: int | Sequence[int], factor: int = 2) -> None:
        super().__init__()
        self.in_shape, self.factor = checked_shape(in_shape, "in_shape"), factor
        check_sizes(factor=factor)
        if factor < 2 or not self.in_shape:
            raise ValueError(
                f"'factor' is the side of a block that becomes one value and must be at least 2, of data of at least "
                f"one dimension: not {factor} of data of shape {self.in_shape}."
            )
        (count,) = self._sums(torch.ones(1, *self.in_shape))
        self.out_shape = tuple(count.shape)
        self.register_buffer("count", count, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Maps (..., *in_shape) to (..., *out_shape)."""
        leading = checked_input(x, self.in_shape, "x").shape[: x.dim() - len(self.in_shape)]
        sums = self._sums(x.reshape(-1, *self.in_shape).to(self.count.dtype))
        sums = sums.reshape(*leading, *self.out_shape)
        # From sums, of whole numbers exact in any precision: a mean that is a half must not be rounded before its time.
        return ((2 * sums + self.count) / (2 * self.count)).floor().to(x.dtype)

    def _sums(self, x: Tensor) -> Tensor:
        """The sums of all blocks of data (B, *in_shape)."""
        rows = 1 if len(self.in_shape) == 1 else self.factor
        planes = x.reshape(x.shape[0], -1, *((1,) if rows == 1 else ()), *self.in_shape[-2:])  # (B, C, H, W)
        missing = [-size % side for size, side in zip(planes.shape[-2:], (rows, self.factor), strict=True)]
        padded = pad(planes, (0, missing[1], 0, missing[0]))
        sums = avg_pool2d(padded, (rows, self.factor), divisor_override=1)
        return sums.reshape(x.shape[0], *self.in_shape[:-2], *sums.shape[-2:][-len(self.in_shape) :])
