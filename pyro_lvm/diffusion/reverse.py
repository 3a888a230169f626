"""The reverse process: a network that takes noise away, step by step."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import final

import pyro.distributions as dist
import torch
from pyro.distributions import TorchDistribution
from torch import Tensor, nn

from pyro_lvm.configuration import Part
from pyro_lvm.diffusion.forward import bridge_moments, over_event
from pyro_lvm.diffusion.parameterisations import Parameterisation
from pyro_lvm.diffusion.schedules import NoiseSchedule
from pyro_lvm.diffusion.variances import ReverseVariance
from pyro_lvm.sizes import checked_shape

__all__ = ["AtStep", "NormalStep", "Prediction", "Reverse"]


@dataclass(frozen=True)
class Prediction:
    """What a network says of a noised datum, each (..., *data_shape).

    Attributes:
        start: the datum x̂, in the process's units.
        noise: the noise ε̂.
        raw: its numbers for the variance; None where that takes none.
    """

    start: Tensor
    noise: Tensor
    raw: Tensor | None


@final
class Reverse(Part):
    r"""$p_\theta(z_s \mid z_t) = \mathcal N(\tilde\mu(z_t, \hat x_\theta(z_t, t)), \sigma^2)$ for times s < t.

    The mean is that of $q(z_s \mid z_t, x)$ at the datum x̂ the network sees in z_t. It serves any two times: samplers
    may leave out steps.

    Args:
        net: from z_t (..., *data_shape) and t (...) in (0, 1] to (..., *data_shape), or (..., 2, *data_shape) for a
            learned variance; may take a condition c besides.
        data_shape: shape of a datum.
        schedule: that of the forward process, the same module.
        parameterisation: what the network gives: `Epsilon()`, `Start()` or `Velocity()`.
        variance: σ²: `SmallVariance()`, `LargeVariance()` or `LearnedVariance()`.

    Raises:
        ValueError: where a size is less than 1, or the network's output has another shape.

    References:
        Ho, Jain & Abbeel (2020), Denoising Diffusion Probabilistic Models. Nichol & Dhariwal (2021), Improved Denoising
        Diffusion Probabilistic Models.

    Example:
        >>> from pyro_lvm.configuration import Part
        >>> from pyro_lvm.diffusion import LinearSchedule, SmallVariance, Start
        >>> class Nothing(Part):
        ...     def forward(self, z, t):
        ...         return torch.zeros_like(z)
        >>> reverse = Reverse(Nothing(), (8, 8), LinearSchedule(100), Start(), SmallVariance())
        >>> p = reverse(torch.ones(5, 8, 8), torch.tensor(0.49), torch.tensor(0.5))
        >>> p.batch_shape, p.event_shape
        (torch.Size([5]), torch.Size([8, 8]))
    """

    def __init__(
        self,
        net: nn.Module,
        data_shape: int | Sequence[int],
        schedule: NoiseSchedule,
        parameterisation: Parameterisation,
        variance: ReverseVariance,
    ) -> None:
        super().__init__()
        self.data_shape = checked_shape(data_shape, "data_shape")
        self.net, self.schedule, self.parameterisation, self.variance = net, schedule, parameterisation, variance

    def forward(self, z_t: Tensor, s: Tensor, t: Tensor, *condition: Tensor) -> TorchDistribution:
        """p(z_s | z_t) for z_t (..., *data_shape) and times s < t, (...), with the data's event shape."""
        return self.step(z_t, s, t, self.predict(z_t, t, *condition))

    def start(self, z_t: Tensor, t: Tensor, *condition: Tensor) -> Tensor:
        """x̂, (..., *data_shape), in the process's units."""
        return self.predict(z_t, t, *condition).start

    def predict(self, z_t: Tensor, t: Tensor, *condition: Tensor) -> Prediction:
        """What the network says of z_t (..., *data_shape) at times t (...)."""
        out, raw = self._read(self.net(z_t, t, *condition), z_t), None
        if self.variance.outputs:
            out, raw = out.unbind(-1 - self._event_dim)
        log_snr = over_event(self.schedule.log_snr(t), self._event_dim)
        start, noise = (of(out, z_t, log_snr) for of in (self.parameterisation.start, self.parameterisation.noise))
        return Prediction(start, noise, raw)

    def step(self, z_t: Tensor, s: Tensor, t: Tensor, prediction: Prediction) -> TorchDistribution:
        """p(z_s | z_t), given what the network says of z_t."""
        log_snr_s, log_snr_t = (over_event(self.schedule.log_snr(time), self._event_dim) for time in (s, t))
        mean, _ = bridge_moments(log_snr_s, log_snr_t, prediction.start, z_t)
        scale = (0.5 * self.variance.log_variance(log_snr_s, log_snr_t, prediction.raw)).exp()
        return dist.Normal(mean, scale.expand_as(mean)).to_event(self._event_dim)

    def draw(self, z: Tensor, times: Sequence[float], *condition: Tensor) -> Tensor:
        """Draws z at the last of falling times, given z (..., *data_shape) at the first, a step after the other."""
        with torch.no_grad():
            for t, s in pairwise(z.new_tensor(times)):
                z = self(z, s, t, *condition).sample()
            return z

    @property
    def _event_dim(self) -> int:
        return len(self.data_shape)

    def _read(self, out: Tensor, z_t: Tensor) -> Tensor:
        shape = (2, *self.data_shape) if self.variance.outputs else self.data_shape
        if tuple(out.shape[out.dim() - len(shape) :]) != shape or out.dim() != z_t.dim() + self.variance.outputs:
            raise ValueError(
                f"the network gives {tuple(out.shape)} for noised data {tuple(z_t.shape)}, but a datum's part must be "
                f"{shape}" + (": a learned variance takes the second half." if self.variance.outputs else ".")
            )
        return out


@final
class AtStep(Part):
    """A reverse process at one step of a chain of T: z_{i+1} to p(z_i | z_{i+1}).

    Args:
        reverse: for all steps.
        step: i, from 1 to T − 1.
        steps: T.

    Raises:
        ValueError: for a step that there is not.

    Example:
        >>> from pyro_lvm.diffusion import ConstantSchedule, SmallVariance, Start
        >>> class Nothing(Part):
        ...     def forward(self, z, t):
        ...         return torch.zeros_like(z)
        >>> reverse = Reverse(Nothing(), 3, ConstantSchedule(5, 0.3), Start(), SmallVariance())
        >>> AtStep(reverse, 4, 5)(torch.ones(7, 3)).batch_shape
        torch.Size([7])
    """

    def __init__(self, reverse: nn.Module, step: int, steps: int) -> None:
        super().__init__()
        if not 1 <= step < steps:
            raise ValueError(f"'step' must lie between 1 and one less than 'steps', {steps}, not at {step}.")
        self.reverse, self.step, self.steps = reverse, step, steps

    def forward(self, z: Tensor) -> TorchDistribution:
        """p(z_i | z_{i+1}), for z_{i+1} (..., *data_shape)."""
        s, t = (torch.full((), i / self.steps, dtype=z.dtype, device=z.device) for i in (self.step, self.step + 1))
        p: TorchDistribution = self.reverse(z, s, t)
        return p


@final
class NormalStep(Part):
    r"""One step with a network of its own: $p(z_i \mid z_{i+1}) = \mathcal N(\mu(z_{i+1}), \sigma^2(z_{i+1}))$.

    Args:
        net: from (..., *data_shape) to μ and log σ², (..., 2, *data_shape).
        data_shape: shape of a datum.

    Example:
        >>> from pyro_lvm import networks
        >>> _ = torch.manual_seed(0)
        >>> NormalStep(networks.MLP((4, 4), (2, 4, 4), (8,)), (4, 4))(torch.zeros(7, 4, 4)).event_shape
        torch.Size([4, 4])
    """

    def __init__(self, net: nn.Module, data_shape: int | Sequence[int]) -> None:
        super().__init__()
        self.net, self.data_shape = net, checked_shape(data_shape, "data_shape")

    def forward(self, z: Tensor) -> TorchDistribution:
        """p(z_i | z_{i+1}), for z_{i+1} (..., *data_shape)."""
        mean, log_variance = self.net(z).unbind(-1 - len(self.data_shape))
        return dist.Normal(mean, (0.5 * log_variance).exp()).to_event(len(self.data_shape))
