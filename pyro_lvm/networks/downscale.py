"""A smaller version of a datum, by a fixed rule."""

from collections.abc import Sequence
from typing import final

from torch import Tensor

from pyro_lvm.configuration import Part
from pyro_lvm.networks.inputs import checked_input
from pyro_lvm.sizes import check_sizes, checked_shape


@final
class Downscale(Part):
    r"""$d(x)_b = \lfloor \bar x_b + \tfrac12 \rfloor$: the mean of every block, rounded to the nearest level.

    Blocks are squares of the last two dimensions, every channel for itself, or stretches of a vector. A half is rounded
    up, so that of zeros and ones the majority wins, and one in a draw. The result has the datum's own levels, and no
    parameter takes part.

    Args:
        in_shape: shape of a datum (an int D is the shape (D,)).
        factor: side of a block, f.

    Attributes:
        out_shape: shape of the result, H / f for every H.

    Shapes:
        (..., *in_shape) to (..., *out_shape).

    Raises:
        ValueError: where a size is less than 1, `factor` less than 2, or not a divisor of the sizes, or the input is of
            another shape.

    Example:
        >>> import torch
        >>> down = Downscale((2, 4), 2)
        >>> down(torch.tensor([[0.0, 3.0, 0.0, 0.0], [1.0, 2.0, 0.0, 1.0]]))
        tensor([[2., 0.]])
    """

    def __init__(self, in_shape: int | Sequence[int], factor: int = 2) -> None:
        super().__init__()
        self.in_shape, self.factor = checked_shape(in_shape, "in_shape"), factor
        check_sizes(factor=factor)
        if factor < 2 or not self.in_shape:
            raise ValueError(
                f"'factor' is the side of a block that becomes one value and must be at least 2, of data of at least "
                f"one dimension: not {factor} of data of shape {self.in_shape}."
            )
        self._sides = (factor,) * min(2, len(self.in_shape))
        channels, sizes = self.in_shape[: -len(self._sides)], self.in_shape[-len(self._sides) :]
        if any(size % factor for size in sizes):
            raise ValueError(
                f"'factor' must divide the data's {' by '.join(map(str, sizes))} values evenly, but is {factor}: give "
                "another, or pad the data."
            )
        self.out_shape = (*channels, *(size // factor for size in sizes))

    def forward(self, x: Tensor) -> Tensor:
        """Maps (..., *in_shape) to (..., *out_shape)."""
        leading = checked_input(x, self.in_shape, "x").shape[: x.dim() - len(self.in_shape)]
        sizes = self.out_shape[-len(self._sides) :]
        blocks = x.double().reshape(-1, *(n for pair in zip(sizes, self._sides, strict=True) for n in pair))
        # From sums, of whole numbers exact in double precision: a half must not be rounded before its time.
        count = self.factor ** len(self._sides)
        sums = blocks.sum([2 * d + 2 for d in range(len(sizes))])
        return ((2 * sums + count) / (2 * count)).floor().to(x.dtype).reshape(*leading, *self.out_shape)
