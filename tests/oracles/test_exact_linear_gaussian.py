"""Probabilistic PCA and factor analysis against dense normals, eigenvalues and scikit-learn."""

import math

import numpy as np
import pytest
import sklearn.decomposition
import torch
from sklearn.base import clone
from sklearn.datasets import load_digits, load_iris
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from torch import Tensor
from torch.distributions import MultivariateNormal, kl_divergence

from pyro_lvm.exact import (
    FactorAnalysis,
    ProbabilisticPCA,
    ProbabilisticPCAEM,
    _linear_gaussian_estimator,
    kl_normal,
    log_evidence,
    posterior,
    ppca,
)
from pyro_lvm.exact._estimator import as_data

IRIS = load_iris().data
DIGITS = load_digits().data  # 64 pixels on 0..16, three of them constant
ESTIMATORS = [ProbabilisticPCA, ProbabilisticPCAEM, FactorAnalysis]


def random_model(features: int, latents: int, diagonal: bool) -> tuple[Tensor, Tensor, Tensor]:
    weight, mean = torch.randn(features, latents), torch.randn(features)
    return weight, mean, torch.rand(features) + 0.1 if diagonal else torch.tensor(0.3)


def dense(weight: Tensor, mean: Tensor, noise: Tensor) -> MultivariateNormal:
    return MultivariateNormal(mean, weight @ weight.mT + torch.diag(noise.expand(len(mean))))


def relative(a: Tensor, b: Tensor) -> float:
    return ((a - b).abs().max() / b.abs().max()).item()


# The pure functions.


@pytest.mark.parametrize("diagonal", [False, True])
@pytest.mark.parametrize(("features", "latents"), [(2, 1), (7, 3), (40, 39)])
def test_log_evidence_is_that_of_the_dense_normal(features: int, latents: int, diagonal: bool) -> None:
    weight, mean, noise = random_model(features, latents, diagonal)
    x = 3 * torch.randn(5, 2, features)
    expected = dense(weight, mean, noise).log_prob(x)
    # Two exact formulas in float64: the gate allows for the condition number of C, about 1e3 here.
    torch.testing.assert_close(log_evidence(x, weight, mean, noise), expected, rtol=1e-11, atol=1e-11)


def test_log_evidence_keeps_its_digits_at_small_noise() -> None:
    # In one dimension with x on the line of W, (x − b)ᵀC⁻¹(x − b) = s²‖w‖² / (‖w‖² + σ²), known to all digits. The
    # textbook form ‖r‖²/σ² − ... would lose 1e-16 · 1e12 = 1e-4 here.
    weight = torch.tensor([[3.0], [4.0]])
    value = log_evidence(2.0 * weight.mT, weight, torch.zeros(2), 1e-12).item()
    expected = -0.5 * (2 * math.log(2 * math.pi) + math.log(25 * 1e-12) + 4 * 25 / 25)
    assert value == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("diagonal", [False, True])
def test_posterior_obeys_bayes_rule(diagonal: bool) -> None:
    weight, mean, noise = random_model(6, 2, diagonal)
    x, z = torch.randn(4, 6), torch.randn(4, 2)
    loc, covariance = posterior(x, weight, mean, noise)
    prior = MultivariateNormal(torch.zeros(2), torch.eye(2)).log_prob(z)
    likelihood = torch.distributions.Normal(z @ weight.mT + mean, noise.sqrt()).log_prob(x).sum(-1)
    evidence = prior + likelihood - MultivariateNormal(loc, covariance).log_prob(z)
    torch.testing.assert_close(log_evidence(x, weight, mean, noise), evidence, rtol=1e-11, atol=1e-11)
    if not diagonal:
        precision = weight.mT @ weight + noise * torch.eye(2)
        torch.testing.assert_close(covariance, noise * precision.inverse())


def test_pure_functions_are_differentiable_and_keep_the_dtype() -> None:
    weight, mean, noise = (value.requires_grad_() for value in random_model(5, 2, True))
    x = torch.randn(3, 5, requires_grad=True)
    assert torch.autograd.gradcheck(log_evidence, (x, weight, mean, noise))
    assert torch.autograd.gradcheck(posterior, (x, weight, mean, noise))
    single = [value.detach().float() for value in (x, weight, mean)]
    assert log_evidence(*single, 0.5).dtype == torch.float32
    assert posterior(*single, torch.tensor(0.5))[0].dtype == torch.float32
    torch.testing.assert_close(
        log_evidence(*single, 0.5).double(), log_evidence(x, weight, mean, 0.5).detach(), rtol=1e-5, atol=1e-5
    )


def test_kl_normal_is_torchs_and_the_gap_of_a_normal_guide() -> None:
    loc, root = torch.randn(2, 3, 4), torch.randn(2, 3, 4, 4)
    covariance = root @ root.mT + torch.eye(4)
    q, p = MultivariateNormal(loc[0], covariance[0]), MultivariateNormal(loc[1], covariance[1])
    torch.testing.assert_close(kl_normal(loc[0], covariance[0], loc[1], covariance[1]), kl_divergence(q, p))
    # log p(x) − ELBO = KL(q ‖ posterior), the ELBO written out with the moments of q.
    weight, mean, noise = random_model(6, 4, False)
    x = torch.randn(3, 6)
    m, s = loc[0], covariance[0]
    expected_square = (x - mean - m @ weight.mT).square().sum(-1) + (weight.mT @ weight @ s).diagonal(
        dim1=-2, dim2=-1
    ).sum(-1)
    elbo = -3 * torch.log(2 * math.pi * noise) - 0.5 * expected_square / noise
    elbo = elbo - kl_normal(m, s, torch.zeros(4), torch.eye(4))
    gap = log_evidence(x, weight, mean, noise) - elbo
    torch.testing.assert_close(gap, kl_normal(m, s, *posterior(x, weight, mean, noise)), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"weight": torch.ones(2, 3)}, "'weight'"),
        ({"weight": torch.ones(3)}, "'weight'"),
        ({"mean": torch.zeros(2)}, "'mean'"),
        ({"noise_variance": torch.ones(2)}, "'noise_variance'"),
        ({"noise_variance": 0.0}, "'noise_variance'"),
        ({"noise_variance": -1.0}, "'noise_variance'"),
    ],
)
def test_pure_functions_refuse_what_does_not_fit(change: dict, name: str) -> None:
    arguments = {"x": torch.ones(4, 3), "weight": torch.ones(3, 2), "mean": torch.zeros(3), "noise_variance": 1.0}
    for function in (log_evidence, posterior):
        with pytest.raises(ValueError, match=name):
            function(**(arguments | change))


# Closed-form probabilistic PCA.


@pytest.mark.parametrize("shape", [(200, 6), (6, 50), (30, 30)], ids=["tall", "wide", "square"])
def test_noise_and_principal_axes_are_those_of_the_covariance(shape: tuple[int, int]) -> None:
    x = torch.randn(shape) * torch.linspace(3, 1, shape[1])
    fit = ProbabilisticPCA(3).fit(x)
    covariance = torch.cov(x.mT, correction=0)
    values, vectors = torch.linalg.eigh(covariance)
    torch.testing.assert_close(fit.noise_variance_, values[:-3].mean())
    model = fit.weight_ @ fit.weight_.mT + fit.noise_variance_ * torch.eye(shape[1])
    top = vectors[:, -3:]
    torch.testing.assert_close(model @ top, top * values[-3:], atol=1e-10, rtol=1e-10)
    assert bool((fit.weight_.gather(0, fit.weight_.abs().argmax(0, keepdim=True)) > 0).all()), "the signs are fixed"


@pytest.mark.parametrize("shape", [(200, 6), (6, 50)], ids=["tall", "wide"])
def test_data_far_from_the_origin_keep_their_digits(shape: tuple[int, int]) -> None:
    # Multiples of 2⁻²⁰ up to 1e6 are exact in float64, so the shifted data are the same data.
    x = (torch.randn(shape) * torch.linspace(3, 1, shape[1]) * 2**20).round() / 2**20
    near, far = ProbabilisticPCA(3).fit(x), ProbabilisticPCA(3).fit(x + 1e6)
    # The mean is known to 1e-10; moments about the origin would lose 1e-16 · 1e12 = 1e-4.
    torch.testing.assert_close(far.mean_, near.mean_ + 1e6, rtol=0.0, atol=1e-9)
    torch.testing.assert_close(far.noise_variance_, near.noise_variance_, rtol=1e-9, atol=0.0)
    torch.testing.assert_close(far.weight_, near.weight_, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(far.score_samples(x + 1e6), near.score_samples(x), rtol=0.0, atol=1e-7)


def test_shares_and_blocks_of_rows_add_up(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = ProbabilisticPCA(2).fit(IRIS)
    score = whole.score_samples(IRIS)
    monkeypatch.setattr(ppca, "_SHARE", 100)  # of 600 numbers
    monkeypatch.setattr(ppca, "_BLOCK", 7)
    monkeypatch.setattr(_linear_gaussian_estimator, "BLOCK", 4 * 7)  # of 150 rows, 7 at a time: the last has 3
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    shared = ProbabilisticPCA(2).fit(IRIS)
    torch.testing.assert_close(shared.weight_, whole.weight_)
    torch.testing.assert_close(shared.noise_variance_, whole.noise_variance_)
    np.testing.assert_allclose(shared.score_samples(IRIS), score, rtol=1e-12)


def test_large_numbers_are_finite_though_their_sum_is_not() -> None:
    x = IRIS.copy()
    x[:2, 0] = 1.5e308
    assert bool((as_data(x) == torch.from_numpy(x)).all())


@pytest.mark.parametrize(("x", "components"), [(IRIS, 1), (IRIS, 3), (DIGITS, 10)])
def test_scikit_learn_agrees_once_its_divisor_is_allowed_for(x: np.ndarray, components: int) -> None:
    ours, theirs = ProbabilisticPCA(components).fit(x), sklearn.decomposition.PCA(components).fit(x)
    # scikit-learn divides the covariance by N − 1: its W Wᵀ and σ² are ours times N / (N − 1).
    ratio = len(x) / (len(x) - 1)
    assert theirs.noise_variance_ == pytest.approx(ours.noise_variance_.item() * ratio, rel=1e-9)
    scaled = log_evidence(
        torch.from_numpy(x), ours.weight_ * math.sqrt(ratio), ours.mean_, ours.noise_variance_ * ratio
    )
    np.testing.assert_allclose(scaled.numpy(), theirs.score_samples(x), rtol=1e-6)
    # Ours is the maximum; theirs falls short by the second-order effect of 1/N, D/(4 N²) at leading order.
    shortfall = ours.score(x) - theirs.score(x)
    assert 0 < shortfall < x.shape[1] / (2 * len(x) ** 2)


def test_closed_form_is_a_stationary_point_and_a_maximum() -> None:
    x = torch.from_numpy(IRIS)
    fit = ProbabilisticPCA(2).fit(x)
    arguments = [v.clone().requires_grad_() for v in (fit.weight_, fit.mean_, fit.noise_variance_)]
    best = log_evidence(x, *arguments).mean()
    for gradient in torch.autograd.grad(best, arguments):
        assert gradient.abs().max() < 1e-10  # exactly zero but for rounding
    for _ in range(20):
        weight, mean, noise = (v.detach() * (1 + 0.05 * torch.randn_like(v)) for v in arguments)
        assert log_evidence(x, weight, mean, noise).mean() < best


def test_flooring_the_noise_is_the_constrained_maximum() -> None:
    # Data on a plane: σ² would be 0, so the floor binds, and the best W for that σ² is checked by its gradient.
    x = torch.randn(50, 2) @ torch.randn(2, 5)
    fit = ProbabilisticPCA(2, noise_floor=0.01).fit(x)
    assert fit.noise_variance_.item() == 0.01
    weight = fit.weight_.clone().requires_grad_()
    noise = fit.noise_variance_.clone().requires_grad_()
    gradients = torch.autograd.grad(log_evidence(x, weight, fit.mean_, noise).mean(), (weight, noise))
    assert gradients[0].abs().max() < 1e-10
    assert gradients[1] < 0, "more noise than the floor would be worse"
    for estimator in ESTIMATORS:
        with pytest.raises(ValueError, match="'noise_floor' must be above 0"):
            estimator(2, noise_floor=0.0).fit(x)


@pytest.mark.slow
def test_twenty_thousand_features_need_no_square_matrix() -> None:
    features = 20_000  # a D × D matrix would take 3.2 GB and a decomposition of hours
    x = torch.randn(40, features)
    x[:, :50] += 10 * torch.randn(40, 1)
    closed, em = ProbabilisticPCA(2).fit(x), ProbabilisticPCAEM(2, tol=1e-6).fit(x)
    assert em.score(x) == pytest.approx(closed.score(x), rel=1e-8)
    assert em.posterior(x)[1].shape == (2, 2)


# Expectation-maximisation.


@pytest.mark.parametrize(("x", "components"), [(IRIS, 2), (DIGITS, 5), (DIGITS[:30], 4)])
def test_em_reaches_the_closed_form(x: np.ndarray, components: int) -> None:
    closed, em = ProbabilisticPCA(components).fit(x), ProbabilisticPCAEM(components, tol=1e-12).fit(x)
    assert em.converged_
    # A linear rate r turns steps of 1e-12 into a gap of 1e-12 / (1 − r); r < 0.99 here.
    assert closed.score(x) - em.score(x) == pytest.approx(0.0, abs=1e-9)
    assert em.noise_variance_.item() == pytest.approx(closed.noise_variance_.item(), rel=1e-6)
    # W itself is free up to a rotation: compare W Wᵀ through the principal angles, and in size.
    cosines = torch.linalg.svdvals(torch.linalg.qr(em.weight_).Q.mT @ torch.linalg.qr(closed.weight_).Q)
    assert cosines.min() > 1 - 1e-8
    # log-likelihood is flat at the maximum: a gap of 1e-9 leaves W within the order of sqrt(1e-9)
    assert relative(em.weight_ @ em.weight_.mT, closed.weight_ @ closed.weight_.mT) < 1e-4


@pytest.mark.parametrize("estimator", [ProbabilisticPCAEM, FactorAnalysis])
@pytest.mark.parametrize("x", [IRIS, DIGITS, DIGITS[:40]], ids=["iris", "digits", "wide"])
def test_log_likelihood_never_falls(estimator: type, x: np.ndarray) -> None:
    for seed in range(5):
        fit = estimator(2, random_state=seed, tol=1e-6).fit(x)
        steps = fit.log_likelihoods_.diff()
        assert steps.min() > -1e-11 * fit.log_likelihoods_.abs().max()  # rounding of sums of N D terms
        assert len(fit.log_likelihoods_) == fit.n_iter_ + 1
        assert fit.log_likelihoods_[-1].item() == pytest.approx(fit.score(x), rel=1e-9), "the last is the fit's own"


@pytest.mark.parametrize("estimator", [ProbabilisticPCAEM, FactorAnalysis])
@pytest.mark.parametrize("rows", [8, 200], ids=["wide", "tall"])
def test_a_step_is_that_of_the_expanded_model(estimator: type, rows: int) -> None:
    # By hand, from a model N(W z + b, Ψ) with z ~ N(0, I): the best model with z ~ N(0, S) under the same posteriors.
    x = torch.randn(rows, 3) @ torch.randn(3, 10) + 0.5 * torch.randn(rows, 10)
    with pytest.warns(ConvergenceWarning):
        before, after = (estimator(3, max_iter=n, tol=0.0, random_state=1).fit(x) for n in (1, 2))
    loc, covariance = before.posterior(x)
    second_moment = sum(torch.outer(m, m) + covariance for m in loc) / rows  # S
    deviation = x - x.mean(0)
    weight = deviation.mT @ loc / rows @ second_moment.inverse()
    squares = (deviation - loc @ weight.mT).square().mean(0) + (weight @ covariance @ weight.mT).diagonal()
    noise = squares if estimator is FactorAnalysis else squares.mean()
    torch.testing.assert_close(after.noise_variance_, noise)
    torch.testing.assert_close(after.weight_ @ after.weight_.mT, weight @ second_moment @ weight.mT)


@pytest.mark.parametrize("seed", range(3))
def test_factor_analysis_reaches_scikit_learns_likelihood(seed: int) -> None:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(500, 3)) @ rng.normal(size=(3, 10)) + rng.normal(size=(500, 10)) * rng.uniform(0.5, 2, size=10)
    ours = FactorAnalysis(3, tol=1e-12, random_state=seed).fit(x)
    theirs = sklearn.decomposition.FactorAnalysis(3, tol=1e-9, max_iter=10_000, svd_method="lapack").fit(x)
    # Both stop at steps near 1e-12 nats per datum, at linear rates below 0.999: 1e-8 apart at most.
    assert ours.score(x) == pytest.approx(theirs.score(x), abs=1e-8)
    np.testing.assert_allclose(ours.noise_variance_.numpy(), theirs.noise_variance_, rtol=1e-3)
    np.testing.assert_allclose(ours.score_samples(x), theirs.score_samples(x), atol=1e-3)


@pytest.mark.slow
def test_factor_analysis_of_digits_reaches_scikit_learns_likelihood() -> None:
    # Without the constant pixels, whose likelihood has no bound.
    x = DIGITS[:, DIGITS.std(0) > 0.5]
    ours = FactorAnalysis(4, tol=1e-10).fit(x)
    theirs = sklearn.decomposition.FactorAnalysis(4, tol=1e-7, max_iter=10_000, svd_method="lapack").fit(x)
    assert ours.score(x) == pytest.approx(theirs.score(x), abs=1e-6)


def test_factor_analysis_of_constant_pixels_sits_on_the_floor() -> None:
    fit = FactorAnalysis(3, noise_floor=0.01, tol=1e-6).fit(DIGITS)
    constant = torch.from_numpy(DIGITS.std(0) == 0)
    assert constant.sum() == 3
    assert bool((fit.noise_variance_[constant] == 0.01).all())
    assert np.isfinite(fit.score(DIGITS))
    with pytest.raises(ValueError, match="'noise_floor' must be above 0"):
        FactorAnalysis(3, noise_floor=0.0).fit(DIGITS)


def test_factor_analysis_follows_a_rescaling_of_features() -> None:
    x = 3 * torch.randn(500, 1) + torch.randn(500, 6) * torch.linspace(2, 4, 6)
    scale = torch.tensor([1.0, 10.0, 0.5, 3.0, 7.0, 0.1])
    plain, scaled = (FactorAnalysis(1, tol=1e-12).fit(v) for v in (x, x * scale))
    assert plain.noise_variance_.min() > 1.0, "the floor does not bind"
    # log p(s x) = log p(x) − Σ log s, and the stopping rule leaves 1e-12 / (1 − rate).
    assert scaled.score(x * scale) == pytest.approx(plain.score(x) - scale.log().sum().item(), abs=1e-9)
    torch.testing.assert_close(scaled.noise_variance_, plain.noise_variance_ * scale.square(), rtol=1e-4, atol=0.0)


# The estimators' manners.


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_samples_have_the_fitted_moments(estimator: type) -> None:
    fit = estimator(2).fit(IRIS)
    draws = torch.from_numpy(fit.sample(100_000))
    covariance = fit.weight_ @ fit.weight_.mT + torch.diag(fit.noise_variance_.expand(4))
    # Standard errors of a normal's mean and covariance; five of them over 14 numbers fail by chance once in 1e5.
    mean_error = (covariance.diagonal() / len(draws)).sqrt()
    spread = covariance.diagonal()
    covariance_error = ((covariance.square() + spread[:, None] * spread) / len(draws)).sqrt()
    assert ((draws.mean(0) - fit.mean_).abs() < 5 * mean_error).all()
    assert ((torch.cov(draws.mT) - covariance).abs() < 5 * covariance_error).all()


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_results_come_in_the_kind_of_the_data(estimator: type) -> None:
    numpy_fit = estimator(2).fit(IRIS)
    tensor_fit = estimator(2).fit(torch.from_numpy(IRIS))
    assert numpy_fit.fit(IRIS) is numpy_fit
    for fit, kind in ((numpy_fit, np.ndarray), (tensor_fit, Tensor)):
        assert isinstance(fit.sample(3), kind)
        assert fit.sample(3).shape == (3, 4)
        assert all(isinstance(getattr(fit, name), Tensor) for name in ("weight_", "mean_", "noise_variance_"))
        assert fit.weight_.dtype == torch.float64
        for x in (IRIS, torch.from_numpy(IRIS)):
            assert type(fit.score_samples(x)) is type(fit.transform(x)) is type(x)
            assert fit.transform(x).shape == (150, 2)
            assert isinstance(fit.score(x), float)
        x = torch.from_numpy(IRIS).requires_grad_()
        gradient = torch.autograd.grad(fit.score_samples(x).sum(), x)[0]
        loc, _ = posterior(x, fit.weight_, fit.mean_, fit.noise_variance_)
        torch.testing.assert_close(gradient, -(x - fit.mean_ - loc @ fit.weight_.mT) / fit.noise_variance_)
        assert fit.score(x) == pytest.approx(fit.score(IRIS), rel=1e-12)
    np.testing.assert_array_equal(numpy_fit.score_samples(IRIS), tensor_fit.score_samples(torch.from_numpy(IRIS)))


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_images_integers_and_single_precision_are_flattened_to_float64(estimator: type) -> None:
    images = torch.from_numpy(load_digits().images[:100])  # (100, 8, 8)
    fit = estimator(2, tol=1e-6).fit(images) if estimator is not ProbabilisticPCA else estimator(2).fit(images)
    assert fit.weight_.shape == (64, 2)
    for other in (images.flatten(1), images.int(), images.float(), images.to(torch.uint8)):
        torch.testing.assert_close(fit.score_samples(other), fit.score_samples(images))


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_the_callers_random_state_and_arguments_stay_untouched(estimator: type) -> None:
    torch.manual_seed(7)
    np.random.seed(7)
    before, numpy_before = torch.get_rng_state(), np.random.get_state()[1].copy()
    x = IRIS.copy()
    fit = estimator(2, random_state=3, noise_floor=1e-5).fit(x)
    draws = fit.sample(5)
    assert torch.equal(torch.get_rng_state(), before)
    assert (np.random.get_state()[1] == numpy_before).all()
    assert (x == IRIS).all()
    np.testing.assert_array_equal(draws, clone(fit).fit(x).sample(5))
    assert fit.get_params()["noise_floor"] == 1e-5


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize(
    ("x", "error", "words"),
    [
        (
            np.array([[1.0, np.nan], [0.0, 1.0], [1.0, 1.0]]),
            ValueError,
            "'X' must be finite, got nan at row 0, column 1",
        ),
        (torch.tensor([[1.0, 2.0], [0.0, torch.inf]]), ValueError, "'X' must be finite, got inf at row 1, column 1"),
        (np.empty((0, 3)), ValueError, "'X' must hold at least 1 data"),
        (np.ones((4, 0)), ValueError, "'X' must hold at least 1 data"),
        (np.ones(4), ValueError, "'X' must have shape"),
        (np.ones((4, 1)), ValueError, "'X' must have at least 2 features"),
        (IRIS[:1], ValueError, "'X' must hold at least 2 data, got 1"),
        (np.array([["a", "b"], ["c", "d"]]), TypeError, "'X' must be a dense numeric array"),
        (np.ones((4, 3), dtype=complex), TypeError, "'X' must hold real numbers"),
        (torch.ones(4, 3, dtype=torch.complex64), TypeError, "'X' must hold real numbers"),
        (None, TypeError, "'X' must be a dense numeric array"),
    ],
)
def test_bad_data_are_named(estimator: type, x: object, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        estimator(1).fit(x)


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"n_components": 0}, ValueError, "'n_components' must be an integer in 1..3, got 0"),
        ({"n_components": 4}, ValueError, "'n_components' must be an integer in 1..3, got 4"),
        ({"n_components": 1.5}, TypeError, "'n_components' must be an integer"),
        ({"n_components": True}, TypeError, "'n_components' must be an integer"),
        ({"n_components": 1, "noise_floor": -1.0}, ValueError, "'noise_floor' must be a finite number"),
        ({"n_components": 1, "noise_floor": "low"}, TypeError, "'noise_floor' must be a finite number"),
        ({"n_components": 1, "random_state": -1}, ValueError, "'random_state' must be an integer"),
        ({"n_components": 1, "random_state": None}, TypeError, "'random_state' must be an integer"),
    ],
)
def test_bad_arguments_are_named(estimator: type, arguments: dict, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        estimator(**arguments).fit(IRIS)


@pytest.mark.parametrize("estimator", [ProbabilisticPCAEM, FactorAnalysis])
def test_em_says_when_it_stopped_short(estimator: type) -> None:
    with pytest.warns(ConvergenceWarning, match="raise 'max_iter' or 'tol'"):
        fit = estimator(2, max_iter=2).fit(IRIS)
    assert not fit.converged_
    assert fit.n_iter_ == 2
    for arguments, words in (({"max_iter": 0}, "'max_iter'"), ({"tol": -1.0}, "'tol'"), ({"tol": np.nan}, "'tol'")):
        with pytest.raises(ValueError, match=words):
            estimator(2, **arguments).fit(IRIS)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_scoring_wants_a_fit_and_its_features(estimator: type) -> None:
    for method in ("score_samples", "transform", "posterior", "score"):
        with pytest.raises(NotFittedError):
            getattr(estimator(2), method)(IRIS)
    with pytest.raises(NotFittedError):
        estimator(2).sample()
    fit = estimator(2).fit(IRIS)
    with pytest.raises(ValueError, match="the 4 features that fit saw, got 3"):
        fit.score_samples(IRIS[:, :3])
    with pytest.raises(ValueError, match="'n_samples' must be an integer"):
        fit.sample(0)
