"""Diffusions against Bayes' rule, against sums over all their steps, and against Gaussian data."""

import math
from itertools import pairwise

import numpy as np
import pyro.distributions as dist
import pytest
import torch
from pyro.distributions import TorchDistribution
from torch import Tensor, nn

from pyro_lvm import evidence, guides, likelihoods, models, objectives
from pyro_lvm.configuration import Part
from pyro_lvm.diffusion import (
    ConstantSchedule,
    CosineSchedule,
    Epsilon,
    ForwardProcess,
    LearnedSchedule,
    LevelDenoiser,
    LinearLogSNR,
    LinearSchedule,
    NoiseSchedule,
    Reverse,
    SmallVariance,
    Start,
    bridge,
    marginal,
    transition,
)
from pyro_lvm.objectives.table import Table, run

MEAN, VARIANCE = 0.3, 0.5  # of the Gaussian data
SCHEDULES = [LinearSchedule(1000), CosineSchedule(1000), ConstantSchedule(5, 0.4), LinearLogSNR(8.0, -8.0)]


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda schedule: type(schedule).__name__)
@pytest.mark.parametrize(("s", "t"), [(0.2, 0.4), (0.398, 0.4), (0.2, 1.0)])
def test_bridge_is_bayes_rule(schedule: NoiseSchedule, s: float, t: float) -> None:
    """q(z_s | z_t, x) ∝ q(z_s | x) q(z_t | z_s), normalised over a grid of z_s, to 1e-6 of its largest value."""
    s_, t_ = torch.tensor(s), torch.tensor(t)
    x, z_t = torch.tensor([0.7]), torch.tensor([-0.4])
    found = bridge(schedule, x, z_t, s_, t_, 1)
    grid = (found.mean + found.stddev * torch.linspace(-12, 12, 4001)[:, None]).detach()  # (G, 1)
    log_joint = marginal(schedule, x, s_, 1).log_prob(grid) + transition(schedule, grid, s_, t_, 1).log_prob(z_t)
    joint = (log_joint - log_joint.max()).exp()
    posterior = joint / torch.trapezoid(joint, grid[:, 0])
    density = found.log_prob(grid).exp()
    assert (posterior - density).abs().max() < 1e-6 * density.max()


def test_forward_moments_follow_from_the_steps() -> None:
    """z_t = √(1 − β_t) z_{t−1} + √β_t ε from z_0 = x, with the betas of the papers, and ends in a standard normal."""
    T = 1000
    t = torch.arange(1, T + 1) / T
    cosine = np.cos((np.arange(T + 1) / T + 0.008) / 1.008 * np.pi / 2) ** 2
    for schedule, betas in (
        (LinearSchedule(T), np.linspace(1e-4, 0.02, T)),
        (CosineSchedule(T), np.minimum(1 - cosine[1:] / cosine[:-1], 0.999)),
    ):
        mean, variance, moments = 3.0, 0.0, []
        for beta in betas:
            mean, variance = math.sqrt(1 - beta) * mean, (1 - beta) * variance + beta
            moments.append((mean, variance))
        q = marginal(schedule, torch.full((T, 1), 3.0), t, 1)
        assert torch.allclose(torch.stack([q.mean[:, 0], q.variance[:, 0]], 1), torch.tensor(moments), atol=1e-12)
        assert abs(mean) < 0.02
        assert abs(variance - 1) < 1e-4
    z = torch.full((5000, 1), 3.0)  # drawn step by step, through `transition`
    times = [torch.tensor(step / 50) for step in range(1, 51)]
    schedule = CosineSchedule(50)
    z = marginal(schedule, z, times[0], 1).sample()
    for s, t_ in pairwise(times):
        z = transition(schedule, z, s, t_, 1).sample()
    assert abs(z.mean()) < 3 / 5000**0.5
    assert abs(z.var() - 1) < 3 * (2 / 5000) ** 0.5


class Small(Part):
    """A network for tests: of z and t, for data of one dimension."""

    def __init__(self, features: int, out: tuple[int, ...] | None = None) -> None:
        super().__init__()
        self.out = out or (features,)
        self.layers = nn.Sequential(nn.Linear(features + 1, 8), nn.Tanh(), nn.Linear(8, math.prod(self.out)))

    def forward(self, z: Tensor, t: Tensor) -> Tensor:
        beside = torch.cat([z, t.unsqueeze(-1).expand(*z.shape[:-1], 1)], -1)
        return self.layers(beside).unflatten(-1, self.out)


def test_subsampled_time_is_the_explicit_chain() -> None:
    """The same networks, T = 5: the two bounds agree within 3 standard errors, datum by datum, however estimated."""
    schedule = ConstantSchedule(5, 0.3)
    process = ForwardProcess(2, schedule, steps=5, centre=2.0, spread=2.0)
    reverse = Reverse(Small(2), 2, schedule, Epsilon(), SmallVariance())
    decoder = likelihoods.DiscretizedNormal(process, reverse, levels=5)
    chain = models.DiffusionChain.of_one_network(process, reverse, decoder), guides.ForwardDiffusion(process)
    subsampled = models.Diffusion(process, reverse, decoder), guides.SubsampledDiffusion(process)
    x, K = torch.tensor([[0.0, 4.0], [2.0, 1.0], [3.0, 3.0]]), 6_000
    bounds = []
    for (model, guide), nesting in ((chain, 1), (subsampled, 2)):
        for with_kl in (False, True):
            with torch.no_grad():
                table = run(model, guide, (x,), {}, num_particles=K, nesting=nesting, with_kl=with_kl)
            assert all((site.kl is not None) == with_kl for site in table.latents if site.name != "moment")
            draws = table.bound().reshape(K, 3)
            bounds.append((draws.mean(0), draws.std(0) / K**0.5))
    for value, error in bounds[1:]:
        assert ((value - bounds[0][0]).abs() < 3 * (error.square() + bounds[0][1].square()).sqrt()).all()
        assert error.max() < 0.2
    # The library's own reading of it, and the objective's, agree with the mean above.
    by_library = evidence.lower_bound(*subsampled, x, 2000, seed=0)
    error = (by_library.standard_error**2 + bounds[3][1] ** 2).sqrt()
    assert ((by_library.as_subclass(Tensor) - bounds[3][0]).abs() < 3 * error).all()
    many = x.repeat(3000, 1)
    loss = objectives.ELBO(analytic_kl=True).loss(*subsampled, many, size=10 * len(many))
    error = (bounds[3][1].square().sum() / 9).sqrt() * (1 + K / 3000) ** 0.5
    assert -loss / (10 * len(many)) == pytest.approx(float(bounds[3][0].mean()), abs=float(3 * error))


class BestStart(Part):
    """E[x | z_t] of the Gaussian data, times a factor: 1 for the exact network."""

    def __init__(self, schedule: NoiseSchedule, factor: float = 1.0) -> None:
        super().__init__()
        self.schedule, self.factor = schedule, factor

    def forward(self, z: Tensor, t: Tensor) -> Tensor:
        return self.factor * posterior_of_data(self.schedule, z, t)[0]


class BestDecoder(Part):
    """p(x | z_1) of the Gaussian data."""

    def __init__(self, process: ForwardProcess) -> None:
        super().__init__()
        self.process = process

    def forward(self, z: Tensor) -> TorchDistribution:
        mean, variance = posterior_of_data(self.process.schedule, z, torch.tensor(self.process.first_time))
        return dist.Normal(mean, variance.sqrt().expand_as(mean)).to_event(1)


def posterior_of_data(schedule: NoiseSchedule, z: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance of x given z_t."""
    alpha = schedule.log_snr(t).sigmoid().unsqueeze(-1)
    gain = alpha.sqrt() * VARIANCE / (alpha * VARIANCE + 1 - alpha)
    return MEAN + gain * (z - alpha.sqrt() * MEAN), VARIANCE - gain * alpha.sqrt() * VARIANCE


def normal_kl(mean: float, variance: float) -> float:
    """KL(N(mean, variance) ‖ N(0, 1))."""
    return 0.5 * (variance + mean**2 - 1 - math.log(variance))


def last_kl(schedule: NoiseSchedule) -> float:
    """KL of the distribution that the data end in."""
    alpha = float(schedule.log_snr(torch.tensor(1.0)).sigmoid().detach())
    return normal_kl(math.sqrt(alpha) * MEAN, alpha * VARIANCE + 1 - alpha)


def expected_bound(model: nn.Module, process: ForwardProcess, moments: Tensor, weights: Tensor) -> float:
    """E_x of the bound, by quadrature that is exact for what is quadratic in x and the noise."""
    nodes, mass = np.polynomial.hermite_e.hermegauss(4)
    nodes, mass = torch.as_tensor(nodes), torch.as_tensor(mass / mass.sum())
    shape = (len(moments), 4, 4)
    moment, node, noise = (
        part.expand(shape).reshape(-1) for part in (moments[:, None, None], nodes[None, :, None], nodes[None, None])
    )
    weight = (weights[:, None, None] * mass[None, :, None] * mass).expand(shape).reshape(-1)
    x = (MEAN + math.sqrt(VARIANCE) * node)[:, None]  # (B, 1)
    t = process.step_times(moment)[1]

    def noised(time: Tensor) -> Tensor:
        q = marginal(process.schedule, x, time, 1)
        return q.mean + q.stddev * noise[:, None]

    draws = {
        "z_1": noised(torch.tensor(process.first_time)),
        "z_T": noised(torch.tensor(1.0)),
        "moment": moment[None],
        "z_t": noised(t)[None],
    }
    with torch.no_grad():
        table: Table = run(model, guides.SubsampledDiffusion(process), (x,), {}, with_kl=True, draws=draws)
        return float((weight * table.bound().flatten()).sum())


def pieces(T: int, factor: float = 1.0) -> tuple[ForwardProcess, float]:
    """The process of T steps, and the expected bound with x̂ so many times the exact one."""
    schedule = LinearLogSNR(6.0, -8.0)
    process = ForwardProcess(1, schedule, steps=T)
    reverse = Reverse(BestStart(schedule, factor), 1, schedule, Start(), SmallVariance())
    model = models.Diffusion(process, reverse, BestDecoder(process))
    moments = (torch.arange(T - 1) + 0.5) / (T - 1)
    return process, expected_bound(model, process, moments, torch.full((T - 1,), 1 / (T - 1)))


def closed_form_gap(process: ForwardProcess) -> float:
    """Σ of what each exact mean with the small variance loses: KL(N(0, β̃ + c²τ) ‖ N(0, β̃)) and the last one's."""
    assert process.steps is not None
    gap = last_kl(process.schedule)
    for step in range(2, process.steps + 1):
        s, t = torch.tensor((step - 1) / process.steps), torch.tensor(step / process.steps)
        alpha_s, alpha_t = (process.schedule.log_snr(time).sigmoid() for time in (s, t))
        beta = 1 - alpha_t / alpha_s
        small = beta * (1 - alpha_s) / (1 - alpha_t)
        c = alpha_s.sqrt() * beta / (1 - alpha_t)
        tau = posterior_of_data(process.schedule, torch.zeros(1), t)[1]
        ratio = float(c**2 * tau / small)
        gap += 0.5 * (ratio - math.log1p(ratio))
    return gap


EVIDENCE = -0.5 * (math.log(2 * math.pi * VARIANCE) + 1)  # E log p(x)


def test_gap_of_gaussian_data_is_the_closed_form_and_falls_with_steps() -> None:
    """Exact means: the gap is known, falls, and as 1/T: the slope of log gap over log T is −1 within 5 %."""
    steps, gaps = (10, 100, 1000), []
    for T in steps:
        process, bound = pieces(T)
        gap = EVIDENCE - bound
        assert gap == pytest.approx(closed_form_gap(process), rel=1e-8)
        gaps.append(gap - last_kl(process.schedule))
    assert gaps[0] > gaps[1] > gaps[2] > 0
    slope = math.log(gaps[2] / gaps[1]) / math.log(steps[2] / steps[1])
    assert slope == pytest.approx(-1, abs=0.05)


@pytest.mark.parametrize("schedule", [LinearLogSNR(6.0, -8.0), LearnedSchedule(6.0, -8.0)], ids=["line", "learned"])
def test_continuous_time_loses_nothing_but_the_end(schedule: NoiseSchedule) -> None:
    """With the exact network the gap of continuous time is the divergence of where the data end, and no more."""
    process = ForwardProcess(1, schedule, steps=None)
    reverse = Reverse(BestStart(schedule), 1, schedule, Start(), SmallVariance())
    model = models.ContinuousDiffusion(process, reverse, BestDecoder(process))
    nodes, mass = np.polynomial.legendre.leggauss(40)
    bound = expected_bound(model, process, torch.as_tensor(nodes + 1) / 2, torch.as_tensor(mass) / 2)
    assert EVIDENCE - bound == pytest.approx(last_kl(schedule), abs=1e-7)


def test_continuous_time_is_the_limit_of_many_steps() -> None:
    """With a wrong network too: the two bounds come together as 1/T."""
    schedule = LinearLogSNR(6.0, -8.0)
    process = ForwardProcess(1, schedule, steps=None)
    reverse = Reverse(BestStart(schedule, 0.8), 1, schedule, Start(), SmallVariance())
    model = models.ContinuousDiffusion(process, reverse, BestDecoder(process))
    nodes, mass = np.polynomial.legendre.leggauss(40)
    limit = expected_bound(model, process, torch.as_tensor(nodes + 1) / 2, torch.as_tensor(mass) / 2)
    apart = [limit - pieces(T, 0.8)[1] for T in (100, 1000)]
    assert abs(apart[1]) < 0.02 * abs(limit)
    assert apart[0] / apart[1] == pytest.approx(10, rel=0.1)


class Shares(Part):
    """How often each level occurs, whatever is seen."""

    def __init__(self, shares: Tensor) -> None:
        super().__init__()
        self.shares = shares

    def forward(self, z: Tensor, t: Tensor) -> Tensor:
        return self.shares.log().expand(*z.shape, -1)


def test_levels_of_known_shares_have_their_entropy_as_bound() -> None:
    """The denoiser is exact then, noise ends where nothing is left and begins far below the distance of levels."""
    shares = torch.tensor([0.5, 0.3, 0.15, 0.05])
    process = ForwardProcess(1, LinearLogSNR(9.0, -12.0), None, centre=1.5, spread=1.5)
    reverse = Reverse(LevelDenoiser(Shares(shares), process, 4), 1, process.schedule, Start(), SmallVariance())
    model = models.ContinuousDiffusion(process, reverse, likelihoods.NoisedLevels(process, 4))
    x = torch.arange(4.0)[:, None]
    bound = evidence.lower_bound(model, guides.SubsampledDiffusion(process), x, 50_000, seed=0)
    error = float((shares * bound.standard_error).square().sum().sqrt())
    assert error < 0.02
    assert float((shares * bound).sum()) == pytest.approx(float((shares * shares.log()).sum()), abs=3 * error)
