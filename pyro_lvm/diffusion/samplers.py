"""Ways from noise to data with one and the same trained diffusion."""

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Protocol, final

import torch
from torch import Tensor, nn

from pyro_lvm.diffusion.conditions import Condition
from pyro_lvm.diffusion.forward import over_event
from pyro_lvm.diffusion.process import ForwardProcess
from pyro_lvm.diffusion.reverse import Reverse
from pyro_lvm.sizes import check_sizes

__all__ = ["DDIM", "Ancestral", "Sampler", "Strided"]


class DiffusionModel(Protocol):
    """What a sampler asks of a model: `models.Diffusion` and `models.ContinuousDiffusion` have it."""

    process: ForwardProcess
    reverse: Reverse
    decoder: nn.Module
    condition: Condition | None


class Sampler(ABC):
    """Draws data from a diffusion, abstract: which times it visits, and how it gets from one to the next."""

    @abstractmethod
    def times(self, process: ForwardProcess) -> list[float]:
        """The times to visit, from 1 downwards to the process's first.

        Raises:
            ValueError: where the process does not have them.
        """

    @abstractmethod
    def step(self, reverse: Reverse, z_t: Tensor, s: Tensor, t: Tensor, *condition: Tensor) -> Tensor:
        """Draws z_s given z_t, both (..., *data_shape), for single times s < t."""

    def __call__(self, model: DiffusionModel, n: int, *, given: Tensor | None = None) -> Tensor:
        """Draws data, (n, *data_shape).

        Args:
            model: the diffusion.
            n: how many to draw.
            given: conditions as the model's networks take them, (n, *shape), or (*shape), one for all; those that the
                model draws where there are none.

        Raises:
            ValueError: for n < 1, and for conditions that the model does not take.
        """
        z, condition = self._start(model, n, given)
        with torch.no_grad():
            (z,) = deque(self._latents(model, z, condition), maxlen=1)
            drawn: Tensor = model.decoder(z.flatten(-model.process.event_dim), *condition).sample()
            return drawn

    def path(self, model: DiffusionModel, n: int, *, given: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The times it visits, (S,), and the latents on the way, (S, n, *data_shape), in the process's units.

        Arguments and errors are those of the call.
        """
        z, condition = self._start(model, n, given)
        with torch.no_grad():
            return z.new_tensor(self.times(model.process)), torch.stack(list(self._latents(model, z, condition)))

    def _start(self, model: DiffusionModel, n: int, given: Tensor | None) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Noise, (n, *data_shape), and the conditions of every draw."""
        check_sizes(n=n)
        like = next(model.reverse.parameters(), torch.empty(())).detach()
        condition: tuple[Tensor, ...] = ()
        if model.condition is None and given is not None:
            raise ValueError("'given' are conditions, but the model has none: build it with a 'condition'.")
        if model.condition is not None:
            shape = model.condition.shape
            c = model.condition.draw(n, like) if given is None else given.to(like)
            if tuple(c.shape) not in (shape, (n, *shape)):
                raise ValueError(f"'given' must have shape {(n, *shape)}, or {shape} for all, not {tuple(c.shape)}.")
            condition = (c.expand(n, *shape),)
        z = torch.randn(n, *model.process.data_shape, dtype=like.dtype, device=like.device)
        return z, condition

    def _latents(self, model: DiffusionModel, z: Tensor, condition: tuple[Tensor, ...]) -> Iterator[Tensor]:
        yield z
        for t, s in pairwise(z.new_tensor(time) for time in self.times(model.process)):
            z = self.step(model.reverse, z, s, t, *condition)
            yield z


@final
class Ancestral(Sampler):
    r"""All T steps, $z_{t-1} \sim p_\theta(z_{t-1} \mid z_t)$: what `model.sample(n)` draws.

    References:
        Ho, Jain & Abbeel (2020), Denoising Diffusion Probabilistic Models, algorithm 2.

    Example:
        >>> from pyro_lvm.diffusion import LinearLogSNR
        >>> Ancestral().times(ForwardProcess(3, LinearLogSNR(10.0, -10.0), steps=4))
        [1.0, 0.75, 0.5, 0.25]
    """

    def times(self, process: ForwardProcess) -> list[float]:
        """i/T for i = T, …, 1."""
        if process.steps is None:
            raise ValueError("'process' is in continuous time, of which no sampler visits all: use Strided(steps).")
        return _times(process, process.steps)

    def step(self, reverse: Reverse, z_t: Tensor, s: Tensor, t: Tensor, *condition: Tensor) -> Tensor:
        """Draws from p(z_s | z_t)."""
        drawn: Tensor = reverse(z_t, s, t, *condition).sample()
        return drawn


@final
class Strided(Sampler):
    r"""Some of the T steps, $z_s \sim p_\theta(z_s \mid z_t)$ with s the next of those that are visited.

    Args:
        steps: how many steps to visit, S, evenly from T to 1, or which, falling from T to 1; of continuous time, in how
            many steps to go from 1 to 0.

    Raises:
        ValueError: for fewer than two steps, for steps that do not fall, and, when it is used, for more or other steps
            than the process has.

    References:
        Nichol & Dhariwal (2021), Improved Denoising Diffusion Probabilistic Models, section 4.

    Example:
        >>> from pyro_lvm.diffusion import LinearLogSNR
        >>> process = ForwardProcess(3, LinearLogSNR(10.0, -10.0), steps=10)
        >>> Strided(4).times(process), Strided((10, 2, 1)).times(process)
        ([1.0, 0.7, 0.4, 0.1], [1.0, 0.2, 0.1])
    """

    def __init__(self, steps: int | Sequence[int]) -> None:
        self.steps = _checked(steps)

    def times(self, process: ForwardProcess) -> list[float]:
        """Those of the steps."""
        return _times(process, self.steps)

    def step(self, reverse: Reverse, z_t: Tensor, s: Tensor, t: Tensor, *condition: Tensor) -> Tensor:
        """Draws from p(z_s | z_t)."""
        drawn: Tensor = reverse(z_t, s, t, *condition).sample()
        return drawn


@final
class DDIM(Sampler):
    r"""$z_s = \sqrt{\bar\alpha_s}\, \hat x + \sqrt{1 - \bar\alpha_s - \sigma^2}\, \hat\varepsilon + \sigma \epsilon$.

    $\sigma^2 = \eta^2 \tilde\beta$ and s is the next of the steps that are visited. Without noise of its own, η = 0, it
    is a map: the same z_T always gives the same z_1, and few steps do. With η = 1 it is the ancestral step of
    `SmallVariance`. It reads no variance of the process.

    Args:
        steps: which steps to visit, see `Strided`.
        eta: η, how much of the noise that a step could have it has, from 0 to 1.

    Raises:
        ValueError: as `Strided`, and for η outside [0, 1].

    References:
        Song, Meng & Ermon (2021), Denoising Diffusion Implicit Models.

    Example:
        >>> from pyro_lvm.diffusion import LinearSchedule, SmallVariance, Start
        >>> from pyro_lvm.configuration import Part
        >>> class Nothing(Part):
        ...     def forward(self, z, t):
        ...         return torch.zeros_like(z)
        >>> reverse = Reverse(Nothing(), 3, LinearSchedule(100), Start(), SmallVariance())
        >>> DDIM(50).step(reverse, torch.ones(3), torch.tensor(0.02), torch.tensor(1.0))
        tensor([0.0633, 0.0633, 0.0633])
    """

    def __init__(self, steps: int | Sequence[int], eta: float = 0.0) -> None:
        if not 0 <= eta <= 1:
            raise ValueError(f"'eta' is a share of noise and must lie between 0 and 1, not {eta}.")
        self.steps, self.eta = _checked(steps), eta

    def times(self, process: ForwardProcess) -> list[float]:
        """Those of the steps."""
        return _times(process, self.steps)

    def step(self, reverse: Reverse, z_t: Tensor, s: Tensor, t: Tensor, *condition: Tensor) -> Tensor:
        """z_s."""
        prediction, event_dim = reverse.predict(z_t, t, *condition), len(reverse.data_shape)
        log_snr_s, log_snr_t = (over_event(reverse.schedule.log_snr(time), event_dim) for time in (s, t))
        share = -torch.expm1(log_snr_t - log_snr_s)  # β̃ / (1 − ᾱ_s)
        signal, noise = log_snr_s.sigmoid().sqrt(), (-log_snr_s).sigmoid().sqrt()
        z_s = signal * prediction.start + noise * (1 - self.eta**2 * share).sqrt() * prediction.noise
        return z_s + noise * self.eta * share.sqrt() * torch.randn_like(z_t) if self.eta else z_s


def _checked(steps: int | Sequence[int]) -> int | tuple[int, ...]:
    """A number of steps, or the steps themselves, if there are two or more and they fall."""
    if isinstance(steps, int):
        if steps < 2:
            raise ValueError(f"'steps' must be at least 2, the first and the last, not {steps}.")
        return steps
    given = tuple(steps)
    if len(given) < 2 or any(later >= earlier for earlier, later in pairwise(given)) or given[-1] != 1:
        raise ValueError(f"'steps' must be a number or fall from the process's last step to 1, not be {given}.")
    return given


def _times(process: ForwardProcess, steps: int | tuple[int, ...]) -> list[float]:
    T = process.steps
    if T is None:
        if not isinstance(steps, int):
            raise ValueError(f"'steps' = {steps} are steps, but the process is in continuous time: give their number.")
        return [step / steps for step in range(steps, -1, -1)]
    if isinstance(steps, int):
        if steps > T:
            raise ValueError(f"'steps' = {steps} are more than the {T} that the process has.")
        steps = tuple(T - round(i * (T - 1) / max(steps - 1, 1)) for i in range(steps))
    if steps[0] != T:
        raise ValueError(
            f"'steps' must begin with the process's last step, {T}, where there is only noise, not {steps}."
        )
    return [step / T for step in steps]
