"""The forward process as a guide that looks at one moment of each datum."""

import pyro
from torch import Tensor

from pyro_lvm.configuration import Part
from pyro_lvm.diffusion import ForwardProcess
from pyro_lvm.diffusion.conditions import Condition
from pyro_lvm.diffusion.moments import time_plate
from pyro_lvm.distributions import StratifiedUniform
from pyro_lvm.programs import data_plate


class SubsampledDiffusion(Part):
    r"""$q(z_1 \mid x)$, $q(z_T \mid x)$, and $q(z_t \mid x)\, q(z_s \mid z_t, x)$ at one random moment of each datum.

    Of `models.Diffusion` and `models.ContinuousDiffusion`, whose bounds need no more than these at a time. Moments are
    stratified over the batch: each is uniform, together they cover time evenly. It has no parameters but the schedule's
    own, which it shares with the model.

    Args:
        process: the model's.
        condition: the model's, where what it is given holds more than the data.

    Sites:
        The model's; see there.

    References:
        Ho, Jain & Abbeel (2020), Denoising Diffusion Probabilistic Models. Kingma, Salimans, Poole & Ho (2021),
        Variational Diffusion Models.

    Example:
        >>> import torch
        >>> from pyro_lvm.diffusion import LinearSchedule
        >>> _ = torch.manual_seed(0)
        >>> guide = SubsampledDiffusion(ForwardProcess((4, 4), LinearSchedule(1000), steps=1000))
        >>> guide(torch.zeros(5, 4, 4)).shape
        torch.Size([5, 4, 4])
    """

    def __init__(self, process: ForwardProcess, condition: Condition | None = None) -> None:
        super().__init__()
        self.process, self.condition = process, condition

    def forward(self, x: Tensor, *, size: int | None = None) -> Tensor:
        """Runs the program; see `data_plate` for `size`."""
        pyro.module("guide", self)
        data = x if self.condition is None else self.condition.split(x)[0]
        process, x_0 = self.process, self.process.scaled(data)
        first, last = (x_0.new_full((), time) for time in (process.first_time, 1.0))
        with data_plate(x, size):
            z_1: Tensor = pyro.sample("z_1", process.marginal(x_0, first).mask(False))  # (B, *data_shape)
            pyro.sample("z_T", process.marginal(x_0, last))
            if process.steps != 1:
                with time_plate(process.steps):
                    s, t = process.step_times(pyro.sample("moment", StratifiedUniform(x_0)))  # (1, B)
                    z_t = pyro.sample("z_t", process.marginal(x_0, t).mask(False))  # (1, B, *data_shape)
                    if process.steps is not None:
                        pyro.sample("z_s", process.bridge(x_0, z_t, s, t))
            return z_1
