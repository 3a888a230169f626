"""Samplers of diffusions, held against data whose reverse process is known."""

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pyro_lvm import diffusion, likelihoods, models, networks
from pyro_lvm.configuration import Part
from pyro_lvm.diffusion import (
    DDIM,
    Ancestral,
    Epsilon,
    ForwardProcess,
    Label,
    LargeVariance,
    LearnedVariance,
    LinearLogSNR,
    LinearSchedule,
    NoiseSchedule,
    Reverse,
    Sampler,
    SmallVariance,
    Start,
    Strided,
    Velocity,
)

MEAN = torch.tensor([0.5, -1.0], dtype=torch.float64)
COVARIANCE = torch.tensor([[0.5, 0.4], [0.4, 0.8]], dtype=torch.float64)


class Exact(Part):
    """E[x | z_t] of normal data."""

    def __init__(self, schedule: NoiseSchedule) -> None:
        super().__init__()
        self.schedule = schedule

    def forward(self, z: Tensor, t: Tensor) -> Tensor:
        signal = self.schedule.log_snr(t).sigmoid()
        return MEAN + (z - signal.sqrt() * MEAN) @ gain(signal).mT


def gain(signal: Tensor) -> Tensor:
    """√ᾱ C (ᾱ C + (1 − ᾱ) I)⁻¹."""
    return signal.sqrt() * COVARIANCE @ torch.linalg.inv(signal * COVARIANCE + (1 - signal) * torch.eye(2))


def exact(steps: int | None, schedule: NoiseSchedule, variance: Any) -> models.Diffusion | models.ContinuousDiffusion:
    process = ForwardProcess(2, schedule, steps)
    reverse = Reverse(Exact(schedule), 2, schedule, Start(), variance)
    decoder = likelihoods.Normal(networks.MLP(2, 2, ()))
    return (models.ContinuousDiffusion if steps is None else models.Diffusion)(process, reverse, decoder)


def moments(model: Any, sampler: Sampler) -> tuple[Tensor, Tensor]:
    """Mean and covariance of the last latent, by composing the linear steps."""
    mean, covariance = torch.zeros(2), torch.eye(2)
    for t, s in pairwise(torch.tensor(time) for time in sampler.times(model.process)):
        # A linear map is known by where it takes zero and the unit vectors.
        points = torch.cat([torch.zeros(1, 2), torch.eye(2)])
        step = model.reverse(points, s, t)
        A = (step.mean[1:] - step.mean[0]).mT
        mean, covariance = A @ mean + step.mean[0], A @ covariance @ A.mT + step.variance[0].diag()
    return mean, covariance


def small(parameterisation: Any = None, variance: Any = None, steps: int = 20, condition: Any = None) -> Any:
    schedule = LinearSchedule(steps, 0.001, 0.3)
    process = ForwardProcess((4, 4), schedule, steps, centre=2.0, spread=2.0)
    variance = SmallVariance() if variance is None else variance
    out = (2, 4, 4) if variance.outputs else (4, 4)
    net = networks.TimeMLP((4, 4), out, 16, blocks=1, condition_shape=None if condition is None else condition.shape)
    reverse = Reverse(net, (4, 4), schedule, parameterisation or Velocity(), variance)
    return models.Diffusion(process, reverse, likelihoods.NoisedLevels(process, 5), condition)


# Ancestral


@pytest.mark.parametrize("sampler", [Ancestral(), Strided((60, 41, 40, 7, 1))])
@pytest.mark.parametrize("variance", [SmallVariance(), LargeVariance()])
def test_draws_have_the_moments_of_the_chain(sampler: Sampler, variance: Any):
    model, n = exact(60, LinearSchedule(60), variance), 20_000
    mean, covariance = moments(model, sampler)
    times, z = sampler.path(model, n)
    assert times.tolist() == sampler.times(model.process)
    z = z[-1]
    assert z.shape == (n, 2)
    assert ((z.mean(0) - mean).abs() < 3 * (covariance.diag() / n).sqrt()).all()
    error = (covariance.diag()[:, None] * covariance.diag() + covariance**2).sqrt() / n**0.5  # of a normal's
    assert ((z.T.cov() - covariance).abs() < 3 * error).all()


def test_a_longer_chain_ends_nearer_to_the_data():
    errors = []
    for T in (50, 100, 200, 400):
        model = exact(T, LinearSchedule(T), SmallVariance())
        _, covariance = moments(model, Ancestral())
        signal = model.process.schedule.log_snr(torch.tensor(1 / T)).sigmoid()
        errors.append(float((covariance - signal * COVARIANCE - (1 - signal) * torch.eye(2)).norm()))
    slope, _ = np.polyfit(np.log([50, 100, 200, 400]), np.log(errors), 1)
    assert slope == pytest.approx(-1, abs=0.1), errors


@pytest.mark.parametrize("variance", [SmallVariance(), LearnedVariance()])
def test_all_steps_are_the_models_own_draws(variance: Any):
    model = small(variance=variance)
    drawn = []
    for draw in (lambda: model.sample(7), lambda: Ancestral()(model, 7), lambda: Strided(20)(model, 7)):
        torch.manual_seed(3)
        drawn.append(draw())
    assert torch.equal(drawn[0], drawn[1])
    assert torch.equal(drawn[0], drawn[2])
    assert drawn[0].shape == (7, 4, 4)


def test_in_continuous_time_strided_steps_are_the_models_own_draws():
    model = exact(None, LinearLogSNR(8.0, -8.0), SmallVariance())
    torch.manual_seed(3)
    expected = model.sample(7)
    torch.manual_seed(3)
    assert torch.equal(Strided(250)(model, 7), expected)


# DDIM


def test_without_noise_it_is_a_map_that_tends_to_the_transport():
    """Of normal data the flow takes z_1 to m(0) + S(0)^½ S(1)^−½ (z_1 − m(1)), S(t) the covariance at time t."""
    schedule = LinearLogSNR(6.0, -6.0)
    model = exact(None, schedule, SmallVariance())
    start = torch.tensor([[0.3, -2.0], [1.5, 0.7]])

    def root(time: float, power: float) -> tuple[Tensor, Tensor]:
        signal = schedule.log_snr(torch.tensor(time)).sigmoid()
        values, vectors = torch.linalg.eigh(signal * COVARIANCE + (1 - signal) * torch.eye(2))
        return signal.sqrt() * MEAN, vectors @ (values**power).diag() @ vectors.mT

    (first, widen), (last, shrink) = root(0.0, 0.5), root(1.0, -0.5)
    expected = first + (start - last) @ (widen @ shrink).mT
    ends, errors = [], []
    for S in (40, 80, 160, 320):
        sampler, z = DDIM(S), start
        for t, s in pairwise(torch.tensor(time) for time in sampler.times(model.process)):
            z = sampler.step(model.reverse, z, s, t)
        ends.append(z)
        errors.append(float((z - expected).norm()))
    slope, _ = np.polyfit(np.log([40, 80, 160, 320]), np.log(errors), 1)
    assert slope == pytest.approx(-1, abs=0.1), errors
    # With the error of first order taken out, what is left is of second: a tenth of a hundredth.
    assert (2 * ends[-1] - ends[-2] - expected).norm() < 0.1 * errors[-1]


@pytest.mark.parametrize("parameterisation", [Epsilon(), Start(), Velocity()])
def test_with_all_noise_it_is_the_ancestral_step(parameterisation: Any):
    model, z, s, t = small(parameterisation), torch.randn(5, 4, 4), torch.tensor(0.35), torch.tensor(0.6)
    torch.manual_seed(3)
    expected = model.reverse(z, s, t).sample()
    torch.manual_seed(3)
    torch.testing.assert_close(DDIM(5, eta=1.0).step(model.reverse, z, s, t), expected, rtol=1e-12, atol=1e-12)


def test_any_eta_keeps_the_variance_of_the_marginal():
    """Where x̂ is the datum itself and ε̂ its noise, z_s is distributed as q(z_s | x)."""
    x, n = torch.tensor([0.7, -0.2]), 20_000
    schedule = LinearSchedule(20, 0.001, 0.3)

    class Known(Part):
        def forward(self, z: Tensor, t: Tensor) -> Tensor:
            return x.expand_as(z)

    reverse = Reverse(Known(), 2, schedule, Start(), SmallVariance())
    s, t = torch.tensor(0.3), torch.tensor(0.7)
    z_t = diffusion.marginal(schedule, x, t, 1).sample((n,))
    z_s = DDIM(5, eta=0.6).step(reverse, z_t, s, t)
    q = diffusion.marginal(schedule, x, s, 1)
    assert ((z_s.mean(0) - q.mean).abs() < 3 * (q.variance / n) ** 0.5).all()
    assert ((z_s.var(0) - q.variance).abs() < 3 * q.variance * (2 / n) ** 0.5).all()


# Conditions


def test_given_conditions_reach_every_step_and_the_labels_are_split_off():
    condition = Label((4, 4), classes=3)
    model = small(condition=condition)
    labels = torch.tensor([0, 1, 2, 3])  # the last is unknown
    c = condition.of(labels)
    torch.testing.assert_close(c, torch.eye(4)[:, :3])
    torch.manual_seed(3)
    drawn = DDIM(6)(model, 4, given=c)
    torch.manual_seed(3)
    z = torch.randn(4, 4, 4)
    for t, s in pairwise(torch.tensor(time) for time in DDIM(6).times(model.process)):
        z = DDIM(6).step(model.reverse, z, s, t, c)
    assert torch.equal(drawn, model.decoder(z.flatten(1), c).sample())
    x = torch.randint(5, (6, 4, 4)).double()
    datum, split = condition.split(torch.cat([x.flatten(1), torch.tensor([[0.0, 1, 2, 3, 0, 1]]).T], -1))
    assert torch.equal(datum, x)
    assert torch.equal(split, torch.eye(4)[[0, 1, 2, 3, 0, 1], :3])
    assert condition.draw(1000, x).sum(0).min() > 333 - 4 * (1000 * 2 / 9) ** 0.5
    assert model.sample(5).shape == (5, 4, 4)


@pytest.mark.parametrize("parameterisation", [Epsilon(), Start(), Velocity()])
@pytest.mark.parametrize("variance", [SmallVariance(), LearnedVariance()])
def test_guidance_extrapolates_the_noise(parameterisation: Any, variance: Any):
    condition = Label((4, 4), classes=3)
    reverse = small(parameterisation, variance, condition=condition).reverse
    z, t, c = torch.randn(3, 4, 4), torch.tensor(0.4), torch.eye(3)
    own, none = reverse.predict(z, t, c), reverse.predict(z, t, torch.zeros(3, 3))
    assert not torch.allclose(own.noise, none.noise)
    found = diffusion.guided(reverse, 1.5).predict(z, t, c)
    torch.testing.assert_close(found.noise, 2.5 * own.noise - 1.5 * none.noise, rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(found.start, 2.5 * own.start - 1.5 * none.start, rtol=1e-10, atol=1e-10)
    if variance.outputs:
        assert torch.equal(found.raw, own.raw)
    torch.testing.assert_close(diffusion.guided(reverse, 0.0).predict(z, t, c).noise, own.noise)
    torch.testing.assert_close(diffusion.guided(reverse, -1.0).predict(z, t, c).noise, none.noise)


# What it refuses


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda model: DDIM(1), "'steps' must be at least 2, the first and the last, not 1"),
        (lambda model: Strided((20, 20, 1)), r"'steps' must be a number or fall .* not be \(20, 20, 1\)"),
        (lambda model: Strided((20, 5)), "fall from the process's last step to 1"),
        (lambda model: DDIM(5, eta=1.5), "'eta' is a share of noise and must lie between 0 and 1, not 1.5"),
        (lambda model: DDIM(50)(model, 3), "'steps' = 50 are more than the 20 that the process has"),
        (lambda model: Strided((19, 1))(model, 3), "'steps' must begin with the process's last step, 20"),
        (lambda model: DDIM(5)(model, 0), "'n' must be at least 1, not 0"),
        (lambda model: DDIM(5)(model, 3, given=torch.eye(3)), "'given' are conditions, but the model has none"),
        (
            lambda model: DDIM(5)(small(condition=Label(16, 3)), 3, given=torch.eye(4)),
            r"'given' must have shape \(3, 3",
        ),
        (lambda model: Label(16, 3).split(torch.zeros(5, 16)), r"'x' must hold the 16 values of a datum and its label"),
        (lambda model: diffusion.guided(model.reverse, float("nan")), "'weight' must be finite and at least -1"),
        (
            lambda model: Ancestral()(exact(None, LinearLogSNR(), SmallVariance()), 2),
            r"'process' is in continuous time.*use Strided\(steps\)",
        ),
        (
            lambda model: DDIM((3, 1))(exact(None, LinearLogSNR(), SmallVariance()), 2),
            "are steps, but the process is in continuous time",
        ),
    ],
)
def test_wrong_requests_are_refused(call: Any, match: str):
    with pytest.raises(ValueError, match=match):
        call(small())


def test_a_chain_of_one_step_is_noise():
    model = small(steps=1)
    assert isinstance(model.decoder, nn.Module)
    assert Ancestral()(model, 3).shape == (3, 4, 4)
