"""The level of maps with a skip."""

from collections.abc import Sequence
from typing import final

from pyro.distributions import TorchDistribution
from torch import Tensor, nn

from pyro_lvm.levels.level import Level, normal, state_above
from pyro_lvm.networks.convolutional import (
    ConvolutionalBlock,
    ConvolutionalNet,
    Upsampling,
    doublings,
    of_maps,
    on_maps,
)
from pyro_lvm.sizes import check_sizes


@final
class ConvolutionalLevel(Level):
    r"""$p(z_l \mid h_{l+1}) = \mathcal N(\mu(h_{l+1}), \sigma(h_{l+1})^2)$, $h_l = g(h_{l+1} + B z_l)$, all maps.

    μ, σ, B and g are convolutions, and g doubles the maps' height and width where the level below has larger ones. The
    state passes through the identity, or is only enlarged, on its way down, so that every level reaches the data. State
    and latents are maps laid out as vectors.

    Args:
        shape: of the maps of the state above, (C, H, W); those of the latents have the same height and width.
        latent_channels: of the latents' maps, c: M = c·H·W.
        below: of the maps of the state that is given, (C, H', W'); `shape` where left out.
        blocks: number of residual blocks, in g and before μ and σ.

    Raises:
        ValueError: where a size is less than 1, doubling does not lead from `shape` to `below`, the two have other
            numbers of channels, or there is no state above.

    References:
        Kingma et al. (2016), Improved Variational Inference with Inverse Autoregressive Flow (the ResNet VAE). Vahdat &
        Kautz (2020), NVAE: A Deep Hierarchical Variational Autoencoder.

    Example:
        >>> import torch
        >>> _ = torch.manual_seed(0)
        >>> level, h = ConvolutionalLevel((8, 7, 7), latent_channels=2, below=(8, 14, 14)), torch.zeros(5, 8 * 7 * 7)
        >>> z = level.conditional(h).sample()
        >>> z.shape, level.state(h, z).shape
        (torch.Size([5, 98]), torch.Size([5, 1568]))
    """

    def __init__(
        self, shape: Sequence[int], latent_channels: int, below: Sequence[int] | None = None, blocks: int = 1
    ) -> None:
        super().__init__()
        check_sizes(latent_channels=latent_channels, blocks=blocks)
        C, H, W = self.shape = of_maps(shape, "shape")
        below = self.shape if below is None else of_maps(below, "below")
        if below[0] != C:
            raise ValueError(f"'below' must have the channels of 'shape', {C}, not {below[0]}.")
        times = doublings(self.shape, below)
        if times < 0:
            raise ValueError(f"'below' cannot be smaller than 'shape', {self.shape}, but is {tuple(below)}.")
        self.latent_shape = (latent_channels, H, W)
        self.net = ConvolutionalNet(self.shape, (2 * latent_channels, H, W), C, blocks)
        self.read = nn.Conv2d(latent_channels, C, 1)
        self.blocks = nn.Sequential(
            *(ConvolutionalBlock(C) for _ in range(blocks)), *(Upsampling(C) for _ in range(times))
        )

    def conditional(self, h: Tensor | None) -> TorchDistribution:
        """p(z_l | z_{>l}), event shape (M,)."""
        return normal(self.net(state_above(h)))

    def state(self, h: Tensor | None, z: Tensor) -> Tensor:
        """h_l, (..., C·H'·W')."""
        above = state_above(h).unflatten(-1, self.shape)
        out: Tensor = self.blocks(above + on_maps(self.read, z.unflatten(-1, self.latent_shape)))
        return out.flatten(-3)
