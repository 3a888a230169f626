"""Planar flows as a posterior."""

from pyro.distributions import TorchDistribution
from torch import Tensor, nn

from pyro_lvm.posteriors.heads import Headed, flow
from pyro_lvm.sizes import check_sizes
from pyro_lvm.transforms import PlanarTransform


class PlanarFlow(Headed):
    r"""A diagonal normal after planar flows, $z \leftarrow z + \hat u \tanh(w^\top z + b)$.

    All numbers are given by the encoder: $2M + F (2M + 1)$ for F flows.

    Args:
        net: from (..., *data_shape) to features (..., features).
        features: how many features the network gives.
        latent_dim: M.
        flows: F.

    Raises:
        ValueError: where a size is below 1, or the network gives another number of features.

    References:
        Rezende & Mohamed (2015), Variational Inference with Normalizing Flows.

    Example:
        >>> import torch
        >>> _ = torch.manual_seed(0)
        >>> PlanarFlow(nn.Linear(5, 8), features=8, latent_dim=3, flows=4)(torch.zeros(7, 5)).event_shape
        torch.Size([3])
    """

    def __init__(self, net: nn.Module, features: int, latent_dim: int, flows: int) -> None:
        check_sizes(flows=flows)
        super().__init__(net, features, latent_dim, flows * (2 * latent_dim + 1))
        self.flows = flows

    def forward(self, x: Tensor) -> TorchDistribution:
        """q(z | x), event shape (M,)."""
        mu, sigma, rest = self.read(self.encoded(x))
        numbers = rest.unflatten(-1, (self.flows, -1))  # (..., F, 2M + 1)
        u, w, b = numbers.tensor_split((self.latent_dim, 2 * self.latent_dim), dim=-1)
        parts = zip(u.unbind(-2), w.unbind(-2), b.squeeze(-1).unbind(-1), strict=True)
        return flow(mu, sigma, [PlanarTransform(*part, cache_size=1) for part in parts])
