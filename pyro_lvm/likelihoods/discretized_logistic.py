"""The likelihood of ordered levels."""

from collections.abc import Sequence

from pyro.distributions import TorchDistribution
from torch import Tensor, nn
from torch.nn.functional import softplus

from pyro_lvm import distributions
from pyro_lvm.likelihoods.scales import Scaled
from pyro_lvm.sizes import checked_levels

# Of the range that the levels span, −1 to 1. The least keeps a level that no datum had from costing a million nats.
_MINIMUM_SCALE = 1e-3
_RAW_FIRST_SCALE = -1.5077  # softplus gives 0.2


class DiscretizedLogistic(Scaled):
    r"""$p(x \mid z) = \prod_d p(x_d \mid \mu_d(z), s_d)$, logistic variables rounded to the levels 0 to L − 1.

    Unlike `Categorical` it knows that levels have an order, and needs one number per value for it. Locations and scales
    are in units in which the levels span −1 to 1; a learned scale starts at 0.2. See
    `pyro_lvm.distributions.DiscretizedLogistic`.

    Args:
        net: μ, from (..., M) to (..., *shape) or flat.
        levels: L.
        scale: where s comes from: a positive number fixes it; `"shared"` learns one number; `"per_dimension"` learns
            one for every value of x and needs `shape`; `"predicted"` lets the network give it too, through a softplus,
            as the second half of its last dimension (with `shape`, of its flat output).
        shape: shape of a datum; the network's output's where left out.

    Raises:
        ValueError: where `levels` < 2, `scale` is none of these, or `shape` is missing.

    References:
        Kingma et al. (2016), Improved Variational Inference with Inverse Autoregressive Flow, section 6. Salimans et
        al. (2017), PixelCNN++.

    Example:
        >>> import torch
        >>> _ = torch.manual_seed(0)
        >>> p = DiscretizedLogistic(nn.Linear(2, 6), levels=17, shape=(2, 3))(torch.zeros(5, 2))
        >>> p.log_prob(torch.full((5, 2, 3), 16.0)).shape
        torch.Size([5])
    """

    def __init__(
        self, net: nn.Module, levels: int, scale: float | str = "shared", shape: Sequence[int] | None = None
    ) -> None:
        super().__init__(net, scale, shape, start=0.0)
        self.levels = checked_levels(levels)

    def positive(self, raw: Tensor) -> Tensor:
        """s from a free number."""
        return logistic_scale(raw)

    def forward(self, z: Tensor) -> TorchDistribution:
        """p(x | z), batch shape z.shape[:-1]."""
        loc, scale = self.read(z)  # (..., *shape)
        half = 0.5 * (self.levels - 1)
        density = distributions.DiscretizedLogistic(half * (loc + 1), half * scale, self.levels)
        return density.to_event(loc.dim() - z.dim() + 1)


def logistic_scale(raw: Tensor) -> Tensor:
    """A logistic variable's scale from a free number, of which 0 stands for 0.2."""
    return softplus(raw + _RAW_FIRST_SCALE) + _MINIMUM_SCALE
