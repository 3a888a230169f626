"""Diffusion of Gaussian data with the best network, whose gap is known."""

from collections.abc import Iterator
from math import log, log1p

import pyro.distributions as dist
import torch
from pyro.distributions import TorchDistribution
from torch import Tensor

from pyro_lvm import evidence, guides, models
from pyro_lvm.configuration import Part
from pyro_lvm.diffusion import ForwardProcess, LinearLogSNR, NoiseSchedule, Reverse, SmallVariance, Start
from pyro_lvm.verify.comparison import Comparison

_MEAN, _VARIANCE = 0.3, 0.5  # of the data
_DATA, _DRAWS = 2000, 200


def diffusions(seed: int) -> Iterator[Comparison]:
    """What the bound of T steps loses, and that of continuous time, on average over the data."""
    schedule = LinearLogSNR(6.0, -8.0).double()
    generator = torch.Generator().manual_seed(seed)
    x = _MEAN + _VARIANCE**0.5 * torch.randn(_DATA, 1, generator=generator, dtype=torch.float64)
    log_p = dist.Normal(_MEAN, _VARIANCE**0.5).log_prob(x).squeeze(-1)
    for steps in (10, 100, None):
        process = ForwardProcess(1, schedule, steps)
        reverse = Reverse(_BestStart(schedule), 1, schedule, Start(), SmallVariance())
        cls = models.ContinuousDiffusion if steps is None else models.Diffusion
        model = cls(process, reverse, _BestDecoder(process)).double()
        guide = guides.SubsampledDiffusion(process).double()
        bound = evidence.lower_bound(model, guide, x, _DRAWS, seed=seed, progress=False)
        gap = log_p - bound.as_subclass(Tensor)
        error = float(gap.std()) / _DATA**0.5
        loss = _lost_at_the_end(schedule) + (0.0 if steps is None else _lost_on_the_way(schedule, steps))
        name = f"diffusion, {'continuous time' if steps is None else f'{steps} steps'}: gap of Gaussian data"
        why = f"4 standard errors of the mean over {_DATA} data"
        yield Comparison(name, float(gap.mean()), loss, -4 * error, 4 * error, why)


def _lost_at_the_end(schedule: NoiseSchedule) -> float:
    """KL of the distribution that the data end in from the standard normal."""
    alpha = float(schedule.log_snr(torch.tensor(1.0).double()).sigmoid())
    variance = alpha * _VARIANCE + 1 - alpha
    return 0.5 * (variance + alpha * _MEAN**2 - 1 - log(variance))


def _lost_on_the_way(schedule: NoiseSchedule, steps: int) -> float:
    """Σ E KL of steps with exact means and the small variance β̃, which leaves out c² τ, the part of x given z_t."""
    times = torch.arange(1, steps + 1, dtype=torch.float64) / steps
    alpha_s, alpha_t = (schedule.log_snr(time).sigmoid() for time in (times[:-1], times[1:]))
    beta = 1 - alpha_t / alpha_s
    small, c = beta * (1 - alpha_s) / (1 - alpha_t), alpha_s.sqrt() * beta / (1 - alpha_t)
    ratios = c.square() * _of_data(alpha_t, torch.zeros(()))[1] / small
    return sum(0.5 * (ratio - log1p(ratio)) for ratio in ratios.tolist())


def _of_data(alpha: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance of x given z_t."""
    gain = alpha.sqrt() * _VARIANCE / (alpha * _VARIANCE + 1 - alpha)
    return _MEAN + gain * (z - alpha.sqrt() * _MEAN), _VARIANCE - gain * alpha.sqrt() * _VARIANCE


class _BestStart(Part):
    """E[x | z_t]."""

    def __init__(self, schedule: NoiseSchedule) -> None:
        super().__init__()
        self.schedule = schedule

    def forward(self, z: Tensor, t: Tensor) -> Tensor:
        return _of_data(self.schedule.log_snr(t).sigmoid().unsqueeze(-1), z)[0]


class _BestDecoder(Part):
    """p(x | z_1)."""

    def __init__(self, process: ForwardProcess) -> None:
        super().__init__()
        self.process = process

    def forward(self, z: Tensor) -> TorchDistribution:
        time = torch.tensor(self.process.first_time, dtype=z.dtype)
        mean, variance = _of_data(self.process.schedule.log_snr(time).sigmoid().unsqueeze(-1), z)
        return dist.Normal(mean, variance.sqrt().expand_as(mean)).to_event(1)
