"""What a run must have in common with the one it continues: its settings, programs and data, in words."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pyro_lvm.objectives.schedules import Schedule

__all__ = ["check_same", "describe"]


def check_same(now: Mapping[str, Any], before: Mapping[str, Any], path: Path) -> None:
    """Raises where a run with other settings, programs or data is in the folder `path`."""
    for name, value in now.items():
        earlier = before.get(name)
        if name == "parameters" and value != earlier:
            different = sorted(n for n in {**value, **before[name]} if value.get(n) != before[name].get(n))
            raise ValueError(
                f"'model' or 'guide' is not what the run in '{path}' trained: they differ in {different[:3]}; give "
                "the same programs, or another 'run_dir'."
            )
        if value != earlier:
            raise ValueError(
                f"'{name}' is {_words(value)}, but {_words(earlier)} in the run in '{path}': give what it began "
                "with, or another 'run_dir'."
            )


def describe(objective: Any) -> str:
    """An objective's class and settings."""
    plain = (bool, int, float, str, Schedule)
    # Pyro's: the first it finds out by itself, the others change no loss.
    skipped = ("max_plate_nesting", "strict_enumeration_warning", "ignore_jit_warnings", "tail_adaptive_beta")
    found = sorted(vars(objective).items())  # what is private comes first, and goes where a public name is the same
    values = {name.lstrip("_"): v for name, v in found if isinstance(v, plain) and name not in skipped}
    return f"{type(objective).__name__}({', '.join(f'{name}={value!r}' for name, value in sorted(values.items()))})"


def _words(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
