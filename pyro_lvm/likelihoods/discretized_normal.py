"""Likelihoods of levels for the last step of a diffusion."""

import pyro.distributions as dist
from pyro.distributions import TorchDistribution
from torch import Tensor

from pyro_lvm import distributions
from pyro_lvm.configuration import Part
from pyro_lvm.diffusion import ForwardProcess, Reverse
from pyro_lvm.sizes import checked_levels


class DiscretizedNormal(Part):
    r"""$p(x \mid z_1)$, the normal $\mathcal N(\hat x_\theta(z_1), 1 - \bar\alpha_1)$ of every value rounded to levels.

    The last step of a diffusion: what the reverse process gives for the datum, with the variance of the first step of
    noise. A probability, so that bits per dimension are real ones. Levels are k = 0, …, L − 1, in the units that the
    process rescales; see `pyro_lvm.distributions.DiscretizedNormal`.

    Args:
        process: the forward process.
        reverse: x̂, the diffusion's own.
        levels: L.

    Raises:
        ValueError: where `levels` < 2.

    References:
        Ho, Jain & Abbeel (2020), Denoising Diffusion Probabilistic Models, section 3.3.

    Example:
        >>> import torch
        >>> from pyro_lvm.diffusion import ConstantSchedule, SmallVariance, Start
        >>> class Same(Part):
        ...     def forward(self, z, t):
        ...         return z
        >>> schedule = ConstantSchedule(10, 0.01)
        >>> process = ForwardProcess((2, 3), schedule, steps=10, centre=2.0, spread=2.0)
        >>> reverse = Reverse(Same(), (2, 3), schedule, Start(), SmallVariance())
        >>> p = DiscretizedNormal(process, reverse, levels=5)(torch.zeros(7, 6))
        >>> p.log_prob(torch.full((7, 2, 3), 2.0)).exp()[0] > 0.9
        tensor(True)
    """

    def __init__(self, process: ForwardProcess, reverse: Reverse, levels: int) -> None:
        super().__init__()
        self.process, self.reverse, self.levels = process, reverse, checked_levels(levels)

    def forward(self, z: Tensor, *condition: Tensor) -> TorchDistribution:
        """p(x | z_1) for z_1 (..., D), batch shape z.shape[:-1]."""
        z, t = z.unflatten(-1, self.process.data_shape), z.new_full((), self.process.first_time)
        mean = self.process.centre + self.process.spread * self.reverse.start(z, t, *condition)
        scale = self.process.spread * (-self.process.schedule.log_snr(t)).sigmoid().sqrt()
        return distributions.DiscretizedNormal(mean, scale, self.levels).to_event(self.process.event_dim)


class NoisedLevels(Part):
    r"""$p(x_d = k \mid z_1) \propto \mathcal N(z_{1d} \mid \sqrt{\bar\alpha_1}\, x_k, 1 - \bar\alpha_1)$ over levels k.

    The posterior of a level, all alike before, under the forward process: no network, and sharp while there is little
    noise at the first time.

    Args:
        process: the forward process; x_k is level k as it rescales it.
        levels: L, data are 0, …, L − 1.

    Raises:
        ValueError: where `levels` < 2.

    References:
        Kingma, Salimans, Poole & Ho (2021), Variational Diffusion Models, section 3.3.

    Example:
        >>> import torch
        >>> from pyro_lvm.diffusion import LinearLogSNR
        >>> process = ForwardProcess(3, LinearLogSNR(10.0, -10.0), steps=None, centre=2.0, spread=2.0)
        >>> p = NoisedLevels(process, levels=5)(torch.tensor([-1.0, 0.0, 1.0]))
        >>> round(float(p.log_prob(torch.tensor([0.0, 2.0, 4.0])).exp()), 4)
        1.0
    """

    def __init__(self, process: ForwardProcess, levels: int) -> None:
        super().__init__()
        self.process, self.levels = process, checked_levels(levels)

    def forward(self, z: Tensor, *condition: Tensor) -> TorchDistribution:
        """p(x | z_1) for z_1 (..., D), batch shape z.shape[:-1]."""
        z, t = z.unflatten(-1, self.process.data_shape), z.new_full((), self.process.first_time)
        logits = self.process.log_levels(z, t, self.levels)  # (..., *data_shape, L)
        return dist.Categorical(logits=logits).to_event(self.process.event_dim)
