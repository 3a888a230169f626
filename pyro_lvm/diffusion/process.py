"""The forward process of a data set: what a model and its guide share."""

from collections.abc import Sequence
from typing import final

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor

from pyro_lvm.configuration import Part
from pyro_lvm.diffusion.forward import bridge, marginal, over_event
from pyro_lvm.diffusion.moments import step_of
from pyro_lvm.diffusion.schedules import NoiseSchedule, check_falls
from pyro_lvm.sizes import check_sizes, checked_shape

__all__ = ["ForwardProcess"]


@final
class ForwardProcess(Part):
    r"""$q(z_t \mid x) = \mathcal N\left(\sqrt{\bar\alpha_t}\, \frac{x - c}{s}, 1 - \bar\alpha_t\right)$ for data.

    Args:
        data_shape: shape of a datum (an int D is the shape (D,)).
        schedule: $\bar\alpha_t$, one of `pyro_lvm.diffusion`'s; where it has parameters, model and guide share them.
        steps: T, of a chain whose step i is at time i/T; None for continuous time.
        centre: c, in the data's units.
        spread: s, in the data's units: data go in as they are and are rescaled here, to about [−1, 1].

    Raises:
        ValueError: where a size is less than 1, `spread` is not positive, or the schedule does not fall from step to
            step.

    References:
        Sohl-Dickstein et al. (2015), Deep Unsupervised Learning using Nonequilibrium Thermodynamics. Ho, Jain & Abbeel
        (2020), Denoising Diffusion Probabilistic Models.

    Example:
        >>> from pyro_lvm.diffusion import LinearSchedule
        >>> process = ForwardProcess((8, 8), LinearSchedule(1000), 1000, centre=8.0, spread=8.0)
        >>> q = process.marginal(process.scaled(torch.full((5, 8, 8), 16.0)), torch.tensor(0.001))
        >>> q.event_shape, round(float(q.mean[0, 0, 0]), 4)
        (torch.Size([8, 8]), 0.9999)
    """

    def __init__(
        self,
        data_shape: int | Sequence[int],
        schedule: NoiseSchedule,
        steps: int | None = 1000,
        centre: float = 0.0,
        spread: float = 1.0,
    ) -> None:
        super().__init__()
        self.data_shape = checked_shape(data_shape, "data_shape")
        if not spread > 0:
            raise ValueError(f"'spread' is the data's and must be positive, not {spread}.")
        check_sizes(**({} if steps is None else {"steps": steps}))
        check_falls(schedule, 100 if steps is None else steps)
        self.schedule, self.steps, self.centre, self.spread = schedule, steps, centre, spread

    @property
    def event_dim(self) -> int:
        """How many dimensions a datum has."""
        return len(self.data_shape)

    @property
    def first_time(self) -> float:
        """The time of the latent next to the data: 1/T, and 0 in continuous time."""
        return 0.0 if self.steps is None else 1 / self.steps

    def scaled(self, x: Tensor) -> Tensor:
        """Data (..., *data_shape) in units of the process.

        Raises:
            ValueError: for data of another shape.
        """
        first = x.dim() - self.event_dim
        if first < 0 or tuple(x.shape[first:]) != self.data_shape:
            raise ValueError(
                f"the diffusion is of data of shape (..., {', '.join(map(str, self.data_shape))}), but was given "
                f"{tuple(x.shape)}: build it with data_shape={tuple(x.shape[1:])}, or reshape the data."
            )
        x = x if x.is_floating_point() else x.to(torch.get_default_dtype())
        return x if (self.centre, self.spread) == (0.0, 1.0) else (x - self.centre) / self.spread

    def step_times(self, moment: Tensor) -> tuple[Tensor, Tensor]:
        """The times s and t of the step from 2 to T that a moment in [0, 1) stands for, each (...).

        In continuous time both are the moment itself.
        """
        if self.steps is None:
            return moment, moment
        step = step_of(moment, self.steps)
        return (step - 1) / self.steps, step / self.steps

    def marginal(self, x: Tensor, t: Tensor) -> TorchDistribution:
        """q(z_t | x) of scaled data; see `diffusion.marginal`."""
        return marginal(self.schedule, x, t, self.event_dim)

    def level_values(self, levels: int, like: Tensor) -> Tensor:
        """What levels 0, …, L − 1 are scaled to, (L,)."""
        return (torch.arange(levels, dtype=like.dtype, device=like.device) - self.centre) / self.spread

    def log_levels(self, z_t: Tensor, t: Tensor, levels: int) -> Tensor:
        """log q(z_t | x = k) of every value and level, but for what levels share, (..., *data_shape, L)."""
        log_snr = over_event(self.schedule.log_snr(t), self.event_dim).unsqueeze(-1)
        distance = z_t.unsqueeze(-1) - log_snr.sigmoid().sqrt() * self.level_values(levels, z_t)
        return -0.5 * (1 + log_snr.exp()) * distance.square()  # 1 / (1 − ᾱ) is 1 + SNR

    def noise_error(self, x: Tensor, z_t: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        """‖ε − ε̂‖², (...), of z_t (..., *data_shape), the scaled data x that it comes from, and what is said of ε."""
        q = self.marginal(x, t).base_dist
        square = ((z_t - q.loc) / q.scale - noise).square()
        return square.flatten(-self.event_dim).sum(-1)

    def bridge(self, x: Tensor, z_t: Tensor, s: Tensor, t: Tensor) -> TorchDistribution:
        """q(z_s | z_t, x) of scaled data; see `diffusion.bridge`."""
        return bridge(self.schedule, x, z_t, s, t, self.event_dim)
