"""The diffusion prior against densities that are known.

Gates: 1e-9 where a mean is taken in closed form; three standard errors where over draws.
"""

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Categorical, MixtureSameFamily, MultivariateNormal

import pyro_lvm as lvm
from pyro_lvm import guides, likelihoods, models, networks, objectives, posteriors, priors
from pyro_lvm.diffusion import (
    ConstantSchedule,
    ForwardProcess,
    LargeVariance,
    LinearLogSNR,
    Reverse,
    SmallVariance,
    Start,
    Velocity,
)


class ExactNormal(nn.Module):
    """x̂ of data that are N(m, v) each: (m (1 − ᾱ) + v √ᾱ w) / (1 − ᾱ + v ᾱ)."""

    def __init__(self, schedule: Any, mean: Tensor, variance: Tensor) -> None:
        super().__init__()
        self.schedule = schedule
        self.mean, self.variance = nn.Parameter(mean), nn.Parameter(variance)

    def forward(self, w: Tensor, t: Tensor) -> Tensor:
        kept = self.schedule.log_snr(t).sigmoid().unsqueeze(-1)
        return (self.mean * (1 - kept) + self.variance * kept.sqrt() * w) / (1 - kept + self.variance * kept)


MEAN, VARIANCE = torch.tensor([0.5, -0.3]), torch.tensor([0.6, 1.7])


def exact(steps: int, beta: float) -> tuple[priors.Diffusion, Any]:
    schedule = ConstantSchedule(steps, beta)
    net = ExactNormal(schedule, MEAN.double(), VARIANCE.double())
    reverse = Reverse(net, 2, schedule, Start(), SmallVariance())
    return priors.Diffusion(ForwardProcess(2, schedule, steps), reverse), schedule


def closed_form(z: Tensor, steps: int, beta: float) -> Tensor:
    """The bound of latents (N, 2), all means of normals written down: dimensions are independent."""
    kept = [(1 - beta) ** t for t in range(steps + 1)]

    def guess(t: int) -> tuple[Tensor, Tensor]:  # x̂ = a + b w_t
        below = 1 - kept[t] + VARIANCE * kept[t]
        return MEAN * (1 - kept[t]) / below, VARIANCE * kept[t] ** 0.5 / below

    def error(t: int) -> Tensor:  # E (x − x̂)² over w_t = √ᾱ x + √(1 − ᾱ) ε
        a, b = guess(t)
        return (z - a - b * kept[t] ** 0.5 * z).square() + b.square() * (1 - kept[t])

    noise = 1 - kept[1]
    bound = -0.5 * (math.log(2 * math.pi * noise) + error(1) / noise)
    left = 1 - kept[steps]
    bound = bound - 0.5 * (left + kept[steps] * z.square() - 1 - math.log(left))
    for t in range(2, steps + 1):  # KL of two normals of variance β̃: their means differ by (√ᾱ_s β / (1 − ᾱ_t)) (x − x̂)
        variance = beta * (1 - kept[t - 1]) / (1 - kept[t])
        bound = bound - 0.5 * (kept[t - 1] ** 0.5 * beta / (1 - kept[t])) ** 2 * error(t) / variance
    return bound.sum(-1)


def test_the_estimate_s_mean_is_the_closed_form() -> None:
    prior, _ = exact(8, 0.3)
    z = torch.randn(3, 2) * 1.5
    with torch.no_grad():
        draws = torch.stack([prior.log_prob(z.expand(500, 3, 2)).mean(0) for _ in range(40)])
    error = draws.std(0) / len(draws) ** 0.5
    bound = closed_form(z, 8, 0.3)
    assert bool(((draws.mean(0) - bound).abs() < 3 * error).all())
    true = torch.distributions.Normal(MEAN.double(), VARIANCE.double().sqrt()).log_prob(z).sum(-1)
    assert bool(bound.mean() < true.mean())


def test_samples_have_the_moments_of_the_chain() -> None:
    steps, beta, n = 8, 0.3, 40_000
    prior, _ = exact(steps, beta)
    kept = [(1 - beta) ** t for t in range(steps + 1)]
    mean, variance = torch.zeros(2), torch.ones(2)  # of w_T
    for t in range(steps, 0, -1):
        below = 1 - kept[t] + VARIANCE * kept[t]
        a, b = MEAN * (1 - kept[t]) / below, VARIANCE * kept[t] ** 0.5 / below  # x̂ = a + b w_t
        of_x, of_w, left = 1.0, 0.0, 1 - kept[1]  # the last step gives x̂ and noise
        if t > 1:
            of_x, of_w = (
                kept[t - 1] ** 0.5 * beta / (1 - kept[t]),
                (1 - beta) ** 0.5 * (1 - kept[t - 1]) / (1 - kept[t]),
            )
            left = beta * (1 - kept[t - 1]) / (1 - kept[t])
        mean = of_x * (a + b * mean) + of_w * mean
        variance = (of_x * b + of_w) ** 2 * variance + left
    z = prior.sample((n,))
    assert bool(((z.mean(0) - mean).abs() < 3 * (variance / n).sqrt()).all())
    assert bool(((z.var(0) - variance).abs() < 3 * variance * (2 / n) ** 0.5).all())


def test_a_network_of_zeros_is_the_standard_normal() -> None:
    schedule, z = ConstantSchedule(5, 0.5), torch.randn(4, 3)
    net = networks.TimeMLP(3, hidden_features=8)
    nn.init.zeros_(net.last.weight)
    nn.init.zeros_(net.last.bias)
    process = ForwardProcess(3, schedule, 5, centre=2.0, spread=3.0)
    prior = priors.Diffusion(process, Reverse(net, 3, schedule, Velocity(), LargeVariance()))
    with torch.no_grad():
        draws = torch.stack([prior.log_prob(z.expand(500, 4, 3)).mean(0) for _ in range(40)])
    error = draws.std(0) / len(draws) ** 0.5
    normal = torch.distributions.Normal(2.0, 3.0)
    assert bool(((draws.mean(0) - normal.log_prob(z).sum(-1)).abs() < 3 * error).all())
    samples = prior.sample((20_000,))
    n = samples.numel()
    assert abs(samples.mean() - 2.0) < 3 * 3 / n**0.5
    assert abs(samples.var() - 9.0) < 3 * 9 * (2 / n) ** 0.5


def learned(width: int = 32, steps: int = 50) -> priors.Diffusion:
    schedule = LinearLogSNR(9.0, -9.0)
    net = networks.TimeMLP(2, hidden_features=width, blocks=2)
    reverse = Reverse(net, 2, schedule, Velocity(), LargeVariance())
    return priors.Diffusion(ForwardProcess(2, schedule, steps), reverse)


def test_it_learns_a_mixture() -> None:
    torch.manual_seed(1)
    centres = torch.tensor([[1.5, 1.0], [-1.5, 1.0], [0.0, -1.5]])
    true = MixtureSameFamily(
        Categorical(torch.tensor([0.5, 0.3, 0.2])), MultivariateNormal(centres, 0.09 * torch.eye(2))
    )
    prior = learned()
    optimiser = torch.optim.Adam(prior.parameters(), 1e-2)
    rates = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, 250)
    for _ in range(250):
        loss = -prior.log_prob(true.sample((256,))).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        rates.step()
    with torch.no_grad():
        z = true.sample((20_000,))
        gap = true.log_prob(z) - prior.log_prob(z)
    error = gap.std() / len(gap) ** 0.5
    assert gap.mean() > -3 * error, "a bound lies below the true density, on average over it"
    assert gap.mean() < 0.15 + 3 * error  # nats; a standard normal is 1.1 below
    n = 2000
    nearest = (prior.sample((n,))[:, None] - centres).square().sum(-1).min(-1)
    shares = torch.bincount(nearest.indices, minlength=3) / n
    assert (shares - torch.tensor([0.5, 0.3, 0.2])).abs().max() < 0.06
    assert (nearest.values.mean() / 2) ** 0.5 == pytest.approx(0.3, rel=0.25)


def autoencoder(prior: nn.Module) -> tuple[models.VAE, guides.Amortized]:
    decoder = likelihoods.Normal(networks.MLP(2, 4, (16,)), "shared", (4,))
    return models.VAE(prior, decoder), guides.Amortized(posteriors.DiagonalNormal(networks.MLP(4, 4, (16,))))


def test_it_is_trained_beside_the_encoder_or_after_it() -> None:
    x = torch.randn(200, 4) @ torch.randn(4, 4)
    model, guide = autoencoder(learned(8))
    objectives.ELBO(analytic_kl=True).differentiable_loss(model, guide, x).backward()
    encoder = next(guide.parameters()).grad
    assert encoder is not None
    own = encoder.clone()
    with torch.random.fork_rng():
        z = torch.randn(5, 2, requires_grad=True)
        model.prior.log_prob(z).sum().backward()
    assert bool((z.grad != 0).all())  # type: ignore[union-attr]
    assert bool((own != 0).any())

    model.decoder.requires_grad_(False)
    guide.requires_grad_(False)
    frozen = {n: p.clone() for n, p in [*model.decoder.named_parameters(), *guide.named_parameters()]}
    result = lvm.fit(model, guide, x, objective=objectives.ELBO(analytic_kl=True), epochs=30, learning_rate=1e-2)
    assert result.history[-1]["train"] > result.history[0]["train"]
    for name, parameter in [*model.decoder.named_parameters(), *guide.named_parameters()]:
        assert torch.equal(parameter, frozen[name]), name


def test_what_needs_weights_refuses_it_and_the_bound_does_not() -> None:
    model, guide = autoencoder(learned(8, steps=5))
    x = torch.randn(6, 4)
    with pytest.raises(ValueError, match=r"'z' is an estimate of a lower bound.*lower_bound"):
        lvm.log_likelihood(model, guide, x, num_particles=5)
    with pytest.raises(ValueError, match="estimate of a lower bound"):
        objectives.IWAE(3).loss(model, guide, x)
    bound = lvm.evidence.lower_bound(model, guide, x, num_particles=20, seed=0)
    assert bool((bound + 0).isfinite().all())


def test_wrong_processes_are_refused() -> None:
    schedule = LinearLogSNR(9.0, -9.0)
    reverse = learned(8).reverse
    with pytest.raises(ValueError, match="'process' is in continuous time"):
        priors.Diffusion(ForwardProcess(2, schedule, None), reverse)
    with pytest.raises(ValueError, match=r"latent vectors, \(M,\), not of arrays of shape \(2, 2\)"):
        priors.Diffusion(ForwardProcess((2, 2), schedule, 10), reverse)
