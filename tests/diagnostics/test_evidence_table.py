"""k-hat, models compared by evidence, and what ArviZ makes of draws: each where the answer is known."""

import functools
import math
import warnings
from typing import Any

import diagnosed_pairs as pairs
import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor

from pyro_lvm import evidence, guides, models
from pyro_lvm.diagnostics import compare_evidence, khat, nuts, plot_prior_posterior, posterior
from pyro_lvm.diagnostics.evidence_table import _as_elpd, _stacking
from pyro_lvm.diagnostics.reading import arviz
from pyro_lvm.evidence.khat import is_arviz_1, pareto_khat
from pyro_lvm.programs import data_plate

QUIET = [
    "ignore:The inplace keyword",  # ArviZ 0.23 takes of pandas what is to go
    "ignore::DeprecationWarning:arviz",
    "ignore:Passing a dict or None as alias_mapping",
]

UNROUNDED: dict[str, Any] = {"round_to": "none"} if is_arviz_1() else {}


def normal_pair(scale: float) -> tuple[Any, Any]:
    """z ~ N(0, 1), x | z ~ N(z, 1); the guide has the posterior's mean and a multiple of its scale √½."""

    def model(x: Tensor | None = None, *, size: int | None = None) -> Tensor:
        with data_plate(x, size):
            z = pyro.sample("z", dist.Normal(torch.zeros(1), 1.0).to_event(1))
            return pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x)

    def guide(x: Tensor, *, size: int | None = None) -> None:
        with data_plate(x, size):
            pyro.sample("z", dist.Normal(x / 2, scale * math.sqrt(0.5)).to_event(1))

    return model, guide


def test_khat_is_the_tail_of_the_weights() -> None:
    """Weights of a normal with s times the posterior's scale have tails of exponent 1 − s² where s < 1."""
    x = torch.tensor([[0.0], [1.0], [-2.0]])
    for scale, expected in ((0.5, 0.75), (0.3, 0.91)):
        found = khat(posterior(*normal_pair(scale), x, draws=2500, prior_draws=0, seed=0))
        assert found.shape == (3,)
        # Some 300 draws in the tail: errors of (1 + k)/√300; and the limit is reached from below.
        assert ((found - expected).abs() < 0.35).all()
        assert (found > 0.5).all()
    wide = khat(posterior(*normal_pair(1.3), x, draws=2500, prior_draws=0, seed=0))  # bounded weights
    assert (wide < 0.3).all()
    assert (khat(posterior(*normal_pair(1.0), x, prior_draws=0, seed=0)) == -torch.inf).all()


def test_khat_is_that_of_the_evidence() -> None:
    model, guide = normal_pair(0.6)
    idata = posterior(model, guide, torch.randn(4, 1), draws=100, chains=2, prior_draws=0, seed=0)
    log_weight = torch.from_numpy(idata["sample_stats"]["log_weight"].values).flatten(0, 1)
    torch.testing.assert_close(khat(idata), pareto_khat(log_weight))


def test_khat_of_latents_that_all_data_share_is_one_number() -> None:
    idata = posterior(pairs.global_mean_model, pairs.global_mean_guide, torch.randn(4, 2), prior_draws=0, seed=0)
    assert khat(idata).shape == (1,)


def test_khat_without_weights() -> None:
    idata = posterior(*normal_pair(1.0), torch.zeros(2, 1), draws=5, prior_draws=0)
    with pytest.raises(ValueError, match="'idata' has 20 draws"):
        khat(idata)
    del idata["sample_stats"]["log_weight"]
    with pytest.raises(ValueError, match="no 'log_weight'"):
        khat(idata)


@functools.cache
def estimates(shift: float = 0.0) -> dict[str, evidence.LogLikelihood]:
    torch.manual_seed(1)
    true = models.ProbabilisticPCA(4, latent_dim=2).double()
    x = true.sample(60)
    others = {name: models.ProbabilisticPCA(4, latent_dim=1).double() for name in ("one", "another")}
    loose = {name: guides.LinearNormal(4, latent_dim=m.weight.shape[1]).double() for name, m in others.items()}
    found = {"true": evidence.log_likelihood(true, guides.ExactPPCA(true), x, 50, seed=0)}
    found |= {name: evidence.log_likelihood(m, loose[name], x, 200, seed=0) for name, m in others.items()}
    for ll in found.values():
        ll += shift
    return found


def test_the_table_has_what_arviz_has() -> None:
    found = estimates()
    table = compare_evidence(found)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = arviz().compare(
            {name: _as_elpd(ll.as_subclass(Tensor).numpy()) for name, ll in found.items()},
            method="stacking",
            **UNROUNDED,
        )
    if is_arviz_1():  # which has differences the other way round
        theirs = theirs.assign(elpd_diff=-theirs["elpd_diff"], elpd_loo=theirs["elpd"])
    assert list(table.index) == list(theirs.index)
    assert table.index[0] == "true"
    for own, other in (
        ("rank", "rank"),
        ("elpd", "elpd_loo"),
        ("elpd_diff", "elpd_diff"),
        ("se", "se"),
        ("dse", "dse"),
        ("weight", "weight"),
    ):
        np.testing.assert_allclose(table[own], theirs[other], rtol=1e-8, atol=1e-6)
    errors = {name: 60 * float(ll.mean_standard_error) for name, ll in found.items()}
    assert table["mc_error"].to_dict() == pytest.approx(errors)
    assert errors["true"] < 1e-6 < errors["one"]
    assert table["mc_error_diff"]["true"] == 0.0
    assert table["mc_error_diff"]["one"] == pytest.approx(math.hypot(errors["one"], errors["true"]))
    assert table["khat"]["one"] == pytest.approx(float(found["one"].khat.max()))


def test_data_far_from_likely_change_no_weight() -> None:
    """Pictures have log-densities of minus thousands, of which the exponential is 0."""
    before, after = compare_evidence(estimates()), compare_evidence(estimates(-5000.0))
    np.testing.assert_allclose(before["weight"], after["weight"], atol=1e-6)
    assert before["weight"].sum() == pytest.approx(1.0)
    assert after["elpd"]["true"] == pytest.approx(before["elpd"]["true"] - 5000 * 60)


def test_stacking_weighs_by_how_many_data_each_predicts() -> None:
    """Each model all but certain of its own share of the data: the best mixture weighs them by these shares."""
    first = np.where(np.arange(100) < 30, 0.0, -50.0)
    weights = _stacking({"a": first, "b": -50.0 - first})
    assert weights["a"] == pytest.approx(0.3, abs=1e-3)
    assert weights["b"] == pytest.approx(0.7, abs=1e-3)


def test_what_does_not_compare() -> None:
    found = estimates()
    model, guide = normal_pair(1.0)
    short = evidence.log_likelihood(model, guide, torch.zeros(60, 1), 30)
    few = evidence.log_likelihood(model, guide, torch.zeros(5, 1), 30)
    vae = pairs.vae()
    discrete = evidence.log_likelihood(*vae, vae[0].sample(60), 30)
    discrete.features = 4
    for other, match in (
        ({}, "at least two models"),
        ({"b": few}, "number of data is 60 for 'a' and 5 for 'b'"),
        ({"b": short}, "number of values of a datum is 4 for 'a' and 1"),
        ({"b": discrete}, r"probabilities \(True\) or densities \(False\) is False for 'a' and True"),
        ({"b": evidence.lower_bound(model, guide, torch.zeros(60, 1), 5)}, "'b' is a LowerBound"),
    ):
        with pytest.raises(ValueError, match=match):
            compare_evidence({"a": found["true"], **other})


X = torch.tensor([0.3, 1.4, -0.2, 0.9, 2.1, 0.5, 1.0, -0.7])


def location(scale: float) -> tuple[Any, Any]:
    """mean ~ N(0, 1), x_n ~ N(mean, s²): a latent that all data share; the guide is its posterior."""

    def model(x: Tensor | None = None, *, size: int | None = None) -> Tensor:
        mean = pyro.sample("mean", dist.Normal(0.0, 1.0))
        with data_plate(x, size):
            return pyro.sample("x", dist.Normal(mean, scale), obs=x)

    def guide(x: Tensor, *, size: int | None = None) -> None:
        variance = 1 / (1 + len(x) / scale**2)
        pyro.sample("mean", dist.Normal(variance * x.sum(0) / scale**2, variance**0.5))

    return model, guide


def left_out(scale: float) -> Tensor:
    """log p(x_n | x_{−n}) of each datum, and the probability of less, (2, N)."""
    variance = 1 / (1 + (len(X) - 1) / scale**2)
    predictive = dist.Normal(variance * (X.sum() - X) / scale**2, math.sqrt(variance + scale**2))
    return torch.stack([predictive.log_prob(X), predictive.cdf(X)])


@pytest.mark.filterwarnings(*QUIET)
@pytest.mark.parametrize("source", ["guide", "nuts"])
def test_arviz_leaves_data_out_of_what_they_share(source: str) -> None:
    model, guide = location(1.0)
    if source == "guide":
        idata = posterior(model, guide, X, draws=1000, seed=0)
    else:
        idata = nuts(model, X, draws=500, warmup=100, chains=2, seed=0)
    loo = arviz().loo(idata, pointwise=True)
    expected = left_out(1.0)
    # Of a few thousand draws: an importance-weighted mean with k-hat below ½ errs by some 2/√K.
    single, total = (loo.elpd_i, loo.elpd) if is_arviz_1() else (loo.loo_i, loo.elpd_loo)
    np.testing.assert_allclose(single.values, expected[0], atol=0.08)
    assert total == pytest.approx(float(expected[0].sum()), abs=0.12)
    pit = arviz().loo_pit(idata)["x"].values if is_arviz_1() else arviz().loo_pit(idata, y="x", y_hat="x")
    drawn = idata["posterior_predictive"]["x"].sizes
    np.testing.assert_allclose(pit, expected[1], atol=5 * 0.5 / math.sqrt(drawn["chain"] * drawn["draw"]) + 0.01)


@pytest.mark.filterwarnings(*QUIET)
def test_arviz_compares_and_draws() -> None:
    entries = {scale: posterior(*location(scale), X, draws=500, seed=0) for scale in (1.0, 4.0)}
    table = arviz().compare({str(scale): idata for scale, idata in entries.items()}, **UNROUNDED)
    expected = left_out(1.0)[0].sum() - left_out(4.0)[0].sum()
    assert list(table.index) == ["1.0", "4.0"]
    sign = -1 if is_arviz_1() else 1
    assert sign * table["elpd_diff"]["4.0"] == pytest.approx(float(expected), abs=0.2)
    if is_arviz_1():
        arviz().plot_loo_pit(entries[1.0])
        arviz().plot_ppc_dist(entries[1.0], num_samples=10)
    else:
        arviz().plot_loo_pit(entries[1.0], y="x", y_hat="x")
        arviz().plot_ppc(entries[1.0], num_pp_samples=10, random_seed=0)
    import matplotlib.pyplot as plt

    plt.close("all")


def test_prior_and_posterior_are_drawn() -> None:
    model, guide = normal_pair(1.0)
    idata = posterior(model, guide, torch.tensor([[0.0], [6.0]]), draws=1000, seed=0)
    ax = plot_prior_posterior(idata, datum=1)
    prior, after = (line.get_xydata() for line in ax.get_lines())
    assert prior[np.argmin(prior[:, 1]), 0] == pytest.approx(0.0, abs=0.4)  # rows are drawn upwards from y = 0
    assert after[np.argmin(after[:, 1]), 0] == pytest.approx(3.0, abs=0.3)
    # Of one scale: the narrower is √2 times as high, less what smoothing takes.
    assert after[:, 1].min() / prior[:, 1].min() == pytest.approx(math.sqrt(2), abs=0.15)
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["prior", "posterior"]
    shared = plot_prior_posterior(posterior(*location(1.0), X, seed=0), datum=5)
    assert shared.get_ylabel() == "unit"
    for wrong, match in (({"name": "y"}, "'name'"), ({"datum": 2}, "'datum'")):
        with pytest.raises(ValueError, match=match):
            plot_prior_posterior(idata, **wrong)
    with pytest.raises(ValueError, match="a group 'prior'"):
        plot_prior_posterior(posterior(model, guide, torch.zeros(2, 1), prior_draws=0))
