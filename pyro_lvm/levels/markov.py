"""The level of a chain."""

from typing import final

from pyro.distributions import TorchDistribution
from torch import Tensor, nn

from pyro_lvm.levels.level import Level, normal, state_above


@final
class MarkovLevel(Level):
    r"""$p(z_l \mid z_{l+1}) = \mathcal N(\mu(z_{l+1}), \sigma(z_{l+1})^2)$, $h_l = z_l$: nothing below reads past it.

    Args:
        net: from the state above (..., H) to (..., 2M): μ, then the raw σ.

    Raises:
        ValueError: where there is no state above, or the network gives an odd number of values.

    References:
        Burda, Grosse & Salakhutdinov (2016), Importance Weighted Autoencoders. Sønderby et al. (2016), Ladder
        Variational Autoencoders.

    Example:
        >>> import torch
        >>> _ = torch.manual_seed(0)
        >>> level = MarkovLevel(nn.Linear(2, 6))
        >>> level.conditional(torch.zeros(5, 2)).shape()
        torch.Size([5, 3])
    """

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def conditional(self, h: Tensor | None) -> TorchDistribution:
        """p(z_l | z_{l+1}), event shape (M,)."""
        return normal(self.net(state_above(h)))

    def state(self, h: Tensor | None, z: Tensor) -> Tensor:
        """z_l itself."""
        return z
