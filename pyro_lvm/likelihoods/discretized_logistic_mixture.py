"""The likelihood of ordered levels with several modes."""

from collections.abc import Sequence

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor, nn

from pyro_lvm import distributions
from pyro_lvm.configuration import Part
from pyro_lvm.likelihoods.discretized_logistic import logistic_scale
from pyro_lvm.likelihoods.shapes import checked, shaped
from pyro_lvm.sizes import check_sizes, checked_levels


class DiscretizedLogisticMixture(Part):
    r"""$p(x \mid z) = \prod_d \sum_c \pi_{dc}(z)\, p(x_d \mid \mu_{dc}(z), s_{dc}(z))$ for levels 0 to L − 1.

    A mixture of C logistic variables for every value, rounded; see `pyro_lvm.distributions.DiscretizedLogisticMixture`.
    Locations and scales are in units in which the levels span −1 to 1. The network gives, for every value, C logits, C
    locations relative to points that divide this range evenly, and C raw scales, of which 0 stands for 0.2.

    Args:
        net: from (..., M) to (..., *shape, 3C) or flat, (..., D·3C).
        levels: L.
        components: C.
        shape: shape of a datum; where left out, (D,) for a flat output, else the network's.

    Raises:
        ValueError: where `levels` < 2, `components` < 1, or the network's output is not a multiple of 3C.

    References:
        Salimans et al. (2017), PixelCNN++.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> p = DiscretizedLogisticMixture(nn.Linear(2, 6 * 9), 17, components=3, shape=(2, 3))(torch.zeros(5, 2))
        >>> p.log_prob(torch.full((5, 2, 3), 16.0)).shape
        torch.Size([5])
    """

    def __init__(self, net: nn.Module, levels: int, components: int, shape: Sequence[int] | None = None) -> None:
        super().__init__()
        check_sizes(components=components)
        self.net, self.levels, self.components = net, checked_levels(levels), components
        self.shape = checked(shape)

    def forward(self, z: Tensor) -> TorchDistribution:
        """p(x | z), batch shape z.shape[:-1]."""
        C, out = self.components, self.net(z)
        if self.shape is None and out.shape[-1] != 3 * C:
            if out.shape[-1] % (3 * C):
                raise ValueError(
                    f"the network gives {out.shape[-1]} numbers per datum, which is no multiple of 3 · 'components' = "
                    f"{3 * C}: it must give a logit, a location and a scale of each component for every value."
                )
            out = out.unflatten(-1, (-1, 3 * C))
        logits, loc, raw_scale = shaped(out, z, self.shape, (3 * C,)).chunk(3, dim=-1)  # (..., *shape, C)
        points = (2 * torch.arange(C, dtype=loc.dtype, device=loc.device) + 1) / C - 1
        half = 0.5 * (self.levels - 1)
        density = distributions.DiscretizedLogisticMixture(
            logits, half * (loc + points + 1), half * logistic_scale(raw_scale), self.levels
        )
        return density.to_event(loc.dim() - z.dim())
