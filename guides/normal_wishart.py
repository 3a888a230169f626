"""The guide of a Bayesian mixture: Dirichlet and normal-Wishart factors, assignments exact given them."""

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from pyro_lvm.configuration import Part
from pyro_lvm.distributions import Wishart
from pyro_lvm.models.bayesian_mixture import BayesianGaussianMixture
from pyro_lvm.posteriors import lower_triangular
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
    """

    def __init__(self, model: BayesianGaussianMixture) -> None:
        super().__init__()
        self.model = model
        C, D = model.components, model.features
        self.raw_concentration = nn.Parameter(torch.zeros(C))
        self.raw_mean_precision = nn.Parameter(torch.zeros(C))
        self.raw_degrees_of_freedom = nn.Parameter(torch.full((C,), float(D)))  # draws well away from singular ones
        spread = model.prior_covariance.diagonal().sqrt()
        self.means = nn.Parameter(model.prior_mean + spread * torch.randn(C, D))
        # L_c with S_c⁻¹ = L_c L_cᵀ, starting at the prior's.
        rows, columns = torch.tril_indices(D, D)
        raw = torch.zeros(C, rows.numel())
        raw[:, rows == columns] = _softplus_inverse(1 / spread)
        self.raw_precision = nn.Parameter(raw)

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
            self.raw_concentration.copy_(_softplus_inverse(concentration))
            self.raw_mean_precision.copy_(_softplus_inverse(mean_precision))
            self.raw_degrees_of_freedom.copy_(_softplus_inverse(degrees_of_freedom - self.model.features + 1))
            self.means.copy_(means)
            lower = torch.linalg.cholesky(covariances.inverse())
            lower = lower.tril(-1) + torch.diag_embed(_softplus_inverse(lower.diagonal(dim1=-2, dim2=-1)))
            rows, columns = torch.tril_indices(self.model.features, self.model.features)
            self.raw_precision.copy_(lower[:, rows, columns])

    def forward(self, x: Tensor, *, size: int | None = None) -> Tensor:
        """Runs the program; see `data_plate` for `size`."""
        pyro.module("guide", self)
        D = self.model.features
        degrees_of_freedom = softplus(self.raw_degrees_of_freedom) + D - 1  # ν > D − 1
        scale_tril = lower_triangular(self.raw_precision, D) / degrees_of_freedom.sqrt()[:, None, None]
        weights = pyro.sample("weights", dist.Dirichlet(softplus(self.raw_concentration)))
        precisions = pyro.sample("precisions", Wishart(degrees_of_freedom, scale_tril).to_event(1))
        mean_precision = softplus(self.raw_mean_precision)[:, None, None]
        means = pyro.sample(
            "means", dist.MultivariateNormal(self.means, precision_matrix=mean_precision * precisions).to_event(1)
        )
        with data_plate(x, size):
            logits = self.model.log_joint(x, weights, means, precisions)  # (..., B, C)
            return pyro.sample("z", dist.Categorical(logits=logits), infer={"enumerate": "parallel"})


def _softplus_inverse(y: Tensor) -> Tensor:
    return y + torch.log(-torch.expm1(-y))
