"""The generative program of a hierarchy of latents."""

from collections.abc import Sequence

import pyro
from torch import Tensor, nn

from pyro_lvm.levels.level import Level, downwards
from pyro_lvm.programs import Model, data_plate


class Hierarchical(Model):
    r"""$p(x, z) = p(z_L) \prod_{l<L} p(z_l \mid z_{>l})\; p(x \mid z_1, \dots, z_L)$ with any number L of levels.

    From the top down, each level gives the distribution of its latents and the state that the levels below it and the
    data read. What they read is each level's own matter: z_l alone makes a chain, a state that keeps what came from
    above gives every level a way of its own to the data.

    Args:
        levels: of `pyro_lvm.levels`, from the data upwards: z_1's first, the top's last.
        decoder: the lowest state (..., H) to the distribution of x, one of `pyro_lvm.likelihoods`.

    Sites:
        `"z_L"` (B, M_L), ..., `"z_1"` (B, M_1), `"x"` (B, *data_shape).

    Raises:
        ValueError: where there is no level.

    References:
        Sønderby et al. (2016), Ladder Variational Autoencoders. Kingma et al. (2016), Improved Variational Inference
        with Inverse Autoregressive Flow (the ResNet VAE). Vahdat & Kautz (2020), NVAE: A Deep Hierarchical Variational
        Autoencoder.

    Example:
        >>> import torch
        >>> from pyro_lvm import levels, likelihoods, networks, priors
        >>> _ = torch.manual_seed(0)
        >>> top = levels.TopLevel(priors.StandardNormal(2), networks.MLP(2, 8, (8,)))
        >>> decoder = likelihoods.Bernoulli(networks.MLP(8, (4, 4), (8,)))
        >>> model = Hierarchical([levels.DenseLevel(8, 3), levels.DenseLevel(8, 3), top], decoder)
        >>> model.sample(5).shape
        torch.Size([5, 4, 4])
    """

    def __init__(self, levels: Sequence[Level], decoder: nn.Module) -> None:
        super().__init__()
        if not len(levels):
            raise ValueError("'levels' must hold at least one level of latents, and is empty.")
        self.levels, self.decoder = nn.ModuleList(levels), decoder

    def forward(self, x: Tensor | None = None, *, size: int | None = None) -> Tensor:
        """Runs the program; see `data_plate` for `size`."""
        pyro.module("model", self)
        with data_plate(x, size):
            h = None
            for number, level in downwards(self.levels):
                z = pyro.sample(f"z_{number}", level.conditional(h))  # (B, M)
                h = level.state(h, z)  # (B, H)
            return pyro.sample("x", self.decoder(h), obs=x)  # (B, *data_shape)
