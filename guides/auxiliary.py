"""The amortised guide with an auxiliary variable."""

import pyro
from torch import Tensor, nn

from pyro_lvm.configuration import Part
from pyro_lvm.models.auxiliary_vae import joined
from pyro_lvm.programs import data_plate


class Auxiliary(Part):
    r"""$q(a \mid x)\, q(z \mid a, x)$: given x alone, z follows a mixture over all a, of any shape.

    Args:
        auxiliary: q(a | x), x (..., *data_shape) to the distribution of a, one of `pyro_lvm.posteriors`.
        posterior: q(z | a, x), from x and a as one vector (..., D + A), see `pyro_lvm.models.auxiliary_vae.joined`, to
            the distribution of z.

    Sites:
        `"a"` (B, A), `"z"` (B, M): those of `models.AuxiliaryVAE`.

    References:
        Maaløe, Sønderby, Sønderby & Winther (2016), Auxiliary Deep Generative Models.

    Example:
        >>> import torch
        >>> from pyro_lvm import networks, posteriors
        >>> _ = torch.manual_seed(0)
        >>> auxiliary = posteriors.DiagonalNormal(networks.MLP((4, 4), 2 * 3, (8,)))
        >>> posterior = posteriors.DiagonalNormal(networks.MLP(16 + 3, 2 * 2, (8,)))
        >>> Auxiliary(auxiliary, posterior)(torch.zeros(5, 4, 4)).shape
        torch.Size([5, 2])
    """

    def __init__(self, auxiliary: nn.Module, posterior: nn.Module) -> None:
        super().__init__()
        self.auxiliary, self.posterior = auxiliary, posterior

    def forward(self, x: Tensor, *, size: int | None = None) -> Tensor:
        """Runs the program; see `data_plate` for `size`."""
        pyro.module("guide", self)
        with data_plate(x, size):
            a = pyro.sample("a", self.auxiliary(x))  # (B, A)
            return pyro.sample("z", self.posterior(joined(x, a, x.dim() - 1)))  # (B, M)
