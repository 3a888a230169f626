"""The folder a run writes: what it was asked, what happened, the weights it ended with, and where to go on from."""

import csv
import io
import json
import logging
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pyro_lvm.checkpoint import read_checkpoint, write_checkpoint
from pyro_lvm.saving import TEMPORARY, save, write_atomically

try:
    import fcntl
except ImportError:  # not on Windows, where nothing stops two runs from writing one folder
    fcntl = None  # type: ignore[assignment]

__all__ = ["RunFolder"]

SECONDS_BETWEEN_WEIGHTS = 5.0
CHECKPOINTS_KEPT = 2

_QUICK = 0.25  # seconds; a writing that takes longer is done as much less often
_LOCK = ".lock"
_CHECKPOINT = re.compile(r"checkpoint-(\d+)\.safetensors")
_TEMPORARY = re.compile(
    rf"\.(config\.json|history\.csv|{_CHECKPOINT.pattern}|model\.safetensors)\..*{re.escape(TEMPORARY)}"
)
_RESULTS = re.compile(r"history\.csv|model\.safetensors|evaluation\.json|posterior\.nc|report\.html|samples\.png")

_log = logging.getLogger("pyro_lvm")


class RunFolder:
    """A run's `config.json`, `history.csv`, `model.safetensors` and checkpoints.

    To write, enter what `create` or `reopen` returns; the folder is that run's alone until it is left.

    Args:
        path: the folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._rows: list[Mapping[str, float]] = []
        self._columns: list[str] = []  # of the file
        self._state: dict[str, Any] | None = None  # of the last finished epoch
        self._written = -1  # epoch of the newest checkpoint
        self._last_weights, self._cost = time.monotonic(), 0.0
        self._told = False
        self._lock: int | None = None

    @staticmethod
    def create(path: Path, config: Mapping[str, Any], *, overwrite: bool = False) -> "RunFolder":
        """Makes the folder and writes its settings, before any training.

        Args:
            path: the folder.
            config: the settings.
            overwrite: remove what another run has left there.

        Raises:
            FileExistsError: where the folder holds something already, or another run is writing it.
            OSError: where it cannot be written.
        """
        folder = RunFolder(path)
        try:
            path.mkdir(parents=True, exist_ok=True)
            folder._refuse_to_overwrite(overwrite)
        except (FileExistsError, NotADirectoryError) as error:
            if path.is_dir():
                raise
            raise FileExistsError(f"'run_dir' = '{path}' cannot be a folder: a file is in the way.") from error
        except OSError as error:
            raise OSError(f"'run_dir' = '{path}' cannot be made: {error.strerror}.") from error
        folder._acquire()
        try:
            folder._refuse_to_overwrite(overwrite)  # another run may have come and gone since
            with folder._worded():
                for pattern in (_CHECKPOINT, _TEMPORARY, _RESULTS):
                    folder._remove(pattern)
                folder._write_config(config)
        except BaseException:
            folder._release()
            raise
        return folder

    @staticmethod
    def reopen(path: Path, config: Mapping[str, Any]) -> "RunFolder":
        """The folder of a run to continue, or a new one where none has got as far as to leave a checkpoint.

        Raises:
            ValueError: where it holds something, but no checkpoint.
            FileExistsError: where another run is writing it.
            OSError: where it cannot be written.
        """
        folder = RunFolder(path)
        if path.is_dir() and folder._checkpoints():
            folder._acquire()
            folder._remove(_TEMPORARY)  # of a run that was killed as it wrote them
            return folder
        names = folder._names() if path.is_dir() else set()
        if names - {"config.json"}:
            raise ValueError(
                f"'run_dir' = '{path}' holds no checkpoint to resume from: name a folder that a run has left one in, "
                "or a new one."
            )
        return RunFolder.create(path, config, overwrite=bool(names))

    def __enter__(self) -> "RunFolder":
        return self

    def __exit__(self, *_: object) -> None:
        self._release()

    def newest_checkpoint(self) -> dict[str, Any] | None:
        """The newest state that can be read; None in a new folder.

        Raises:
            ValueError: where there are checkpoints, and all are damaged.
        """
        faults = []
        for epoch, file in self._checkpoints():
            try:
                state = read_checkpoint(file)
            except (ValueError, OSError) as error:
                faults.append(str(error))
                _log.warning("%s It is left out.", error)
                continue
            self._state, self._written = state, epoch
            return state
        if faults:
            raise ValueError(
                f"'run_dir' = '{self.path}' cannot be resumed, for no checkpoint is whole: {faults[0]} Train anew, "
                "with overwrite=True."
            )
        return None

    def begin(self, state: dict[str, Any]) -> None:
        """Writes the state before the first epoch: what cannot be written is known before any training.

        Raises:
            TypeError: for a state that no file can hold.
            OSError: where it cannot be written.
        """
        with self._worded():
            self._write_checkpoint(state)

    def go_on(self, rows: Sequence[Mapping[str, float]], epochs: int) -> None:
        """Makes the history and the settings those of the run that goes on for so many epochs.

        Raises:
            OSError: where they cannot be written.
        """
        self._rows = list(rows)
        config = self.config()
        with self._worded():
            for file in self._up_to(self._written)[CHECKPOINTS_KEPT:]:  # a kill may have come before they went
                file.unlink()
            self._write_history()
            if config.get("epochs", epochs) != epochs:
                self._write_config(config | {"epochs": epochs})

    def write_epoch(self, row: Mapping[str, float]) -> None:
        """Adds a row to the history on disk."""
        self._rows.append(row)
        if list(row) != self._columns:
            self._write_history()
            return
        # A line is added, for writing the whole again would take longer with every epoch.
        line = io.StringIO()
        csv.DictWriter(line, self._columns, lineterminator="\n").writerow(row)
        columns, self._columns = self._columns, []  # if this fails, the line may be torn: the next row writes all
        with (self.path / "history.csv").open("a") as file:
            file.write(line.getvalue())
        self._columns = columns

    def remember(self, state: dict[str, Any]) -> None:
        """Takes the state to go on from, to be written when that is due."""
        self._state = state

    def write_if_due(self, model: Callable[..., Any], guide: Callable[..., Any]) -> None:
        """Writes the state and the present weights if that was last done a while ago: a killed run loses little."""
        pause = SECONDS_BETWEEN_WEIGHTS * max(1.0, self._cost / _QUICK)
        if time.monotonic() - self._last_weights >= pause:
            self.write(model, guide)

    def write(self, model: Callable[..., Any], guide: Callable[..., Any]) -> None:
        """Writes the present weights, the history, and the state of the last finished epoch."""
        start = time.monotonic()
        try:
            self._write_history()
            save(self.path, model, guide)
            if self._state is not None and len(self._state["history"]) != self._written:
                self._write_checkpoint(self._state)
            self._told = False
        finally:
            self._last_weights = time.monotonic()
            self._cost = self._last_weights - start

    def finish(self, model: Callable[..., Any], guide: Callable[..., Any]) -> None:
        """The same at the end, with the weights to end with.

        Raises:
            OSError: where they cannot be written.
        """
        with self._worded(" The trained programs are in memory: pyro_lvm.save writes them elsewhere."):
            self.write(model, guide)

    @contextmanager
    def forgiving(self) -> Iterator[None]:
        """Says once that the folder cannot be written, and goes on: what is there is whole, and it is tried again."""
        try:
            yield
        except OSError as error:
            if not self._told:
                _log.warning(
                    "'run_dir' = '%s' cannot be written: %s. What was saved before is whole, and this stops no run.",
                    self.path,
                    error.strerror or error,
                )
            self._told = True

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

    def _write_checkpoint(self, state: dict[str, Any]) -> None:
        epoch = len(state["history"])
        write_checkpoint(self.path / f"checkpoint-{epoch}.safetensors", state)
        self._state, self._written = state, epoch
        # A later one than this was left out as damaged when the run was resumed.
        kept = self._up_to(epoch)[:CHECKPOINTS_KEPT]
        for _, file in self._checkpoints():
            if file not in kept:
                file.unlink()

    def _write_history(self) -> None:
        file = self.path / "history.csv"
        self._columns = []
        if not self._rows:
            file.unlink(missing_ok=True)
            return
        columns = list(dict.fromkeys(name for row in self._rows for name in row))
        text = io.StringIO()
        writer = csv.DictWriter(text, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(self._rows)
        write_atomically(file, text.getvalue().encode())
        self._columns = columns

    def _write_config(self, config: Mapping[str, Any]) -> None:
        write_atomically(self.path / "config.json", (json.dumps(dict(config), indent=2) + "\n").encode())

    def _checkpoints(self) -> list[tuple[int, Path]]:
        """Epochs and files, the newest first."""
        found = ((_CHECKPOINT.fullmatch(file.name), file) for file in self.path.iterdir())
        return sorted(((int(match[1]), file) for match, file in found if match), reverse=True)

    def _up_to(self, epoch: int) -> list[Path]:
        """Checkpoints of this epoch and earlier ones, the newest first."""
        return [file for number, file in self._checkpoints() if number <= epoch]

    def _names(self) -> set[str]:
        """What the folder holds but for the lock and unfinished files."""
        names = {file.name for file in self.path.iterdir()} - {_LOCK}
        return {name for name in names if not _TEMPORARY.fullmatch(name)}

    def _remove(self, names: re.Pattern[str]) -> None:
        for file in self.path.iterdir():
            if names.fullmatch(file.name):
                file.unlink()

    def _refuse_to_overwrite(self, overwrite: bool) -> None:
        names = self._names()
        if names and not overwrite:
            raise FileExistsError(
                f"'run_dir' = '{self.path}' is not empty: a run never writes over another; name a new folder, or give "
                "overwrite=True."
            )
        if names and "config.json" not in names:
            raise FileExistsError(
                f"'run_dir' = '{self.path}' is not empty and no run's folder, so 'overwrite' leaves it alone: name a "
                "new folder."
            )

    def _acquire(self) -> None:
        """Locks the folder until it is left or the process ends, however it does.

        Raises:
            FileExistsError: where another run has it.
            OSError: where it cannot be written.
        """
        with self._worded():
            self._lock = os.open(self.path / _LOCK, os.O_RDWR | os.O_CREAT, 0o644)
        if fcntl is None:
            return
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._release()
            raise FileExistsError(
                f"'run_dir' = '{self.path}' is being written by another run: wait for its end, or name another folder."
            ) from None
        except OSError as error:  # a network's file system, perhaps
            _log.warning(
                "'run_dir' = '%s' cannot be locked (%s): start no second run in it.", self.path, error.strerror
            )

    def _release(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    @contextmanager
    def _worded(self, advice: str = "") -> Iterator[None]:
        try:
            yield
        except OSError as error:
            why = error.strerror or error
            raise OSError(f"'run_dir' = '{self.path}' cannot be written: {why}.{advice}") from error
