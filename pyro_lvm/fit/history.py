"""What a run of `fit` leaves behind: a row per epoch, and the result around them."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, overload

__all__ = ["FitResult", "History"]


class History(Sequence[dict[str, float]]):
    """One row per epoch; `history[-1]` is the last row, `history["train"]` a column.

    Columns, in nats per datum but for the first and the last three: `epoch` from 1; `train`, the objective's bound, its
    mean over the epoch's steps with the weights of each; `validation`, the bound that early stopping compares (higher
    is better): the same, but an annealed one as it is at the end, an upper bound's lower one, and that of the averaged
    weights where they are averaged, as are the columns after it; then, on the validation data (some of the training
    data without any), `elbo`, the evidence lower bound whatever the objective, and its parts: `reconstruction`, E[log
    p(x | z)], and `kl_<site>`, each latent's divergence E[log q − log p]; `bits_per_dimension` of discrete data,
    −validation (or −train) / (D log 2); `learning_rate`; `seconds` since the start, without those between a stop and
    what resumed the run.
    """

    def __init__(self) -> None:
        self._rows: list[dict[str, float]] = []

    def append(self, row: dict[str, float]) -> None:
        """Adds an epoch."""
        self._rows.append(row)

    @property
    def columns(self) -> list[str]:
        """Names of the columns."""
        return list(dict.fromkeys(name for row in self._rows for name in row))

    @overload
    def __getitem__(self, key: int) -> dict[str, float]: ...
    @overload
    def __getitem__(self, key: str) -> list[float]: ...
    @overload
    def __getitem__(self, key: slice) -> list[dict[str, float]]: ...
    def __getitem__(self, key: int | str | slice) -> dict[str, float] | list[float] | list[dict[str, float]]:
        if isinstance(key, str):
            if key not in self.columns:
                raise KeyError(f"the history has no column {key!r}; it has {', '.join(self.columns)}.")
            return [row.get(key, math.nan) for row in self._rows]
        return self._rows[key]

    def __len__(self) -> int:
        return len(self._rows)


@dataclass
class FitResult:
    """What a run of `fit` leaves behind.

    Attributes:
        model, guide: the programs that were given, trained in place.
        history: one row per epoch; see `History`.
        best_epoch: the epoch, from 1, whose weights, or their average as it was then, the programs have: the best by
            validation where training may stop early, else the last.
        stopped_early: whether the validation objective ended the run.
        seconds: the run's.
        run_dir: where it was written, or None.
    """

    model: Callable[..., Any]
    guide: Callable[..., Any]
    history: History = field(default_factory=History)
    best_epoch: int = 0
    stopped_early: bool = False
    seconds: float = 0.0
    run_dir: Path | None = None
