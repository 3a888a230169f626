"""The diagonal normal posterior."""

import pyro.distributions as dist
from pyro.distributions import TorchDistribution
from torch import Tensor, nn

from pyro_lvm.configuration import Part
from pyro_lvm.posteriors.scales import positive


class DiagonalNormal(Part):
    r"""$q(z \mid x) = \prod_m \mathcal N(z_m \mid \mu_m(x), \sigma_m(x)^2)$, σ by a softplus.

    Args:
        net: from (..., *data_shape) to (..., 2M): μ, then the raw σ.

    Raises:
        ValueError: where the network gives an odd number of values.

    References:
        Kingma & Welling (2014), Auto-Encoding Variational Bayes.

    Example:
        >>> import torch
        >>> _ = torch.manual_seed(0)
        >>> DiagonalNormal(nn.Linear(5, 4))(torch.zeros(7, 5)).event_shape
        torch.Size([2])
    """

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> TorchDistribution:
        """q(z | x), event shape (M,)."""
        out = self.net(x)  # (..., 2M)
        if out.shape[-1] % 2:
            raise ValueError(
                f"a diagonal normal needs 2M values from its network, M means and M scales; it gives {out.shape[-1]}."
            )
        mu, raw = out.chunk(2, dim=-1)
        return dist.Normal(mu, positive(raw)).to_event(1)
