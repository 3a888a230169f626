"""A diffusion's condition: the small version of a datum."""

from typing import final

from torch import Tensor, nn

from pyro_lvm.diffusion.conditions import Condition
from pyro_lvm.networks import Downscale

__all__ = ["Downscaled"]


@final
class Downscaled(Condition):
    r"""A small version of a datum, $y = d(x)$, as what a diffusion is conditioned on: $c = (y - \mathrm{centre}) /
    \mathrm{spread}$.

    Programs take data as they are: y is a function of them. To draw data without one, y comes from a model of its own.

    Args:
        downscale: d.
        coarse: () to the distribution of y, such as `priors.MixtureOfLevels`.
        centre, spread: in the data's units: they bring y to about [−1, 1].

    Raises:
        ValueError: where `spread` is not positive.

    References:
        Saharia et al. (2021), Image Super-Resolution via Iterative Refinement.

    Example:
        >>> import torch
        >>> from pyro_lvm.networks import Downscale
        >>> from pyro_lvm.priors import MixtureOfLevels
        >>> condition = Downscaled(Downscale((4, 4), 2), MixtureOfLevels((2, 2), 3, 5), centre=1.0)
        >>> condition.split(torch.full((7, 4, 4), 2.0))[1][0]
        tensor([[1., 1.],
                [1., 1.]])
    """

    def __init__(self, downscale: Downscale, coarse: nn.Module, centre: float = 0.0, spread: float = 1.0) -> None:
        super().__init__()
        if not spread > 0:
            raise ValueError(f"'spread' is the data's and must be positive, not {spread}.")
        self.downscale, self.coarse, self.centre, self.spread = downscale, coarse, centre, spread
        self.shape = downscale.out_shape

    def split(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The data themselves, (..., *data_shape), and c, (..., *shape)."""
        return x, self.of(self.downscale(x))

    def of(self, y: Tensor) -> Tensor:
        """c of small versions, both (..., *shape)."""
        return (y - self.centre) / self.spread

    def draw(self, n: int, like: Tensor) -> Tensor:
        """c of small versions from their own model, (n, *shape)."""
        y: Tensor = self.coarse().sample((n,))
        return self.of(y).to(like)
