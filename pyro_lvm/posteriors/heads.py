"""What posteriors with many numbers share: a linear layer on an encoder's features that gives them."""

from abc import ABC

import pyro.distributions as dist
import torch
from pyro.distributions import TorchDistribution
from torch import Tensor, nn

from pyro_lvm.configuration import Part
from pyro_lvm.posteriors.scales import positive
from pyro_lvm.sizes import check_sizes
from pyro_lvm.transforms import Bijection

# What the start of a head's weights is multiplied by where they bend the diagonal normal that training starts from.
_SMALL = 0.1


class Headed(Part, ABC):
    """An encoder network with a linear layer on its features that gives μ, σ and the other numbers of q, abstract.

    Args:
        net: from (..., *data_shape) to features (..., features).
        features: how many.
        latent_dim: M.
        numbers: how many numbers q has besides M means and M scales; small to begin with.
    """

    def __init__(self, net: nn.Module, features: int, latent_dim: int, numbers: int) -> None:
        super().__init__()
        check_sizes(features=features, latent_dim=latent_dim)
        self.net, self.features, self.latent_dim = net, features, latent_dim
        self.head = nn.Linear(features, 2 * latent_dim + numbers)
        with torch.no_grad():
            self.head.weight[2 * latent_dim :] *= _SMALL
            self.head.bias[2 * latent_dim :] *= _SMALL

    def encoded(self, x: Tensor) -> Tensor:
        """The features h (..., features)."""
        h: Tensor = self.net(x)
        if h.shape[-1] != self.features:
            raise ValueError(
                f"'features' is how many numbers the network gives for a datum, its last dimension: {h.shape[-1]}, not "
                f"{self.features}."
            )
        return h

    def read(self, h: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """μ and σ (..., M), and the other numbers (..., numbers)."""
        mu, raw, rest = self.head(h).tensor_split((self.latent_dim, 2 * self.latent_dim), dim=-1)
        return mu, positive(raw), rest


def flow(mu: Tensor, sigma: Tensor, bijections: list[Bijection]) -> TorchDistribution:
    """The diagonal normal after some bijections."""
    return dist.TransformedDistribution(dist.Normal(mu, sigma).to_event(1), bijections)
