"""Calibration of guides that are right, and of guides that are wrong in known ways."""

import itertools
from typing import Any

import diagnosed_pairs as pairs
import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import scipy.stats
import torch
from linear_gaussian import Hierarchy, HierarchyGuide, LooseGuide, ppca
from matplotlib.figure import Figure
from torch import Tensor

from pyro_lvm import guides, models, zoo
from pyro_lvm.data import load
from pyro_lvm.diagnostics import calibration, plot_ranks, simulation_based_calibration, variational_calibration
from pyro_lvm.diagnostics.calibration import _of_symmetry, _of_uniformity, asymmetry, excursion_p_value
from pyro_lvm.diagnostics.rank_plots import uniform_band
from pyro_lvm.programs import data_plate


def test_the_posterior_is_calibrated_and_half_its_scale_is_not() -> None:
    model = ppca()
    right = simulation_based_calibration(model, guides.ExactPPCA(model), seed=0)
    narrow = simulation_based_calibration(model, LooseGuide(model, 0.5), seed=0)
    wide = simulation_based_calibration(model, LooseGuide(model, 2.0), seed=0)
    print(f"p = {right.p_value:.3f} of the posterior, {narrow.p_value:.2g} and {wide.p_value:.2g} of others")
    assert right.p_value > 0.01
    assert narrow.p_value < 1e-6
    assert wide.p_value < 1e-6
    for name in ("z", "log_joint"):
        assert (narrow.p_values[name] < 1e-6).all()
        assert (right.p_values[name] > 0.01 / 3).all()
    assert right.ranks["z"].shape == (500, 2)
    assert right.ranks["log_joint"].shape == (500,)
    assert 0 <= right.ranks["z"].min() <= right.ranks["z"].max() <= 99
    assert "500 simulations, 99 draws each, p = " in str(right)


def test_bias_is_told_from_spread() -> None:
    model = ppca()

    def shifted(x: Tensor, *, size: int | None = None) -> None:
        q = LooseGuide(model, 1.0).posterior(x)
        with data_plate(x, size):
            pyro.sample("z", dist.MultivariateNormal(q.loc + torch.tensor([0.0, 0.3]), q.covariance_matrix))

    right, narrow, biased = (
        variational_calibration(model, guide, seed=1)
        for guide in (guides.ExactPPCA(model), LooseGuide(model, 0.5), shifted)
    )
    assert right.p_value > 0.01
    assert narrow.p_value > 0.01
    assert biased.p_value < 1e-6
    assert biased.p_values["z"][0] > 0.01
    assert biased.bias["z"][1] < -0.1  # q lies too high
    assert set(right.ranks) == {"z"}
    assert (biased.probabilities["z"] > 0).all()
    assert (biased.probabilities["z"] < 1).all()


def test_a_guide_that_ignores_the_data_is_caught_by_the_joint_alone() -> None:
    model = ppca()

    def prior(x: Tensor, *, size: int | None = None) -> None:
        with data_plate(x, size):
            pyro.sample("z", model.prior())

    found = simulation_based_calibration(model, prior, seed=2)
    assert (found.p_values["z"] > 0.005).all()
    assert found.p_values["log_joint"] < 1e-6


def test_every_level_of_a_hierarchy() -> None:
    model = Hierarchy()
    right, loose = (simulation_based_calibration(model, HierarchyGuide(model, s), seed=0) for s in (1.0, 1.6))
    assert {name: ranks.shape[1:] for name, ranks in right.ranks.items()} == {
        "z_2": (2,),
        "z_1": (3,),
        "log_joint": (),
    }
    assert right.p_value > 0.01
    assert (loose.p_values["z_2"] < 1e-6).all()


def test_discrete_latents_are_judged_by_the_joint() -> None:
    model = models.GaussianMixture(2, components=3)

    def uniform(x: Tensor, *, size: int | None = None) -> None:
        with data_plate(x, size):
            pyro.sample("z", dist.Categorical(torch.ones(3) / 3))

    model.means.data = torch.tensor([[0.0, 0.0], [1.5, 0.0], [0.0, 1.5]])
    right = simulation_based_calibration(model, guides.Responsibilities(model), seed=0)
    wrong = simulation_based_calibration(model, uniform, seed=0)
    assert set(right.ranks) == {"log_joint"}
    assert right.p_value > 0.01
    assert wrong.p_value < 1e-6
    with pytest.raises(ValueError, match="no continuous latent"):
        variational_calibration(model, guides.Responsibilities(model), 20)


def test_p_values_of_uniform_ranks_are_uniform() -> None:
    """Also of numbers of draws that bins do not divide; of 500 p-values the distribution is within its 99.9 % band."""
    generator = torch.Generator().manual_seed(0)
    for draws, simulations in ((99, 500), (58, 300), (6, 100)):
        ranks = torch.randint(draws + 1, (simulations, 500), generator=generator)
        found = _of_uniformity(ranks, draws)
        assert scipy.stats.kstest(found.numpy(), "uniform").pvalue > 1e-3, draws


@pytest.mark.parametrize("units", [1, 5], ids=["copies", "independent"])
def test_a_single_p_value_holds_however_units_depend(units: int) -> None:
    """Five units, of which so many are not copies: it is no smaller than chance makes it more often than it says."""
    generator = torch.Generator().manual_seed(0)
    values = []
    for _ in range(400):
        ranks = torch.randint(100, (200, units), generator=generator).expand(200, 5)
        found = calibration.Calibration({"z": ranks}, 99, {"z": _of_uniformity(ranks, 99)})
        values.append(found.p_value)
    for level in (0.05, 0.2):
        assert np.mean(np.array(values) <= level) < level + 4 * (level * (1 - level) / 400) ** 0.5


def test_excursions_of_a_random_walk_by_enumeration() -> None:
    for steps in (1, 2, 5, 8, 11):
        walks = np.cumsum(np.array(list(itertools.product((-1, 1), repeat=steps))), 1)
        largest = np.abs(walks).max(1)
        for m in range(steps + 2):
            assert excursion_p_value(m, steps) == pytest.approx((largest >= m).mean(), abs=1e-14), (m, steps)
    assert 0 < excursion_p_value(400, 1000) < 1e-30


def test_symmetry_is_of_any_shape() -> None:
    """Symmetric ranks that pile up at both ends: the test errs no more often than it should; ties make it safe."""
    generator = torch.Generator().manual_seed(0)
    u = torch.distributions.Beta(0.3, 0.3)
    torch.manual_seed(0)
    ranks = (u.sample((300, 500)) * 1000).long().clamp_max(999)
    values = _of_symmetry(ranks, 999).numpy()
    for level in (0.01, 0.05, 0.2):
        assert (values <= level).mean() < level + 4 * (level * (1 - level) / 500) ** 0.5
    assert (values <= 0.2).mean() > 0.1
    few = torch.randint(3, (300, 200), generator=generator)  # two draws: 0 and 2 are sides, 1 is none
    assert (_of_symmetry(few, 2) <= 0.05).float().mean() < 0.05 + 4 * (0.05 * 0.95 / 200) ** 0.5


def test_asymmetry_is_the_difference_of_distribution_functions() -> None:
    ranks = np.random.default_rng(0).integers(0, 10, 50)  # of 9 draws
    difference, largest, sides = asymmetry(ranks, 9)
    expected = [(ranks <= k).sum() - (ranks >= 9 - k).sum() for k in range(5)]
    assert difference.tolist() == expected
    assert (largest, sides) == (max(map(abs, expected)), 50)
    assert asymmetry(np.array([0, 1, 2, 2]), 2)[2] == 3  # the middle has no side


def test_the_band_holds_uniform_ranks_as_often_as_it_says() -> None:
    generator = np.random.default_rng(5)
    low, high = uniform_band(250, 49, 0.05)
    counts = generator.multinomial(250, np.full(50, 0.02), size=4000).cumsum(1) / 250
    outside = ((counts < low) | (counts > high)).any(1).mean()
    assert 0.02 < outside < 0.05 + 4 * (0.05 * 0.95 / 4000) ** 0.5 + 0.007  # the level is itself simulated
    assert (low[-1], high[-1]) == (1.0, 1.0)


def test_chunks_and_seeds(monkeypatch: pytest.MonkeyPatch) -> None:
    model = ppca()
    before = torch.get_rng_state()
    whole = simulation_based_calibration(model, guides.ExactPPCA(model), 60, 19, seed=3)
    again = simulation_based_calibration(model, guides.ExactPPCA(model), 60, 19, seed=3)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(whole.ranks["z"], again.ranks["z"])
    assert not list(pyro.get_param_store().keys())
    monkeypatch.setattr(calibration, "_NUMBERS_AT_ONCE", 7 * (4 + 2))
    parts = simulation_based_calibration(model, guides.ExactPPCA(model), 60, 19, seed=3)
    assert parts.ranks["z"].shape == (60, 2)
    assert parts.p_value > 0.01


def test_what_it_cannot_judge_is_refused_in_a_sentence() -> None:
    digits = load("digits")
    shared = zoo.build("gmm-bayes", digits)[:2]
    estimated = zoo.build("ddpm", digits, steps=25)[:2]
    alone: Any = (pairs.global_mean_model, pairs.global_mean_guide)
    for pair, match in (
        (shared, "is shared by all data"),
        (estimated, "no exact log-weight"),
        (alone, "accepts no 'size'"),
    ):
        with pytest.raises(ValueError, match=match) as error:
            simulation_based_calibration(*pair, 20, 5)
        assert "\n" not in str(error.value)
    for wrong in ({"simulations": 19}, {"draws": 0}):
        with pytest.raises(ValueError, match=f"'{next(iter(wrong))}'"):
            simulation_based_calibration(ppca(), guides.ExactPPCA(ppca()), **wrong)


def test_ranks_are_drawn() -> None:
    model = ppca()
    right = simulation_based_calibration(model, guides.ExactPPCA(model), 200, 19, seed=0)
    ax = plot_ranks(right)
    names = [text.get_text() for text in ax.get_legend().get_texts()]
    assert names == ["95 % of calibrated guides", "z[0]", "z[1]", "log_joint"]
    line = next(line for line in ax.get_lines() if line.get_label() == "z[1]")
    share = np.array([(right.ranks["z"][:, 1] <= r).double().mean() for r in range(20)])
    np.testing.assert_allclose(line.get_ydata(), share - np.arange(1, 21) / 20, atol=1e-12)
    mine = Figure().add_subplot()
    variational = variational_calibration(model, LooseGuide(model, 0.5), 200, 19, seed=0)
    assert plot_ranks(variational, ax=mine) is mine
    assert mine.get_xlabel() == "t, a mass of q below the truth"
    many = calibration.Calibration({"z": right.ranks["z"].repeat(1, 8)}, 19, {"z": right.p_values["z"].repeat(8)})
    assert len(plot_ranks(many).get_lines()) == 17  # and the line at 0
