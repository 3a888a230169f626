"""A Bayesian mixture of Gaussians by coordinate ascent, and the evidence of one Gaussian in closed form."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import torch
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from pyro_lvm.exact._covariances import Columns, Full, columns
from pyro_lvm.exact._estimator import (
    Array,
    as_data,
    as_parameter,
    generator,
    in_kind,
    warn_not_converged,
)
from pyro_lvm.exact._mixture import Mixture, k_means_responsibilities, restart_seeds
from pyro_lvm.exact._numbers import check_integer, check_real


class _NormalWishart(NamedTuple):
    """Λ ~ Wishart(ν, V⁻¹), μ | Λ ~ N(m, (β Λ)⁻¹), for one component or (in leading dimensions) several."""

    mean_precision: Tensor  # β, (...)
    mean: Tensor  # m, (..., D)
    degrees_of_freedom: Tensor  # ν, (...)
    inverse_scale: Tensor  # V, (..., D, D), the data's units squared

    def log_normaliser(self) -> Tensor:
        """Return the log of ∫ |Λ|^{(ν−D)/2} exp(−β (μ−m)ᵀΛ(μ−m)/2 − tr(VΛ)/2) dμ dΛ, less D/2 log 2π, shape (...)."""
        features = self.mean.shape[-1]
        nu = self.degrees_of_freedom
        log_det = 2.0 * torch.linalg.cholesky(self.inverse_scale).diagonal(dim1=-2, dim2=-1).log().sum(-1)
        wishart = 0.5 * nu * (features * math.log(2.0) - log_det) + torch.special.multigammaln(0.5 * nu, features)
        return wishart - 0.5 * features * self.mean_precision.log()

    def expected_log_det(self) -> Tensor:
        """Return E[log |Λ|], shape (...)."""
        features = self.mean.shape[-1]
        steps = torch.arange(features, dtype=torch.float64, device=self.mean.device)
        digammas = torch.digamma(0.5 * (self.degrees_of_freedom[..., None] - steps)).sum(-1)
        log_det = 2.0 * torch.linalg.cholesky(self.inverse_scale).diagonal(dim1=-2, dim2=-1).log().sum(-1)
        return digammas + features * math.log(2.0) - log_det

    def after(self, data: Columns, responsibility: Tensor) -> _NormalWishart:
        """Return the posteriors, one per row of responsibilities (K, N); written without dividing by a count."""
        sums, counts = (responsibility @ data.points.mT).split([len(data.centre), 1], dim=1)  # (K, D), (K, 1)
        prior = self.mean_precision * (self.mean - data.centre)
        mean = data.centre + (prior + sums) / (self.mean_precision + counts)  # (K, D)
        counts = counts.squeeze(1)
        beta = self.mean_precision + counts
        shift = mean - self.mean
        outer = self.mean_precision * shift[:, :, None] * shift[:, None, :]
        inverse_scale = self.inverse_scale + Full().scatter(data, mean, responsibility) + outer
        return _NormalWishart(beta, mean, self.degrees_of_freedom + counts, inverse_scale)


def log_marginal_likelihood_normal_wishart(
    x: Tensor,
    mean_prior: Tensor,
    mean_precision_prior: float,
    degrees_of_freedom_prior: float,
    covariance_prior: Tensor,
) -> Tensor:
    r"""Log evidence of data from one Gaussian whose mean and precision have a normal-Wishart prior.

    $$\log p(x_{1..N}) = \log \int \prod_n N(x_n; \mu, \Lambda^{-1}) N(\mu; m_0, (\beta_0 \Lambda)^{-1})
    W(\Lambda; V_0^{-1}, \nu_0) \, d\mu \, d\Lambda
    = -\tfrac{ND}{2} \log 2 \pi + \log Z(\beta_N, \nu_N, V_N) - \log Z(\beta_0, \nu_0, V_0)$$

    with log Z(β, ν, V) = (ν/2)(D log 2 − log |V|) + log Γ_D(ν/2) − (D/2) log β.

    Args:
        x: data, shape (N, D).
        mean_prior: m₀, shape (D,), the data's units.
        mean_precision_prior: β₀ > 0, in numbers of data.
        degrees_of_freedom_prior: ν₀ > D − 1.
        covariance_prior: V₀, the inverse of the Wishart's scale matrix, shape (D, D), the data's units squared.

    Returns:
        The log evidence of all data together, in nats, a float64 scalar tensor.

    Raises:
        ValueError: data or parameters of the wrong shape or range, or a covariance that is not positive definite.

    References:
        C. M. Bishop (2006). Pattern recognition and machine learning, 2.3.6 and 10.2.
        K. P. Murphy (2007). Conjugate Bayesian analysis of the Gaussian distribution.

    >>> import torch
    >>> x = torch.tensor([[0.5], [-0.5]])
    >>> log_marginal_likelihood_normal_wishart(x, torch.zeros(1), 1.0, 1.0, torch.eye(1))
    tensor(-2.9954, dtype=torch.float64)
    """
    x = as_data(x)
    prior = _prior(x, mean_prior, mean_precision_prior, degrees_of_freedom_prior, covariance_prior)
    posterior = prior.after(columns(x, x.mean(0)), x.new_ones(1, len(x)))
    return _log_evidence_ratio(x.numel(), prior, posterior).squeeze()


def _log_evidence_ratio(size: int, prior: _NormalWishart, posterior: _NormalWishart) -> Tensor:
    """Return Σ_k log Z_k − log Z_0, less ND/2 log 2π, from the ND numbers of the data."""
    gain = (posterior.log_normaliser() - prior.log_normaliser()).sum()
    return gain - 0.5 * size * math.log(2.0 * math.pi)


def _prior(x: Tensor, mean: Any, mean_precision: Any, degrees_of_freedom: Any, covariance: Any) -> _NormalWishart:
    """Return a valid prior; a mean, degrees of freedom and covariance left out come from the data."""
    features = x.shape[1]
    beta = check_real("mean_precision_prior", mean_precision, 0.0, strict=True)
    nu = features if degrees_of_freedom is None else degrees_of_freedom
    nu = check_real("degrees_of_freedom_prior", nu, features - 1.0, strict=True)
    m = x.mean(0) if mean is None else as_parameter("mean_prior", mean, (features,), x)
    if covariance is None:
        v = torch.cov(x.mT).reshape(features, features) if len(x) > 1 else x.new_zeros(features, features)
    else:
        v = as_parameter("covariance_prior", covariance, (features, features), x)
    spread = torch.linalg.eigvalsh(v)
    if not torch.allclose(v, v.mT) or spread[0] <= features * torch.finfo(torch.float64).eps * spread[-1]:
        raise ValueError(
            "'covariance_prior' must be symmetric and positive definite, got "
            f"{'the singular covariance of the data' if covariance is None else 'another matrix'}: "
            "give a matrix in the data's units squared, such as the covariance plus a small multiple of the identity."
        )
    return _NormalWishart(x.new_tensor(beta), m, x.new_tensor(nu), v)


class _Posterior(NamedTuple):
    concentration: Tensor  # α, (K,)
    components: _NormalWishart  # of leading shape (K,)

    def log_joint(self, data: Columns) -> Tensor:
        """Return E[log π_k + log N(x_n; μ_k, Λ_k⁻¹)], shape (K, N)."""
        beta, mean, nu, inverse_scale = self.components
        whitener, _ = Full().whitener(inverse_scale)
        features = mean.shape[1]
        distance = nu[:, None] * Full().squared_distances(data, mean, whitener) + features / beta[:, None]
        log_weight = torch.digamma(self.concentration) - torch.digamma(self.concentration.sum())
        log_det = self.components.expected_log_det()
        return log_weight[:, None] + 0.5 * (log_det[:, None] - features * math.log(2.0 * math.pi) - distance)


class BayesianGaussianMixture(Mixture):
    r"""Bayesian mixture of Gaussians by coordinate ascent: mean-field variational inference.

    $$\pi \sim \mathrm{Dirichlet}(\alpha_0), \quad \Lambda_k \sim W(V_0^{-1}, \nu_0), \quad
    \mu_k \sim N(m_0, (\beta_0 \Lambda_k)^{-1}), \quad x_n \sim \sum_k \pi_k N(\mu_k, \Lambda_k^{-1})$$

    The posterior is q(assignments) q(π) Π_k q(μ_k, Λ_k), with Dirichlet(α_k) and normal-Wishart(β_k, m_k, ν_k, V_k)
    factors. The lower bound on log p(x_1..x_N) holds every term and normaliser, so with one component it *is* the log
    evidence. Given responsibilities r and the factors that are best for them it reads

    $$L = -\sum_{nk} r_{nk} \log r_{nk} + \log \frac{B(\alpha)}{B(\alpha_0)}
    + \sum_k \log \frac{Z(\beta_k, \nu_k, V_k)}{Z(\beta_0, \nu_0, V_0)} - \tfrac{ND}{2} \log 2 \pi$$

    with B the multivariate beta function and Z as in `log_marginal_likelihood_normal_wishart`. It never falls.

    Args:
        n_components: K, at most the number of data; superfluous ones keep almost no weight.
        weight_concentration_prior: α₀ > 0 of each component; 1 / K if left out.
        mean_prior: m₀, shape (D,); the data's mean if left out.
        mean_precision_prior: β₀ > 0, in numbers of data.
        degrees_of_freedom_prior: ν₀ > D − 1; D if left out.
        covariance_prior: V₀, the inverse of the Wishart's scale matrix, shape (D, D), in the data's units squared; the
            data's covariance (divided by N − 1) if left out.
        max_iter: the most iterations; 0 gives the best factors for the starting responsibilities.
        tol: the change of the lower bound, in nats per datum, below which the fit has converged.
        n_init: restarts from k-means with different k-means++ seeds; the fit of highest lower bound is kept.
        random_state: seed of the starts and of `sample`.
        responsibilities_init: responsibilities to start from, shape (N, K), rows summing to one.

    Attributes:
        weight_concentration_: α, shape (K,).
        mean_precision_: β, shape (K,).
        means_: m, shape (K, D), the data's units.
        degrees_of_freedom_: ν, shape (K,).
        covariances_: V_k / ν_k = E[Λ_k]⁻¹, shape (K, D, D), the data's units squared, as in scikit-learn. V_k⁻¹ is the
            Wishart's scale matrix.
        weights_: E[π] = α / Σ α, shape (K,).
        lower_bounds_: the lower bound in nats of the whole data set, shape (n_iter_ + 1,), from the start to the fit.
        lower_bound_: its last value.
        n_iter_: the number of iterations.
        converged_: whether `tol` was reached; where not, a ConvergenceWarning is given.

    `score_samples` gives the log of the exact predictive density under q, a mixture of Student-t densities,
    Σ_k E[π_k] St(x; m_k, V_k (1 + β_k) / (β_k (ν_k + 1 − D)), ν_k + 1 − D), in nats; scikit-learn plugs expected
    log-parameters into Gaussians instead, which do not integrate to one. `predict_proba` gives the responsibilities
    (N, K) of the next E-step, `sample` draws from the predictive.

    Raises:
        ValueError: data that are empty, not finite or fewer than the components; a prior out of range; a singular
            `covariance_prior`, also where left out (constant features); starting values of the wrong shape.
        TypeError: arguments or data that are not numbers.

    References:
        H. Attias (2000). A variational Bayesian framework for graphical models.
        C. M. Bishop (2006). Pattern recognition and machine learning, 10.2.

    >>> import torch
    >>> x = torch.randn(400, 2, generator=torch.Generator().manual_seed(0))
    >>> x[:100] += 10.0
    >>> mixture = BayesianGaussianMixture(n_components=5).fit(x)
    >>> mixture.weights_.sort().values.round(decimals=2).tolist()
    [0.0, 0.0, 0.0, 0.25, 0.75]
    """

    def __init__(
        self,
        n_components: int,
        *,
        weight_concentration_prior: float | None = None,
        mean_prior: Any = None,
        mean_precision_prior: float = 1.0,
        degrees_of_freedom_prior: float | None = None,
        covariance_prior: Any = None,
        max_iter: int = 1000,
        tol: float = 1e-6,
        n_init: int = 1,
        random_state: int = 0,
        responsibilities_init: Any = None,
    ) -> None:
        self.n_components = n_components
        self.weight_concentration_prior = weight_concentration_prior
        self.mean_prior = mean_prior
        self.mean_precision_prior = mean_precision_prior
        self.degrees_of_freedom_prior = degrees_of_freedom_prior
        self.covariance_prior = covariance_prior
        self.max_iter = max_iter
        self.tol = tol
        self.n_init = n_init
        self.random_state = random_state
        self.responsibilities_init = responsibilities_init

    @torch.no_grad()
    def fit(self, X: np.ndarray | Tensor, y: None = None) -> BayesianGaussianMixture:
        """Fit by coordinate ascent to data of shape (N, D) or (N, *trailing), and return self."""
        components = check_integer("n_components", self.n_components, 1)
        x = as_data(X, minimum=components)
        alpha = 1.0 / components if self.weight_concentration_prior is None else self.weight_concentration_prior
        alpha = check_real("weight_concentration_prior", alpha, 0.0, strict=True)
        prior = _prior(
            x, self.mean_prior, self.mean_precision_prior, self.degrees_of_freedom_prior, self.covariance_prior
        )
        max_iter, tol = check_integer("max_iter", self.max_iter, 0), check_real("tol", self.tol, 0.0)
        data = columns(x, x.mean(0))
        fits = (_fit_once(data, start, alpha, prior, max_iter, tol) for start in self._starts(x, components))
        posterior, trace, self.converged_ = max(fits, key=lambda fit: fit[1][-1])
        self.weight_concentration_ = posterior.concentration
        self.weights_ = posterior.concentration / posterior.concentration.sum()
        self.mean_precision_, self.means_, self.degrees_of_freedom_, inverse_scale = posterior.components
        self.covariances_ = inverse_scale / self.degrees_of_freedom_[:, None, None]
        self.lower_bounds_ = torch.tensor(trace, dtype=torch.float64)
        self.lower_bound_, self.n_iter_ = trace[-1], len(trace) - 1
        self._tensors = isinstance(X, Tensor)
        if not self.converged_:
            warn_not_converged(self)
        return self

    def score_samples(self, X: Array) -> Array:
        """Return the log of the posterior predictive density in nats, one per datum, shape (N,)."""
        x = self._read(X)
        nu, scale = self._student_t()
        whitener, log_det = Full().whitener(scale)
        distance = Full().squared_distances(self._columns(x), self.means_, whitener)  # (K, N)
        features = x.shape[1]
        constant = torch.lgamma(0.5 * (nu + features)) - torch.lgamma(0.5 * nu)
        constant = constant - 0.5 * (features * (nu * math.pi).log() + log_det)
        log_density = constant[:, None] - 0.5 * (nu + features)[:, None] * (distance / nu[:, None]).log1p()
        return in_kind(X, (log_density + self.weights_.log()[:, None]).logsumexp(0))

    def sample(self, n_samples: int = 1) -> tuple[Any, Any]:
        """Return draws (n_samples, D) from the predictive and their components, of the kind that fit was given."""
        check_is_fitted(self)
        check_integer("n_samples", n_samples, 1)
        own = generator(self.random_state)
        labels = torch.multinomial(self.weights_.cpu(), n_samples, replacement=True, generator=own)
        white = torch.randn(n_samples, self._features(), generator=own, dtype=torch.float64)
        nu, scale = self._student_t()
        # torch draws gamma variates from its global generator only.
        chi_square = torch.from_numpy(np.random.default_rng(self.random_state).chisquare(nu.cpu().numpy()[labels]))
        labels, white, chi_square = (value.to(self._device()) for value in (labels, white, chi_square))
        stretch = (nu[labels] / chi_square).sqrt().unsqueeze(1)
        x = self.means_[labels] + stretch * Full().colour(white, labels, scale)
        return self._handed_out(x), self._handed_out(labels)

    def _student_t(self) -> tuple[Tensor, Tensor]:
        """Return the degrees of freedom (K,) and scale matrices (K, D, D) of the predictive components."""
        nu = self.degrees_of_freedom_ + 1.0 - self._features()
        factor = self.degrees_of_freedom_ * (1.0 + self.mean_precision_) / (self.mean_precision_ * nu)
        return nu, factor[:, None, None] * self.covariances_

    def _log_joint(self, x: Tensor) -> Tensor:
        inverse_scale = self.covariances_ * self.degrees_of_freedom_[:, None, None]
        components = _NormalWishart(self.mean_precision_, self.means_, self.degrees_of_freedom_, inverse_scale)
        return _Posterior(self.weight_concentration_, components).log_joint(self._columns(x))

    def _columns(self, x: Tensor) -> Columns:
        return columns(x, self.weights_ @ self.means_)

    def _starts(self, x: Tensor, components: int) -> list[Tensor]:
        """Return the responsibilities (K, N) to start from."""
        seeds = restart_seeds(self.random_state, check_integer("n_init", self.n_init, 1))
        if self.responsibilities_init is None:
            return [k_means_responsibilities(x, components, seed) for seed in seeds]
        given = as_parameter("responsibilities_init", self.responsibilities_init, (len(x), components), x)
        if bool((given < 0).any()) or not torch.allclose(given.sum(1), x.new_ones(len(x))):
            raise ValueError(
                "'responsibilities_init' must be at least 0 with rows summing to 1, got others: normalise."
            )
        return [given.mT.contiguous()]


def _fit_once(
    data: Columns, responsibility: Tensor, alpha: float, prior: _NormalWishart, max_iter: int, tol: float
) -> tuple[_Posterior, list[float], bool]:
    """Return the posterior, the trace of lower bounds from the start on, and whether it converged."""
    concentration_prior = responsibility.new_full((len(responsibility),), alpha)
    features, count = len(data.centre), responsibility.shape[1]
    trace: list[float] = []
    while True:
        posterior = _Posterior(concentration_prior + responsibility.sum(1), prior.after(data, responsibility))
        entropy = -torch.xlogy(responsibility, responsibility).sum()
        weight_gain = _log_beta(posterior.concentration) - _log_beta(concentration_prior)
        gain = _log_evidence_ratio(count * features, prior, posterior.components)
        trace.append((entropy + weight_gain + gain).item())
        converged = len(trace) > 1 and abs(trace[-1] - trace[-2]) < tol * count
        if converged or len(trace) > max_iter:
            return posterior, trace, converged
        responsibility = posterior.log_joint(data).softmax(0)


def _log_beta(concentration: Tensor) -> Tensor:
    """Return the log of the multivariate beta function, the Dirichlet's normaliser."""
    return torch.lgamma(concentration).sum() - torch.lgamma(concentration.sum())
