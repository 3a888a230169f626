"""The forward process of discrete diffusion as a guide."""

import pyro
import pyro.distributions as dist
import torch
from pyro.distributions import TorchDistribution
from torch import Tensor

from pyro_lvm.configuration import Part
from pyro_lvm.diffusion.discrete import Corruption
from pyro_lvm.diffusion.moments import time_plate
from pyro_lvm.distributions import StratifiedUniform
from pyro_lvm.programs import data_plate


class ForwardCorruption(Part):
    r"""$q(z_T \mid x)$, and at a random step t $q(z_t \mid x)\, q(z_{t-1} \mid z_t, x)$: nothing to be learned.

    Args:
        corruption: q, the one that the model's reverse process undoes.

    Sites:
        Those of `models.DiscreteDiffusion`, but `"x"`.

    References:
        Austin et al. (2021), Structured Denoising Diffusion Models in Discrete State-Spaces.

    Example:
        >>> from pyro_lvm import diffusion
        >>> _ = torch.manual_seed(0)
        >>> guide = ForwardCorruption(diffusion.AbsorbingCorruption(3, diffusion.linear_survival(5)))
        >>> guide(torch.zeros(4, 6))  # all masked
        tensor([[3, 3, 3, 3, 3, 3],
                [3, 3, 3, 3, 3, 3],
                [3, 3, 3, 3, 3, 3],
                [3, 3, 3, 3, 3, 3]])
    """

    def __init__(self, corruption: Corruption) -> None:
        super().__init__()
        self.corruption = corruption

    def forward(self, x: Tensor, *, size: int | None = None) -> Tensor:
        """Runs the program; see `data_plate` for `size`."""
        pyro.module("guide", self)
        corruption, shape = self.corruption, x.shape[1:]
        values = x.flatten(1)  # (B, D)
        with data_plate(x, size):
            first, last = (torch.full(x.shape[:1], step, device=x.device) for step in (1, corruption.steps))
            z_T = pyro.sample("z_T", _states(corruption.marginal(values, last), shape))
            pyro.sample("z_1", _states(corruption.marginal(values, first), shape).mask(False))
            if corruption.steps > 1:
                with time_plate(corruption.steps):
                    moment = pyro.sample("moment", StratifiedUniform(corruption.reference))  # (1, B)
                    t = corruption.step_at(moment)
                    z_t = pyro.sample("z_t", _states(corruption.marginal(values, t), shape).mask(False))
                    bridge = corruption.bridge(values, z_t.flatten(-len(shape)), t)
                    pyro.sample("z_s", _states(bridge, shape))  # (1, B, *data_shape)
            return z_T


def _states(logits: Tensor, shape: torch.Size) -> TorchDistribution:
    """The distribution of states (..., *shape) with logits (..., D, S)."""
    states: TorchDistribution = dist.Categorical(logits=logits.unflatten(-2, shape)).to_event(len(shape))
    return states
