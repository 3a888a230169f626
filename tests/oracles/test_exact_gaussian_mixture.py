"""Mixtures by expectation-maximisation against scikit-learn, dense normals and closed forms."""

import math
import warnings

import numpy as np
import pytest
import sklearn.mixture
import torch
from sklearn.base import clone
from sklearn.datasets import load_digits, load_iris
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from torch import Tensor
from torch.distributions import MultivariateNormal

from pyro_lvm.exact import GaussianMixture, _covariances

IRIS = load_iris().data
DIGITS = load_digits().data  # 64 pixels on 0..16, three of them constant
TYPES = ["full", "tied", "diag", "spherical"]


def as_matrices(fit: GaussianMixture) -> Tensor:
    """The covariances of any type, written out as (K, D, D)."""
    components, features = fit.means_.shape
    covariances = fit.covariances_
    if fit.covariance_type in ("full", "tied"):
        return covariances.expand(components, features, features)
    return torch.diag_embed(covariances.reshape(components, -1).expand(components, features))


def precisions(covariances: Tensor, covariance_type: str) -> np.ndarray:
    return (covariances.inverse() if covariance_type in ("full", "tied") else 1 / covariances).numpy()


def stopped_short(fit: GaussianMixture, x: np.ndarray) -> GaussianMixture:
    """Fit for max_iter iterations exactly."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return fit.fit(x)


@pytest.mark.parametrize("covariance_type", TYPES)
@pytest.mark.parametrize("iterations", [1, 2, 30])
@pytest.mark.parametrize("data", ["iris", "digits"])
def test_em_equals_scikit_learns_from_the_same_start(covariance_type: str, iterations: int, data: str) -> None:
    # 12 varied pixels of the digits, and a little noise: all covariances stay regular, so neither side needs a floor.
    pixels = DIGITS[:, np.argsort(-DIGITS.std(0))[:12]] + torch.rand(len(DIGITS), 12).numpy()
    x, components = (IRIS, 3) if data == "iris" else (pixels, 4)
    arguments = {"covariance_type": covariance_type, "max_iter": iterations, "tol": 0.0}
    # Blurred: from k-means itself, close to a fixed point of EM, little would happen.
    weights, means, covariances = GaussianMixture(components, covariance_type).start(torch.from_numpy(x))
    means = means + 0.1 * means.std(0) * torch.randn_like(means)
    weights = torch.softmax(0.3 * torch.randn_like(weights), 0)
    ours = stopped_short(
        GaussianMixture(
            components,
            covariance_floor=0.0,
            weights_init=weights,
            means_init=means,
            covariances_init=covariances,
            **arguments,
        ),
        x,
    )
    theirs = stopped_short(
        sklearn.mixture.GaussianMixture(
            components,
            reg_covar=0.0,
            weights_init=weights.numpy(),
            means_init=means.numpy(),
            precisions_init=precisions(covariances, covariance_type),
            **arguments,
        ),
        x,
    )
    # Both do E, M, E, M ...: the same parameters after the same number of M-steps, to rounding that iterations
    # amplify: 1e-6 relative at 30 of them.
    assert ours.n_iter_ == theirs.n_iter_ == iterations
    for name in ("weights_", "means_", "covariances_"):
        np.testing.assert_allclose(getattr(ours, name).numpy(), getattr(theirs, name), rtol=1e-6, atol=1e-9)
    # scikit-learn records the likelihood before each M-step; ours has the final one besides.
    np.testing.assert_allclose(ours.log_likelihoods_[:-1].numpy(), theirs.lower_bounds_, rtol=1e-9)
    assert ours.lower_bound_ == pytest.approx(theirs.score(x), rel=1e-9)
    np.testing.assert_allclose(ours.score_samples(x), theirs.score_samples(x), rtol=1e-6)
    np.testing.assert_allclose(ours.predict_proba(x), theirs.predict_proba(x), atol=1e-6)
    assert (ours.predict(x) == theirs.predict(x)).all()


@pytest.mark.parametrize("covariance_type", TYPES)
def test_log_likelihood_never_falls(covariance_type: str) -> None:
    for seed in range(20):
        # Every second time a floor high enough to bind, and as many components as make clusters of a few data.
        floor = 1e-6 if seed % 2 else 0.05
        x = IRIS[seed::3]
        fit = GaussianMixture(8, covariance_type, random_state=seed, covariance_floor=floor, tol=1e-7).fit(x)
        assert fit.log_likelihoods_.diff().min() > -1e-12 * 1e3  # sums of 50 terms of up to 1e3, at 1e-15 each
        assert fit.log_likelihoods_[-1].item() == fit.lower_bound_ == pytest.approx(fit.score(x), rel=1e-12)
        # Rounding of the eigenvectors' products: 1e-15 of the largest eigenvalue
        assert torch.linalg.eigvalsh(as_matrices(fit)).min() > floor * (1 - 1e-6)


@pytest.mark.parametrize("covariance_type", TYPES)
def test_a_binding_floor_gives_the_constrained_maximum(covariance_type: str) -> None:
    # One component: its covariance maximises the likelihood under the constraint. No feasible neighbour is better.
    x = torch.randn(60, 4) @ torch.diag(torch.tensor([2.0, 1.0, 0.1, 0.05])) @ torch.randn(4, 4)
    # Some of the directions that the type can shape lie under the floor.
    covariance = torch.cov(x.mT, correction=0)
    floor = {
        "full": torch.linalg.eigvalsh(covariance)[:3].mean(),
        "tied": torch.linalg.eigvalsh(covariance)[:3].mean(),
        "diag": covariance.diagonal().mean(),
        "spherical": 1.1 * covariance.diagonal().mean(),
    }[covariance_type].item()
    fit = GaussianMixture(1, covariance_type, covariance_floor=floor).fit(x)
    best = MultivariateNormal(x.mean(0), as_matrices(fit)[0])
    assert fit.score(x) == pytest.approx(best.log_prob(x).mean().item(), rel=1e-12)
    assert torch.linalg.eigvalsh(best.covariance_matrix).min().item() == pytest.approx(floor)
    values, vectors = torch.linalg.eigh(best.covariance_matrix)
    for _ in range(50):
        other = (values + 0.05 * torch.randn(4).abs() * torch.where(torch.rand(4) < 0.5, -1.0, 1.0)).clamp(min=floor)
        if covariance_type in ("full", "tied"):
            turn = torch.linalg.matrix_exp(0.05 * (lambda a: a - a.mT)(torch.randn(4, 4)))
            other_vectors = vectors @ turn
        else:
            other_vectors = vectors
            other = other if covariance_type == "diag" else other.mean().expand(4)
        neighbour = MultivariateNormal(x.mean(0), other_vectors @ torch.diag(other) @ other_vectors.mT)
        assert neighbour.log_prob(x).mean() <= best.log_prob(x).mean() + 1e-12


@pytest.mark.parametrize("covariance_type", TYPES)
def test_one_component_is_the_sample_mean_and_covariance(covariance_type: str) -> None:
    fit = GaussianMixture(1, covariance_type).fit(IRIS)
    covariance = torch.cov(torch.from_numpy(IRIS).mT, correction=0)
    expected = {
        "full": covariance[None],
        "tied": covariance,
        "diag": covariance.diagonal()[None],
        "spherical": covariance.diagonal().mean()[None],
    }[covariance_type]
    torch.testing.assert_close(fit.covariances_, expected)
    torch.testing.assert_close(fit.means_[0], torch.from_numpy(IRIS).mean(0))
    assert fit.weights_.tolist() == [1.0]
    assert fit.converged_
    assert fit.n_iter_ == 1


@pytest.mark.parametrize("covariance_type", TYPES)
def test_score_samples_is_the_log_of_a_sum_of_normals(covariance_type: str) -> None:
    fit = GaussianMixture(3, covariance_type).fit(IRIS)
    x = torch.from_numpy(IRIS)
    joint = torch.stack(
        [fit.weights_[k].log() + MultivariateNormal(fit.means_[k], as_matrices(fit)[k]).log_prob(x) for k in range(3)]
    )
    torch.testing.assert_close(fit.score_samples(x), joint.logsumexp(0))
    torch.testing.assert_close(fit.predict_proba(x), joint.softmax(0).mT)
    torch.testing.assert_close(fit.predict_proba(x).sum(1), torch.ones(150))


def test_narrow_clusters_far_apart_keep_their_digits() -> None:
    # Widths of 1e-5 at distances of 1e3: moments taken about anything but the cluster's own mean would lose
    # 1e-16 · 1e6 / 1e-10 = all digits.
    labels = torch.arange(3).repeat_interleave(100)
    noise = 1e-5 * torch.randn(300, 2)
    x = 1e3 * torch.randn(3, 2)[labels] + noise
    for covariance_type in TYPES:
        fit = GaussianMixture(3, covariance_type, covariance_floor=1e-14).fit(x)
        variances = torch.linalg.eigvalsh(as_matrices(fit)).sum(1)[fit.predict(x)]
        expected = torch.stack([x[labels == k].var(0, correction=0).sum() for k in range(3)])
        expected = expected.mean().expand(300) if covariance_type == "tied" else expected[labels]
        torch.testing.assert_close(variances, expected, rtol=1e-6, atol=0.0)  # x itself holds 1e-13 / 1e-5 = 1e-8


@pytest.mark.parametrize("covariance_type", TYPES)
@pytest.mark.parametrize("rows", [1, 7, 150, 10_000])
def test_blocks_of_any_width_give_the_same_fit(
    covariance_type: str, rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # 150 data in blocks of one, of 7 (the last of 3), in one that just fits and in one with room to spare.
    whole = GaussianMixture(3, covariance_type, max_iter=5, tol=0.0)
    expected = stopped_short(whole, IRIS)
    monkeypatch.setattr(_covariances, "_BLOCK", rows * 3 * 4)
    fit = stopped_short(clone(whole), IRIS)
    # Sums in another order: 1e-15 each, which five iterations near a maximum hardly amplify.
    for name in ("weights_", "means_", "covariances_", "log_likelihoods_"):
        torch.testing.assert_close(getattr(fit, name), getattr(expected, name), rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(fit.score_samples(IRIS), expected.score_samples(IRIS), rtol=1e-10)
    np.testing.assert_allclose(fit.predict_proba(IRIS), expected.predict_proba(IRIS), atol=1e-10)


@pytest.mark.parametrize("covariance_type", TYPES)
def test_data_far_from_the_origin_keep_their_digits(covariance_type: str) -> None:
    # Multiples of 2⁻²⁰ up to 1e6 are exact in float64, so the shifted data are the same data.
    x = torch.from_numpy(np.round(IRIS * 2**20) / 2**20) + torch.randint(0, 2**17, (150, 4)) / 2**20
    offset = torch.tensor([1e6, -1e6, 1e6, 0.0])
    near, far = (stopped_short(GaussianMixture(3, covariance_type, max_iter=5, tol=0.0), v) for v in (x, x + offset))
    # A mean at 1e6 is known to 1e-10; raw second moments would lose 1e-16 · 1e12 = 1e-4.
    torch.testing.assert_close(far.means_, near.means_ + offset, rtol=0.0, atol=2e-9)
    torch.testing.assert_close(far.covariances_, near.covariances_, rtol=1e-8, atol=1e-9)
    torch.testing.assert_close(far.log_likelihoods_, near.log_likelihoods_, rtol=0.0, atol=1e-8)
    torch.testing.assert_close(far.score_samples(x + offset), near.score_samples(x), rtol=0.0, atol=1e-7)


@pytest.mark.parametrize("covariance_type", TYPES)
def test_nearly_singular_covariances_keep_their_smallest_variance(covariance_type: str) -> None:
    # Standard deviations from 1 to 1e-6, in two clusters whose covariances are known from their labels.
    labels = torch.arange(2).repeat_interleave(500)
    x = torch.randn(1000, 3) * torch.tensor([1.0, 1e-3, 1e-6]) + 20.0 * labels[:, None]
    fit = GaussianMixture(2, covariance_type, covariance_floor=1e-18).fit(x)
    expected = torch.stack([torch.cov(x[labels == k].mT, correction=0) for k in range(2)])
    if covariance_type == "tied":
        expected = expected.mean(0).expand(2, 3, 3)
    elif covariance_type == "diag":
        expected = torch.diag_embed(expected.diagonal(dim1=1, dim2=2))
    elif covariance_type == "spherical":
        expected = torch.eye(3) * expected.diagonal(dim1=1, dim2=2).mean(1)[:, None, None]
    own = fit.predict(x)
    dense = [MultivariateNormal(x[labels == k].mean(0), expected[k]) for k in range(2)]
    density = torch.stack([dense[k].log_prob(x) for k in range(2)])[labels, torch.arange(1000)] - math.log(2.0)
    torch.testing.assert_close(as_matrices(fit)[own], expected[labels], rtol=1e-8, atol=1e-15)
    # Data at 20 are known to 4e-15, which is 4e-9 of the smallest standard deviation.
    torch.testing.assert_close(fit.score_samples(x), density, rtol=0.0, atol=1e-6)


@pytest.mark.parametrize("covariance_type", TYPES)
def test_scores_are_differentiable(covariance_type: str) -> None:
    fit = GaussianMixture(2, covariance_type).fit(IRIS)
    x = torch.from_numpy(IRIS[::25]).requires_grad_()
    assert torch.autograd.gradcheck(fit.score_samples, (x,))


@pytest.mark.parametrize("covariance_type", TYPES)
def test_a_component_without_data_rests_and_nothing_becomes_nan(covariance_type: str) -> None:
    means = torch.tensor([[0.0, 0.0], [1e6, 1e6], [3.0, 0.0]])
    x = torch.randn(100, 2)
    shape = {"full": (3, 1, 1), "tied": (1, 1), "diag": (3, 1), "spherical": (3,)}[covariance_type]
    eye = torch.eye(2) if covariance_type in ("full", "tied") else torch.ones(2)
    covariances = torch.ones(3) if covariance_type == "spherical" else torch.ones(shape) * eye
    # Wherever the tolerance lies, so many iterations are run.
    arguments = {"covariance_type": covariance_type, "max_iter": 20, "tol": 0.0}
    start = {"weights_init": [0.4, 0.2, 0.4], "means_init": means, "covariances_init": covariances}
    fit = stopped_short(GaussianMixture(3, **arguments, **start), x)
    assert fit.weights_[1] == 0.0
    assert fit.means_[1].tolist() == [1e6, 1e6]
    if covariance_type != "tied":
        assert torch.equal(fit.covariances_[1], covariances[1])
    assert all(torch.isfinite(v).all() for v in (fit.means_, fit.covariances_, fit.log_likelihoods_))
    assert torch.isfinite(fit.score_samples(x)).all()
    assert set(fit.sample(1000)[1].tolist()) == {0, 2}
    assert fit.log_likelihoods_.diff().min() > -1e-12
    # The other two are what a fit without it gives.
    kept = [0, 2]
    start = {"weights_init": [0.5, 0.5], "means_init": means[kept], "covariances_init": covariances}
    if covariance_type != "tied":
        start["covariances_init"] = covariances[kept]
    alone = stopped_short(GaussianMixture(2, **arguments, **start), x)
    torch.testing.assert_close(alone.means_, fit.means_[kept])
    torch.testing.assert_close(alone.weights_, fit.weights_[kept])


@pytest.mark.parametrize("covariance_type", TYPES)
def test_fewer_distinct_points_than_components(covariance_type: str) -> None:
    x = torch.tensor([[0.0, 0.0], [1.0, 1.0]]).repeat(10, 1)
    fit = GaussianMixture(4, covariance_type, covariance_floor=1e-4).fit(x)
    assert torch.isfinite(fit.log_likelihoods_).all()
    assert torch.isfinite(fit.score_samples(x)).all()
    with pytest.raises(ValueError, match="'covariance_floor' must be above 0"):
        GaussianMixture(2, covariance_type, covariance_floor=0.0).fit(x)


def test_digits_with_constant_pixels_fit_and_beat_one_gaussian() -> None:
    for covariance_type in TYPES:
        one, ten = (
            GaussianMixture(k, covariance_type, covariance_floor=0.1, tol=1e-3).fit(DIGITS).score(DIGITS)
            for k in (1, 10)
        )
        assert math.isfinite(ten)
        assert ten > one + 1.0


def test_start_is_where_fit_starts() -> None:
    mixture = GaussianMixture(3, "diag", random_state=5, n_init=1)
    weights, means, covariances = mixture.start(IRIS)
    fit = mixture.fit(IRIS)
    x = torch.from_numpy(IRIS)
    joint = torch.distributions.Normal(torch.from_numpy(means), torch.from_numpy(covariances).sqrt()).log_prob(
        x[:, None]
    )
    start = (joint.sum(-1) + torch.from_numpy(weights).log()).logsumexp(1).mean()
    assert fit.log_likelihoods_[0].item() == pytest.approx(start.item(), rel=1e-12)
    given = GaussianMixture(3, "diag", weights_init=weights, means_init=means, covariances_init=covariances).fit(IRIS)
    torch.testing.assert_close(given.means_, fit.means_)
    assert all(isinstance(v, Tensor) for v in mixture.start(x))


def test_given_means_alone_set_the_rest_from_the_nearest_data() -> None:
    means = [[5.0, 3.4, 1.4, 0.2], [6.2, 2.8, 4.8, 1.6]]
    weights, start_means, covariances = GaussianMixture(2, "spherical", means_init=means).start(IRIS)
    first = ((IRIS[:, None] - means) ** 2).sum(-1).argmin(1) == 0
    assert first[:50].all(), "the setosas"
    assert start_means.tolist() == means
    assert weights.tolist() == pytest.approx([first.mean(), 1 - first.mean()])
    assert covariances[0] == pytest.approx(IRIS[first].var(0).mean())


def test_restarts_never_lose() -> None:
    scores = [GaussianMixture(6, "spherical", n_init=n, random_state=1).fit(IRIS).lower_bound_ for n in (1, 3, 8)]
    assert scores == sorted(scores)
    assert scores[-1] > scores[0], "eight restarts find a better optimum here"


@pytest.mark.parametrize("covariance_type", TYPES)
def test_samples_have_the_moments_of_their_components(covariance_type: str) -> None:
    fit = GaussianMixture(3, covariance_type).fit(IRIS)
    x, y = (torch.from_numpy(v) for v in fit.sample(60_000))
    assert x.shape == (60_000, 4)
    counts = torch.bincount(y, minlength=3)
    # Five standard errors everywhere: 45 numbers fail by chance once in 4e4.
    weight_error = (fit.weights_ * (1 - fit.weights_) / len(x)).sqrt()
    assert ((counts / len(x) - fit.weights_).abs() < 5 * weight_error).all()
    for k, covariance in enumerate(as_matrices(fit)):
        chosen, variance = x[y == k], covariance.diagonal()
        assert ((chosen.mean(0) - fit.means_[k]).abs() < 5 * (variance / counts[k]).sqrt()).all()
        error = ((covariance.square() + variance[:, None] * variance) / counts[k]).sqrt()
        assert ((torch.cov(chosen.mT) - covariance).abs() < 5 * error).all()


def test_manners() -> None:
    torch.manual_seed(7)
    np.random.seed(7)
    before, numpy_before = torch.get_rng_state(), np.random.get_state()[1].copy()
    x = torch.from_numpy(IRIS)
    fit = GaussianMixture(3, random_state=2)
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
    images = load_digits().images[:200]
    by_image = GaussianMixture(2, "spherical").fit(images)
    assert by_image.means_.shape == (2, 64)
    assert by_image.score(images) == by_image.score(images.reshape(200, 64))
    with pytest.warns(ConvergenceWarning, match="raise 'max_iter' or 'tol'"):
        assert not GaussianMixture(3, max_iter=1).fit(IRIS).converged_


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"covariance_type": "spheric"}, ValueError, "'covariance_type' must be one of 'full', .* 'spherical'\\?"),
        ({"covariance_type": "zzz"}, ValueError, "'covariance_type' must be one of .* use 'full'"),
        ({"n_components": 0}, ValueError, "'n_components' must be an integer of at least 1, got 0"),
        ({"n_components": 2.0}, TypeError, "'n_components' must be an integer"),
        ({"n_components": 151}, ValueError, "'X' must hold at least 151 data, got 150"),
        ({"covariance_floor": -1e-6}, ValueError, "'covariance_floor'"),
        ({"tol": -1.0}, ValueError, "'tol'"),
        ({"max_iter": 0}, ValueError, "'max_iter'"),
        ({"n_init": 0}, ValueError, "'n_init'"),
        ({"random_state": 2**40}, ValueError, "'random_state'"),
        ({"weights_init": [0.5, 0.4]}, ValueError, "'weights_init' must be at least 0 and sum to 1"),
        ({"weights_init": [1.5, -0.5]}, ValueError, "'weights_init' must be at least 0 and sum to 1"),
        ({"weights_init": [1.0]}, ValueError, r"'weights_init' must have shape \(2,\), got \(1,\)"),
        ({"means_init": np.zeros((2, 3))}, ValueError, r"'means_init' must have shape \(2, 4\), got \(2, 3\)"),
        ({"means_init": np.full((2, 4), np.nan)}, ValueError, "'means_init' must be finite"),
        ({"covariances_init": np.eye(4)}, ValueError, r"'covariances_init' must have shape \(2, 4, 4\)"),
        ({"covariances_init": np.zeros((2, 4, 4))}, ValueError, "'covariances_init' must have eigenvalues of at least"),
        ({"covariances_init": np.triu(np.ones((2, 4, 4)))}, ValueError, "'covariances_init' must be symmetric"),
        (
            {"covariance_type": "diag", "covariances_init": -np.ones((2, 4))},
            ValueError,
            "'covariances_init' must have eigenvalues",
        ),
    ],
)
def test_bad_arguments_are_named(arguments: dict, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        GaussianMixture(**({"n_components": 2} | arguments)).fit(IRIS)


def test_bad_data_are_named() -> None:
    broken = IRIS.copy()
    broken[3, 2] = np.nan
    for x, error, words in (
        (broken, ValueError, "'X' must be finite, got nan at row 3, column 2"),
        (IRIS[:0], ValueError, "'X' must hold at least"),
        (IRIS[0], ValueError, "'X' must have shape"),
        (IRIS.astype(str), TypeError, "'X' must be a dense numeric array"),
    ):
        for call in (GaussianMixture(2).fit, GaussianMixture(2).start, GaussianMixture(2).fit(IRIS).score_samples):
            with pytest.raises(error, match=words):
                call(x)
    with pytest.raises(ValueError, match="the 4 features that fit saw, got 2"):
        GaussianMixture(2).fit(IRIS).predict(IRIS[:, :2])
    with pytest.raises(NotFittedError):
        GaussianMixture(2).predict_proba(IRIS)
    with pytest.raises(NotFittedError):
        GaussianMixture(2).sample(3)
    with pytest.raises(ValueError, match="'n_samples'"):
        GaussianMixture(2).fit(IRIS).sample(0)
