"""A mixture over arrays of levels: a small model of small pictures."""

from collections.abc import Sequence
from math import expm1, log
from typing import final

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from pyro_lvm.configuration import Part
from pyro_lvm.distributions import DiscretizedLogistic
from pyro_lvm.distributions.mixture import Mixture, mixture
from pyro_lvm.sizes import check_sizes, checked_shape

__all__ = ["MixtureOfLevels"]

_SMALLEST = 0.05  # scale of a component, in levels: below it one level has all of the probability


@final
class MixtureOfLevels(Part):
    r"""$p(y) = \sum_k w_k \prod_d \mathrm{DL}(y_d \mid \mu_{kd}, s_{kd})$ for ordered levels 0 to L − 1.

    The mixture is over whole arrays, each component a product of logistic variables that are rounded to levels; see
    `pyro_lvm.distributions.DiscretizedLogistic`. Locations are spread at random to begin with, or start at data.

    Args:
        shape: shape of an array.
        levels: L.
        components: K.

    Shapes:
        () to a distribution with event shape `shape`.

    Raises:
        ValueError: where a size is less than 1, or `levels` < 2.

    References:
        Salimans et al. (2017), PixelCNN++.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> prior = MixtureOfLevels((2, 2), levels=5, components=3)
        >>> prior().sample((7,)).shape, prior().log_prob(torch.zeros(7, 2, 2)).shape
        (torch.Size([7, 2, 2]), torch.Size([7]))
    """

    def __init__(self, shape: int | Sequence[int], levels: int, components: int = 50) -> None:
        super().__init__()
        self.shape, self.levels = checked_shape(shape, "shape"), levels
        check_sizes(levels=levels, components=components)
        if levels < 2:
            raise ValueError(f"'levels' is the number of values of an entry and must be at least 2, not {levels}.")
        self.logits = nn.Parameter(torch.zeros(components))
        self.loc = nn.Parameter((levels - 1) * torch.rand(components, *self.shape))
        raw = log(expm1(0.1 * levels))  # a tenth of the range
        self.raw_scale = nn.Parameter(torch.full((components, *self.shape), raw))

    def start_from(self, y: Tensor) -> None:
        """Puts the locations at arrays, (K, *shape).

        Raises:
            ValueError: for arrays of another number or shape.
        """
        if y.shape != self.loc.shape:
            raise ValueError(
                f"'y' must hold one array for each component, of shape {tuple(self.loc.shape)} in all, not "
                f"{tuple(y.shape)}."
            )
        with torch.no_grad():
            self.loc.copy_(y)

    def forward(self) -> Mixture:
        """The distribution of y, event shape `shape`."""
        n, scale = len(self.shape), softplus(self.raw_scale) + _SMALLEST

        def component(k: Tensor) -> DiscretizedLogistic:
            return DiscretizedLogistic(self.loc[k], scale[k], self.levels).to_event(n)

        whole = DiscretizedLogistic(self.loc, scale, self.levels).to_event(n)
        return mixture(whole, component, self.logits.log_softmax(-1))
