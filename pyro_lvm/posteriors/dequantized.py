"""The posterior of a number that was rounded down."""

from collections.abc import Sequence
from typing import Any, final

import torch
from pyro.distributions import TorchDistribution
from torch import Size, Tensor
from torch.distributions import constraints

from pyro_lvm.configuration import Part
from pyro_lvm.networks.inputs import checked_input
from pyro_lvm.sizes import checked_shape


class Dequantized(Part):
    r"""$q(z \mid x) = \prod_d \mathcal U(z_d \mid [x_d, x_d + 1))$: the datum and noise, of density 1; for `Floor`.

    It has no parameters. The bound on log p(x) is $E[\log p(x + u)]$, and the gap what p(z) varies within a cell;
    importance weights close it.

    Args:
        shape: shape of a datum, D values in all (an int D is the shape (D,)); M = D.

    Raises:
        ValueError: where a size is less than 1, or a datum is of another shape.

    References:
        Theis, van den Oord & Bethge (2016), A Note on the Evaluation of Generative Models.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> z = Dequantized((2, 2))(torch.tensor([[[0.0, 16.0], [3.0, 1.0]]])).rsample()
        >>> z.floor()
        tensor([[ 0., 16.,  3.,  1.]])
    """

    def __init__(self, shape: int | Sequence[int]) -> None:
        super().__init__()
        self.shape = checked_shape(shape, "shape")

    def forward(self, x: Tensor) -> TorchDistribution:
        """q(z | x), event shape (D,)."""
        return _Cell(checked_input(x, self.shape, "x").flatten(-len(self.shape))).to_event(1)


@final
class _Cell(TorchDistribution):
    """Uniform on [low, low + 1); PyTorch's own draws the end of an interval where the sum is rounded to it."""

    arg_constraints = {"low": constraints.real}  # noqa: RUF012
    has_rsample = True

    def __init__(self, low: Tensor, validate_args: bool | None = None) -> None:
        self.low = low
        super().__init__(low.shape, validate_args=validate_args)

    @constraints.dependent_property(is_discrete=False, event_dim=0)
    def support(self) -> Any:
        return constraints.half_open_interval(self.low, self.low + 1)

    @property
    def mean(self) -> Tensor:
        return self.low + 0.5

    def expand(self, batch_shape: Any, _instance: Any = None) -> "_Cell":
        return _Cell(self.low.expand(batch_shape), validate_args=False)

    def rsample(self, sample_shape: Any = Size()) -> Tensor:  # noqa: B008
        noise = torch.rand(self._extended_shape(sample_shape), dtype=self.low.dtype, device=self.low.device)
        return torch.minimum(self.low + noise, torch.nextafter(self.low + 1, self.low))

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        inside = (value >= self.low) & (value < self.low + 1)
        return torch.where(inside, torch.zeros_like(value), torch.full_like(value, -torch.inf))
