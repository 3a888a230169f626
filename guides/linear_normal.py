"""A linear encoder with one covariance for all data: the family that holds probabilistic PCA's posterior."""

from collections.abc import Sequence
from math import prod
from typing import Literal

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from pyro_lvm.configuration import Part
from pyro_lvm.posteriors.scales import lower_triangular
from pyro_lvm.programs import data_plate


class LinearNormal(Part):
    r"""$q(z \mid x) = \mathcal N(z \mid A (x - c)/s + a, S)$ with S the same for every x.

    Args:
        shape: shape of a datum (an int D is the shape (D,)).
        latent_dim: M.
        covariance: `"full"` or `"diagonal"`; a full S closes the gap of probabilistic PCA, a diagonal one leaves
            KL(q ‖ p(z | x)).
        centre: c, subtracted from the data.
        spread: s, the data are divided by it.

    Sites:
        `"z"` (B, M).

    References:
        Tipping & Bishop (1999), Probabilistic Principal Component Analysis. Lucas et al. (2019), Don't Blame the ELBO!

    Example:
        >>> _ = torch.manual_seed(0)
        >>> LinearNormal((8, 8), latent_dim=3)(torch.zeros(5, 8, 8)).shape
        torch.Size([5, 3])
    """

    def __init__(
        self,
        shape: int | Sequence[int],
        latent_dim: int,
        covariance: Literal["full", "diagonal"] = "full",
        centre: float = 0.0,
        spread: float = 1.0,
    ) -> None:
        super().__init__()
        if covariance not in ("full", "diagonal"):
            raise ValueError(f"'covariance' must be 'full' or 'diagonal', not {covariance!r}.")
        if not spread > 0:
            raise ValueError(f"'spread' divides the data and must be positive, not {spread}.")
        self.shape = (shape,) if isinstance(shape, int) else tuple(shape)
        self.latent_dim, self.covariance, self.centre, self.spread = latent_dim, covariance, centre, spread
        self.linear = nn.Linear(prod(self.shape), latent_dim)
        raw = torch.zeros(latent_dim * (latent_dim + 1) // 2 if covariance == "full" else latent_dim)
        self.raw_scale = nn.Parameter(raw)

    def scale_tril(self) -> Tensor:
        """L with S = L Lᵀ, (M, M)."""
        if self.covariance == "full":
            return lower_triangular(self.raw_scale, self.latent_dim)
        return torch.diag_embed(softplus(self.raw_scale))

    def mean(self, x: Tensor) -> Tensor:
        """The posterior mean, (B, *shape) to (B, M)."""
        flat = x.flatten(-len(self.shape)).to(self.linear.weight.dtype)
        return self.linear((flat - self.centre) / self.spread)

    def forward(self, x: Tensor, *, size: int | None = None) -> Tensor:
        """Runs the program; see `data_plate` for `size`."""
        pyro.module("guide", self)
        with data_plate(x, size):
            return pyro.sample("z", dist.MultivariateNormal(self.mean(x), scale_tril=self.scale_tril()))  # (B, M)
