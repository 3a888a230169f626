"""Networks of dense residual blocks."""

from typing import final

import torch
from torch import Tensor, nn

from pyro_lvm.configuration import Part
from pyro_lvm.sizes import check_sizes

__all__ = ["ResidualBlock", "start_small"]


def start_small(last: nn.Linear | nn.Conv2d) -> None:
    """Shrinks the weights of a residual block's last layer to a tenth.

    A deep stack of blocks then starts near the identity, while a gradient still reaches everything in them.
    """
    with torch.no_grad():
        last.weight *= 0.1


@final
class ResidualBlock(Part):
    r"""$x + W_2\, h(W_1\, h(x) + b_1) + b_2$, which starts near the identity.

    Args:
        features: of x.
        hidden_features: between the two layers; `features` where left out.

    Shapes:
        (..., features) to the same.

    Raises:
        ValueError: where a size is less than 1.

    References:
        He et al. (2016), Identity Mappings in Deep Residual Networks.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> ResidualBlock(4)(torch.zeros(7, 5, 4)).shape
        torch.Size([7, 5, 4])
    """

    def __init__(self, features: int, hidden_features: int | None = None) -> None:
        super().__init__()
        hidden = features if hidden_features is None else hidden_features
        check_sizes(features=features, hidden_features=hidden)
        last = nn.Linear(hidden, features)
        start_small(last)
        self.layers = nn.Sequential(nn.SiLU(), nn.Linear(features, hidden), nn.SiLU(), last)

    def forward(self, x: Tensor) -> Tensor:
        """The vectors, and what the block adds to them."""
        out: Tensor = self.layers(x)
        return x + out
