"""The likelihood of levels without an order."""

from collections.abc import Sequence

import pyro.distributions as dist
from pyro.distributions import TorchDistribution
from torch import Tensor, nn

from pyro_lvm.configuration import Part
from pyro_lvm.likelihoods.shapes import checked, shaped
from pyro_lvm.sizes import checked_levels


class Categorical(Part):
    r"""$p(x \mid z) = \prod_d \mathrm{Categorical}(x_d \mid \mathrm{softmax}(f_d(z)))$, for levels 0 to L − 1.

    The network gives L logits for every value of x; the levels have no order for it.

    Args:
        net: f, from (..., M) to (..., *shape, L) or flat, (..., D·L).
        levels: L.
        shape: shape of a datum; where left out, (D,) for a flat output, else the network's.

    Raises:
        ValueError: where `levels` < 2, or the network's output is not a multiple of it.

    Example:
        >>> import torch
        >>> _ = torch.manual_seed(0)
        >>> p = Categorical(nn.Linear(2, 6 * 17), levels=17, shape=(2, 3))(torch.zeros(5, 2))
        >>> p.log_prob(torch.full((5, 2, 3), 16.0)).shape
        torch.Size([5])
    """

    def __init__(self, net: nn.Module, levels: int, shape: Sequence[int] | None = None) -> None:
        super().__init__()
        self.net, self.levels, self.shape = net, checked_levels(levels), checked(shape)

    def forward(self, z: Tensor) -> TorchDistribution:
        """p(x | z), batch shape z.shape[:-1]."""
        logits = self.net(z)
        if self.shape is None and logits.shape[-1] != self.levels:
            if logits.shape[-1] % self.levels:
                raise ValueError(
                    f"the network gives {logits.shape[-1]} numbers per datum, which is no multiple of 'levels' = "
                    f"{self.levels}: it must give 'levels' logits for every value."
                )
            logits = logits.unflatten(-1, (-1, self.levels))
        logits = shaped(logits, z, self.shape, (self.levels,))  # (..., *shape, L)
        return dist.Categorical(logits=logits).to_event(logits.dim() - z.dim())
