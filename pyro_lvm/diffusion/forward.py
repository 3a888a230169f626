r"""The forward process: what noise does to a datum, $q(z_t \mid z_s) = \mathcal N(\sqrt{\bar\alpha_t / \bar\alpha_s}\,
z_s, 1 - \bar\alpha_t / \bar\alpha_s)$ for s < t.

All of it is written in the log signal-to-noise ratio ℓ, so that no difference of numbers near 1 is taken.
"""

import pyro.distributions as dist
import torch
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.nn.functional import logsigmoid

from pyro_lvm.diffusion.schedules import NoiseSchedule

__all__ = ["bridge", "bridge_moments", "marginal", "over_event", "step_variance", "transition"]


def marginal(schedule: NoiseSchedule, x: Tensor, t: Tensor, event_dim: int) -> TorchDistribution:
    r"""$q(z_t \mid x) = \mathcal N(\sqrt{\bar\alpha_t}\, x, 1 - \bar\alpha_t)$.

    Args:
        schedule: ℓ.
        x: data, (..., *data_shape).
        t: times, (...), against which x's leading dimensions broadcast.
        event_dim: how many dimensions a datum has.

    Returns:
        A normal distribution with the data's event shape.

    Example:
        >>> from pyro_lvm.diffusion import LinearLogSNR
        >>> q = marginal(LinearLogSNR(10.0, -10.0), torch.ones(3, 8, 8), torch.tensor([0.0, 0.5, 1.0]), 2)
        >>> q.mean[:, 0, 0]
        tensor([1.0000, 0.7071, 0.0067])
    """
    log_snr = over_event(schedule.log_snr(t), event_dim)
    signal, noise = log_snr.sigmoid().sqrt(), (-log_snr).sigmoid().sqrt()
    return _normal(signal * x, noise, event_dim)


def transition(schedule: NoiseSchedule, z_s: Tensor, s: Tensor, t: Tensor, event_dim: int) -> TorchDistribution:
    r"""$q(z_t \mid z_s)$ for times s < t, both (...); shapes as `marginal`'s."""
    log_snr_s, log_snr_t = (over_event(schedule.log_snr(time), event_dim) for time in (s, t))
    kept = (0.5 * (logsigmoid(log_snr_t) - logsigmoid(log_snr_s))).exp()
    return _normal(kept * z_s, step_variance(log_snr_s, log_snr_t).sqrt(), event_dim)


def bridge(schedule: NoiseSchedule, x: Tensor, z_t: Tensor, s: Tensor, t: Tensor, event_dim: int) -> TorchDistribution:
    r"""$q(z_s \mid z_t, x)$ for times s < t, both (...): what the reverse process has to learn; shapes as `marginal`'s.

    $\mathcal N\left(\frac{\sqrt{\bar\alpha_s}\, \sigma^2_{t|s}\, x + \alpha_{t|s} (1 - \bar\alpha_s)\, z_t}
    {1 - \bar\alpha_t}, \frac{\sigma^2_{t|s} (1 - \bar\alpha_s)}{1 - \bar\alpha_t}\right)$ with
    $\alpha_{t|s} = \sqrt{\bar\alpha_t / \bar\alpha_s}$ and $\sigma^2_{t|s} = 1 - \bar\alpha_t / \bar\alpha_s$.

    References:
        Ho, Jain & Abbeel (2020), Denoising Diffusion Probabilistic Models, equations 6 and 7.
    """
    log_snr_s, log_snr_t = (over_event(schedule.log_snr(time), event_dim) for time in (s, t))
    mean, variance = bridge_moments(log_snr_s, log_snr_t, x, z_t)
    return _normal(mean, variance.sqrt(), event_dim)


def bridge_moments(log_snr_s: Tensor, log_snr_t: Tensor, x: Tensor, z_t: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance of q(z_s | z_t, x), given ℓ at both times; all broadcast."""
    # e^{ℓ_t − ℓ_s} is the share of the variance at t that s has, in units of what is left of the datum.
    share = (log_snr_t - log_snr_s).exp()
    from_z = (0.5 * (logsigmoid(log_snr_s) - logsigmoid(log_snr_t))).exp() * share
    from_x = -torch.expm1(log_snr_t - log_snr_s) * log_snr_s.sigmoid().sqrt()
    return from_x * x + from_z * z_t, -torch.expm1(log_snr_t - log_snr_s) * (-log_snr_s).sigmoid()


def step_variance(log_snr_s: Tensor, log_snr_t: Tensor) -> Tensor:
    r"""$\sigma^2_{t|s} = 1 - \bar\alpha_t / \bar\alpha_s$, the β of a step from s to t."""
    return -torch.expm1(logsigmoid(log_snr_t) - logsigmoid(log_snr_s))


def over_event(values: Tensor, event_dim: int) -> Tensor:
    """Numbers (...) of single data as (..., 1, …, 1), to broadcast against data."""
    return values.reshape(*values.shape, *(1,) * event_dim)


def _normal(mean: Tensor, scale: Tensor, event_dim: int) -> TorchDistribution:
    return dist.Normal(mean, scale.expand_as(mean)).to_event(event_dim)
