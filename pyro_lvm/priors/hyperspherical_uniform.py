"""The uniform prior on a sphere."""

import torch
from pyro.distributions import TorchDistribution

from pyro_lvm import distributions
from pyro_lvm.priors.prior import Prior


class HypersphericalUniform(Prior):
    r"""$p(z)$ uniform on the sphere $S^{M-1} = \{z \in \mathbb R^M : \|z\| = 1\}$.

    Args:
        latent_dim: M, the number of coordinates, one more than the sphere has dimensions.

    Shapes:
        () to a distribution with event shape (M,).

    Raises:
        ValueError: where `latent_dim` < 2.

    References:
        Davidson et al. (2018), Hyperspherical Variational Auto-Encoders.

    Example:
        >>> HypersphericalUniform(3)().log_prob(torch.eye(3))  # −log 4π
        tensor([-2.5310, -2.5310, -2.5310])
    """

    location: torch.Tensor

    def __init__(self, latent_dim: int) -> None:
        super().__init__()
        if latent_dim < 2:
            raise ValueError(f"'latent_dim' counts coordinates on a sphere and must be at least 2, not {latent_dim}.")
        self.latent_dim = latent_dim
        # Moves with the weights, and is saved with them, in their device and precision.
        self.register_buffer("location", torch.zeros(()))

    def forward(self) -> TorchDistribution:
        """The distribution of z, event shape (M,)."""
        return distributions.HypersphericalUniform(
            self.latent_dim, dtype=self.location.dtype, device=self.location.device
        )
