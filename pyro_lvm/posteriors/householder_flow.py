"""The normal posterior that reflections turn."""

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor, nn

from pyro_lvm.posteriors.heads import Headed, flow
from pyro_lvm.sizes import check_sizes
from pyro_lvm.transforms import HouseholderTransform


class HouseholderFlow(Headed):
    r"""A diagonal normal after T Householder reflections: a normal whose covariance is full.

    $z \leftarrow z - 2 v_t (v_t^\top z) / \lVert v_t \rVert^2$ with $v_t = A_t v_{t-1} + a_t$ and $v_0 = h(x)$, the
    encoder's features. With T = M its covariance can be any. To begin with all $v_t$ are the same, so that an even T
    starts as the diagonal normal and an odd one as its mirror image.

    Args:
        net: from (..., *data_shape) to features (..., features).
        features: how many features the network gives.
        latent_dim: M.
        reflections: T.

    Raises:
        ValueError: where `reflections` < 1, or the network gives another number of features.

    References:
        Tomczak & Welling (2016), Improving Variational Auto-Encoders using Householder Flow.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> HouseholderFlow(nn.Linear(5, 8), features=8, latent_dim=3, reflections=2)(torch.zeros(7, 5)).event_shape
        torch.Size([3])
    """

    def __init__(self, net: nn.Module, features: int, latent_dim: int, reflections: int) -> None:
        check_sizes(reflections=reflections)
        super().__init__(net, features, latent_dim, 0)
        self.first = nn.Linear(features, latent_dim)
        others = [nn.Linear(latent_dim, latent_dim) for _ in range(reflections - 1)]
        for linear in others:
            nn.init.eye_(linear.weight)
            nn.init.zeros_(linear.bias)
        self.others = nn.ModuleList(others)

    def forward(self, x: Tensor) -> TorchDistribution:
        """q(z | x), event shape (M,)."""
        h = self.encoded(x)
        mu, sigma, _ = self.read(h)
        v = [self.first(h)]
        for linear in self.others:
            v.append(linear(v[-1]))
        return flow(mu, sigma, [HouseholderTransform(torch.stack(v, dim=-2), cache_size=1)])
