"""The likelihood of zeros and ones."""

from collections.abc import Sequence

import pyro.distributions as dist
from pyro.distributions import TorchDistribution
from torch import Tensor, nn

from pyro_lvm.configuration import Part
from pyro_lvm.likelihoods.shapes import checked, shaped


class Bernoulli(Part):
    r"""$p(x \mid z) = \prod_d \mathrm{Bernoulli}(x_d \mid \sigma(f_d(z)))$, for data of zeros and ones.

    Grey levels scaled to [0, 1] are not its support: binarise them, or use `Categorical`.

    Args:
        net: f, from (..., M) to the logits, (..., *shape) or flat.
        shape: shape of a datum; the network's output's where left out.

    Example:
        >>> import torch
        >>> _ = torch.manual_seed(0)
        >>> p = Bernoulli(nn.Linear(2, 6), shape=(2, 3))(torch.zeros(5, 2))
        >>> p.batch_shape, p.event_shape
        (torch.Size([5]), torch.Size([2, 3]))
    """

    def __init__(self, net: nn.Module, shape: Sequence[int] | None = None) -> None:
        super().__init__()
        self.net, self.shape = net, checked(shape)

    def forward(self, z: Tensor) -> TorchDistribution:
        """p(x | z), batch shape z.shape[:-1]."""
        logits = shaped(self.net(z), z, self.shape, ())  # (..., *shape)
        return dist.Bernoulli(logits=logits).to_event(logits.dim() - z.dim() + 1)
