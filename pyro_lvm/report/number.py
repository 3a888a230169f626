"""A number of a report."""

from dataclasses import dataclass
from math import floor, isfinite, isnan, log10
from typing import final


@final
@dataclass(frozen=True)
class Number:
    """A result with what it means.

    Args:
        name: what it is called.
        value: the number.
        unit: what it is measured in, for instance `"nats per datum"`; empty for counts and ratios.
        meaning: one sentence for a reader who does not know the word, and how it was computed.
        standard_error: of the value, in its unit; None where it is exact or unknown.

    Example:
        >>> Number("log-likelihood", -134.2143, "nats per datum", "Higher is better.", standard_error=0.123).text
        '−134.21 ± 0.12'
    """

    name: str
    value: float
    unit: str
    meaning: str
    standard_error: float | None = None

    @property
    def text(self) -> str:
        """The value with as many digits as its standard error, which has two, allows; five where there is none."""
        if self.standard_error is None or not isfinite(self.value):
            return shown(self.value)
        error = float(self.standard_error)
        if not (isfinite(error) and error > 0):
            return f"{shown(self.value)} ± {shown(error)}"
        decimals = min(max(0, 1 - floor(log10(error))), 9)
        return f"{self.value:.{decimals}f} ± {error:.{decimals}f}".replace("-", "−")


def shown(value: float) -> str:
    """A number with five digits, whole numbers with all of theirs, and a typographic minus."""
    number = float(value)
    if isnan(number):
        return "n/a"
    if not isfinite(number):
        return str(number).replace("-", "−")
    text = f"{number:.0f}" if number == int(number) and abs(number) < 1e15 else f"{number:.5g}"
    return text.replace("-", "−")
