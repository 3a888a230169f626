"""Draws refined by importance weighting: the guide's with one particle, the posterior's with many."""

import math
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from linear_gaussian import Hierarchy, HierarchyGuide, LooseGuide, inner_plates, ppca
from torch import Tensor

from pyro_lvm import exact, guides, models
from pyro_lvm.evidence import sample_refined

N, S = 12, 2000


def z_scores(draws: Tensor, mean: Tensor, covariance: Tensor) -> tuple[Tensor, Tensor]:
    """How many standard errors moments of draws (S, N, M), pooled over data, lie from those of N(mean, covariance)."""
    residual = torch.linalg.solve_triangular(
        torch.linalg.cholesky(covariance), (draws - mean).flatten(0, 1).T, upper=False
    )
    n, M = residual.shape[1], residual.shape[0]
    # Of standard normals: mean 0 with variance 1/n, second moments I with variances 2/n and, off the diagonal, 1/n.
    second = (residual @ residual.T / n - torch.eye(M)) / ((1 + torch.eye(M)) / n).sqrt()
    return residual.mean(1) * n**0.5, second


def test_one_particle_gives_the_guides_own_posterior() -> None:
    model = ppca()
    x, guide = model.sample(N), LooseGuide(model)
    with torch.no_grad():
        q = guide.posterior(x)
    refined = sample_refined(model, guide, x, draws=S, num_particles=1, seed=0)
    assert refined["z"].shape == (S, N, 2)
    first, second = z_scores(refined["z"], q.mean, q.covariance_matrix[0])
    assert first.abs().max() < 4
    assert second.abs().max() < 4


def test_moments_approach_the_posteriors_as_one_over_the_particles() -> None:
    model = ppca()
    x, guide = model.sample(N), LooseGuide(model)
    with torch.no_grad():
        mean, covariance = exact.posterior(x, model.weight, model.bias, model.noise_scale.square())
    excess = {}
    for K in (1, 4, 16, 64):
        draws = sample_refined(model, guide, x, draws=S, num_particles=K, seed=K)["z"]
        first, second = z_scores(draws, mean, covariance)
        assert first.abs().max() < 4, (
            "the mean is the posterior's for any K: guide and posterior are symmetric about it"
        )
        excess[K] = second.diagonal().mean().item() * (2 / (S * N)) ** 0.5
        if K == 64:
            assert (second - second.diagonal().diag()).abs().max() < 4
    # The variance under q is 4. Weights are bounded by 4, so what is left of the excess falls as 1/K.
    assert excess[1] == pytest.approx(3.0, abs=0.1)
    assert excess[1] > excess[4] > excess[16] > excess[64]
    error = (2 / (S * N)) ** 0.5 / 2**0.5  # of the mean of two diagonal entries
    assert abs(excess[64] - excess[16] / 4) < 6 * error
    assert excess[64] < 3 / 64 * 2 + 4 * error


@pytest.mark.parametrize("num_particles", [1, 400])
def test_latents_of_a_datum_stay_together(num_particles: int) -> None:
    """The posterior's covariance between the layers is the particles' own; choosing site by site would lose it."""
    model = Hierarchy()
    guide = HierarchyGuide(model, spread=1.3 if num_particles > 1 else 1.0)
    x = model.sample(N)
    refined = sample_refined(model, guide, x, draws=600, num_particles=num_particles, seed=1)
    joint = torch.cat([refined["z_1"], refined["z_2"]], dim=-1)  # (S, N, 5)
    assert refined["z_1"].shape == (600, N, 3)
    mean, covariance = posterior_of(model, x)
    assert covariance[:3, 3:].abs().max() > 0.05, "the layers hang together"
    first, second = z_scores(joint, mean, covariance)
    assert first.abs().max() < 4.5
    assert second.abs().max() < 4.5
    apart = torch.cat([refined["z_1"], refined["z_2"].roll(1, 0)], dim=-1)
    assert z_scores(apart, mean, covariance)[1].abs().max() > 10, "what is to be noticed would be"


def posterior_of(model: Hierarchy, x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and covariance of (z_1, z_2) given x: a regression on the joint normal."""
    with torch.no_grad():
        top, bottom = model.dims[1], model.dims[0]
        prior = torch.zeros(bottom + top, bottom + top)
        prior[:bottom, :bottom] = model.A @ model.A.T + model.s**2 * torch.eye(bottom)
        prior[:bottom, bottom:], prior[bottom:, :bottom] = model.A, model.A.T
        prior[bottom:, bottom:] = torch.eye(top)
        weight = torch.cat([model.W, torch.zeros(model.features, top)], dim=1)
        covariance = (prior.inverse() + weight.T @ weight / model.sigma**2).inverse()
        return (x - model.b) @ weight @ covariance / model.sigma**2, covariance


@pytest.mark.parametrize("max_bytes", [pytest.param(1, marks=pytest.mark.slow), 3_000, 40_000, 2**28])
def test_chunks_change_nothing_but_the_noise(max_bytes: int) -> None:
    """Particles in several runs are weighed against one another as in one."""
    model = ppca(features=3, latent_dim=1)
    x, guide = model.sample(2), LooseGuide(model, 3.0)
    with torch.no_grad():
        mean, covariance = exact.posterior(x, model.weight, model.bias, model.noise_scale.square())
    S, K = 50 if max_bytes < 10_000 else 400, 40
    refined = sample_refined(model, guide, x, S, K, max_bytes=max_bytes, seed=0)["z"]
    assert refined.shape == (S, 2, 1)
    first, second = z_scores(refined, mean, covariance)
    assert first.abs().max() < 4
    assert second.abs().max() < 4 + (2 * S) ** 0.5 / K  # a bias of order 1/K, in standard errors


def test_programs_that_cannot_be_vectorised_run_one_particle_at_a_time() -> None:
    model = ppca(features=3, latent_dim=1)
    x, guide = model.sample(2), LooseGuide(model, 3.0)
    with torch.no_grad():
        mean, covariance = exact.posterior(x, model.weight, model.bias, model.noise_scale.square())
    refined = sample_refined(model, guide, x, 60, 30, vectorize_particles=False, seed=0)["z"]
    first, second = z_scores(refined, mean, covariance)
    assert first.abs().max() < 4
    assert second.abs().max() < 4


def test_inner_plates_stay_and_share_their_datums_particle() -> None:
    x = torch.randn(3, 2)
    refined = sample_refined(*inner_plates(), x, 4000, 300, seed=0)
    assert refined["level"].shape == (4000, 3)
    assert refined["z"].shape == (4000, 2, 3)
    joint = torch.cat([refined["level"].unsqueeze(1), refined["z"]], dim=1).movedim(1, -1)  # (S, N, 3)
    precision = torch.tensor([[1 + 2 / 0.25, -4.0, -4.0], [-4.0, 8.0, 0.0], [-4.0, 0.0, 8.0]])
    mean = torch.cat([torch.zeros(3, 1), 4 * x], dim=1) @ precision.inverse()
    first, second = z_scores(joint, mean, precision.inverse())
    assert first.abs().max() < 4.5
    assert second.abs().max() < 4.5


def test_seed_repeats_and_leaves_the_random_state_alone() -> None:
    model = ppca()
    x, guide = model.sample(3), LooseGuide(model)
    state = torch.get_rng_state()
    first = sample_refined(model, guide, x, 4, 5, seed=3)["z"]
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first, sample_refined(model, guide, x, 4, 5, seed=3)["z"])
    assert not torch.equal(first, sample_refined(model, guide, x, 4, 5)["z"])
    assert not torch.equal(torch.get_rng_state(), state)
    assert not first.requires_grad
    assert all(p.requires_grad for p in model.parameters())
    assert len(pyro.get_param_store()) == 0


def test_bad_requests_are_refused() -> None:
    model = ppca()
    x = model.sample(3)
    with pytest.raises(ValueError, match="'draws'"):
        sample_refined(model, LooseGuide(model), x, 0)
    with pytest.raises(ValueError, match="'num_particles'"):
        sample_refined(model, LooseGuide(model), x, 1, 0)
    mixture = models.BayesianGaussianMixture(2, 2)
    with pytest.raises(ValueError, match=r"all data share the latents .*'weights'"):
        sample_refined(mixture, guides.NormalWishart(mixture), torch.randn(4, 2))
    with torch.no_grad():
        model.weight[0, 0] = math.nan
    with pytest.raises(FloatingPointError):
        sample_refined(model, guides.LinearNormal(4, 2), x)


def test_weights_that_are_all_zero_are_an_error() -> None:
    def model(x: Tensor) -> Any:
        with pyro.plate("data", len(x), dim=-1):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            never = torch.full_like(x, -math.inf)
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)
            pyro.factor("never", never)

    with pytest.raises(FloatingPointError, match="all weights of a datum are zero"):
        sample_refined(model, one_normal, torch.randn(3))


def one_normal(x: Tensor) -> None:
    with pyro.plate("data", len(x), dim=-1):
        pyro.sample("z", dist.Normal(0.0, 1.0))
