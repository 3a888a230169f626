"""Probabilistic principal component analysis."""

from collections.abc import Sequence
from math import prod

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn

from pyro_lvm import priors
from pyro_lvm.programs import Model, data_plate


class ProbabilisticPCA(Model):
    r"""$z \sim \mathcal N(0, I_M)$, $x \mid z \sim \mathcal N(W z + b, \sigma^2 I_D)$.

    The one autoencoder with every answer known.
    The evidence and the posterior in closed form are `exact.log_evidence` and `guides.ExactPPCA`.

    Args:
        shape: shape of a datum, D values in all (an int D is the shape (D,)).
        latent_dim: M.
        mean: where b starts, in the data's units.
        noise_scale: where σ starts, in the data's units.

    Sites:
        `"z"` (B, M), `"x"` (B, *shape).

    References:
        Tipping & Bishop (1999), Probabilistic Principal Component Analysis.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> ProbabilisticPCA((8, 8), latent_dim=3).sample(5).shape
        torch.Size([5, 8, 8])
    """

    def __init__(
        self, shape: int | Sequence[int], latent_dim: int, mean: float = 0.0, noise_scale: float = 1.0
    ) -> None:
        super().__init__()
        self.shape = (shape,) if isinstance(shape, int) else tuple(shape)
        features = prod(self.shape)
        if not 1 <= latent_dim <= features:
            raise ValueError(f"'latent_dim' must lie between 1 and the {features} values of a datum, not {latent_dim}.")
        if not noise_scale > 0:
            raise ValueError(f"'noise_scale' is a standard deviation and must be positive, not {noise_scale}.")
        self.prior = priors.StandardNormal(latent_dim)
        self.weight = nn.Parameter(torch.randn(features, latent_dim) * noise_scale / features**0.5)
        self.bias = nn.Parameter(torch.full((features,), float(mean)))
        self.log_noise_scale = nn.Parameter(torch.tensor(float(noise_scale)).log())

    @property
    def noise_scale(self) -> Tensor:
        """σ, in the data's units."""
        return self.log_noise_scale.exp()

    def forward(self, x: Tensor | None = None, *, size: int | None = None) -> Tensor:
        """Runs the program; see `data_plate` for `size`."""
        pyro.module("model", self)
        with data_plate(x, size):
            z = pyro.sample("z", self.prior())  # (B, M)
            mean = (z @ self.weight.T + self.bias).unflatten(-1, self.shape)  # (B, *shape)
            return pyro.sample("x", dist.Normal(mean, self.noise_scale).to_event(len(self.shape)), obs=x)
