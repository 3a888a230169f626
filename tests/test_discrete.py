"""Discrete codes: densities, draws and the gradients that pass through them."""

import math

import pyro
import pytest
import torch
from scipy import stats
from torch import Tensor, nn
from torch.distributions import OneHotCategorical as TorchOneHot
from torch.distributions import kl_divergence

import pyro_lvm as lvm
from pyro_lvm import data, guides, likelihoods, models, networks, objectives, posteriors, priors
from pyro_lvm.distributions import OneHotCategorical, StraightThrough


def test_log_probability_is_pytorchs_and_sees_the_vector() -> None:
    logits = torch.randn(5, 4, requires_grad=True)
    ours, theirs = OneHotCategorical(logits=logits), TorchOneHot(logits=logits)
    z = theirs.sample().requires_grad_()
    torch.testing.assert_close(ours.log_prob(z), theirs.log_prob(z.detach()), rtol=1e-12, atol=1e-12)
    (gradient,) = torch.autograd.grad(ours.log_prob(z).sum(), z)
    torch.testing.assert_close(gradient, logits.log_softmax(-1), rtol=1e-12, atol=1e-12)


def test_an_impossible_category_costs_nothing_where_it_is_not_drawn() -> None:
    density = OneHotCategorical(probs=torch.tensor([0.0, 0.5, 0.5]))
    assert density.log_prob(torch.tensor([0.0, 1.0, 0.0])).item() == pytest.approx(math.log(0.5), rel=1e-6)
    assert density.log_prob(torch.tensor([1.0, 0.0, 0.0])) < -20  # PyTorch's own floor under probabilities


@pytest.mark.parametrize("temperature", [0.1, 1.0, 5.0])
def test_draws_are_the_categorical_s_at_any_temperature(temperature: float) -> None:
    logits = torch.tensor([0.3, -1.0, 1.2, 0.0])
    z = StraightThrough(temperature, logits).rsample((100_000,))
    assert bool(((z == 0) | (z == 1)).all())
    assert bool((z.sum(-1) == 1).all())
    expected = logits.softmax(-1) * 100_000
    assert stats.chisquare(z.sum(0).numpy(), expected.numpy()).pvalue > 1e-3


def test_gradient_is_that_of_the_relaxation() -> None:
    logits, direction = torch.randn(6, 4, requires_grad=True), torch.randn(6, 4)
    torch.manual_seed(1)
    z = StraightThrough(0.7, logits).rsample()
    (ours,) = torch.autograd.grad((z * direction).sum(), logits)
    torch.manual_seed(1)
    normalised = logits.log_softmax(-1)
    noise = -torch.empty_like(normalised).exponential_().log()
    soft = ((normalised + noise) / 0.7).softmax(-1)
    (theirs,) = torch.autograd.grad((soft * direction).sum(), logits)
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)


def test_bias_of_the_gradient_goes_with_the_temperature() -> None:
    logits, values = torch.tensor([0.3, -1.0, 1.2]), torch.tensor([1.0, -2.0, 0.5])

    def gradient(temperature: float, n: int = 40_000) -> tuple[Tensor, Tensor]:
        copies = logits.expand(n, 3).clone().requires_grad_()
        z = StraightThrough(temperature, copies).rsample()
        (g,) = torch.autograd.grad((z @ values).sum(), copies)
        return g.mean(0), g.std(0) / n**0.5

    probs = logits.softmax(-1)
    exact = probs * (values - (probs * values).sum())
    cold, error = gradient(0.05)
    assert bool(((cold - exact).abs() < 4 * error).all())
    hot, error = gradient(3.0)
    assert bool(((hot - exact).abs() > 10 * error).any())


def test_divergence_in_closed_form_and_expansion() -> None:
    q = StraightThrough(0.5, torch.randn(3, 2, 4)).to_event(1)
    p = OneHotCategorical(logits=torch.randn(2, 4)).to_event(1)
    kl = kl_divergence(q, p)
    probs = q.base_dist.probs
    expected = (probs * (probs.log() - p.base_dist.probs.log())).sum((-1, -2))
    torch.testing.assert_close(kl, expected, rtol=1e-10, atol=1e-12)
    assert q.expand((7, 3)).rsample().shape == (7, 3, 2, 4)


def tiny_pair(posterior: type) -> tuple[nn.Module, nn.Module]:
    torch.manual_seed(2)
    decoder = likelihoods.Bernoulli(networks.MLP(6, 5, (8,), nn.Tanh))
    model = models.VAE(priors.OneHot(2, 3), decoder)
    return model, guides.Amortized(posterior(networks.MLP(5, 6, (8,), nn.Tanh), 3))


def test_both_posteriors_have_one_bound_and_the_evidence_is_enumerated() -> None:
    x = torch.tensor([[0.0, 1.0, 1.0, 0.0, 1.0], [1.0, 0.0, 0.0, 0.0, 1.0]])
    codes = torch.stack([torch.stack([a, b]) for a in torch.eye(3) for b in torch.eye(3)])  # (9, 2, 3)
    elbos = []
    for posterior in (posteriors.OneHot, posteriors.GumbelSoftmax):
        model, guide = tiny_pair(posterior)
        with torch.no_grad():
            prior, q = model.prior(), guide.posterior(x[:, None])  # q: (2, 1)
            joint = prior.log_prob(codes) + model.decoder(codes.flatten(1)).log_prob(x[:, None])  # (2, 9)
            log_q = q.log_prob(codes)
            exact_elbo = (log_q.exp() * (joint - log_q)).sum()
        values = torch.tensor([-objectives.ELBO(50).loss(model, guide, x) for _ in range(50)])
        assert abs(values.mean() - exact_elbo) < 4 * values.std() / 50**0.5
        ll = lvm.log_likelihood(model, guide, x, num_particles=4000, seed=0)
        assert bool(((ll - joint.logsumexp(-1)).abs() < 4 * ll.standard_error).all())
        elbos.append(exact_elbo)
    assert elbos[0] == elbos[1]


def test_score_gradient_of_the_code_equals_the_enumerated_one() -> None:
    x = torch.tensor([[0.0, 1.0, 1.0, 0.0, 1.0]])
    model, guide = tiny_pair(posteriors.OneHot)
    codes = torch.stack([torch.stack([a, b]) for a in torch.eye(3) for b in torch.eye(3)])
    log_q = guide.posterior(x).log_prob(codes)
    joint = model.prior().log_prob(codes) + model.decoder(codes.flatten(1)).log_prob(x)
    weight = guide.posterior.net.layers[-1].bias
    (exact,) = torch.autograd.grad((log_q.exp() * (joint - log_q)).sum(), weight)
    copies, draws = x.expand(2000, 5), []
    for objective in (objectives.ELBO(4), objectives.ELBO(4, analytic_kl=True)):
        draws = []
        for _ in range(30):
            objective.differentiable_loss(model, guide, copies).backward()
            draws.append(-weight.grad / 2000)
            weight.grad = None
        stacked = torch.stack(draws)
        assert bool(((stacked.mean(0) - exact).abs() < 4.5 * stacked.std(0) / 30**0.5).all())  # 6 numbers


def test_codes_round_trip_through_a_file(tmp_path: object) -> None:
    model, guide = tiny_pair(posteriors.GumbelSoftmax)
    lvm.save(f"{tmp_path}/pair.safetensors", model, guide)
    model_, guide_ = lvm.load(f"{tmp_path}/pair.safetensors")
    x = torch.ones(3, 5)
    with torch.no_grad():
        torch.testing.assert_close(guide.posterior(x).base_dist.logits, guide_.posterior(x).base_dist.logits)
        torch.testing.assert_close(model.prior.logits, model_.prior.logits)
    assert len(pyro.get_param_store()) == 0


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: StraightThrough(0.0, torch.zeros(3)), "'temperature' must be positive"),
        (lambda: posteriors.GumbelSoftmax(nn.Linear(2, 6), 3, temperature=-1.0), "'temperature' must be positive"),
        (lambda: posteriors.OneHot(nn.Linear(2, 7), 3)(torch.zeros(1, 2)), "3 categories each needs a multiple"),
        (lambda: priors.OneHot(0, 3), "'variables' must be at least 1"),
        (lambda: lvm.zoo.build("vae-discrete", data.load("digits"), gradient="both"), "'gradient' must be"),
    ],
)
def test_bad_input_is_refused(make: object, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        make()  # type: ignore[operator]
