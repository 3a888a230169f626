"""Words for numbers out of range, and a constant."""

from __future__ import annotations

import difflib
import math
import numbers
from typing import Any

LOG_2PI = math.log(2.0 * math.pi)


def check_integer(name: str, value: Any, low: int, high: int | None = None, fix: str = "") -> int:
    """Return an integer in low..high, or raise."""
    expected = f"an integer of at least {low}" if high is None else f"an integer in {low}..{high}"
    fix = fix or f"set {name}={low} or more"
    if not isinstance(value, numbers.Integral) or isinstance(value, bool):
        raise TypeError(f"'{name}' must be {expected}, got {value!r} of type {type(value).__name__}: {fix}.")
    number = int(value)
    if number < low or (high is not None and number > high):
        raise ValueError(f"'{name}' must be {expected}, got {number}: {fix}.")
    return number


def check_real(name: str, value: Any, low: float, *, strict: bool = False) -> float:
    """Return a finite number of at least `low` (above it where strict), or raise."""
    expected = f"a finite number {'above' if strict else 'of at least'} {low:g}"
    if not isinstance(value, numbers.Real) or isinstance(value, bool):
        raise TypeError(f"'{name}' must be {expected}, got {value!r} of type {type(value).__name__}: pass a float.")
    if not math.isfinite(value) or value < low or (strict and value == low):
        raise ValueError(f"'{name}' must be {expected}, got {value}: raise it.")
    return float(value)


def check_choice(name: str, value: Any, choices: tuple[str, ...]) -> str:
    """Return one of the choices, or raise naming the nearest."""
    if value in choices:
        return str(value)
    nearest = difflib.get_close_matches(str(value), choices, n=1, cutoff=0.5)
    fix = f"did you mean {nearest[0]!r}?" if nearest else f"use {choices[0]!r} if in doubt."
    raise ValueError(f"'{name}' must be one of {', '.join(map(repr, choices))}, got {value!r}: {fix}")
