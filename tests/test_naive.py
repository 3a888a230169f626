"""Naive Monte Carlo: unbiased, honest about its error while its draws reach the posterior, lost where they do not."""

from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from linear_gaussian import LooseGuide, log_evidence, ppca
from torch import Tensor

import pyro_lvm as lvm
from pyro_lvm import exact, models
from pyro_lvm.evidence import naive_log_likelihood


def test_estimates_lie_within_their_errors() -> None:
    """The share within one and two standard errors is the normal's, over many data."""
    model = ppca()
    x = model.sample(1000)
    ll = naive_log_likelihood(model, x, 2000, seed=0)
    z = ((ll - log_evidence(model, x)) / ll.standard_error).abs()
    # binomial errors of the shares of 1000: 0.015 and 0.007; a few data in the tails have few draws near them
    assert abs(float((z < 1).double().mean()) - 0.683) < 0.06
    assert abs(float((z < 2).double().mean()) - 0.954) < 0.03
    assert abs(ll.mean() - log_evidence(model, x).mean()) < 4 * ll.mean_standard_error


def test_weights_are_the_likelihoods_of_prior_draws() -> None:
    """E[w] = p(x) and E[w²] in closed form: the weights of one-dimensional probabilistic PCA are a normal's density."""
    model = models.ProbabilisticPCA(1, 1)
    with torch.no_grad():
        model.weight.fill_(1.5)
    x = torch.tensor([[0.4]])
    ll = naive_log_likelihood(model, x, 200_000, seed=0)
    evidence = dist.Normal(0.0, (1.5**2 + 1) ** 0.5).log_prob(x)[:, 0]
    assert (abs(ll - evidence) < 4 * ll.standard_error).all()
    # N(x | Wz, 1)² is N(x | Wz, 1/2) / (2 √π)
    second = dist.Normal(0.0, (1.5**2 + 0.5) ** 0.5).log_prob(x)[:, 0].exp() / (2 * torch.pi**0.5)
    assert float(ll.ess) / 200_000 == pytest.approx(float(evidence.exp() ** 2 / second), rel=0.01)


@pytest.mark.parametrize("max_bytes", [1, 5_000, 2**28])
def test_chunks_draw_exactly_as_many_particles(max_bytes: int) -> None:
    drawn = []

    class Counts(pyro.poutine.messenger.Messenger):
        def _pyro_post_sample(self, msg: Any) -> None:
            if msg["name"] == "z" and msg["fn"].batch_shape:
                drawn.append(msg["value"][..., 0].numel())

    model = ppca()
    x, K = model.sample(7), 33
    naive_log_likelihood(model, x, 1)  # what checking draws, is drawn here too
    with Counts():
        naive_log_likelihood(model, x, 1)
        overhead = sum(drawn) - len(x)
        drawn.clear()
        ll = naive_log_likelihood(model, x, K, max_bytes=max_bytes)
    assert sum(drawn) - overhead == K * len(x)
    assert ll.num_particles == K


def test_it_fails_as_latents_grow_in_number() -> None:
    """At 32 latents the same number of draws that serves 2 falls short by nats, and says so; a guide's draws do not."""
    errors = []
    for latent_dim in (2, 32):
        model = ppca(40, latent_dim)
        x = model.sample(50)
        evidence = log_evidence(model, x)
        naive = naive_log_likelihood(model, x, 1000, seed=0)
        guided = lvm.log_likelihood(model, LooseGuide(model, 1.1), x, 1000, seed=0)
        errors.append(float((evidence - naive).mean()))
        assert abs((guided - evidence).mean()) < 0.1
    assert errors[0] < 2
    assert errors[1] > 50
    assert float(naive.ess.median()) < 2


def test_seed_repeats_and_leaves_the_random_state_alone() -> None:
    model = ppca()
    x = model.sample(5)
    state = torch.get_rng_state()
    first = naive_log_likelihood(model, x, 20, seed=3)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first + 0, naive_log_likelihood(model, x, 20, seed=3) + 0)
    assert not torch.equal(first + 0, naive_log_likelihood(model, x, 20) + 0)
    assert len(pyro.get_param_store()) == 0


def test_result_is_a_log_likelihood() -> None:
    model = ppca()
    ll = naive_log_likelihood(model, model.sample(6), 40)
    assert isinstance(ll, lvm.LogLikelihood)
    assert ll.shape == ll.standard_error.shape == ll.ess.shape == ll.khat.shape == (6,)


def test_shared_latents_give_the_prior_predictive() -> None:
    """μ ~ N(0, 1) for all data: each datum's own prior predictive is N(0, 2)."""

    def model(x: Tensor) -> None:
        mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(mu, 1.0), obs=x)

    x = torch.tensor([-1.0, 0.0, 2.0])
    ll = naive_log_likelihood(model, x, 20_000, seed=0)
    assert ((ll - dist.Normal(0.0, 2**0.5).log_prob(x)).abs() < 4 * ll.standard_error).all()


def test_discrete_latents_are_drawn_as_well() -> None:
    """A mixture, its component drawn: the evidence is its density."""

    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            c = pyro.sample("c", dist.Bernoulli(0.3))
            pyro.sample("x", dist.Normal(4 * c, 1.0), obs=x)

    x = torch.tensor([0.0, 1.0, 4.0])
    ll = naive_log_likelihood(model, x, 20_000, seed=0)
    mixture = dist.MixtureSameFamily(
        dist.Categorical(torch.tensor([0.7, 0.3])), dist.Normal(torch.tensor([0.0, 4.0]), 1.0)
    )
    assert ((ll - mixture.log_prob(x)).abs() < 4 * ll.standard_error).all()


def test_programs_that_cannot_be_vectorised_run_one_draw_at_a_time() -> None:
    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            mean = torch.bmm(z[:, None], torch.ones(len(z), 2, 3))[:, 0]
            pyro.sample("x", dist.Normal(mean, 1.0).to_event(1), obs=x)

    x = torch.randn(4, 3)
    with pytest.raises(RuntimeError, match="vectorize_particles=False"):
        naive_log_likelihood(model, x, 30)
    ll = naive_log_likelihood(model, x, 3000, vectorize_particles=False, seed=0)
    expected = dist.MultivariateNormal(torch.zeros(3), torch.eye(3) + 2).log_prob(x)
    assert ((ll - expected).abs() < 5 * ll.standard_error).all()


def test_bad_requests_are_refused() -> None:
    model = ppca()
    with pytest.raises(ValueError, match="'num_particles'"):
        naive_log_likelihood(model, model.sample(5), 0)
    with pytest.raises(ValueError, match="'x'"):
        naive_log_likelihood(model, model.sample(5)[:0])
    bits = models.VAE(lvm.priors.StandardNormal(2), lvm.likelihoods.Bernoulli(torch.nn.Linear(2, 4)))
    with pytest.raises(ValueError, match="outside the support"):
        naive_log_likelihood(bits, torch.full((3, 4), 0.5))
    with torch.no_grad():
        model.weight[0, 0] = torch.nan
    with pytest.raises(FloatingPointError, match="site 'x'"):
        naive_log_likelihood(model, torch.zeros(5, 4), 10)


def test_more_draws_close_in_from_below() -> None:
    """E[log of a mean] rises with K towards log p(x), as any importance-weighted bound does."""
    model = ppca()
    x = model.sample(20)
    evidence = exact.log_evidence(x, model.weight, model.bias, model.noise_scale.square()).detach().mean()
    means, errors = [], []
    for K in (1, 10, 100, 1000):
        repeats = torch.stack([naive_log_likelihood(model, x, K).mean() for _ in range(40)])
        means.append(repeats.mean())
        errors.append(repeats.std() / 40**0.5)
    means.append(evidence)
    errors.append(torch.zeros(()))
    for i in range(4):
        assert means[i] < means[i + 1] + 3 * (errors[i] ** 2 + errors[i + 1] ** 2).sqrt()
    assert means[0] < evidence - 5
