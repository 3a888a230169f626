"""The forward process as a guide."""

import pyro
from torch import Tensor

from pyro_lvm.configuration import Part
from pyro_lvm.diffusion import ForwardProcess
from pyro_lvm.programs import data_plate


class ForwardDiffusion(Part):
    r"""$q(z_{1:T} \mid x) = q(z_T \mid x) \prod_{t=2}^T q(z_{t-1} \mid z_t, x)$, data that turn to noise in T steps.

    The same joint distribution as $\prod_t q(z_t \mid z_{t-1})$ with z_0 = x, but drawn from the noise downwards, as
    the model draws it: each site's divergence then has a closed form, and is the term that the bound of Ho et al. has.
    No parameters but the schedule's own, which it shares with the model.

    Args:
        process: the model's, with T steps.

    Sites:
        `"z_T"` … `"z_1"` (B, *data_shape): those of `models.DiffusionChain`.

    Raises:
        ValueError: for a process in continuous time.

    References:
        Sohl-Dickstein et al. (2015), Deep Unsupervised Learning using Nonequilibrium Thermodynamics. Ho, Jain & Abbeel
        (2020), Denoising Diffusion Probabilistic Models.

    Example:
        >>> import torch
        >>> from pyro_lvm.diffusion import ConstantSchedule
        >>> _ = torch.manual_seed(0)
        >>> guide = ForwardDiffusion(ForwardProcess((4, 4), ConstantSchedule(5, beta=0.3), steps=5))
        >>> guide(torch.zeros(7, 4, 4)).shape
        torch.Size([7, 4, 4])
    """

    def __init__(self, process: ForwardProcess) -> None:
        super().__init__()
        if process.steps is None:
            raise ValueError("'process' is in continuous time, but a chain has steps: give 'steps'.")
        self.process, self.steps = process, process.steps

    def forward(self, x: Tensor, *, size: int | None = None) -> Tensor:
        """Runs the program; see `data_plate` for `size`."""
        pyro.module("guide", self)
        process, x_0 = self.process, self.process.scaled(x)
        times = [x_0.new_full((), step / self.steps) for step in range(self.steps + 1)]
        with data_plate(x, size):
            z: Tensor = pyro.sample(f"z_{self.steps}", process.marginal(x_0, times[-1]))  # (B, *data_shape)
            for step in range(self.steps - 1, 0, -1):
                z = pyro.sample(f"z_{step}", process.bridge(x_0, z, times[step], times[step + 1]))
            return z
