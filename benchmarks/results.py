"""What a benchmark reports, and how it is kept as JSON."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any


@dataclass(frozen=True)
class Spread:
    """Smallest, middle and largest of several measurements."""

    minimum: float
    median: float
    maximum: float

    @classmethod
    def of(cls, values: Iterable[float]) -> "Spread":
        """The spread of some numbers."""
        values = list(values)
        return cls(min(values), median(values), max(values))

    def __str__(self) -> str:
        return f"{number(self.median)} ({number(self.minimum)} – {number(self.maximum)})"


@dataclass(frozen=True)
class Bar:
    """What a ratio is to be.

    Args:
        what: the ratio in words.
        ratio: as measured; its median counts.
        limit: the bar.
        at_least: whether the ratio is to be that or more; else that or less.
    """

    what: str
    ratio: Spread
    limit: float
    at_least: bool

    @property
    def met(self) -> bool:
        """Whether it is."""
        return self.ratio.median >= self.limit if self.at_least else self.ratio.median <= self.limit


Row = dict[str, "str | float | Spread"]  # column -> cell


@dataclass
class Result:
    """What a benchmark reports.

    Attributes:
        title: what was measured.
        rows: of its table.
        bars: what it is held against.
        notes: sentences below the table.
    """

    title: str
    rows: list[Row] = field(default_factory=list)
    bars: list[Bar] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """For a JSON file; rounded to six digits, which is more than any timer is good for."""
        return _rounded(asdict(self))

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> "Result":
        """From a JSON file."""
        rows = [{name: _cell(value) for name, value in row.items()} for row in record["rows"]]
        bars = [Bar(**{**bar, "ratio": Spread(**bar["ratio"])}) for bar in record["bars"]]
        return cls(record["title"], rows, bars, record["notes"])


def number(value: float) -> str:
    """A number with three significant digits, without an exponent."""
    digits = 0 if value >= 100 else 1 if value >= 10 else 2 if value >= 1 else 3
    return f"{value:,.{digits}f}"


def ratios(above: Sequence[float], below: Sequence[float]) -> Spread:
    """The spread of one contender's times over another's, round by round."""
    return Spread.of(a / b for a, b in zip(above, below, strict=True))


def _cell(value: Any) -> "str | float | Spread":
    return Spread(**value) if isinstance(value, dict) else value


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, dict):
        return {name: _rounded(part) for name, part in value.items()}
    return [_rounded(part) for part in value] if isinstance(value, list) else value
