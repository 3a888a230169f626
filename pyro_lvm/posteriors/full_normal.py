"""The normal posterior with a full covariance."""

from math import isqrt

import pyro.distributions as dist
from pyro.distributions import TorchDistribution
from torch import Tensor, nn

from pyro_lvm.configuration import Part
from pyro_lvm.posteriors.scales import lower_triangular


class FullNormal(Part):
    r"""$q(z \mid x) = \mathcal N(z \mid \mu(x), L(x) L(x)^\top)$, L lower triangular with a positive diagonal.

    Args:
        net: from (..., *data_shape) to (..., M + M(M+1)/2): μ, then L row by row.

    Raises:
        ValueError: where the network gives a number of values that no M fits.

    Example:
        >>> import torch
        >>> _ = torch.manual_seed(0)
        >>> FullNormal(nn.Linear(5, 2 + 3))(torch.zeros(7, 5)).event_shape
        torch.Size([2])
    """

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> TorchDistribution:
        """q(z | x), event shape (M,)."""
        out = self.net(x)
        latent_dim = _latent_dim(out.shape[-1])
        mu, raw = out.split((latent_dim, out.shape[-1] - latent_dim), dim=-1)
        return dist.MultivariateNormal(mu, scale_tril=lower_triangular(raw, latent_dim))


def _latent_dim(features: int) -> int:
    latent_dim = (isqrt(9 + 8 * features) - 3) // 2  # the root of M + M(M+1)/2 = features
    if latent_dim < 1 or latent_dim + latent_dim * (latent_dim + 1) // 2 != features:
        raise ValueError(
            f"a full normal needs M + M(M+1)/2 values from its network (5 for M = 2, 9 for M = 3); it gives {features}."
        )
    return latent_dim
