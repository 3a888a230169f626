"""The standard normal prior."""

import pyro.distributions as dist
import torch
from pyro.distributions import TorchDistribution

from pyro_lvm.priors.prior import Prior
from pyro_lvm.sizes import check_sizes


class StandardNormal(Prior):
    r"""$p(z) = \mathcal N(z \mid 0, I_M)$.

    Args:
        latent_dim: M.

    Shapes:
        () to a distribution with event shape (M,).

    Raises:
        ValueError: where `latent_dim` < 1.

    Example:
        >>> StandardNormal(3)().log_prob(torch.zeros(3))
        tensor(-2.7568)
    """

    location: torch.Tensor

    def __init__(self, latent_dim: int) -> None:
        super().__init__()
        check_sizes(latent_dim=latent_dim)
        self.latent_dim = latent_dim
        # Moves with the weights, and is saved with them, in their device and precision.
        self.register_buffer("location", torch.zeros(latent_dim))

    def forward(self) -> TorchDistribution:
        """The distribution of z, event shape (M,)."""
        return dist.Normal(self.location, torch.ones_like(self.location)).to_event(1)
