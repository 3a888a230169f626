"""The top of a hierarchy."""

from typing import final

from pyro.distributions import TorchDistribution
from torch import Tensor, nn

from pyro_lvm.levels.level import Level


@final
class TopLevel(Level):
    r"""$p(z_L)$, $h_L = f(z_L)$: a prior, and what is read of a draw from it.

    Args:
        prior: () to the distribution of z_L, one of `pyro_lvm.priors`; `guides.TopDown` needs a diagonal normal.
        net: f, from (..., M) to the state (..., H); `nn.Identity()` where the state is z_L itself.

    Raises:
        ValueError: where it is given a state, that is, stands below another level.

    Example:
        >>> import torch
        >>> from pyro_lvm import priors
        >>> level = TopLevel(priors.StandardNormal(2), nn.Identity())
        >>> level.state(None, torch.zeros(5, 2)).shape
        torch.Size([5, 2])
    """

    def __init__(self, prior: nn.Module, net: nn.Module) -> None:
        super().__init__()
        self.prior, self.net = prior, net

    def conditional(self, h: Tensor | None) -> TorchDistribution:
        """p(z_L), event shape (M,)."""
        if h is not None:
            raise ValueError("a `TopLevel` reads no level above it: it can only be the last of 'levels'.")
        p: TorchDistribution = self.prior()
        return p

    def state(self, h: Tensor | None, z: Tensor) -> Tensor:
        """h_L, (..., H)."""
        out: Tensor = self.net(z)
        return out
