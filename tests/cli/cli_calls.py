"""What a call of the command line gave, settings that make a run short, and what may stop it."""

from collections.abc import Callable
from dataclasses import dataclass

import pytest

from pyro_lvm.run_folder import RunFolder

SMALL = ("--epochs", "2", "--evaluation-particles", "30", "--evaluation-limit", "8")


@dataclass
class Called:
    status: int
    out: str
    err: str


Call = Callable[..., Called]


def after_epoch(epoch: int, action: Callable[[], None], monkeypatch: pytest.MonkeyPatch) -> None:
    """Has something happen once a run has written this epoch."""
    written = RunFolder.write_epoch

    def write_and_act(self: RunFolder, row: dict[str, float]) -> None:
        written(self, row)
        if row["epoch"] == epoch:
            action()

    monkeypatch.setattr(RunFolder, "write_epoch", write_and_act)
