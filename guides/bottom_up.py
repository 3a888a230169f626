"""The guide of a hierarchy that goes from the data upwards."""

from collections.abc import Sequence

import pyro
from torch import Tensor, nn

from pyro_lvm.configuration import Part
from pyro_lvm.programs import data_plate


class BottomUp(Part):
    r"""$q(z \mid x) = q(z_1 \mid x)\, q(z_2 \mid z_1) \cdots q(z_L \mid z_{L-1})$, an encoder for every level.

    Its upper levels see x through draws of the lower ones only, and cost as much divergence as they carry: trained by
    the evidence lower bound they tend to collapse onto their prior. `TopDown` is the cure.

    Args:
        posteriors: of `pyro_lvm.posteriors`, from the data upwards: of x (..., *data_shape), then of z_1, of z_2, ...

    Sites:
        `"z_1"` (B, M_1), ..., `"z_L"` (B, M_L): those of `models.Hierarchical`.

    Raises:
        ValueError: where there is no posterior.

    References:
        Burda, Grosse & Salakhutdinov (2016), Importance Weighted Autoencoders.

    Example:
        >>> import torch
        >>> from pyro_lvm import networks, posteriors
        >>> _ = torch.manual_seed(0)
        >>> lower = posteriors.DiagonalNormal(networks.MLP((4, 4), 2 * 3, (8,)))
        >>> upper = posteriors.DiagonalNormal(networks.MLP(3, 2 * 2, (8,)))
        >>> BottomUp([lower, upper])(torch.zeros(5, 4, 4)).shape  # of the highest level
        torch.Size([5, 2])
    """

    def __init__(self, posteriors: Sequence[nn.Module]) -> None:
        super().__init__()
        if not len(posteriors):
            raise ValueError("'posteriors' must hold one for each level, at least one, and is empty.")
        self.posteriors = nn.ModuleList(posteriors)

    def forward(self, x: Tensor, *, size: int | None = None) -> Tensor:
        """Runs the program; see `data_plate` for `size`."""
        pyro.module("guide", self)
        with data_plate(x, size):
            z = x
            for number, posterior in enumerate(self.posteriors, 1):
                z = pyro.sample(f"z_{number}", posterior(z))  # (B, M)
            return z
