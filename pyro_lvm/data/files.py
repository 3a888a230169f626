"""Reading a user's own .npy, .npz and .csv files into arrays, without ever unpickling."""

import csv
import math
from pathlib import Path
from typing import Any

import numpy as np

from pyro_lvm.data.checks import DataError
from pyro_lvm.data.mapped import MappedDataset, is_large
from pyro_lvm.data.npy import file_errors, read_header

Arrays = dict[str, np.ndarray[Any, Any]]

SUFFIXES = (".npy", ".npz", ".csv")
_SPLITS = ("train", "validation", "test")


def read_file(path: Path) -> tuple[dict[str, np.ndarray[Any, Any] | MappedDataset], Arrays]:
    """Read the arrays of a file.

    - ``.npy``: one array, which becomes ``"train"``. One that would take more than 512 MiB as float32 stays in the
      file, and its rows are read as they are used (`MappedDataset`).
    - ``.npz``: arrays ``train`` and perhaps ``validation`` and ``test``, with labels in ``train_labels`` and so on; or
      ``images`` and perhaps ``labels``; or a single array of any name.
    - ``.csv``: a table of numbers separated by commas, one example per row. The first row is a header if none of its
      cells is a number.

    Args:
        path: The file.

    Returns:
        The examples and the labels, each by name of split.

    Raises:
        DataError: The file is missing, unreadable, malformed, of another kind, or holds text or Python objects; an
            ``.npz`` does not fit into memory; a large ``.npy`` is in Fortran order.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "table.csv"
        ...     _ = path.write_text("height,weight\\n1.80,81\\n1.62,55\\n")
        ...     read_file(path)
        ({'train': array([[ 1.8 , 81.  ],
               [ 1.62, 55.  ]])}, {})
    """
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise DataError(f"'{path}' must be a file of kind {', '.join(SUFFIXES)}, but ends in {suffix!r}: convert it")
    if not path.is_file():
        raise DataError(f"'{path}' must be a file, but there is none: check the path")
    with file_errors(path):
        if suffix == ".csv":
            return {"train": _read_csv(path)}, {}
        # Opened here, because numpy leaves a file that it cannot make sense of open.
        with open(path, "rb") as file:
            if suffix == ".npy" and is_large(read_header(file)[0]):
                return {"train": MappedDataset(path)}, {}
            file.seek(0)
            loaded = np.load(file, allow_pickle=False)
            if isinstance(loaded, np.ndarray):
                return {"train": loaded}, {}
            values, labels = _choose({name: loaded[name] for name in loaded.files}, path)
            return {**values}, labels


def _choose(arrays: Arrays, path: Path) -> tuple[Arrays, Arrays]:
    if "train" in arrays:
        values = {name: arrays[name] for name in _SPLITS if name in arrays}
        return values, {name: arrays[f"{name}_labels"] for name in values if f"{name}_labels" in arrays}
    if "images" in arrays:
        return {"train": arrays["images"]}, {"train": arrays["labels"]} if "labels" in arrays else {}
    if len(arrays) == 1:
        return {"train": next(iter(arrays.values()))}, {}
    raise DataError(
        f"'{path}' must hold an array 'train' or 'images', or a single one, but holds {list(arrays) or 'none'}: "
        "rename them, or pass arrays to data.from_arrays"
    )


def _read_csv(path: Path) -> np.ndarray[Any, Any]:
    rows: list[list[float]] = []
    header: list[str] | None = None
    width = 0
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file, strict=True)
            for cells in reader:
                if not cells:
                    continue
                if not width:
                    width = len(cells)
                    if all(_number(cell) is None for cell in cells):
                        header = cells
                        continue
                if len(cells) != width:
                    raise DataError(
                        f"'{path}' must have {width} cells in every row, as its first has, "
                        f"but row {reader.line_num} has {len(cells)}: repair that row"
                    )
                rows.append([_cell(cell, path, reader.line_num, i, header) for i, cell in enumerate(cells)])
    except UnicodeDecodeError as error:
        raise DataError(f"'{path}' must be text in UTF-8, but is not ({error}): save it as such") from error
    except csv.Error as error:
        raise DataError(f"'{path}' must be a table of cells separated by commas, but is malformed ({error})") from error
    if not rows:
        raise DataError(f"'{path}' must hold at least one row of numbers, but has none")
    return np.array(rows)


def _number(cell: str) -> float | None:
    try:
        return float(cell)
    except ValueError:
        return None


def _cell(cell: str, path: Path, row: int, column: int, header: list[str] | None) -> float:
    number = _number(cell)
    if number is None or not math.isfinite(number):
        title = f" ({header[column]!r})" if header else ""
        what = f"the text {cell!r}" if number is None and cell.strip() else repr(cell)
        hint = (
            "fill it in, or drop the row or column"
            if number is not None or not cell.strip()
            else ("encode it as a number (a header is a first row without any number)")
        )
        raise DataError(
            f"'{path}' must hold finite numbers, but row {row}, column {column + 1}{title} is {what}: {hint}"
        )
    return number
