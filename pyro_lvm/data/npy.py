"""Rows of a ``.npy`` file, read when they are asked for."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from pyro_lvm.data.checks import DataError

_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


class NpyFile:
    """A ``.npy`` file as rows to index, of which none is kept.

    ``file[rows]`` reads those rows and no others. Rows that follow one another are read at once, and the others in the
    order in which they lie in the file.

    Args:
        path: The file.

    Attributes:
        path: Where it is, whatever the current folder.
        shape: The shape (N, *shape) of its array.
        dtype: The type of its numbers, in the file's order of bytes.

    Raises:
        DataError: The file is missing, unreadable, no whole ``.npy`` file, in Fortran order, or holds Python objects;
            at use, it is gone, or has another size than before.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     np.save(Path(folder) / "table.npy", np.arange(12).reshape(4, 3))
        ...     NpyFile(Path(folder) / "table.npy")[np.array([3, 0])]
        array([[ 9, 10, 11],
               [ 0,  1,  2]])
    """

    # Reads at positions, and not a memory map: memory is bounded by what is asked for, under limits on address space
    # too, and what was read before does not count as the process's; rows of a file that is not cached come several
    # times faster (the kernel reads pages around those that are touched in a map); and a file that is cut off
    # meanwhile is an error to catch, where a map ends the process. The file is opened for every batch, which takes
    # microseconds: nothing is left open, and threads and processes share no position in it.

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path).expanduser().absolute()
        with file_errors(self.path), open(self.path, "rb") as file:
            self.shape, fortran_order, self.dtype = read_header(file)
            self._start, self._size = file.tell(), os.fstat(file.fileno()).st_size
            if self.dtype.hasobject:
                raise DataError(f"'{path}' must hold numbers, but holds Python objects: save arrays of a numeric dtype")
            if fortran_order:
                raise DataError(
                    f"'{path}' must hold one example after the other (C order), but is in Fortran order: save "
                    "numpy.ascontiguousarray(array)"
                )
            whole = self._start + prod(self.shape) * self.dtype.itemsize
            if self._size < whole:
                raise ValueError(f"it has {self._size} bytes of {whole}")

    def __getitem__(self, rows: np.ndarray[Any, np.dtype[np.int64]]) -> np.ndarray[Any, Any]:
        """The rows of these numbers from 0, (B,), as an array (B, *shape)."""
        length = prod(self.shape[1:]) * self.dtype.itemsize  # bytes a row
        content: Any = np.empty(len(rows) * length, np.uint8)
        view = memoryview(content)
        first = np.flatnonzero(np.diff(rows, prepend=-2) != 1)  # where a run of rows that follow one another begins
        last = np.append(first[1:], len(rows))
        with file_errors(self.path), open(self.path, "rb", buffering=0) as file:
            if (size := os.fstat(file.fileno()).st_size) != self._size:
                raise DataError(
                    f"'{self.path}' must stay as it is while in use, but had {self._size} bytes and now has {size}: "
                    "load it again"
                )
            for i in np.argsort(rows[first]):
                file.seek(self._start + int(rows[first[i]]) * length)
                _fill(view[first[i] * length : last[i] * length], file)
        values: np.ndarray[Any, Any] = content.view(self.dtype).reshape(len(rows), *self.shape[1:])
        return values


def read_header(file: BinaryIO) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """The shape of the array in a ``.npy`` file, whether it is in Fortran order, and its type.

    Args:
        file: The file, at its beginning; it is left at the first number.

    Raises:
        ValueError: It is no such file.

    Example:
        >>> import io
        >>> file = io.BytesIO()
        >>> np.save(file, np.zeros((3, 2)))
        >>> _ = file.seek(0)
        >>> read_header(file)
        ((3, 2), False, dtype('float64'))
    """
    version = np.lib.format.read_magic(file)
    if version not in _HEADERS:
        raise ValueError(f"its version {version} is for tables with named columns")
    return _HEADERS[version](file)


def _fill(view: memoryview, file: Any) -> None:
    while len(view):  # one system call reads two gigabytes at most
        count = file.readinto(view)
        if not count:
            raise OSError("it ends too early")
        view = view[count:]


@contextmanager
def file_errors(path: Path) -> Iterator[None]:
    """Says in one sentence what goes wrong while a file is read.

    Args:
        path: The file, whose suffix says what it is to be.

    Raises:
        DataError: In place of whatever was raised.

    Example:
        >>> with file_errors(Path("table.npz")):
        ...     raise EOFError("no data left")  # doctest: +NORMALIZE_WHITESPACE
        Traceback (most recent call last):
        ...
        pyro_lvm.data.checks.DataError: 'table.npz' must be a whole .npz file, but is malformed (EOFError: no data
        left): write or copy it again
    """
    try:
        yield
    except DataError:
        raise
    except FileNotFoundError as error:
        raise DataError(f"'{path}' must be a file, but there is none: check the path") from error
    except OSError as error:
        raise DataError(
            f"'{path}' must be readable, but is not ({error}): check its permissions, or copy it again"
        ) from error
    except MemoryError as error:
        raise DataError(
            f"'{path}' must fit into memory, but does not ({error}): save its arrays as .npy files, which are read as "
            "they are used"
        ) from error
    except Exception as error:  # a malformed file surfaces as whatever its parser stumbled over
        if "Object arrays" in str(error):
            raise DataError(
                f"'{path}' must hold numbers, but holds Python objects: save arrays of a numeric dtype"
            ) from error
        raise DataError(
            f"'{path}' must be a whole {path.suffix.lower()} file, but is malformed "
            f"({type(error).__name__}: {error}): write or copy it again"
        ) from error
