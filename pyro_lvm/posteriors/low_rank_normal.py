"""The normal posterior with a low-rank covariance beside its diagonal."""

import pyro.distributions as dist
from pyro.distributions import TorchDistribution
from torch import Tensor, nn

from pyro_lvm.posteriors.heads import Headed


class LowRankNormal(Headed):
    r"""$q(z \mid x) = \mathcal N(z \mid \mu(x), \mathrm{diag}\, \sigma(x)^2 + F(x) F(x)^\top)$, F of a few columns.

    Args:
        net: from (..., *data_shape) to features (..., features).
        features: how many features the network gives.
        latent_dim: M.
        rank: columns of F, 1 to M.

    Raises:
        ValueError: for a rank outside 1 to M, or a network that gives another number of features.

    References:
        Rezende, Mohamed & Wierstra (2014), Stochastic Backpropagation and Approximate Inference in Deep Generative
        Models, section 4.3.

    Example:
        >>> import torch
        >>> _ = torch.manual_seed(0)
        >>> LowRankNormal(nn.Linear(5, 8), features=8, latent_dim=3, rank=1)(torch.zeros(7, 5)).event_shape
        torch.Size([3])
    """

    def __init__(self, net: nn.Module, features: int, latent_dim: int, rank: int) -> None:
        if not 1 <= rank <= latent_dim:
            raise ValueError(f"'rank' must lie between 1 and 'latent_dim' = {latent_dim}, not {rank}.")
        super().__init__(net, features, latent_dim, latent_dim * rank)
        self.rank = rank

    def forward(self, x: Tensor) -> TorchDistribution:
        """q(z | x), event shape (M,)."""
        mu, sigma, rest = self.read(self.encoded(x))
        factor = rest.unflatten(-1, (self.latent_dim, self.rank))
        return dist.LowRankMultivariateNormal(mu, factor, sigma.square())
