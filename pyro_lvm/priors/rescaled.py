"""A prior in other units."""

from typing import final

import pyro.distributions as dist
import torch
from pyro.distributions import TorchDistribution
from torch import Tensor, nn
from torch.distributions.transforms import AffineTransform

from pyro_lvm.priors.prior import Prior
from pyro_lvm.sizes import check_sizes


@final
class Rescaled(Prior):
    r"""$p(z) = p_w\big((z - c) / s\big) \prod_m s_m^{-1}$: another prior, of numbers of order 1, in the units of z.

    c and s are fixed, 0 and 1 until `start_from` takes them from data: one of a pair for each dimension, so that what
    the other prior sees is centred and of standard deviation 1.

    Args:
        prior: of w, one of `pyro_lvm.priors` with vectors (M,) for its draws.
        latent_dim: M.

    Shapes:
        () to a distribution with event shape (M,).

    Raises:
        ValueError: where `latent_dim` < 1.

    References:
        Kingma & Dhariwal (2018), Glow: Generative Flow with Invertible 1×1 Convolutions, section 3.1.

    Example:
        >>> from pyro_lvm import priors
        >>> prior = Rescaled(priors.StandardNormal(2), 2)
        >>> prior.start_from(torch.tensor([[0.0, 10.0], [2.0, 14.0]]))
        >>> prior.centre.tolist(), prior.spread.tolist()
        ([1.0, 12.0], [1.0, 2.0])
    """

    centre: Tensor
    spread: Tensor

    def __init__(self, prior: nn.Module, latent_dim: int) -> None:
        super().__init__()
        check_sizes(latent_dim=latent_dim)
        self.prior = prior
        self.register_buffer("centre", torch.zeros(latent_dim))
        self.register_buffer("spread", torch.ones(latent_dim))

    def start_from(self, z: Tensor) -> None:
        """Takes centre and spread from vectors (N, M), dimension by dimension.

        Raises:
            ValueError: for vectors of another dimension, or a dimension in which all are the same.
        """
        if z.dim() != 2 or z.shape[1:] != self.centre.shape:
            raise ValueError(
                f"'z' must have shape (N, {len(self.centre)}), as the prior's latents, not {tuple(z.shape)}."
            )
        spread = z.std(0, correction=0)
        if not bool((spread > 0).all()):
            raise ValueError(f"'z' is the same in all vectors in dimension {int(spread.argmin())}: it has no spread.")
        self.centre.copy_(z.mean(0))
        self.spread.copy_(spread)

    def forward(self) -> TorchDistribution:
        """The distribution of z, event shape (M,)."""
        return dist.TransformedDistribution(self.prior(), [AffineTransform(self.centre, self.spread, event_dim=1)])
