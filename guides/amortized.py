"""The amortised guide: one encoder for all data."""

import pyro
from torch import Tensor, nn

from pyro_lvm.configuration import Part
from pyro_lvm.programs import data_plate


class Amortized(Part):
    r"""$q(z \mid x)$ given by an encoder.

    Args:
        posterior: x (..., *data_shape) to the distribution of z, one of `pyro_lvm.posteriors`.

    Sites:
        `"z"` (B, M) or (B, V, C).

    References:
        Kingma & Welling (2014), Auto-Encoding Variational Bayes.

    Example:
        >>> import torch
        >>> from pyro_lvm import networks, posteriors
        >>> _ = torch.manual_seed(0)
        >>> guide = Amortized(posteriors.DiagonalNormal(networks.MLP((4, 4), 2 * 3, (8,))))
        >>> guide(torch.zeros(5, 4, 4)).shape
        torch.Size([5, 3])
    """

    def __init__(self, posterior: nn.Module) -> None:
        super().__init__()
        self.posterior = posterior

    def forward(self, x: Tensor, *, size: int | None = None) -> Tensor:
        """Runs the program; see `data_plate` for `size`."""
        pyro.module("guide", self)
        with data_plate(x, size):
            return pyro.sample("z", self.posterior(x))  # (B, M) or (B, V, C)
