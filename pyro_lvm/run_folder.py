"""The folder a run writes: what it was asked, what happened, and the weights it ended with."""

import csv
import io
import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pyro_lvm.saving import save, write_atomically

__all__ = ["RunFolder"]

SECONDS_BETWEEN_WEIGHTS = 20.0


class RunFolder:
    """A run's `config.json`, `history.csv` and `model.safetensors`.

    Args:
        path: the folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._rows: list[Mapping[str, float]] = []
        self._last_weights = time.monotonic()

    @staticmethod
    def create(path: Path, config: Mapping[str, Any]) -> "RunFolder":
        """Makes the folder and writes its settings, before any training.

        Raises:
            FileExistsError: where the folder holds something already.
            OSError: where it cannot be written.
        """
        try:
            path.mkdir(parents=True, exist_ok=True)
            occupied = any(path.iterdir())
        except (FileExistsError, NotADirectoryError):
            raise FileExistsError(f"'run_dir' = '{path}' cannot be a folder: a file is in the way.") from None
        except OSError as error:
            raise OSError(f"'run_dir' = '{path}' cannot be made: {error.strerror}.") from error
        if occupied:
            raise FileExistsError(
                f"'run_dir' = '{path}' is not empty: a run never writes over another; name a new folder."
            )
        folder = RunFolder(path)
        try:
            write_atomically(path / "config.json", (json.dumps(dict(config), indent=2) + "\n").encode())
        except OSError as error:
            raise OSError(f"'run_dir' = '{path}' cannot be written: {error.strerror}.") from error
        return folder

    def write_epoch(self, row: Mapping[str, float]) -> None:
        """Adds a row to the history on disk."""
        self._rows.append(row)
        columns = list(dict.fromkeys(name for row in self._rows for name in row))
        text = io.StringIO()
        writer = csv.DictWriter(text, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(self._rows)
        write_atomically(self.path / "history.csv", text.getvalue().encode())

    def write_programs(self, model: Callable[..., Any], guide: Callable[..., Any]) -> None:
        """Writes the weights."""
        save(self.path, model, guide)
        self._last_weights = time.monotonic()

    def write_programs_if_due(self, model: Callable[..., Any], guide: Callable[..., Any]) -> None:
        """Writes the present weights unless that was done a short while ago: a run that is killed loses little."""
        if time.monotonic() - self._last_weights >= SECONDS_BETWEEN_WEIGHTS:
            self.write_programs(model, guide)

    def config(self) -> dict[str, Any]:
        """The run's settings.

        Raises:
            ValueError: where the folder holds no run, or its settings are damaged.
        """
        file = self.path / "config.json"
        if not file.is_file():
            raise ValueError(f"'{self.path}' is no run folder: it has no config.json.")
        try:
            config = json.loads(file.read_text())
        except json.JSONDecodeError as error:
            raise ValueError(f"'{file}' is damaged: {error}.") from error
        return dict(config)

    def history(self) -> list[dict[str, float]]:
        """The rows written so far."""
        file = self.path / "history.csv"
        if not file.is_file():
            return []
        with file.open() as lines:
            return [{k: float(v) for k, v in row.items() if v} for row in csv.DictReader(lines)]
