"""Noise schedules: how much of a datum is left at time t of a diffusion."""

from abc import abstractmethod
from itertools import pairwise
from math import cos, pi
from typing import final

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from pyro_lvm.configuration import Part
from pyro_lvm.sizes import check_sizes

__all__ = [
    "ConstantSchedule",
    "CosineSchedule",
    "LearnedSchedule",
    "LinearLogSNR",
    "LinearSchedule",
    "NoiseSchedule",
    "SteppedSchedule",
    "check_falls",
    "squared_cosine",
]

# A time this near to a step, in steps, is taken for the step itself: i/T in single precision is off by up to 1e-4 of it
# at T = 1000, and the last steps of a cosine schedule are steep.
_NEAR = 1e-3


class NoiseSchedule(Part):
    r"""The log signal-to-noise ratio $\ell(t) = \log \bar\alpha_t - \log(1 - \bar\alpha_t)$ of a diffusion, abstract.

    $q(z_t \mid x) = \mathcal N(\sqrt{\bar\alpha_t}\, x, 1 - \bar\alpha_t)$ with $\bar\alpha_t = \sigma(\ell(t))$ and
    $1 - \bar\alpha_t = \sigma(-\ell(t))$, neither with a cancellation. Time runs from 0, the least noise, to 1. A chain
    of T steps reads the schedule at t = i/T, i = 1 … T; its step 0 is the datum itself.
    """

    @abstractmethod
    def log_snr(self, t: Tensor) -> Tensor:
        """ℓ(t), nats, for times (...) in [0, 1]: (...), falling with t."""

    @abstractmethod
    def slope(self, t: Tensor) -> Tensor:
        """dℓ/dt for times (...): (...), negative; differentiable by the schedule's own parameters."""


class SteppedSchedule(NoiseSchedule):
    r"""A schedule given by the noise $\beta_1 \dots \beta_T$ of its steps, abstract: $\bar\alpha_i = \prod_{j \le i} (1
    - \beta_j)$.

    At times i/T it is exact; between them ℓ is interpolated, and before 1/T extrapolated, linearly.

    Args:
        betas: β, T numbers in (0, 1).

    Attributes:
        log_snrs: ℓ(i/T), (T,).

    Raises:
        ValueError: where T < 1, or a β lies outside (0, 1).
    """

    log_snrs: Tensor

    def __init__(self, betas: list[float]) -> None:
        super().__init__()
        check_sizes(steps=len(betas))
        wrong = [(i, beta) for i, beta in enumerate(betas, 1) if not 0 < beta < 1]
        if wrong:
            step, beta = wrong[0]
            raise ValueError(
                f"a step's noise β must lie between 0 and 1, without both, but that of step {step} of {len(betas)} is "
                f"{beta:.6g}."
            )
        log_alpha = torch.log1p(-torch.tensor(betas, dtype=torch.float64)).cumsum(0)
        log_snrs = log_alpha - torch.log(-torch.expm1(log_alpha))
        # Made from the arguments: nothing to be saved.
        self.register_buffer("log_snrs", log_snrs.to(torch.get_default_dtype()), persistent=False)

    @property
    def steps(self) -> int:
        """T, how many steps it was made of."""
        return len(self.log_snrs)

    def log_snr(self, t: Tensor) -> Tensor:
        """ℓ(t), nats, for times (...) in [0, 1]: (...)."""
        if self.steps == 1:
            return self.log_snrs[0] + torch.zeros_like(t)
        place, left = self._place(t)
        at, after = self._ends(left)
        return at + (place - left) * (after - at)

    def slope(self, t: Tensor) -> Tensor:
        """dℓ/dt for times (...): (...), that of the line before t where t is a step."""
        if self.steps == 1:
            return torch.zeros_like(t)
        _, left = self._place(t)
        at, after = self._ends(left)
        return self.steps * (after - at)

    def _ends(self, left: Tensor) -> tuple[Tensor, Tensor]:
        """ℓ at both ends of lines, (...) each."""
        left = left.unsqueeze(-1)  # an index without dimensions is a number, which no graph can hold
        return self.log_snrs[left].squeeze(-1), self.log_snrs[left + 1].squeeze(-1)

    def _place(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Where among the steps t lies, counted from the first, and the number of the one before."""
        place = t * self.steps - 1
        nearest = place.round()
        place = torch.where((nearest - place).abs() < _NEAR, nearest, place)
        return place, (place.ceil() - 1).clamp(0, self.steps - 2).long()


@final
class ConstantSchedule(SteppedSchedule):
    r"""$\beta_i = \beta$ for all T steps.

    Args:
        steps: T.
        beta: β.

    Raises:
        ValueError: where T < 1, or β lies outside (0, 1).

    References:
        Sohl-Dickstein et al. (2015), Deep Unsupervised Learning using Nonequilibrium Thermodynamics.

    Example:
        >>> ConstantSchedule(5, beta=0.5).log_snr(torch.tensor([0.2, 0.6])).sigmoid()  # ᾱ after 1 and 3 steps
        tensor([0.5000, 0.1250])
    """

    def __init__(self, steps: int, beta: float) -> None:
        check_sizes(steps=steps)
        super().__init__([beta] * steps)


@final
class LinearSchedule(SteppedSchedule):
    r"""$\beta_i$ in equal steps from `first` to `last`.

    Args:
        steps: T.
        first, last: β_1 and β_T; where left out, 0.1/T and 20/T, which are 1e-4 and 0.02 at T = 1000 and leave as much
            of a datum at any T.

    Raises:
        ValueError: where T < 1, or a β lies outside (0, 1), as 20/T does for T ≤ 20.

    References:
        Ho, Jain & Abbeel (2020), Denoising Diffusion Probabilistic Models.

    Example:
        >>> LinearSchedule(1000).log_snr(torch.ones(())).sigmoid() < 1e-4
        tensor(True)
    """

    def __init__(self, steps: int, first: float | None = None, last: float | None = None) -> None:
        check_sizes(steps=steps)
        first, last = 0.1 / steps if first is None else first, 20 / steps if last is None else last
        super().__init__(torch.linspace(first, last, steps, dtype=torch.float64).tolist())


@final
class CosineSchedule(SteppedSchedule):
    r"""$\bar\alpha_t \propto \cos^2\left(\frac{t + o}{1 + o} \frac\pi2\right)$, noise that comes more evenly.

    Args:
        steps: T.
        offset: o, keeps β small at the first steps.
        largest: no β is larger.

    Raises:
        ValueError: where T < 1, `offset` is negative, or `largest` lies outside (0, 1).

    References:
        Nichol & Dhariwal (2021), Improved Denoising Diffusion Probabilistic Models.

    Example:
        >>> round(float(CosineSchedule(1000).log_snr(torch.tensor(0.5))), 2)
        -0.02
    """

    def __init__(self, steps: int, offset: float = 0.008, largest: float = 0.999) -> None:
        signal = squared_cosine(steps, offset)
        if not 0 < largest < 1:
            raise ValueError(f"'largest' bounds every β and must lie between 0 and 1, without both, not {largest}.")
        super().__init__([min(1 - after / before, largest) for before, after in pairwise(signal)])


@final
class LinearLogSNR(NoiseSchedule):
    r"""$\ell(t) = \mathrm{high} + (\mathrm{low} - \mathrm{high})\, t$, for any number of steps and continuous time.

    Args:
        high: ℓ(0), nats.
        low: ℓ(1), nats.

    Raises:
        ValueError: where the schedule does not fall, high ≤ low.

    References:
        Kingma, Salimans, Poole & Ho (2021), Variational Diffusion Models.

    Example:
        >>> LinearLogSNR(10.0, -10.0).log_snr(torch.tensor([0.0, 0.5, 1.0]))
        tensor([ 10.,   0., -10.])
    """

    def __init__(self, high: float = 13.3, low: float = -5.0) -> None:
        super().__init__()
        _check_ends(high, low)
        self.high, self.low = high, low

    def log_snr(self, t: Tensor) -> Tensor:
        """ℓ(t), nats, for times (...): (...)."""
        return self.high + (self.low - self.high) * t

    def slope(self, t: Tensor) -> Tensor:
        """dℓ/dt for times (...): (...)."""
        return torch.full_like(t, self.low - self.high)


@final
class LearnedSchedule(NoiseSchedule):
    r"""$\ell(t) = \mathrm{high} + (\mathrm{low} - \mathrm{high}) \frac{m(t) - m(0)}{m(1) - m(0)}$, all of it learned.

    $m(t) = a t + \sum_k c_k \sigma(w_k (t - o_k))$ with positive a, c and w rises with t. It starts as a line. The ends
    decide what the bound is in continuous time, the way between them only how much its estimate varies.

    Args:
        high, low: ℓ(0) and ℓ(1) to begin with, nats.
        features: how many terms m has.

    Raises:
        ValueError: where the schedule does not fall, high ≤ low, or `features` < 1.

    References:
        Kingma, Salimans, Poole & Ho (2021), Variational Diffusion Models.

    Example:
        >>> schedule = LearnedSchedule(10.0, -10.0)
        >>> bool(schedule.slope(torch.linspace(0.0, 1.0, 9)).lt(0).all())
        True
    """

    def __init__(self, high: float = 13.3, low: float = -5.0, features: int = 32) -> None:
        super().__init__()
        _check_ends(high, low)
        check_sizes(features=features)
        self.high = nn.Parameter(torch.tensor(float(high)))
        self.raw_range = nn.Parameter(_inverse_softplus(torch.tensor(float(high - low))))
        self.raw_line = nn.Parameter(_inverse_softplus(torch.tensor(1.0)))
        # Small to begin with: a line, with a gradient to every term.
        self.raw_weights = nn.Parameter(_inverse_softplus(torch.full((features,), 0.1 / features)))
        self.raw_sharpness = nn.Parameter(torch.full((features,), 5.0))
        self.places = nn.Parameter((torch.arange(features) + 0.5) / features)

    def log_snr(self, t: Tensor) -> Tensor:
        """ℓ(t), nats, for times (...): (...)."""
        start, end = self._rise(torch.zeros_like(self.high)), self._rise(torch.ones_like(self.high))
        return self.high - softplus(self.raw_range) * (self._rise(t) - start) / (end - start)

    def slope(self, t: Tensor) -> Tensor:
        """dℓ/dt for times (...): (...)."""
        start, end = self._rise(torch.zeros_like(self.high)), self._rise(torch.ones_like(self.high))
        share = self._sigmoids(t)
        terms = softplus(self.raw_weights) * softplus(self.raw_sharpness) * share * (1 - share)
        return -softplus(self.raw_range) * (softplus(self.raw_line) + terms.sum(-1)) / (end - start)

    def _rise(self, t: Tensor) -> Tensor:
        """m(t)."""
        return softplus(self.raw_line) * t + (softplus(self.raw_weights) * self._sigmoids(t)).sum(-1)

    def _sigmoids(self, t: Tensor) -> Tensor:
        return (softplus(self.raw_sharpness) * (t.unsqueeze(-1) - self.places)).sigmoid()


def squared_cosine(steps: int, offset: float) -> list[float]:
    r"""$\cos^2\left(\frac{t/T + o}{1 + o} \frac\pi2\right)$ for t = 0 … T, to which ᾱ is in proportion.

    Raises:
        ValueError: where T < 1, or `offset` is negative or infinite.
    """
    check_sizes(steps=steps)
    if not 0 <= offset < float("inf"):
        raise ValueError(f"'offset' delays the noise and must be 0 or more, not {offset}.")
    return [cos((t / steps + offset) / (1 + offset) * pi / 2) ** 2 for t in range(steps + 1)]


def check_falls(schedule: NoiseSchedule, steps: int) -> None:
    """Refuses a schedule that does not fall from step to step of T, such as one of your own.

    Raises:
        ValueError: where it does not.

    Example:
        >>> check_falls(LinearLogSNR(), 100)
    """
    t = torch.arange(1, steps + 1, dtype=torch.float64) / steps
    with torch.no_grad():
        values = schedule.log_snr(t)
    rises = (values.diff() >= 0) | values[1:].isnan()
    if rises.any():
        step = int(rises.nonzero()[0]) + 1
        raise ValueError(
            f"'schedule' must be monotone, its log signal-to-noise ratio falling with time, but from step {step} to "
            f"{step + 1} of {steps} it goes from {float(values[step - 1]):.6g} to {float(values[step]):.6g}."
        )


def _check_ends(high: float, low: float) -> None:
    if not (float("inf") > high > low > -float("inf")):
        raise ValueError(
            f"the schedule must be monotone, its log signal-to-noise ratio falling from 'high' to a smaller 'low', "
            f"both finite, not from {high} to {low}."
        )


def _inverse_softplus(y: Tensor) -> Tensor:
    return y + torch.log(-torch.expm1(-y))
