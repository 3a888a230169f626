"""The discrete diffusion model, its time a plate of which one element is met at a time."""

import pyro
import pyro.distributions as dist
import torch
from pyro.distributions import TorchDistribution
from torch import Tensor

from pyro_lvm.diffusion.discrete import DiscreteReverse
from pyro_lvm.diffusion.moments import time_plate
from pyro_lvm.distributions import StratifiedUniform
from pyro_lvm.programs import Model, data_plate


class DiscreteDiffusion(Model):
    r"""$p(z_T) \prod_{t=2}^T p_\theta(z_{t-1} \mid z_t)\, p_\theta(x \mid z_1)$ over levels that jump at random.

    Its bound is a sum over steps, $E_q[\log p_\theta(x \mid z_1)] - \mathrm{KL}(q(z_T \mid x) \| p(z_T)) -
    \sum_{t=2}^T E_q\, \mathrm{KL}(q(z_{t-1} \mid z_t, x) \| p_\theta(z_{t-1} \mid z_t))$. A datum meets one of these at
    a time, drawn anew in every run, in a plate that multiplies it by T − 1: memory and time of a run do not depend on
    T. The draws that only say where to look, t, z_t and z_1, have no density in either program. What a run gives is an
    unbiased estimate of the bound, of which no weights of importance can be made.

    Without data it is the chain itself, from z_T to x.

    Args:
        reverse: $p_\theta(z_{t-1} \mid z_t)$ and $p_\theta(x \mid z_1)$, with the corruption that it undoes.

    Sites:
        `"z_T"`, `"z_1"` and `"x"`, all (B, *data_shape). In the plate `"time"` at dim −2, of which one element is
        there: `"moment"` (1, B) in [0, 1), which stands for a step t from 2 to T, and `"z_t"` and `"z_s"` (1, B,
        *data_shape), the states at that step and at the one before. With T = 1 there is no such plate.

    References:
        Austin et al. (2021), Structured Denoising Diffusion Models in Discrete State-Spaces.

    Example:
        >>> from pyro_lvm import diffusion, networks
        >>> _ = torch.manual_seed(0)
        >>> corruption = diffusion.UniformCorruption(3, diffusion.cosine_survival(5))
        >>> net = networks.TimeMLP((6, corruption.states), (6, 3), hidden_features=8)
        >>> DiscreteDiffusion(diffusion.DiscreteReverse(net, corruption, 6)).sample(2).shape
        torch.Size([2, 6])
    """

    def __init__(self, reverse: DiscreteReverse) -> None:
        super().__init__()
        self.reverse = reverse

    def forward(self, x: Tensor | None = None, *, size: int | None = None) -> Tensor:
        """Runs the program; see `data_plate` for `size`."""
        pyro.module("model", self)
        corruption = self.reverse.corruption
        with data_plate(x, size):
            z_T = pyro.sample("z_T", self.end())  # (B, *data_shape)
            if x is None:
                return pyro.sample("x", self.reverse.likelihood(self.denoise(z_T)))
            z_1 = pyro.sample("z_1", self.end().mask(False))  # (B, *data_shape)
            if corruption.steps > 1:
                with time_plate(corruption.steps):
                    t = corruption.step_at(pyro.sample("moment", StratifiedUniform(corruption.reference)))  # (1, B)
                    z_t = pyro.sample("z_t", self.end().mask(False))  # (1, B, *data_shape)
                    pyro.sample("z_s", self.reverse(z_t, t))
            return pyro.sample("x", self.reverse.likelihood(z_1), obs=x)

    def end(self) -> TorchDistribution:
        """p(z_T), event shape (*data_shape)."""
        shape = self.reverse.data_shape
        logits = self.reverse.corruption.stationary()
        ended: TorchDistribution = dist.Categorical(logits=logits).expand(shape).to_event(len(shape))
        return ended

    def denoise(self, z_T: Tensor) -> Tensor:
        """Draws z_1 given z_T, both (..., *data_shape), step by step."""
        z = z_T
        with torch.no_grad():
            for step in range(self.reverse.corruption.steps, 1, -1):
                z = self.reverse(z, torch.full((), step, device=z.device)).sample()
        return z
