"""Pyro's no-U-turn sampler against posteriors that are known."""

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
from torch import Tensor, nn

from pyro_lvm import exact, guides, models, zoo
from pyro_lvm.data import load
from pyro_lvm.diagnostics import compare_to, nuts, posterior
from pyro_lvm.diagnostics.reading import arviz, dataset
from pyro_lvm.evidence.khat import is_arviz_1
from pyro_lvm.programs import data_plate


@functools.cache
def ppca() -> tuple[models.ProbabilisticPCA, Tensor, Any]:
    """A model with correlated posteriors, data, and the gold standard of these."""
    torch.manual_seed(3)
    model = models.ProbabilisticPCA(6, latent_dim=2).double()
    torch.nn.init.normal_(model.weight)
    x = model.sample(3)
    return model, x, nuts(model, x, draws=300, warmup=100, seed=0)


def parameters(model: models.ProbabilisticPCA) -> tuple[Tensor, Tensor, Tensor]:
    return model.weight.detach(), model.bias.detach(), model.noise_scale.square().detach()


def means_and_errors(idata: Any, name: str = "z") -> tuple[np.ndarray, np.ndarray]:
    draws = dataset(idata, "posterior")[name]
    return draws.mean(("chain", "draw")).values, arviz().mcse(draws.to_dataset())[name].values


def test_it_agrees_with_the_exact_posterior() -> None:
    model, x, gold = ppca()
    draws = dataset(gold, "posterior")
    assert float(arviz().rhat(draws)["z"].max()) == draws.attrs["max_rhat"] < 1.01
    assert draws.attrs["divergences"] == 0
    assert draws.attrs["warnings"] == ""
    mean, _ = exact.posterior(x, *parameters(model))
    found, error = means_and_errors(gold)
    z_scores = (found - mean.numpy()) / error
    print(f"R-hat {draws.attrs['max_rhat']:.4f}, means within {np.abs(z_scores).max():.2f} MCSE")
    assert np.abs(z_scores).max() < 3  # of 6 standard normals: 1 run in 60 by chance
    exactly = posterior(model, guides.ExactPPCA(model), x, prior_draws=0, seed=1)
    comparison = compare_to(exactly, gold)
    assert not comparison.flagged["z"].any()
    assert (comparison.covariance_error["z"] < 3 * comparison.covariance_error_mcse["z"] + 0.02).all()


def test_guides_are_told_apart_by_it() -> None:
    model, x, gold = ppca()
    mean, covariance = exact.posterior(x, *parameters(model))
    full = guides.LinearNormal(6, latent_dim=2).double()
    diagonal = guides.LinearNormal(6, latent_dim=2, covariance="diagonal").double()
    for guide in (full, diagonal):  # the exact mean is affine in x
        guide.linear.bias.data = exact.posterior(torch.zeros(1, 6), *parameters(model))[0][0]
        guide.linear.weight.data = (exact.posterior(torch.eye(6), *parameters(model))[0] - guide.linear.bias).T
    lower = torch.linalg.cholesky(covariance)
    inverse_softplus = torch.diag((lower.diagonal() - 1e-4).expm1().log())
    full.raw_scale.data = (lower.tril(-1) + inverse_softplus)[tuple(torch.tril_indices(2, 2))].clone()
    scales = covariance.inverse().diagonal().rsqrt()  # of the best normal with independent dimensions
    diagonal.raw_scale.data = scales.expm1().log()
    own, factorised = (posterior(model, guide, x, prior_draws=0, seed=2) for guide in (full, diagonal))
    assert not compare_to(own, gold).flagged["z"].any()
    assert not compare_to(own, posterior(model, guides.ExactPPCA(model), x, seed=3)).flagged["z"].any()
    comparison = compare_to(factorised, gold)
    factor = torch.linalg.cholesky(covariance)
    half = torch.linalg.solve_triangular(factor, torch.diag(scales), upper=False)
    error = ((half @ half.T - torch.eye(2)).norm() / math.sqrt(2)).item()
    kl = exact.kl_normal(mean, torch.diag(scales.square()), mean, covariance)
    print(f"diagonal guide: {comparison}\nin closed form {error:.4f}, KL {kl[0]:.4f}")
    assert error > 0.3
    assert comparison.flagged["z"].all()
    assert comparison.flagged_covariances["z"].all()
    assert ((comparison.covariance_error["z"] - error).abs() < 4 * comparison.covariance_error_mcse["z"]).all()
    assert (comparison.covariance_error_mcse["z"] < 0.1).all()
    assert ((comparison.kl["z"] - kl).abs() < 4 * comparison.kl_mcse["z"]).all()


def test_the_layout_is_that_of_approximations() -> None:
    model, x, gold = ppca()
    approximation = posterior(model, guides.ExactPPCA(model), x, draws=300, seed=0)
    one, other = (set(idata.children if is_arviz_1() else idata.groups()) for idata in (gold, approximation))
    assert one == other
    for group in ("posterior", "posterior_predictive", "log_likelihood", "prior", "prior_predictive", "observed_data"):
        own, other = dataset(gold, group), dataset(approximation, group)
        assert own.sizes == other.sizes, group
        assert set(own.data_vars) == set(other.data_vars), group
    statistics = dataset(gold, "sample_stats")
    assert set(statistics.data_vars) == {"diverging", "lp", "n_steps", "step_size"}
    assert statistics["diverging"].dims == ("chain", "draw")
    assert (statistics["n_steps"] >= 1).all()
    z = torch.from_numpy(dataset(gold, "posterior")["z"].values)
    log_prior = dist.Normal(0.0, 1.0).log_prob(z).sum((-1, -2))
    mean = z @ model.weight.T + model.bias
    log_likelihood = dist.Normal(mean, model.noise_scale).log_prob(x).sum(-1).detach()
    np.testing.assert_allclose(dataset(gold, "log_likelihood")["x"].values, log_likelihood, rtol=1e-10)
    np.testing.assert_allclose(statistics["lp"].values, log_prior + log_likelihood.sum(-1), rtol=1e-10)


def test_the_callers_state_is_left_alone() -> None:
    model, _ = pairs.vae(shape=(2, 2), latent_dim=1)
    model.train()
    pyro.param("mine", torch.ones(1))
    x = model.sample(2)
    before = torch.get_rng_state()
    first, again, whole = (
        quietly(model, x, draws=8, warmup=8, chains=2, seed=4, progress=False, size=size) for size in (None, None, 50)
    )
    for other in (again, whole):  # a plate's scale is no part of a datum's density
        for group in ("posterior", "prior_predictive", "sample_stats"):
            assert dataset(first, group).equals(dataset(other, group)), group
    assert torch.equal(torch.get_rng_state(), before)
    assert list(pyro.get_param_store().keys()) == ["mine"]
    assert pyro.distributions.is_validation_enabled()
    assert model.training
    assert all(p.requires_grad and p.grad is None for p in model.parameters())


def quietly(*args: Any, **kwargs: Any) -> Any:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="the chains disagree|.*trajectories diverged")
        return nuts(*args, **kwargs)


def test_a_model_in_single_precision_stays_in_it() -> None:
    model = models.ProbabilisticPCA(3, latent_dim=1).float()
    gold = quietly(model, torch.zeros(2, 3, dtype=torch.float32), draws=20, warmup=20, chains=2, seed=0)
    assert dataset(gold, "posterior")["z"].dtype == np.float32
    assert dataset(gold, "sample_stats")["lp"].dtype == np.float64


def two_levels(x: Tensor | None = None, *, size: int | None = None) -> Tensor:
    """z_2 ~ N(0, 1), z_1 | z_2 ~ N(z_2, ¼), x | z_1 ~ N(z_1, ¼)."""
    with data_plate(x, size):
        z_2 = pyro.sample("z_2", dist.Normal(torch.zeros(1), 1.0).to_event(1))
        z_1 = pyro.sample("z_1", dist.Normal(z_2, 0.5).to_event(1))
        return pyro.sample("x", dist.Normal(z_1, 0.5).to_event(1), obs=x)


def test_every_level_of_a_hierarchy() -> None:
    x = torch.tensor([[1.5], [-0.6]])
    gold = quietly(two_levels, x, draws=100, warmup=40, chains=2, seed=0)
    assert list(dataset(gold, "posterior").data_vars) == ["z_2", "z_1"]
    for name, gain in (("z_2", 1 / 1.5), ("z_1", 1.25 / 1.5)):  # cov(z, x) / var(x)
        found, error = means_and_errors(gold, name)
        assert (np.abs(found - gain * x.numpy()) < 4 * error).all(), name


def test_a_positive_latent_moves_with_its_jacobian() -> None:
    """z ~ Gamma(2, 1), x ~ Poisson(z): p(z | x) = Gamma(2 + x, 2), and Gamma(1 + x, 2) without the determinant."""

    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Gamma(2.0, 1.0))
            pyro.sample("x", dist.Poisson(z), obs=x)

    x = torch.tensor([0.0, 3.0])
    gold = quietly(model, x, draws=120, warmup=40, chains=2, seed=0)
    found, error = means_and_errors(gold)
    assert dataset(gold, "posterior")["z"].dims == ("chain", "draw", "datum")
    assert (error < 0.15).all()
    assert (np.abs(found - (2 + x.numpy()) / 2) < 4 * error).all()


def test_a_latent_on_the_sphere() -> None:
    """z uniform on S², x ~ N(z, σ² I): p(z | x) is von Mises-Fisher with κ = |x|/σ², of mean length coth κ − 1/κ."""

    def model(x: Tensor | None = None, *, size: int | None = None) -> Tensor:
        with data_plate(x, size):
            z = pyro.sample("z", zoo_sphere())
            return pyro.sample("x", dist.Normal(z, 0.7).to_event(1), obs=x)

    from pyro_lvm.distributions import HypersphericalUniform

    def zoo_sphere() -> Any:
        return HypersphericalUniform(3)

    x = torch.tensor([[1.2, 0.5, -0.3]])
    gold = quietly(model, x, draws=120, warmup=40, chains=2, seed=0)
    z = dataset(gold, "posterior")["z"].values
    np.testing.assert_allclose(np.linalg.norm(z, axis=-1), 1.0, rtol=1e-12)
    found, error = means_and_errors(gold)
    kappa = float(x.norm()) / 0.49
    expected = (1 / math.tanh(kappa) - 1 / kappa) * (x / x.norm()).numpy()
    assert (np.abs(found - expected) < 4 * error).all()
    assert (error < 0.15).all()


def test_latents_that_all_data_share() -> None:
    """x_n ~ N(mean, 2): p(mean | x) = N(Σ x / (2 + N), 2 / (2 + N))."""
    x = torch.tensor([[1.0, -2.0], [2.0, 0.0], [0.5, -1.0]])
    gold = quietly(pairs.global_mean_model, x, draws=100, warmup=40, chains=2, seed=0)
    draws = dataset(gold, "posterior")
    assert draws["mean"].dims == ("chain", "draw", "mean_dim")
    assert draws["z"].sizes == {"chain": 2, "draw": 100, "datum": 3, "z_dim": 2}
    found, error = means_and_errors(gold, "mean")
    assert (np.abs(found - (x.sum(0) / 5).numpy()) < 4 * error).all()
    comparison = compare_to(posterior(pairs.global_mean_model, pairs.global_mean_guide, x, seed=0), gold)
    assert comparison.mean_error["mean"].shape == (1, 2)
    assert comparison.mean_error["z"].shape == (3, 2)
    assert comparison.flagged["mean"].all()  # of scale 0.5 about 0, not 0.63 about its mean


def test_programs_of_users() -> None:
    x = torch.randn(3, 3, generator=torch.Generator().manual_seed(1))
    gold = quietly(pairs.PixelModel().double(), x, draws=60, warmup=40, chains=2, seed=0)
    assert dataset(gold, "log_likelihood")["x"].dims == ("chain", "draw", "datum", "pixels")
    found, error = means_and_errors(gold)
    assert (np.abs(found - x.sum(1).numpy() / 4 / (1 + 3 / 4)) < 4 * error).all()
    with pytest.warns(UserWarning, match="run once for every draw"):
        gold = quietly(pairs.one_draw_model, x[:, :2], draws=6, warmup=5, chains=2, seed=0)
    assert dataset(gold, "posterior")["z"].shape == (2, 6, 3, 2)


def test_chains_that_disagree_are_told() -> None:
    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(1), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z.abs(), 0.02).to_event(1), obs=x)

    with pytest.warns(UserWarning, match="the chains disagree, with an R-hat of"):
        gold = nuts(model, torch.ones(1, 1), draws=30, warmup=60, chains=4, seed=1)
    attributes = dataset(gold, "posterior").attrs
    assert attributes["max_rhat"] > 1.5
    assert attributes["min_ess"] < 20
    assert attributes["warnings"].startswith("the chains disagree")


@pytest.mark.filterwarnings("ignore:the chains disagree")
def test_divergences_are_told() -> None:
    def walled(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.factor("wall", -1e6 * (z - 2.0).relu().square())  # into which some trajectories run
            pyro.sample("x", dist.Normal(0.0, 1.0), obs=x)

    with pytest.warns(UserWarning, match="trajectories diverged"):
        gold = nuts(walled, torch.zeros(1), draws=100, warmup=30, chains=2, seed=0)
    attributes = dataset(gold, "posterior").attrs
    diverging = dataset(gold, "sample_stats")["diverging"]
    assert int(diverging.sum()) == attributes["divergences"] > 0
    assert f"{attributes['divergences']} of 200 trajectories diverged" in attributes["warnings"]


@pytest.mark.parametrize(
    ("name", "settings"), [("gmm", {}), ("gmm-bayes", {}), ("ddpm", {"steps": 25}), ("vdm", {"sampling_steps": 3})]
)
def test_what_it_cannot_sample_is_refused_in_a_sentence(name: str, settings: dict[str, int]) -> None:
    digits = load("digits")
    model, _, _ = zoo.build(name, digits, **settings)
    with pytest.raises(ValueError, match=r"is discrete, and Hamiltonian|cannot be computed, only bounded") as error:
        nuts(model.double(), digits.test[:2], draws=4, warmup=1, chains=2)
    assert "\n" not in str(error.value)


def test_a_prior_that_cannot_be_sampled() -> None:
    def model(x: Tensor) -> None:
        mean = pyro.sample("mean", dist.ImproperUniform(dist.constraints.real, (), ()))
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(mean, 1.0), obs=x)

    with pytest.raises(ValueError, match="prior cannot be sampled"):
        nuts(model, torch.randn(5), draws=4, warmup=1, chains=2)


@pytest.mark.parametrize(
    ("wrong", "match"), [({"draws": 3}, "'draws'"), ({"warmup": 0}, "'warmup'"), ({"chains": 1}, "'chains'")]
)
def test_wrong_numbers(wrong: dict[str, int], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        nuts(nn.Identity(), torch.zeros(2, 2), **wrong)
