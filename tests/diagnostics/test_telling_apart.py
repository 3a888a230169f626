"""AUROC, the density ratio and decoded samples, where their values are known."""

from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from torch import Tensor

from pyro_lvm import data, zoo
from pyro_lvm.diagnostics import density_ratio, plausibility, plot_plausibility
from pyro_lvm.diagnostics.auroc import auroc


def phi(z: float) -> float:
    return float(dist.Normal(0.0, 1.0).cdf(torch.tensor(z)))


def test_auroc_of_two_normals() -> None:
    d, n = 1.2, 400
    values, errors = [], []
    for _ in range(200):
        found = auroc(torch.randn(n), torch.randn(n) + d)
        values.append(found.value)
        errors.append(found.standard_error)
    exact, spread = phi(d / 2**0.5), float(torch.tensor(values).std())
    assert sum(values) / 200 == pytest.approx(exact, abs=4 * spread / 200**0.5)
    # The deviation of a deviation is 1 / √(2 · 199) of it, 5 %.
    assert sum(errors) / 200 == pytest.approx(spread, rel=0.2)
    print(f"AUROC of normals {d} apart: exact {exact:.4f}, one of 400 {found}, mean of 200 {sum(values) / 200:.4f}")


def test_auroc_is_scikit_learns_ties_and_all() -> None:
    first, second = torch.randint(5, (60,)).double(), torch.randint(1, 6, (90,)).double()
    labels = [0] * 60 + [1] * 90
    assert auroc(first, second).value == pytest.approx(roc_auc_score(labels, torch.cat([first, second]).numpy()))
    assert auroc(second, first).value == pytest.approx(1 - auroc(first, second).value)
    infinite = torch.tensor([1.0, torch.inf])
    assert auroc(torch.zeros(3), infinite).value == 1.0
    with pytest.raises(ValueError, match="are NaN"):
        auroc(torch.zeros(3), torch.tensor([0.0, torch.nan]))
    with pytest.raises(ValueError, match="at least two"):
        auroc(torch.zeros(1), infinite)


def normal_model(x: Tensor) -> None:
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(torch.zeros(x.shape[1]), 1.0).to_event(1))
        pyro.sample("x", dist.Normal(z, 0.1).to_event(1), obs=x)


def normal_guide(x: Tensor) -> None:
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(x, 0.1).to_event(1))


def shifted(N: int, d: float) -> Tensor:
    """Data whose codes are N(d, 1) in the first of two dimensions, N(0, 1) in the other."""
    return 0.99**0.5 * torch.randn(N, 2) + torch.tensor([d, 0.0])


def test_ratio_of_two_normals() -> None:
    d, x = 1.0, shifted(2000, 1.0)
    found = density_ratio(normal_model, normal_guide, x, LogisticRegression(), seed=0)
    # The log-ratio is linear: the classifier is as good as any, and KL = d² / 2.
    assert found.auroc.value == pytest.approx(phi(d / 2**0.5), abs=4 * found.auroc.standard_error)
    assert found.kl == pytest.approx(d**2 / 2, abs=4 * found.kl_standard_error)
    trees = density_ratio(normal_model, normal_guide, x, seed=0)
    assert trees.auroc.value < phi(d / 2**0.5) + 4 * trees.auroc.standard_error  # none is better than the ratio itself
    assert trees.kl < d**2 / 2 + 4 * trees.kl_standard_error  # a lower bound, of whatever classifier
    assert trees.kl > 0.3
    print(f"density ratio: KL 0.5, {found!r}")


def test_trees_see_a_hole_that_lines_do_not() -> None:
    x = shifted(4000, 0.0)
    x = x[x.norm(dim=1) > 1.2][:1500]  # the middle is cut out: no line tells, KL = −log of what is left, 1.2² / 2
    lines = density_ratio(normal_model, normal_guide, x, LogisticRegression(), seed=0)
    trees = density_ratio(normal_model, normal_guide, x, seed=0)
    assert abs(lines.kl) < 0.05
    assert 0.3 < trees.kl < 1.2**2 / 2 + 4 * trees.kl_standard_error


def test_ratio_of_equals_and_of_other_kinds() -> None:
    same = density_ratio(normal_model, normal_guide, shifted(500, 0.0), seed=0)
    assert abs(same.auroc.value - 0.5) < 4 * same.auroc.standard_error
    assert same.kl < 4 * same.kl_standard_error
    for name in ("vae-vmf", "vae-discrete"):
        model, guide, _ = zoo.build(name, data.load("digits"))
        assert 0 <= density_ratio(model, guide, data.load("digits").train[:40], folds=2, seed=0).auroc.value <= 1
    with pytest.raises(ValueError, match="'folds'"):
        density_ratio(normal_model, normal_guide, shifted(4, 0.0), folds=5)


def test_samples_from_a_hole_are_far_from_data() -> None:
    """Data on one half of a line whose whole the prior fills: half of the model's draws decode to the other half."""
    x = torch.randn(1500, 1).abs()
    found = plausibility(normal_model, normal_guide, x[:1000], x[1000:], seed=0)
    # A draw is farther off than t where it is below −t; of those above 0, from as few as none to as many as of the
    # reconstructions, a share of 0.05.
    t, spread = float(found.reconstructed.quantile(0.95)), 1.01**0.5
    low = (phi(-t / spread) - 0.05) / 0.95
    high = low + 0.5 * 0.05 / 0.95
    error = 4 * found.implausible.standard_error
    assert low - error < found.implausible.mass < high + error
    assert found.auroc.value > 0.6
    assert found.held_out.mean() < found.reconstructed.mean()
    print(f"plausibility: {found!r}, between {low:.3f} and {high:.3f} expected")


def test_a_model_that_is_the_data_is_plausible() -> None:
    x = torch.randn(900, 2)
    found = plausibility(normal_model, normal_guide, x[:500], x[500:], seed=0)
    assert abs(found.implausible.mass) < 4 * found.implausible.standard_error + 0.01
    exact = torch.cdist(x[500:], x[:500]).amin(1) / 2**0.5
    torch.testing.assert_close(found.held_out, exact)
    assert plot_plausibility(found).get_ylabel() == "share of the data"


@pytest.mark.parametrize("name", ["gmm-bayes", "vae-discrete", "hvae-top-down", "vae-vmf"])
def test_any_pair_is_plausible_to_some_degree(name: str) -> None:
    model, guide, _ = zoo.build(name, data.load("digits"))
    x = data.load("digits")
    found = plausibility(model, guide, x.train[:50], x.test[:20], seed=0)
    assert found.sampled.isfinite().all()
    assert len(found.sampled) == len(found.reconstructed) == len(found.held_out) == 20


def test_state_and_arguments() -> None:
    x = shifted(40, 0.0)
    before = torch.get_rng_state()
    first = density_ratio(normal_model, normal_guide, x, seed=1)
    assert torch.equal(
        first.log_ratio_of_prior, density_ratio(normal_model, normal_guide, x, seed=1).log_ratio_of_prior
    )
    plausibility(normal_model, normal_guide, x[:20], x[20:], seed=1)
    assert torch.equal(torch.get_rng_state(), before)
    wrong: list[tuple[Any, dict[str, Any], str]] = [
        ((x, x), {"alpha": 1.0}, "'alpha'"),
        ((x, x[:1]), {}, "'held_out'"),
        ((x, torch.zeros(3, 3)), {}, "'held_out'"),
    ]
    for arguments, more, match in wrong:
        with pytest.raises(ValueError, match=match):
            plausibility(normal_model, normal_guide, *arguments, **more)
