"""The guide of a Bayesian mixture: Dirichlet and normal-Wishart factors, assignments exact given them."""

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn

from pyro_lvm.configuration import Part
from pyro_lvm.distributions import Wishart
from pyro_lvm.models.bayesian_mixture import BayesianGaussianMixture
from pyro_lvm.programs import data_plate


class NormalWishart(Part):
    r"""$q(\pi) \prod_c q(\mu_c, \Lambda_c) \prod_n p(z_n \mid x_n, \pi, \mu, \Lambda)$.

    $q(\pi) = \mathrm{Dirichlet}(\alpha)$, $q(\Lambda_c) = \mathrm{Wishart}(\nu_c, (\nu_c S_c)^{-1})$,
    $q(\mu_c \mid \Lambda_c) = \mathcal N(m_c, (\beta_c \Lambda_c)^{-1})$: the factors of coordinate ascent. The
    assignments are not factorised away, so the bound is at least as high as coordinate ascent's.

    Args:
        model: the mixture whose parameters it infers.

    Sites:
        `"weights"`, `"precisions"`, `"means"` outside the data plate; `"z"` (B,).

    References:
        Bishop (2006), Pattern Recognition and Machine Learning, 10.2.

    Example:
        >>> from pyro_lvm import models
        >>> _ = torch.manual_seed(0)
        >>> guide = NormalWishart(models.BayesianGaussianMixture(2, components=3))
        >>> guide(torch.zeros(5, 2)).shape
        torch.Size([5])
    """

    def __init__(self, model: BayesianGaussianMixture) -> None:
        super().__init__()
        self.model = model
        C, D = model.components, model.features
        # Logarithms, and lengths in units of the prior's: steps of one size then suit few data and many.
        self.log_concentration = nn.Parameter(torch.zeros(C))
        self.log_mean_precision = nn.Parameter(torch.zeros(C))
        self.log_degrees_of_freedom = nn.Parameter(torch.full((C,), float(D)).log())  # of ν − (D − 1)
        self.raw_means = nn.Parameter(torch.randn(C, D))
        self.raw_precision = nn.Parameter(torch.zeros(C, D * (D + 1) // 2))

    @property
    def means(self) -> Tensor:
        """m, (C, D), in the data's units."""
        return self.model.prior_mean + self._spread() * self.raw_means

    def start_from(
        self,
        concentration: Tensor,
        means: Tensor,
        mean_precision: Tensor,
        degrees_of_freedom: Tensor,
        covariances: Tensor,
    ) -> None:
        """Sets the factors, for instance to coordinate ascent's: α (C,), m (C, D), β (C,), ν (C,), S (C, D, D)."""
        with torch.no_grad():
            self.log_concentration.copy_(concentration.log())
            self.log_mean_precision.copy_(mean_precision.log())
            self.log_degrees_of_freedom.copy_((degrees_of_freedom - self.model.features + 1).log())
            self.raw_means.copy_((means.to(self.raw_means) - self.model.prior_mean) / self._spread())
            lower = torch.linalg.cholesky(covariances.inverse()).to(self.raw_means) * self._spread()[:, None]
            diagonal = lower.diagonal(dim1=-2, dim2=-1).log()
            rows, columns = torch.tril_indices(self.model.features, self.model.features)
            self.raw_precision.copy_((lower.tril(-1) + torch.diag_embed(diagonal))[:, rows, columns])

    def precision_tril(self) -> Tensor:
        """L_c with S_c⁻¹ = L_c L_cᵀ, (C, D, D)."""
        D = self.model.features
        rows, columns = torch.tril_indices(D, D, device=self.raw_precision.device)
        raw = self.raw_precision.new_zeros(self.model.components, D, D)
        raw[:, rows, columns] = self.raw_precision
        lower = raw.tril(-1) + torch.diag_embed(raw.diagonal(dim1=-2, dim2=-1).exp())
        return lower / self._spread()[:, None]

    def _spread(self) -> Tensor:
        return self.model.prior_covariance.diagonal().sqrt()

    def forward(self, x: Tensor, *, size: int | None = None) -> Tensor:
        """Runs the program; see `data_plate` for `size`."""
        pyro.module("guide", self)
        D = self.model.features
        degrees_of_freedom = self.log_degrees_of_freedom.exp() + D - 1  # ν > D − 1
        scale_tril = self.precision_tril() / degrees_of_freedom.sqrt()[:, None, None]
        weights = pyro.sample("weights", dist.Dirichlet(self.log_concentration.exp()))
        precisions = pyro.sample("precisions", Wishart(degrees_of_freedom, scale_tril).to_event(1))
        precision_of_means = self.log_mean_precision.exp()[:, None, None] * precisions
        means = pyro.sample(
            "means", dist.MultivariateNormal(self.means, precision_matrix=precision_of_means).to_event(1)
        )
        with data_plate(x, size):
            logits = self.model.log_joint(x, weights, means, precisions)  # (..., B, C)
            return pyro.sample("z", dist.Categorical(logits=logits), infer={"enumerate": "parallel"})
