"""Annealing schedules: small functions of the time in epochs, for an objective's weights."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from math import tanh


@dataclass(frozen=True)
class Schedule(ABC):
    """A weight that goes from `start` to `end` as training goes on, abstract.

    Args:
        start, end: the weight at the start, and at the end and ever after; not negative.
        epochs: how long it takes.

    Raises:
        ValueError: for a negative weight, or a time that is not positive.
    """

    start: float
    end: float
    epochs: float

    def __post_init__(self) -> None:
        for name in ("start", "end"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ValueError(f"'{name}' is a weight and must be 0 or more, not {getattr(self, name)!r}.")
        if not self.epochs > 0:
            raise ValueError(f"'epochs' is the time the schedule takes and must be positive, not {self.epochs!r}.")

    def __call__(self, time: float) -> float:
        """The weight after `time` epochs."""
        return self.start + (self.end - self.start) * self.progress(time / self.epochs)

    @abstractmethod
    def progress(self, share: float) -> float:
        """How far it has come, from 0 to 1, when this share of its time has passed."""


@dataclass(frozen=True)
class Linear(Schedule):
    """A straight line from `start` to `end`.

    References:
        Bowman et al. (2016), Generating Sentences from a Continuous Space. Sønderby et al. (2016), Ladder Variational
        Autoencoders (warm-up).

    Example:
        >>> warm_up = Linear(0.0, 1.0, epochs=10)
        >>> warm_up(0), warm_up(5), warm_up(100)
        (0.0, 0.5, 1.0)
    """

    def progress(self, share: float) -> float:
        """How far it has come."""
        return min(1.0, share)


@dataclass(frozen=True)
class Sigmoid(Schedule):
    """A logistic step from `start` to `end`, halfway at half the time.

    Args:
        steepness: the slope of the logistic function over the whole time; large values make a sudden step.

    Raises:
        ValueError: for a steepness that is not positive.

    References:
        Bowman et al. (2016), Generating Sentences from a Continuous Space.

    Example:
        >>> step = Sigmoid(0.0, 1.0, epochs=10)
        >>> step(0), round(step(2), 3), step(5), step(100)
        (0.0, 0.041, 0.5, 1.0)
    """

    steepness: float = 10.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.steepness > 0:
            raise ValueError(f"'steepness' must be positive, not {self.steepness!r}.")

    def progress(self, share: float) -> float:
        """How far it has come."""
        return (1 + tanh(self.steepness * (min(1.0, share) - 0.5) / 2) / tanh(self.steepness / 4)) / 2


@dataclass(frozen=True)
class Cyclical(Schedule):
    """Straight lines from `start` to `end`, begun anew `cycles` times; each rests at `end` for the rest of its cycle.

    Args:
        cycles: how often it rises in `epochs`.
        ramp: share of a cycle that it rises for.

    Raises:
        ValueError: for less than one cycle, or a ramp outside (0, 1].

    References:
        Fu et al. (2019), Cyclical Annealing Schedule: A Simple Approach to Mitigating KL Vanishing.

    Example:
        >>> cycles = Cyclical(0.0, 1.0, epochs=40, cycles=4, ramp=0.5)
        >>> cycles(0), cycles(2.5), cycles(7), cycles(10), cycles(12.5), cycles(100)
        (0.0, 0.5, 1.0, 0.0, 0.5, 1.0)
    """

    cycles: int = 4
    ramp: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.cycles < 1:
            raise ValueError(f"'cycles' must be at least 1, not {self.cycles!r}.")
        if not 0 < self.ramp <= 1:
            raise ValueError(f"'ramp' is a share of a cycle and must lie in (0, 1], not {self.ramp!r}.")

    def progress(self, share: float) -> float:
        """How far it has come."""
        return 1.0 if share >= 1 else min(1.0, share * self.cycles % 1 / self.ramp)
