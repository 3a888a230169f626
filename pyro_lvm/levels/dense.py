"""The level of vectors with a skip."""

from typing import final

from pyro.distributions import TorchDistribution
from torch import Tensor, nn

from pyro_lvm.levels.level import Level, normal, state_above
from pyro_lvm.networks import ResidualBlock
from pyro_lvm.sizes import check_sizes


@final
class DenseLevel(Level):
    r"""$p(z_l \mid h_{l+1}) = \mathcal N(\mu(h_{l+1}), \sigma(h_{l+1})^2)$, $h_l = g(h_{l+1} + B z_l)$.

    g is residual blocks. The state passes through the identity on its way down, so that every level reaches the data.

    Args:
        features: of the state, H.
        latent_dim: M.
        blocks: number of residual blocks, in g and before μ and σ.

    Raises:
        ValueError: where a size is less than 1, or there is no state above.

    References:
        Kingma et al. (2016), Improved Variational Inference with Inverse Autoregressive Flow (the ResNet VAE). Vahdat &
        Kautz (2020), NVAE: A Deep Hierarchical Variational Autoencoder.

    Example:
        >>> import torch
        >>> _ = torch.manual_seed(0)
        >>> level, h = DenseLevel(8, latent_dim=3), torch.zeros(5, 8)
        >>> z = level.conditional(h).sample()
        >>> z.shape, level.state(h, z).shape
        (torch.Size([5, 3]), torch.Size([5, 8]))
    """

    def __init__(self, features: int, latent_dim: int, blocks: int = 1) -> None:
        super().__init__()
        check_sizes(features=features, latent_dim=latent_dim, blocks=blocks)
        self.net = nn.Sequential(
            *(ResidualBlock(features) for _ in range(blocks)), nn.SiLU(), nn.Linear(features, 2 * latent_dim)
        )
        self.read = nn.Linear(latent_dim, features)
        self.blocks = nn.Sequential(*(ResidualBlock(features) for _ in range(blocks)))

    def conditional(self, h: Tensor | None) -> TorchDistribution:
        """p(z_l | z_{>l}), event shape (M,)."""
        return normal(self.net(state_above(h)))

    def state(self, h: Tensor | None, z: Tensor) -> Tensor:
        """h_l, (..., H)."""
        out: Tensor = self.blocks(state_above(h) + self.read(z))
        return out
