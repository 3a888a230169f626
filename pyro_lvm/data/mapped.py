"""A split whose examples lie in a file, of which only the rows in use are in memory."""

import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pyro_lvm.data.checks import DataError, check_finite, check_levels
from pyro_lvm.data.dataset import LARGE, Index, StreamedDataset, rows_at_once
from pyro_lvm.data.npy import NpyFile
from pyro_lvm.progress import progress_bar

_SAMPLED = 256  # rows in a checksum


class MappedDataset(StreamedDataset):
    """Rows of a ``.npy`` file or of a memory-mapped array, read, checked and converted to float32 as they are used.

    Of ``split[index]`` only those rows are read, in the order in which they lie in the file. Apart from them the split
    takes 8 bytes an example, for its order.

    Args:
        source: The path of a ``.npy`` file in C order, or an array over one, as ``numpy.load(path, mmap_mode="r")``.
        name: What errors are to call it; a file's own name if left out.
        index: The rows that make up this split, of shape (N,); all if left out.
        divisor: What values are divided by.
        levels: Number of discrete levels, held against every batch; None for real data.

    Raises:
        DataError: The source holds no real numbers, or none, or they lie in Fortran order, or the file is not as it is
            to be (`NpyFile`); at use, a value is not finite, or no whole number below levels, or the file has
            changed.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     np.save(Path(folder) / "ramp.npy", np.arange(12, dtype=np.uint8).reshape(4, 3))
        ...     ramp = MappedDataset(Path(folder) / "ramp.npy")
        ...     ramp, ramp[torch.tensor([3, 0])]
        (MappedDataset(4, 3), tensor([[ 9., 10., 11.],
                [ 0.,  1.,  2.]]))
    """

    def __init__(
        self,
        source: str | Path | NpyFile | np.ndarray[Any, Any],
        name: str | None = None,
        index: Tensor | None = None,
        divisor: int = 1,
        levels: int | None = None,
    ) -> None:
        self.source = NpyFile(source) if isinstance(source, (str, Path)) else source
        self.name = name or (self.source.path.name if isinstance(self.source, NpyFile) else "data")
        if self.source.dtype.kind not in "buif":
            raise DataError(f"{self.name!r} must hold real numbers, but has dtype {self.source.dtype}: convert it")
        if len(self.source.shape) == 0:
            raise DataError(f"{self.name!r} must have shape (N, *shape), but is a single number")
        if 0 in self.source.shape:
            raise DataError(f"{self.name!r} must hold at least one number, but has shape {self.source.shape}")
        if isinstance(self.source, np.ndarray) and self.source.flags.fnc:
            raise DataError(
                f"{self.name!r} must hold one example after the other (C order), but is in Fortran order: save "
                "numpy.ascontiguousarray(array)"
            )
        super().__init__(torch.arange(self.source.shape[0]) if index is None else index, divisor, levels)

    @property
    def shape(self) -> torch.Size:
        """The shape (N, *shape)."""
        return torch.Size([len(self.index), *self.source.shape[1:]])

    @property
    def reads_ahead(self) -> bool:
        """Reading takes time, and no random numbers."""
        return True

    def __getitem__(self, index: Index) -> Tensor:
        where = self.index[index]
        rows = where.reshape(-1).numpy()
        # All in numpy, on this thread: PyTorch would start others, beside those of the step that it is read ahead of.
        values = self._read(rows)
        with np.errstate(over="ignore"):  # what does not fit becomes infinite, and is found below
            x = values.astype(np.float32, copy=False)
        if not self._are_valid(x):
            self._explain(values, x, rows)
        if self.divisor != 1:
            x /= np.float32(self.divisor)
        return torch.from_numpy(x.reshape((*where.shape, *self.source.shape[1:])))

    def derive(
        self, *, index: Tensor | None = None, divisor: int | None = None, levels: int | None = None
    ) -> "MappedDataset":
        """Another split of the same file, with what is left out as it is here."""
        return MappedDataset(
            self.source,
            self.name,
            self.index if index is None else index,
            self.divisor if divisor is None else divisor,
            self.levels if levels is None else levels,
        )

    def checksum(self) -> int:
        """Of the type of the numbers, the divisor, and some hundred rows from the first to the last."""
        number = zlib.crc32(f"{self.source.dtype.str} {self.divisor}".encode())
        for place in np.unique(np.linspace(0, len(self) - 1, _SAMPLED).round().astype(np.int64)):
            number = zlib.crc32(self._read(self.index[place : place + 1].numpy()).tobytes(), number)
        return number

    def infer_levels(self) -> int | None:
        """The number of levels that whole numbers in memory would have; one pass over the file, where it must be."""
        kind, size = self.source.dtype.kind, self.source.dtype.itemsize
        if kind not in "bui":
            return None
        high, step = 0, rows_at_once(self.shape)
        with progress_bar(f"range of {self.name}", len(self)) as advance:
            for rows in self.index.split(step):
                values = self._read(rows.numpy())
                if values.min() < 0:
                    return None
                high = max(high, int(values.max()))
                if high > 255:
                    return None
                if kind == "b" or (high > 16 and size == 1):  # whatever else follows
                    break
                advance(len(rows), "")
        return max(2, high + 1) if high <= 16 else 256

    def _read(self, rows: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """The rows as they are in the file, (B, *shape), in memory of their own."""
        if isinstance(self.source, NpyFile):
            return self.source[rows]
        order = np.argsort(rows)  # a mapped file too is best read from its start to its end
        values = np.empty((len(rows), *self.source.shape[1:]), self.source.dtype)
        values[order] = self.source[rows[order]]
        return values

    def _are_valid(self, x: np.ndarray[Any, Any]) -> bool:
        if x.size == 0:
            return True
        kind = self.source.dtype.kind
        if kind == "f" and not np.isfinite(x).all():
            return False
        if self.levels is None:
            return True
        return bool(x.min() >= 0 and x.max() <= self.levels - 1 and (kind != "f" or (x == np.rint(x)).all()))

    def _explain(self, values: np.ndarray[Any, Any], x: np.ndarray[Any, Any], rows: np.ndarray[Any, Any]) -> None:
        places = torch.from_numpy(rows)
        if values.dtype.kind == "f":
            check_finite(torch.from_numpy(values.astype(np.float64)), self.name, places)
            if not np.isfinite(x).all():
                reached = np.abs(values).max()
                raise DataError(f"{self.name!r} must fit into float32, but reaches {reached}: rescale it")
        if self.levels is not None:
            check_levels(torch.from_numpy(x), self.levels, self.name, places)


def is_large(shape: tuple[int, ...]) -> bool:
    """Whether an array of this shape would take more than 512 MiB as float32.

    Example:
        >>> is_large((60_000, 28, 28)), is_large((1_000_000, 28, 28))
        (False, True)
    """
    return 4 * torch.Size(shape).numel() > LARGE


def is_mapped(value: object) -> bool:
    """Whether an array, or what it is a view of, is memory-mapped.

    Example:
        >>> is_mapped(np.zeros(3))
        False
    """
    while isinstance(value, np.ndarray):
        if isinstance(value, np.memmap):
            return True
        value = value.base
    return False
