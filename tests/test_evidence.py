"""The log-likelihood by importance sampling: exact K, bounded memory, honest errors."""

import math
from typing import Any

import pyro
import pyro.distributions as dist
import pyro.poutine as poutine
import pytest
import torch
from torch import Tensor, nn

import pyro_lvm as lvm
from pyro_lvm import exact, guides, models
from pyro_lvm.evidence.khat import pareto_khat
from pyro_lvm.evidence.memory import bytes_per_row

D, M = 4, 2


@pytest.fixture
def model() -> models.ProbabilisticPCA:
    model = models.ProbabilisticPCA(D, M)
    with torch.no_grad():
        model.weight.copy_(torch.randn(D, M))
    return model


def evidence(model: models.ProbabilisticPCA, x: Tensor) -> Tensor:
    with torch.no_grad():
        return exact.log_evidence(x, model.weight, model.bias, model.noise_scale.square())


def wide(model: models.ProbabilisticPCA, factor: float = 2.0) -> Any:
    """The posterior with its covariance multiplied."""

    def guide(x: Tensor) -> None:
        mean, covariance = exact.posterior(x, model.weight, model.bias, model.noise_scale.square())
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.MultivariateNormal(mean, factor * covariance))

    return guide


def test_exact_guide_gives_the_evidence_without_error(model: models.ProbabilisticPCA) -> None:
    x = model.sample(30)
    ll = lvm.log_likelihood(model, guides.ExactPPCA(model), x, num_particles=50)
    torch.testing.assert_close(ll + 0, evidence(model, x), rtol=1e-10, atol=1e-10)
    assert ll.standard_error.max() < 1e-9
    torch.testing.assert_close(ll.ess, torch.full((30,), 50.0))
    assert (ll.khat == -math.inf).all(), "equal weights have no tail"


def test_standard_errors_hold(model: models.ProbabilisticPCA) -> None:
    """The errors' share within one and two standard errors is the normal's, over many data."""
    x = model.sample(2000)
    ll = lvm.log_likelihood(model, wide(model), x, num_particles=500, seed=0)
    z = ((ll - evidence(model, x)) / ll.standard_error).abs()
    # binomial errors of the shares of 2000: 0.010 and 0.005
    assert abs(float((z < 1).double().mean()) - 0.683) < 0.04
    assert abs(float((z < 2).double().mean()) - 0.954) < 0.02
    assert (ll.khat < 0.7).all()
    assert abs(ll.mean() - evidence(model, x).mean()) < 4 * ll.mean_standard_error
    # weights of N(0, 2Σ) against N(0, Σ) in 2 dimensions: E[w²]/E[w]² = (4/3)^{M/2·2}/... in closed form 4/3
    assert float(ll.ess.mean()) == pytest.approx(500 * 3 / 4, rel=0.02)


def test_khat_where_the_largest_weights_are_all_the_same() -> None:
    """As of a latent of two values: no tail can be fitted to them, and the other data's are as they were."""
    log_w = torch.randn(100, 3)
    log_w[:, 1] = torch.arange(100) % 2
    khat = pareto_khat(log_w)
    assert khat[1] == math.inf
    assert torch.equal(khat[[0, 2]], pareto_khat(log_w[:, [0, 2]]))
    assert khat[[0, 2]].isfinite().all()


def test_narrow_guides_are_told_by_khat(model: models.ProbabilisticPCA) -> None:
    x = model.sample(50)
    ll = lvm.log_likelihood(model, wide(model, 0.2), x, num_particles=1000, seed=0)
    # w² has no mean under a fifth of the variance: k = 1 − 0.2 = 0.8 in the limit of the tail
    assert float(ll.khat.median()) > 0.6
    assert float(lvm.log_likelihood(model, wide(model, 1.3), x, 1000, seed=0).khat.max()) < 0.5


@pytest.mark.parametrize("max_bytes", [1, 5_000, 2**28])
def test_chunks_draw_exactly_as_many_particles(max_bytes: int, model: models.ProbabilisticPCA) -> None:
    drawn = []

    class Counts(pyro.poutine.messenger.Messenger):
        def _pyro_post_sample(self, msg: Any) -> None:
            if msg["name"] == "z" and msg["fn"].batch_shape:
                drawn.append(msg["value"][..., 0].numel())

    x, K = model.sample(7), 33
    lvm.log_likelihood(model, guides.ExactPPCA(model), x, num_particles=1)  # what checking draws, is drawn here too
    with Counts():
        lvm.log_likelihood(model, guides.ExactPPCA(model), x, num_particles=1)
        overhead = sum(drawn) - 2 * len(x)
        drawn.clear()
        ll = lvm.log_likelihood(model, guides.ExactPPCA(model), x, num_particles=K, max_bytes=max_bytes)
    assert sum(drawn) - overhead == 2 * K * len(x)  # once in the guide, once replayed in the model
    torch.testing.assert_close(ll + 0, evidence(model, x), rtol=1e-10, atol=1e-10)


def test_memory_is_measured_and_bounds_the_chunks() -> None:
    net = nn.Sequential(nn.Linear(10, 1000), nn.ReLU(), nn.Linear(1000, 3))
    used = bytes_per_row(net, torch.zeros(4, 10))
    assert 2 * 8000 <= used <= 2 * 8000 + 1000  # two hidden vectors of 1000 float64, and little else
    rows = []

    class Spy(nn.Module):
        def forward(self, z: Tensor) -> Tensor:
            rows.append(z[..., 0].numel())
            return z.new_zeros(*z.shape[:-1], 1000)

    model = models.VAE(lvm.priors.StandardNormal(2), lvm.likelihoods.Normal(Spy()))
    guide = guides.Amortized(lvm.posteriors.DiagonalNormal(nn.Linear(1000, 4)))
    limit = 4_000_000
    lvm.log_likelihood(model, guide, torch.zeros(20, 1000), num_particles=300, max_bytes=limit)
    assert max(rows) * 1000 * 8 <= limit


def test_seed_repeats_and_leaves_the_random_state_alone(model: models.ProbabilisticPCA) -> None:
    x, guide = model.sample(5), wide(model)
    state = torch.get_rng_state()
    first = lvm.log_likelihood(model, guide, x, 20, seed=3)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first + 0, lvm.log_likelihood(model, guide, x, 20, seed=3) + 0)
    assert not torch.equal(first + 0, lvm.log_likelihood(model, guide, x, 20) + 0)
    assert len(pyro.get_param_store()) == 0


def test_result_is_a_tensor_with_its_errors(model: models.ProbabilisticPCA) -> None:
    x = model.sample(6)
    ll = lvm.log_likelihood(model, wide(model), x, 40)
    assert isinstance(ll, Tensor)
    assert ll.shape == ll.standard_error.shape == ll.ess.shape == ll.khat.shape == (6,)
    assert float(ll.mean) == float(ll.mean()) == pytest.approx(float(sum(ll) / 6))
    assert float(ll.bits_per_dimension) == pytest.approx(-float(ll.mean) / (D * math.log(2)))
    assert "6 data" in repr(ll)
    assert not ll.is_discrete
    bits = models.VAE(lvm.priors.StandardNormal(2), lvm.likelihoods.Bernoulli(nn.Linear(2, D)))
    assert lvm.log_likelihood(bits, guides.LinearNormal(D, 2), torch.ones(3, D), 5).is_discrete
    few = lvm.log_likelihood(model, wide(model), x, 5)
    assert few.khat.isnan().all(), "no tail can be fitted to 5 weights"
    assert lvm.log_likelihood(model, wide(model), x, 1).standard_error.isnan().all()


def test_global_latents_give_the_posterior_predictive() -> None:
    """With the exact normal-Wishart posterior as the guide it is coordinate ascent's Student mixture."""
    x = torch.randn(30, 2, generator=torch.Generator().manual_seed(1))
    model = models.BayesianGaussianMixture(2, 1)
    guide = guides.NormalWishart(model)
    ascent = exact.BayesianGaussianMixture(
        1,
        mean_prior=model.prior_mean,
        degrees_of_freedom_prior=model.degrees_of_freedom,
        covariance_prior=model.degrees_of_freedom * model.prior_covariance,
    ).fit(x)
    guide.start_from(
        ascent.weight_concentration_,
        ascent.means_,
        ascent.mean_precision_,
        ascent.degrees_of_freedom_,
        ascent.covariances_,
    )
    ll = lvm.log_likelihood(model, guide, x[:6], num_particles=4000, seed=0)
    assert ((ll - ascent.score_samples(x[:6])).abs() < 4.5 * ll.standard_error).all()


def test_error_of_the_mean_holds_for_own_and_for_shared_draws(model: models.ProbabilisticPCA) -> None:
    """Repeated estimates of the same mean vary by what each says of itself."""
    mixture = models.BayesianGaussianMixture(2, 1)
    shared = mixture, guides.NormalWishart(mixture), torch.randn(20, 2)
    for model_, guide, x in (shared, (model, wide(model), model.sample(20))):
        repeats = [lvm.log_likelihood(model_, guide, x, 300) for _ in range(60)]
        stated = torch.stack([ll.mean_standard_error for ll in repeats]).square().mean().sqrt()
        seen = torch.stack([ll.mean() for ll in repeats]).std()
        assert 0.7 < float(seen / stated) < 1.4  # the error of a deviation from 60 values is 9 %


def test_inner_plates_belong_to_their_datum() -> None:
    def model(x: Tensor) -> None:  # x: (B, steps)
        with pyro.plate("data", len(x), dim=-1):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            with pyro.plate("steps", x.shape[1], dim=-2):
                pyro.sample("x", dist.Normal(z, 0.5), obs=x.T)

    def guide(x: Tensor) -> None:
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("z", dist.Normal(x.mean(1), 0.5))

    x = torch.randn(5, 3)
    expected = dist.MultivariateNormal(torch.zeros(3), 0.25 * torch.eye(3) + 1).log_prob(x)
    ll = lvm.log_likelihood(model, guide, x, 4000, seed=0)
    assert ((ll - expected).abs() < 4.5 * ll.standard_error).all()


def test_programs_that_cannot_be_vectorised_run_one_draw_at_a_time() -> None:
    class Flat(nn.Module):
        def forward(self, z: Tensor) -> Tensor:
            return torch.bmm(z[:, None], torch.ones(len(z), 2, 3))[:, 0]

    model = models.VAE(lvm.priors.StandardNormal(2), lvm.likelihoods.Normal(Flat(), 1.0))
    guide = guides.Amortized(lvm.posteriors.DiagonalNormal(nn.Linear(3, 4)))
    x = torch.randn(4, 3)
    with pytest.raises(RuntimeError, match="vectorize_particles=False"):
        lvm.log_likelihood(model, guide, x, 30)
    ll = lvm.log_likelihood(model, guide, x, 3000, vectorize_particles=False, seed=0)
    covariance = torch.eye(3) + torch.ones(2, 3).T @ torch.ones(2, 3)
    expected = dist.MultivariateNormal(torch.zeros(3), covariance).log_prob(x)
    assert ((ll - expected).abs() < 5 * ll.standard_error).all()


def test_bad_requests_are_refused(model: models.ProbabilisticPCA) -> None:
    x = model.sample(5)
    with pytest.raises(ValueError, match="'num_particles'"):
        lvm.log_likelihood(model, wide(model), x, 0)
    with pytest.raises(ValueError, match="'x'"):
        lvm.log_likelihood(model, wide(model), x[:0])

    def plateless(x: Tensor) -> None:
        z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        pyro.sample("x", dist.Normal(z.sum(), 1.0).expand(x.shape).to_event(2), obs=x)

    def guide(x: Tensor) -> None:
        pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))

    with pytest.raises(ValueError, match="no plate at dim -1"):
        lvm.log_likelihood(plateless, guide, x, 10)

    def subsampling(x: Tensor) -> None:
        with pyro.plate("data", 5, subsample_size=2) as rows:
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z.sum(-1, keepdim=True), 1.0).expand([2, D]).to_event(1), obs=x[rows])

    def subsampling_guide(x: Tensor) -> None:
        with pyro.plate("data", 5, subsample_size=2):
            pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))

    with pytest.raises(ValueError, match="subsample"):
        lvm.log_likelihood(subsampling, subsampling_guide, x, 10)


def test_nan_weights_never_pass(model: models.ProbabilisticPCA) -> None:
    x = model.sample(5)
    with torch.no_grad():
        model.weight[0, 0] = math.nan
    with pytest.raises(FloatingPointError):
        lvm.log_likelihood(model, guides.LinearNormal(D, M), x, 10)


def test_scale_does_not_enter(model: models.ProbabilisticPCA) -> None:
    x = model.sample(5)
    programs = poutine.scale(model, 3.0), poutine.scale(guides.ExactPPCA(model), 3.0)
    torch.testing.assert_close(lvm.log_likelihood(*programs, x, 10) + 0, evidence(model, x), rtol=1e-10, atol=1e-10)
