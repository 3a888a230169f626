"""The Bayesian mixture against exact evidence, Bishop's bound term by term, and scikit-learn."""

import math
import warnings

import numpy as np
import pytest
import scipy.stats
import sklearn.mixture
import torch
from sklearn.base import clone
from sklearn.datasets import load_digits, load_iris
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from torch import Tensor
from torch.distributions import Dirichlet

from pyro_lvm.exact import BayesianGaussianMixture, log_marginal_likelihood_normal_wishart

IRIS = load_iris().data
PIXELS = load_digits().data[:, [18, 19, 20, 21, 26, 28]]


def quietly(fit: object, x: np.ndarray) -> object:
    """Fit for max_iter iterations exactly."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return fit.fit(x)


def evidence_by_the_chain_rule(x: np.ndarray, m: np.ndarray, beta: float, nu: float, v: np.ndarray) -> float:
    """log p(x_1) + log p(x_2 | x_1) + ..., each a Student-t, the posterior updated one datum at a time."""
    total, features = 0.0, x.shape[1]
    for row in x:
        freedom = nu + 1 - features
        shape = v * (1 + beta) / (beta * freedom)
        total += scipy.stats.multivariate_t(m, shape, df=freedom).logpdf(row)
        v = v + beta / (beta + 1) * np.outer(row - m, row - m)
        m, beta, nu = (beta * m + row) / (beta + 1), beta + 1, nu + 1
    return total


@pytest.mark.parametrize("features", [1, 3])
def test_evidence_is_a_product_of_student_t_predictives(features: int) -> None:
    rng = np.random.default_rng(features)
    x, m = rng.normal(size=(12, features)) + 2, rng.normal(size=features)
    v = np.cov(rng.normal(size=(20, features)).T).reshape(features, features)
    exact = log_marginal_likelihood_normal_wishart(torch.from_numpy(x), torch.from_numpy(m), 0.7, features + 0.5, v)
    assert exact.item() == pytest.approx(evidence_by_the_chain_rule(x, m, 0.7, features + 0.5, v), rel=1e-10)


def test_evidence_in_one_dimension_is_the_integral() -> None:
    x, m, beta, nu, v = np.array([0.3, -1.2, 2.0]), 0.5, 2.0, 1.5, 0.8
    mu, precision = np.meshgrid(np.linspace(-15, 15, 3001), np.exp(np.linspace(-14, 5, 3001)), indexing="ij")
    log_joint = scipy.stats.norm.logpdf(mu, m, (beta * precision) ** -0.5)
    log_joint += scipy.stats.gamma.logpdf(precision, nu / 2, scale=2 / v)
    for value in x:
        log_joint += scipy.stats.norm.logpdf(value, mu, precision**-0.5)
    integral = np.trapezoid(np.trapezoid(np.exp(log_joint) * precision, np.linspace(-14, 5, 3001), axis=1), mu[:, 0])
    exact = log_marginal_likelihood_normal_wishart(
        torch.from_numpy(x)[:, None], torch.tensor([m]), beta, nu, torch.tensor([[v]])
    )
    # The trapezoid rule on a smooth bump is exact but for its cut tails, below 1e-4 of the mass.
    assert exact.item() == pytest.approx(math.log(integral), abs=1e-4)


@pytest.mark.parametrize("x", [IRIS, PIXELS, IRIS[:, :1]], ids=["iris", "pixels", "one feature"])
def test_with_one_component_the_bound_is_the_evidence(x: np.ndarray) -> None:
    fit = BayesianGaussianMixture(1).fit(x)
    tensor = torch.from_numpy(x)
    covariance = np.cov(x.T).reshape(x.shape[1], -1)
    exact = log_marginal_likelihood_normal_wishart(tensor, tensor.mean(0), 1.0, x.shape[1], covariance)
    assert fit.lower_bound_ == pytest.approx(exact.item(), rel=1e-12)
    assert fit.converged_
    chain = evidence_by_the_chain_rule(x[:200], x.mean(0), 1.0, x.shape[1], covariance)
    same = log_marginal_likelihood_normal_wishart(tensor[:200], tensor.mean(0), 1.0, x.shape[1], covariance)
    assert same.item() == pytest.approx(chain, rel=1e-10)


def bound_by_bishops_terms(x: Tensor, r: Tensor, fit: BayesianGaussianMixture, alpha0: float) -> float:
    """Bishop (2006), equations 10.71 to 10.77, for the default prior."""
    d = x.shape[1]
    alpha, beta, nu, m = fit.weight_concentration_, fit.mean_precision_, fit.degrees_of_freedom_, fit.means_
    w = (fit.covariances_ * nu[:, None, None]).inverse()
    m0, beta0, nu0, w0 = x.mean(0), 1.0, torch.tensor(float(d)), torch.cov(x.mT).inverse()
    log_pi = torch.digamma(alpha) - torch.digamma(alpha.sum())
    halves = (nu[:, None] + 1 - torch.arange(1, d + 1)) / 2
    log_lambda = torch.digamma(halves).sum(-1) + d * math.log(2) + w.logdet()
    counts = r.sum(0)
    means = r.mT @ x / counts[:, None]

    def log_b(scale: Tensor, freedom: Tensor) -> Tensor:
        return (
            -0.5 * freedom * scale.logdet()
            - 0.5 * freedom * d * math.log(2)
            - torch.special.multigammaln(freedom / 2, d)
        )

    total = torch.tensor(0.0)
    for k in range(len(alpha)):
        deviation = x - means[k]
        s = (r[:, k, None] * deviation).mT @ deviation / counts[k]
        gap, shift = means[k] - m[k], m[k] - m0
        total += (
            0.5
            * counts[k]
            * (  # E[log p(x | assignments, μ, Λ)]
                log_lambda[k]
                - d / beta[k]
                - nu[k] * (s @ w[k]).trace()
                - nu[k] * gap @ w[k] @ gap
                - d * math.log(2 * math.pi)
            )
        )
        total += 0.5 * (  # E[log p(μ, Λ)]
            d * math.log(beta0 / (2 * math.pi))
            + log_lambda[k]
            - d * beta0 / beta[k]
            - beta0 * nu[k] * shift @ w[k] @ shift
        )
        total += log_b(w0, nu0) + 0.5 * (nu0 - d - 1) * log_lambda[k] - 0.5 * nu[k] * (w0.inverse() @ w[k]).trace()
        entropy = -log_b(w[k], nu[k]) - 0.5 * (nu[k] - d - 1) * log_lambda[k] + 0.5 * nu[k] * d
        total -= 0.5 * log_lambda[k] + 0.5 * d * torch.log(beta[k] / (2 * math.pi)) - 0.5 * d - entropy
    total += (r * log_pi).sum() - torch.xlogy(r, r).sum()
    prior, posterior = Dirichlet(torch.full_like(alpha, alpha0)), Dirichlet(alpha)
    total -= torch.distributions.kl_divergence(posterior, prior)
    return total.item()


def test_bound_is_bishops_term_by_term() -> None:
    x = torch.from_numpy(IRIS)
    r = torch.softmax(2 * torch.randn(150, 3), 1)
    fit = quietly(BayesianGaussianMixture(3, responsibilities_init=r, max_iter=0), x)
    assert fit.lower_bound_ == pytest.approx(bound_by_bishops_terms(x, r, fit, 1 / 3), rel=1e-11)


def test_lower_bound_never_falls() -> None:
    for seed in range(20):
        x = (IRIS, PIXELS[:300])[seed % 2]
        fit = BayesianGaussianMixture(6, random_state=seed, weight_concentration_prior=(0.01, 1.0, 10.0)[seed % 3]).fit(
            x
        )
        assert fit.lower_bounds_.diff().min() > -1e-12 * fit.lower_bounds_.abs().max()  # rounding
        assert len(fit.lower_bounds_) == fit.n_iter_ + 1
        assert fit.lower_bounds_[-1].item() == fit.lower_bound_


@pytest.mark.parametrize("x", [IRIS, PIXELS], ids=["iris", "pixels"])
@pytest.mark.parametrize("iterations", [0, 1, 20])
def test_posteriors_equal_scikit_learns_from_the_same_responsibilities(x: np.ndarray, iterations: int) -> None:
    prior = {"weight_concentration_prior": 0.3, "mean_precision_prior": 0.5, "degrees_of_freedom_prior": 9.0}
    theirs = sklearn.mixture.BayesianGaussianMixture(
        n_components=4,
        weight_concentration_prior_type="dirichlet_distribution",
        reg_covar=0.0,
        tol=0.0,
        max_iter=1,
        random_state=0,
        **prior,
    )
    # After one iteration scikit-learn's next E-step is its predict_proba: our starting responsibilities. Its next
    # M-step is our first.
    start = quietly(theirs, x).predict_proba(x)
    theirs = quietly(clone(theirs).set_params(max_iter=2 + iterations), x)
    ours = BayesianGaussianMixture(4, responsibilities_init=start, max_iter=iterations, tol=0.0, **prior)
    ours = quietly(ours, x)
    assert ours.n_iter_ == iterations
    names = ("weight_concentration_", "mean_precision_", "means_", "degrees_of_freedom_", "covariances_", "weights_")
    for name in names:
        np.testing.assert_allclose(getattr(ours, name).numpy(), getattr(theirs, name), rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(ours.predict_proba(x), theirs.predict_proba(x), atol=1e-6)
    # scikit-learn leaves constants out of its bound: the increments agree.
    np.testing.assert_allclose(ours.lower_bounds_.diff().numpy(), np.diff(theirs.lower_bounds_[1:]), atol=1e-6)


def test_superfluous_components_are_emptied() -> None:
    x = torch.randn(600, 2) + 8 * torch.eye(2)[torch.arange(600) % 2]
    fit = BayesianGaussianMixture(8, weight_concentration_prior=1e-3).fit(x)
    assert (fit.weights_ > 0.01).sum() == 2
    # The bound compares numbers of components as the evidence would.
    bounds = {k: BayesianGaussianMixture(k, n_init=3).fit(x).lower_bound_ + math.lgamma(k + 1) for k in (1, 2, 5)}
    assert max(bounds, key=bounds.__getitem__) == 2


def test_fewer_distinct_points_than_components() -> None:
    x = torch.tensor([[0.0, 0.0], [1.0, 1.0]]).repeat(10, 1)
    fit = BayesianGaussianMixture(4, covariance_prior=torch.eye(2)).fit(x)
    assert torch.isfinite(fit.lower_bounds_).all()
    assert torch.isfinite(fit.score_samples(x)).all()


def test_predictive_is_a_mixture_of_student_t() -> None:
    fit = BayesianGaussianMixture(3).fit(IRIS)
    freedom = fit.degrees_of_freedom_ - 3
    joint = []
    for k in range(3):
        shape = fit.covariances_[k] * fit.degrees_of_freedom_[k] * (1 + 1 / fit.mean_precision_[k]) / freedom[k]
        density = scipy.stats.multivariate_t(fit.means_[k].numpy(), shape.numpy(), df=freedom[k].item())
        joint.append(math.log(fit.weights_[k]) + density.logpdf(IRIS))
    np.testing.assert_allclose(fit.score_samples(IRIS), np.logaddexp.reduce(joint), rtol=1e-10)


def test_predictive_integrates_to_one_and_is_the_posterior_mean_of_the_density() -> None:
    x = torch.cat([torch.randn(10, 1), 4 + 0.5 * torch.randn(10, 1)])
    fit = BayesianGaussianMixture(2).fit(x)
    grid = torch.sinh(torch.linspace(-14, 14, 40_001))  # to ±6e5: heavy tails
    density = fit.score_samples(grid[:, None]).exp()
    # The tails beyond hold (6e5)^-ν of the mass with ν of 10: nothing.
    assert torch.trapezoid(density, grid).item() == pytest.approx(1.0, abs=1e-6)
    # E_q[Σ π_k N(x; μ_k, 1/λ_k)] by simulation from q.
    draws, point = 200_000, 1.0
    v = fit.covariances_[:, 0, 0] * fit.degrees_of_freedom_
    precision = torch.distributions.Gamma(fit.degrees_of_freedom_ / 2, v / 2).sample((draws,))
    mu = fit.means_[:, 0] + torch.randn(draws, 2) / (fit.mean_precision_ * precision).sqrt()
    pi = Dirichlet(fit.weight_concentration_).sample((draws,))
    values = (pi * torch.distributions.Normal(mu, precision.rsqrt()).log_prob(torch.tensor(point)).exp()).sum(1)
    exact = fit.score_samples(torch.tensor([[point]])).exp().item()
    assert abs(values.mean().item() - exact) < 4 * values.std().item() / math.sqrt(draws)


def test_samples_follow_the_predictive() -> None:
    fit = BayesianGaussianMixture(2).fit(IRIS[::12, :1])  # few data: tails far from a normal's
    draws, labels = (torch.from_numpy(v) for v in fit.sample(100_000))
    grid = torch.linspace(-100, 120, 220_001)
    cdf = torch.cumulative_trapezoid(fit.score_samples(grid[:, None]).exp(), grid)
    at = torch.tensor([2.0, 4.0, 5.0, 6.0, 7.0, 9.0])
    expected = cdf[torch.searchsorted(grid[1:], at)]
    observed = (draws < at).double().mean(0)
    assert ((observed - expected).abs() < 4 * (expected * (1 - expected) / len(draws)).sqrt() + 1e-4).all()
    shares = torch.bincount(labels, minlength=2) / len(labels)
    assert ((shares - fit.weights_).abs() < 4 * (fit.weights_ / len(labels)).sqrt()).all()


def test_narrow_prior_means_pull_the_components() -> None:
    mean = np.full(4, 100.0)
    loose = BayesianGaussianMixture(2, mean_prior=mean, mean_precision_prior=1e-6).fit(IRIS)
    tight = BayesianGaussianMixture(2, mean_prior=mean, mean_precision_prior=1e9).fit(IRIS)
    assert loose.means_.max() < 10
    torch.testing.assert_close(tight.means_, torch.full((2, 4), 100.0), rtol=1e-3, atol=0.0)


def test_manners() -> None:
    torch.manual_seed(7)
    np.random.seed(7)
    before, numpy_before = torch.get_rng_state(), np.random.get_state()[1].copy()
    x = torch.from_numpy(IRIS)
    fit = BayesianGaussianMixture(3, random_state=2)
    assert fit.fit(IRIS) is fit
    draws = fit.sample(4)
    assert all(isinstance(v, np.ndarray) for v in draws)
    np.testing.assert_array_equal(draws[0], clone(fit).fit(IRIS).sample(4)[0])
    assert all(isinstance(v, Tensor) for v in clone(fit).fit(x).sample(4))
    assert torch.equal(torch.get_rng_state(), before)
    assert (np.random.get_state()[1] == numpy_before).all()
    for method in ("score_samples", "predict_proba", "predict"):
        assert isinstance(getattr(fit, method)(IRIS), np.ndarray)
        assert isinstance(getattr(fit, method)(x), Tensor)
    assert fit.score(IRIS) == pytest.approx(fit.score_samples(IRIS).mean())
    assert BayesianGaussianMixture(3, n_init=4).fit(IRIS).lower_bound_ >= fit.lower_bound_ - 1e-3
    with pytest.warns(ConvergenceWarning, match="raise 'max_iter' or 'tol'"):
        assert not BayesianGaussianMixture(3, max_iter=1).fit(IRIS).converged_


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"n_components": 0}, ValueError, "'n_components'"),
        ({"n_components": "two"}, TypeError, "'n_components'"),
        ({"n_components": 151}, ValueError, "'X' must hold at least 151 data"),
        ({"weight_concentration_prior": 0.0}, ValueError, "'weight_concentration_prior'"),
        ({"mean_precision_prior": -1.0}, ValueError, "'mean_precision_prior'"),
        ({"degrees_of_freedom_prior": 3.0}, ValueError, "'degrees_of_freedom_prior' must be a finite number above 3"),
        ({"mean_prior": np.zeros(3)}, ValueError, r"'mean_prior' must have shape \(4,\)"),
        ({"covariance_prior": np.eye(3)}, ValueError, r"'covariance_prior' must have shape \(4, 4\)"),
        ({"covariance_prior": -np.eye(4)}, ValueError, "'covariance_prior' must be symmetric and positive definite"),
        ({"covariance_prior": np.triu(np.ones((4, 4))) + 9 * np.eye(4)}, ValueError, "'covariance_prior' must be symm"),
        ({"max_iter": -1}, ValueError, "'max_iter'"),
        ({"tol": float("inf")}, ValueError, "'tol'"),
        ({"n_init": 0}, ValueError, "'n_init'"),
        ({"random_state": 1.5}, TypeError, "'random_state'"),
        ({"responsibilities_init": np.ones((150, 2))}, ValueError, "'responsibilities_init' must be at least 0"),
        ({"responsibilities_init": np.ones((2, 150))}, ValueError, "'responsibilities_init' must have shape"),
    ],
)
def test_bad_arguments_are_named(arguments: dict, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        BayesianGaussianMixture(**({"n_components": 2} | arguments)).fit(IRIS)


def test_bad_data_are_named() -> None:
    with pytest.raises(ValueError, match=r"'covariance_prior' .* got the singular covariance of the data"):
        BayesianGaussianMixture(2).fit(load_digits().data)  # constant pixels
    with pytest.raises(ValueError, match=r"'covariance_prior' .* got the singular covariance of the data"):
        BayesianGaussianMixture(1).fit(IRIS[:1])
    for x, error, words in (
        (np.where(IRIS > 7, np.inf, IRIS), ValueError, "'X' must be finite, got inf"),
        (IRIS[:0], ValueError, "'X' must hold at least"),
        (IRIS.astype(object), TypeError, "'X' must be a dense numeric array"),
    ):
        with pytest.raises(error, match=words):
            BayesianGaussianMixture(2).fit(x)
        with pytest.raises(error, match=words):
            log_marginal_likelihood_normal_wishart(x, np.zeros(4), 1.0, 4.0, np.eye(4))
    with pytest.raises(NotFittedError):
        BayesianGaussianMixture(2).score_samples(IRIS)
    with pytest.raises(NotFittedError):
        BayesianGaussianMixture(2).sample()
    with pytest.raises(ValueError, match="the 4 features that fit saw, got 2"):
        BayesianGaussianMixture(2).fit(IRIS).predict(IRIS[:, :2])
