"""The exact posterior of probabilistic PCA as a guide."""

import pyro
import pyro.distributions as dist
from torch import Tensor

from pyro_lvm.configuration import Part
from pyro_lvm.exact import linear_gaussian as exact
from pyro_lvm.models.ppca import ProbabilisticPCA
from pyro_lvm.programs import data_plate


class ExactPPCA(Part):
    r"""$q(z \mid x) = p(z \mid x) = \mathcal N(P^{-1} W^\top (x - b),\ \sigma^2 P^{-1})$.

    $P = W^\top W + \sigma^2 I_M$.

    Reads the model's own parameters, so it is exact whatever they are: the ELBO is log p(x), draw by draw.

    Args:
        model: the program whose posterior it is.

    Sites:
        `"z"` (B, M).

    References:
        Tipping & Bishop (1999), Probabilistic Principal Component Analysis; the covariance is σ² P⁻¹ (several texts
        print the precision σ⁻² P in its place).

    Example:
        >>> import torch
        >>> from pyro_lvm import exact, models, objectives
        >>> _ = torch.manual_seed(0)
        >>> model, x = models.ProbabilisticPCA(4, latent_dim=2), torch.randn(3, 4)
        >>> elbo = -objectives.ELBO().loss(model, ExactPPCA(model), x)
        >>> evidence = exact.log_evidence(x, model.weight, model.bias, model.noise_scale.square()).sum()
        >>> abs(elbo - evidence.item()) < 1e-4
        True
    """

    def __init__(self, model: ProbabilisticPCA) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor, *, size: int | None = None) -> Tensor:
        """Runs the program; see `data_plate` for `size`."""
        pyro.module("guide", self)
        weight = self.model.weight
        flat = x.flatten(-len(self.model.shape)).to(weight.dtype)
        mean, covariance = exact.posterior(flat, weight, self.model.bias, self.model.noise_scale.square())
        with data_plate(x, size):
            return pyro.sample("z", dist.MultivariateNormal(mean, covariance_matrix=covariance))  # (B, M)
