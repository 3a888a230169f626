"""A diffusion with few steps, each of them a site."""

from collections.abc import Sequence

import pyro
import torch
from torch import Tensor, nn

from pyro_lvm.diffusion import AtStep, ForwardProcess, Reverse
from pyro_lvm.diffusion.densities import standard_normal
from pyro_lvm.programs import Model, data_plate


class DiffusionChain(Model):
    r"""$p(x \mid z_1)\, p(z_T) \prod_{t=1}^{T-1} p(z_t \mid z_{t+1})$ with all T latents as sites.

    For small T: a step costs T passes of the networks. All of the contract holds as for any other latents, importance
    weights too. Its guide is `guides.ForwardDiffusion`.

    Args:
        process: the forward process with T steps, the guide's too.
        transitions: T − 1 modules, the i-th from z_{i+1} (..., *data_shape) to the distribution of z_i:
            `diffusion.NormalStep`, each a network of its own, or `DiffusionChain.of_one_network`.
        decoder: z_1 as one vector (..., D) to the distribution of x, one of `pyro_lvm.likelihoods`.

    Sites:
        `"z_1"` … `"z_T"` (B, *data_shape), from the data upwards, `"x"` (B, *data_shape).

    Raises:
        ValueError: for another number of transitions, or a process in continuous time.

    References:
        Sohl-Dickstein et al. (2015), Deep Unsupervised Learning using Nonequilibrium Thermodynamics.

    Example:
        >>> from pyro_lvm import likelihoods, networks
        >>> from pyro_lvm.diffusion import ConstantSchedule, NormalStep
        >>> _ = torch.manual_seed(0)
        >>> process = ForwardProcess(4, ConstantSchedule(3, beta=0.5), steps=3)
        >>> steps = [NormalStep(networks.MLP(4, (2, 4), (8,)), 4) for _ in range(2)]
        >>> DiffusionChain(process, steps, likelihoods.Normal(networks.MLP(4, 4, (8,)))).sample(5).shape
        torch.Size([5, 4])
    """

    def __init__(self, process: ForwardProcess, transitions: Sequence[nn.Module], decoder: nn.Module) -> None:
        super().__init__()
        if process.steps is None:
            raise ValueError("'process' is in continuous time, but a chain has steps: give 'steps'.")
        if len(transitions) != process.steps - 1:
            raise ValueError(
                f"'transitions' must hold one fewer than the process has steps, {process.steps - 1}, not "
                f"{len(transitions)}: there is none to the last latent, which is standard normal."
            )
        self.process, self.steps, self.decoder = process, process.steps, decoder
        self.transitions = nn.ModuleList(transitions)

    @staticmethod
    def of_one_network(process: ForwardProcess, reverse: Reverse, decoder: nn.Module) -> "DiffusionChain":
        """The chain whose steps are one reverse process at T − 1 times, as in `models.Diffusion`."""
        steps = process.steps or 1
        return DiffusionChain(process, [AtStep(reverse, step, steps) for step in range(1, steps)], decoder)

    def forward(self, x: Tensor | None = None, *, size: int | None = None) -> Tensor:
        """Runs the program; see `data_plate` for `size`."""
        pyro.module("model", self)
        with data_plate(x, size):
            like = next(self.parameters(), torch.empty(()))
            z = pyro.sample(f"z_{self.steps}", standard_normal(self.process.data_shape, like))  # (B, *data_shape)
            for step in range(self.steps - 1, 0, -1):
                z = pyro.sample(f"z_{step}", self.transitions[step - 1](z))
            return pyro.sample("x", self.decoder(z.flatten(-self.process.event_dim)), obs=x)
