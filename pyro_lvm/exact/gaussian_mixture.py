"""A mixture of Gaussians by expectation-maximisation."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from pyro_lvm.exact._covariances import (
    COVARIANCE_TYPES,
    EMPTY,
    Columns,
    Covariance,
    columns,
    covariance_of,
    log_normal_densities,
)
from pyro_lvm.exact._estimator import (
    Array,
    as_data,
    as_parameter,
    generator,
    in_kind,
    warn_not_converged,
)
from pyro_lvm.exact._mixture import Mixture, k_means_responsibilities, one_hot, restart_seeds
from pyro_lvm.exact._numbers import check_choice, check_integer, check_real


class _Parameters(NamedTuple):
    weights: Tensor  # (K,)
    means: Tensor  # (K, D)
    covariances: Tensor  # as the covariance type says


class GaussianMixture(Mixture):
    r"""Mixture of Gaussians by expectation-maximisation.

    $$p(x) = \sum_k \pi_k N(x; \mu_k, \Sigma_k)$$

    E-step: γ_nk ∝ π_k N(x_n; μ_k, Σ_k), in log space. M-step: N_k = Σ_n γ_nk, π_k = N_k / N, μ_k = Σ_n γ_nk x_n / N_k,
    Σ_k = Σ_n γ_nk (x_n − μ_k)(x_n − μ_k)ᵀ / N_k with eigenvalues below the floor raised to it, which is the exact
    maximum under that constraint: the log-likelihood never falls. A component that loses all its data (N_k below 2e-15)
    keeps its mean and covariance and gets the weight N_k / N, so it takes no further part; nothing becomes NaN.

    Args:
        n_components: K, at most the number of data.
        covariance_type: "full" (a matrix each), "tied" (one matrix), "diag" (a variance per feature, each) or
            "spherical" (a variance each).
        tol: the change of the mean log-likelihood, in nats per datum, below which the fit has converged.
        max_iter: the most iterations.
        n_init: restarts from k-means with different k-means++ seeds; the fit of highest likelihood is kept.
        covariance_floor: the smallest eigenvalue of a covariance allowed, in the data's units squared. With 0 a
            component that shrinks onto a point or a plane raises, as its likelihood is unbounded.
        random_state: seed of the starts and of `sample`.
        weights_init: π to start from, shape (K,).
        means_init: μ to start from, shape (K, D). Parameters left out are estimated from the data nearest to each mean.
        covariances_init: Σ to start from, in the shape of `covariances_`, no eigenvalue under the floor.

    Attributes:
        weights_: π, shape (K,).
        means_: μ, shape (K, D), the data's units.
        covariances_: Σ, the data's units squared: (K, D, D) full, (D, D) tied, (K, D) diag, (K,) spherical.
        log_likelihoods_: mean log p(x) in nats per datum, shape (n_iter_ + 1,), from the start to the fit.
        lower_bound_: its last value, the fit's own (scikit-learn's is one iteration old).
        n_iter_: the number of iterations.
        converged_: whether `tol` was reached; where not, a ConvergenceWarning is given.

    `fit` takes (N, D) or (N, *trailing) arrays or tensors. `start` gives the parameters that a fit starts from,
    `score_samples` log p(x) in nats, `predict_proba` the responsibilities (N, K), `predict` the most responsible
    component, `sample` data and their components.

    Raises:
        ValueError: data that are empty, not finite or fewer than the components; an unknown covariance type; starting
            values of the wrong shape; a singular covariance with covariance_floor=0.
        TypeError: arguments or data that are not numbers.

    References:
        A. P. Dempster, N. M. Laird and D. B. Rubin (1977). Maximum likelihood from incomplete data via EM.
        C. M. Bishop (2006). Pattern recognition and machine learning, 9.2.
        D. Arthur and S. Vassilvitskii (2007). k-means++: the advantages of careful seeding.

    >>> import torch
    >>> x = torch.randn(400, 2, generator=torch.Generator().manual_seed(0))
    >>> x[:100] += 10.0
    >>> mixture = GaussianMixture(n_components=2).fit(x)
    >>> sorted(mixture.weights_.round(decimals=4).tolist())
    [0.25, 0.75]
    """

    def __init__(
        self,
        n_components: int,
        covariance_type: str = "full",
        *,
        tol: float = 1e-6,
        max_iter: int = 1000,
        n_init: int = 1,
        covariance_floor: float = 1e-6,
        random_state: int = 0,
        weights_init: Any = None,
        means_init: Any = None,
        covariances_init: Any = None,
    ) -> None:
        self.n_components = n_components
        self.covariance_type = covariance_type
        self.tol = tol
        self.max_iter = max_iter
        self.n_init = n_init
        self.covariance_floor = covariance_floor
        self.random_state = random_state
        self.weights_init = weights_init
        self.means_init = means_init
        self.covariances_init = covariances_init

    @torch.no_grad()
    def fit(self, X: np.ndarray | Tensor, y: None = None) -> GaussianMixture:
        """Fit by expectation-maximisation to data of shape (N, D) or (N, *trailing), and return self."""
        x, kind, floor = self._read_training(X)
        max_iter, tol = check_integer("max_iter", self.max_iter, 1), check_real("tol", self.tol, 0.0)
        seeds = restart_seeds(self.random_state, check_integer("n_init", self.n_init, 1))
        if self.means_init is not None:
            seeds = seeds[:1]  # nothing random is left in the start
        data = columns(x, x.mean(0))
        fits = (_fit_once(data, self._start(x, data, kind, floor, seed), kind, floor, max_iter, tol) for seed in seeds)
        parameters, trace, self.converged_ = max(fits, key=lambda fit: fit[1][-1])
        self.weights_, self.means_, self.covariances_ = parameters
        self.log_likelihoods_ = torch.tensor(trace, dtype=torch.float64)
        self.lower_bound_, self.n_iter_ = trace[-1], len(trace) - 1
        self._tensors = isinstance(X, Tensor)
        if not self.converged_:
            warn_not_converged(self)
        return self

    @torch.no_grad()
    def start(self, X: Array) -> tuple[Array, Array, Array]:
        """Return the weights (K,), means (K, D) and covariances that `fit(X)` starts from (its first restart)."""
        x, kind, floor = self._read_training(X)
        seed = restart_seeds(self.random_state, 1)[0]
        weights, means, covariances = self._start(x, columns(x, x.mean(0)), kind, floor, seed)
        return in_kind(X, weights), in_kind(X, means), in_kind(X, covariances)

    def score_samples(self, X: Array) -> Array:
        """Return log p(x) in nats, one per datum, shape (N,)."""
        return in_kind(X, self._log_joint(self._read(X)).logsumexp(0))

    def sample(self, n_samples: int = 1) -> tuple[Any, Any]:
        """Return draws (n_samples, D) and their components (n_samples,), of the kind that fit was given."""
        check_is_fitted(self)
        check_integer("n_samples", n_samples, 1)
        own = generator(self.random_state)
        labels = torch.multinomial(self.weights_.cpu(), n_samples, replacement=True, generator=own)
        white = torch.randn(n_samples, self._features(), generator=own, dtype=torch.float64)
        labels, white = labels.to(self._device()), white.to(self._device())
        kind = covariance_of(self.covariance_type, self._features())
        x = self.means_[labels] + kind.colour(white, labels, self.covariances_)
        return self._handed_out(x), self._handed_out(labels)

    def _log_joint(self, x: Tensor) -> Tensor:
        kind = covariance_of(self.covariance_type, self._features())
        data = columns(x, self.weights_ @ self.means_)
        return _log_joint(data, _Parameters(self.weights_, self.means_, self.covariances_), kind)

    def _read_training(self, X: np.ndarray | Tensor) -> tuple[Tensor, Covariance, float]:
        components = check_integer("n_components", self.n_components, 1)
        covariance_type = check_choice("covariance_type", self.covariance_type, COVARIANCE_TYPES)
        floor = check_real("covariance_floor", self.covariance_floor, 0.0)
        x = as_data(X, minimum=components)
        return x, covariance_of(covariance_type, x.shape[1]), floor

    def _start(self, x: Tensor, data: Columns, kind: Covariance, floor: float, seed: int) -> _Parameters:
        """Return the given parameters, those left out being estimated from hard responsibilities."""
        components, features = self.n_components, x.shape[1]
        if self.means_init is None:
            responsibility = k_means_responsibilities(x, components, seed)
        else:
            means = as_parameter("means_init", self.means_init, (components, features), x)
            responsibility = one_hot(torch.cdist(x, means).argmin(1), components)
        start = _hard_start(data, responsibility, kind, floor)
        if self.means_init is not None:
            start = start._replace(means=means)
        if self.weights_init is not None:
            start = start._replace(weights=_valid_weights(self.weights_init, (components,), x))
        if self.covariances_init is not None:
            start = start._replace(covariances=self._valid_covariances(x, kind, floor))
        return start

    def _valid_covariances(self, x: Tensor, kind: Covariance, floor: float) -> Tensor:
        shape = kind.shape(self.n_components, x.shape[1])
        covariances = as_parameter("covariances_init", self.covariances_init, shape, x)
        smallest = kind.smallest(covariances)
        if smallest <= 0.0 or smallest < floor * (1.0 - 1e-9):  # rounding in a user's own floor is no offence
            raise ValueError(
                f"'covariances_init' must have eigenvalues of at least covariance_floor={floor:g} and above 0, got "
                f"{smallest:g}: raise them or lower the floor."
            )
        return covariances


def _valid_weights(value: Any, shape: tuple[int, ...], x: Tensor) -> Tensor:
    weights = as_parameter("weights_init", value, shape, x)
    if bool((weights < 0).any()) or abs(weights.sum().item() - 1.0) > 1e-6:
        raise ValueError(f"'weights_init' must be at least 0 and sum to 1, got {weights.tolist()}: normalise them.")
    return weights


def _log_joint(data: Columns, parameters: _Parameters, kind: Covariance) -> Tensor:
    """Return log π_k + log N(x_n; μ_k, Σ_k), shape (K, N)."""
    weights, means, covariances = parameters
    return log_normal_densities(data, means, covariances, kind).add_(weights.log()[:, None])


def _hard_start(data: Columns, responsibility: Tensor, kind: Covariance, floor: float) -> _Parameters:
    """Return one M-step from hard responsibilities; a cluster without data starts as the whole data set."""
    everything = torch.ones_like(responsibility[:1])
    mean = data.centre[None]
    whole = kind.estimate(kind.scatter(data, mean, everything), everything.sum(1), floor)
    return _m_step(data, responsibility, kind, floor, _Parameters(responsibility.mean(1), mean, whole))


def _m_step(
    data: Columns, responsibility: Tensor, kind: Covariance, floor: float, previous: _Parameters
) -> _Parameters:
    """Return the parameters of highest expected log-likelihood under responsibilities (K, N)."""
    sums, counts = (responsibility @ data.points.mT).split([len(data.centre), 1], dim=1)  # (K, D), (K, 1)
    empty = counts <= EMPTY
    means = previous.means.where(empty, data.centre + sums / counts.clamp(min=EMPTY))
    counts, empty = counts.squeeze(1), empty.squeeze(1)
    covariances = kind.estimate(kind.scatter(data, means, responsibility), counts, floor)
    weights = counts / data.points.shape[1]
    return _Parameters(weights, means, kind.keep_empty(covariances, empty, previous.covariances))


def _fit_once(
    data: Columns, parameters: _Parameters, kind: Covariance, floor: float, max_iter: int, tol: float
) -> tuple[_Parameters, list[float], bool]:
    """Return the parameters, the trace of mean log-likelihoods from the start on, and whether it converged."""
    trace: list[float] = []
    while True:
        joint = _log_joint(data, parameters, kind)  # (K, N)
        top = joint.amax(0)
        joint = joint.sub_(top).exp_()  # one exponential serves both the likelihood and the responsibilities
        density = joint.sum(0)  # (N,)
        trace.append((top + density.log()).mean().item())
        converged = len(trace) > 1 and abs(trace[-1] - trace[-2]) < tol
        if converged or len(trace) > max_iter:
            return parameters, trace, converged
        parameters = _m_step(data, joint.div_(density), kind, floor, parameters)
