"""The likelihood of a datum that is its latent, rounded down."""

from collections.abc import Sequence
from math import prod

from pyro.distributions import TorchDistribution
from torch import Tensor

from pyro_lvm.configuration import Part
from pyro_lvm.distributions import KnownLevel
from pyro_lvm.sizes import checked_levels, checked_shape


class Floor(Part):
    r"""$p(x \mid z) = \prod_d [x_d = \lfloor z_d \rfloor]$: one latent for every value, none of it lost but a fraction.

    With it a density over vectors, `pyro_lvm.priors.Flow` for one, becomes a distribution over data of L levels,
    $p(x) = \int_{[x, x + 1)} p(z)\, dz$, which sums to one. The outer levels reach to infinity. With
    `pyro_lvm.posteriors.Dequantized` as the posterior, the evidence lower bound is that of uniform dequantisation.

    Args:
        shape: shape of a datum, D values in all (an int D is the shape (D,)); M = D.
        levels: L.

    Raises:
        ValueError: where `levels` < 2, a size is less than 1, or z is of another dimension.

    References:
        Theis, van den Oord & Bethge (2016), A Note on the Evaluation of Generative Models. Ho et al. (2019), Flow++:
        Improving Flow-Based Generative Models with Variational Dequantization and Architecture Design.

    Example:
        >>> import torch
        >>> Floor((2, 2), levels=17)(torch.tensor([0.1, 16.9, 3.0, -2.0])).sample()
        tensor([[ 0., 16.],
                [ 3.,  0.]])
    """

    def __init__(self, shape: int | Sequence[int], levels: int) -> None:
        super().__init__()
        self.shape, self.levels = checked_shape(shape, "shape"), checked_levels(levels)

    def forward(self, z: Tensor) -> TorchDistribution:
        """p(x | z), batch shape z.shape[:-1]."""
        if z.shape[-1] != prod(self.shape):
            raise ValueError(
                f"'z' needs a number for each of the {prod(self.shape)} values of a datum, but has {z.shape[-1]}: the "
                "prior's 'latent_dim' is the number of values."
            )
        return KnownLevel(z.unflatten(-1, self.shape), self.levels).to_event(len(self.shape))
