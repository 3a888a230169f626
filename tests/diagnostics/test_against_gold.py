"""Comparisons of two sets of draws, where what they should find is known."""

import math
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import scipy.stats
import torch
from matplotlib.figure import Figure

from pyro_lvm import exact, guides, models
from pyro_lvm.diagnostics import compare_to, plot_comparison, posterior
from pyro_lvm.diagnostics.against_gold import (
    _distances,
    _expected_wasserstein,
    _moments,
    _moments_of_datum,
    _wasserstein,
)
from pyro_lvm.programs import data_plate


def draws(mean: float | torch.Tensor, scale: float | torch.Tensor, seed: int, data: int = 2, **settings: Any) -> Any:
    """Of a latent of three dimensions, from a normal; the data are zero."""

    def model(x: torch.Tensor) -> None:
        with data_plate(x, None):
            z = pyro.sample("z", dist.Normal(torch.zeros(3), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x)

    def guide(x: torch.Tensor) -> None:
        with data_plate(x, None):
            loc = torch.zeros(len(x), 3) + mean
            pyro.sample("z", dist.Normal(loc, torch.as_tensor(scale).expand_as(loc)).to_event(1))

    return posterior(model, guide, torch.zeros(data, 3), seed=seed, prior_draws=0, **settings)


def test_moments_are_compared_in_closed_form() -> None:
    generator = torch.Generator().manual_seed(0)
    roots = torch.randn(2, 4, 4, generator=generator)
    (cov_q, cov_p), (mean_q, mean_p) = roots @ roots.mT + torch.eye(4), torch.randn(2, 4, generator=generator)
    squared, kl = _distances(*(values.numpy() for values in (mean_q, cov_q, mean_p, cov_p)))
    assert kl == pytest.approx(float(exact.kl_normal(mean_q, cov_q, mean_p, cov_p)), rel=1e-12)
    factor = torch.linalg.cholesky(cov_p)
    A = factor.inverse() @ cov_q @ factor.inverse().T
    assert math.sqrt(squared) == pytest.approx(float((A - torch.eye(4)).norm()) / 2, rel=1e-12)


@pytest.mark.parametrize("correlation", [0.0, 0.6])
def test_errors_of_moments_are_as_large_as_they_say(correlation: float) -> None:
    """Draws of q independent, those of p from an autoregression: over 100 pairs, z-scores are those of a normal."""
    generator = np.random.default_rng(0)
    repeats, chains, length = 100, 4, 250
    q = generator.normal(size=(chains, length, repeats, 2)) * np.array([1.0, 0.7])
    p = generator.normal(size=(chains, length, repeats, 2))
    for t in range(1, length):
        p[:, t] = correlation * p[:, t - 1] + math.sqrt(1 - correlation**2) * p[:, t]
    found = _moments(q, p, "z")
    error = (1 - 0.49) / math.sqrt(2)
    kl = (0.49 - 1 - math.log(0.49)) / 2
    for name, expected in (("covariance_error", error), ("kl", kl)):
        z = (found[name] - expected) / found[f"{name}_mcse"]
        assert abs(z.mean()) < 4 / math.sqrt(repeats) + 0.3, name  # what is left of the bias, in errors
        assert 0.75 < z.std() < 1.3, name  # ± 0.07 by chance; 1.6 were the correlation of draws overlooked


def test_what_noise_adds_to_errors_of_moments_is_subtracted() -> None:
    """Of equal distributions in eight dimensions the squared error is 0 on average, and not (U + 1)/n + (U + 1)/n'."""
    generator = np.random.default_rng(3)
    found = [
        _moments_of_datum(generator.normal(size=(4, 50, 8)), generator.normal(size=(4, 50, 8)), "z") for _ in range(150)
    ]
    squared, _, kl, _ = np.array(found).T
    for values, noise in ((squared, 2 * 9 / 200), (kl, 2 * (8 / 2 + 8 * 9 / 4) / 200)):  # second order is left
        assert abs(values.mean()) < 4 * values.std() / math.sqrt(150) + 0.1 * noise


def test_the_distance_of_margins_is_exact() -> None:
    generator = np.random.default_rng(1)
    for sizes in ((7, 7), (12, 5), (100, 33)):
        q, p = (np.sort(generator.normal(size=(n, 2)), 0) for n in sizes)
        expected = [scipy.stats.wasserstein_distance(q[:, i], p[:, i]) for i in range(2)]
        np.testing.assert_allclose(_wasserstein(q, p), expected, rtol=1e-10)


def test_the_noise_of_margins_is_what_equal_margins_have() -> None:
    generator = np.random.default_rng(2)
    q, p = (np.sort(generator.normal(size=(n, 400)), 0) for n in (500, 2000))
    distances = _wasserstein(q, p)
    expected = _expected_wasserstein(p).mean() * math.sqrt(1 / 500 + 1 / 2000)
    # A mean over 400 pairs, whose own spread is about half of it; 3 % for draws that are not infinitely many.
    assert abs(distances.mean() - expected) < 4 * distances.std() / 20 + 0.03 * expected


def test_draws_of_the_same_are_not_flagged_and_what_is_off_is() -> None:
    gold = draws(0.0, 1.0, 0)
    same = compare_to(draws(0.0, 1.0, 1), gold)
    assert not same.flagged["z"].any()
    assert (same.mean_error["z"].abs() < 4 * same.mean_error_mcse["z"]).all()
    assert "0 of 2 data flagged" in str(same)
    shift = torch.zeros(2, 3)
    shift[1, 2] = 0.5
    shifted = compare_to(draws(shift, 1.0, 2), gold)
    assert shifted.flagged["z"].tolist() == [False, True]
    assert shifted.flagged_units["z"].tolist() == [[False] * 3, [False, False, True]]
    assert not shifted.flagged_covariances["z"].any()
    assert abs(shifted.mean_error["z"][1, 2] - 0.5) < 4 * shifted.mean_error_mcse["z"][1, 2]
    # Three standard errors, √(1/2000 + 1/2000) each, above the threshold.
    assert shifted.mean_error_mcse["z"][1, 2] == pytest.approx(math.sqrt(2 / 2000), rel=0.1)
    own_scale = compare_to(draws(0.5, 0.5, 2), gold)  # in the gold standard's deviations, not in its own
    assert ((own_scale.mean_error["z"] - 0.5).abs() < 4 * own_scale.mean_error_mcse["z"]).all()
    narrow = compare_to(draws(0.0, torch.tensor([1.0, 0.6, 1.0]), 3), gold)
    assert narrow.flagged["z"].all()
    assert narrow.flagged_covariances["z"].all()
    assert not compare_to(draws(shift, 1.0, 2), gold, mean_threshold=0.9, wasserstein_threshold=0.9).flagged["z"].any()


def test_scales_of_the_latents_do_not_matter() -> None:
    own, gold = draws(0.3, 0.8, 1), draws(0.0, 1.0, 0)
    before = compare_to(own, gold)
    for idata in (own, gold):
        idata["posterior"]["z"] = idata["posterior"]["z"] * 1000.0
    after = compare_to(own, gold)
    for column in ("mean_error", "mean_error_mcse", "covariance_error", "covariance_error_mcse", "wasserstein", "kl"):
        torch.testing.assert_close(getattr(after, column)["z"], getattr(before, column)["z"])


def test_an_approximation_without_spread_is_infinitely_far() -> None:
    point = compare_to(draws(0.0, 1e-12, 1), draws(0.0, 1.0, 0))
    assert (point.kl["z"] == torch.inf).all()
    assert point.flagged["z"].all()
    torch.testing.assert_close(point.covariance_error["z"], torch.ones(2), rtol=0.05, atol=0.0)
    for values in (point.mean_error, point.mean_error_mcse, point.wasserstein, point.kl_mcse):
        assert not values["z"].isnan().any()


def test_the_table_shows_the_worst_data() -> None:
    comparison = compare_to(draws(0.0, 1.0, 1, data=14, draws=50), draws(0.0, 1.0, 0, data=14, draws=50))
    lines = str(comparison).splitlines()
    assert len(lines) == 1 + 10 + 1 + 1
    assert "the 10 of 14 data" in lines[-2]
    assert "more than three Monte Carlo errors" in lines[-1]
    gold = draws(0.0, 1.0, 0)
    gold["posterior"].attrs["warnings"] = "the chains disagree"
    assert str(compare_to(draws(0.0, 1.0, 1), gold)).endswith("The gold standard is none: the chains disagree")


@pytest.mark.parametrize(
    ("own", "match"),
    [
        ({"data": 3}, "'gold' has a latent 'z' of shape"),
        ({"draws": 7}, "'idata' has 28 draws of 'z' with 3 units"),
    ],
)
def test_what_does_not_compare(own: dict[str, int], match: str) -> None:
    with pytest.raises(ValueError, match=match) as error:
        compare_to(draws(0.0, 1.0, 1, **own), draws(0.0, 1.0, 0))
    assert "\n" not in str(error.value)


def test_other_data_other_objects_and_points_are_refused() -> None:
    gold = draws(0.0, 1.0, 0)
    other = draws(0.0, 1.0, 0)
    other["observed_data"]["x"] = other["observed_data"]["x"] + 1
    with pytest.raises(ValueError, match="different data"):
        compare_to(other, gold)
    with pytest.raises(ValueError, match="'gold' must be an ArviZ object"):
        compare_to(gold, {"z": 1})
    still = draws(0.0, 1.0, 0)
    still["posterior"]["z"] = still["posterior"]["z"] * 0
    with pytest.raises(ValueError, match="without spread"):
        compare_to(gold, still)
    mixture = models.GaussianMixture(2, components=2)
    assigned = posterior(mixture, guides.Responsibilities(mixture), torch.zeros(2, 2), draws=5, prior_draws=0)
    with pytest.raises(ValueError, match="'gold' must hold a continuous latent"):
        compare_to(assigned, assigned)


def test_the_forest_shows_the_intervals_of_both() -> None:
    gold, own = draws(0.0, 1.0, 0), draws(0.5, 0.5, 1)
    ax = plot_comparison(own, gold, datum=1)
    assert [text.get_text() for text in ax.get_yticklabels()] == ["z[0]", "z[1]", "z[2]"]
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["gold standard", "approximation"]
    true, approximate = (line.get_xdata() for line in ax.get_lines())
    np.testing.assert_allclose(true, gold["posterior"]["z"].values[:, :, 1].mean((0, 1)))
    np.testing.assert_allclose(approximate, own["posterior"]["z"].values[:, :, 1].mean((0, 1)))
    segments = np.array(ax.collections[0].get_segments())  # 94 % of the gold standard, a row each
    expected = np.quantile(gold["posterior"]["z"].values[:, :, 1].reshape(-1, 3), [0.03, 0.97], axis=0)
    np.testing.assert_allclose(segments[:, :, 0].T, expected)
    assert "datum 1" in ax.get_ylabel()
    mine = Figure().add_subplot()
    assert plot_comparison(own, gold, ax=mine) is mine
    with pytest.raises(ValueError, match="'datum'"):
        plot_comparison(own, gold, datum=2)
