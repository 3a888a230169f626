"""What a loaded data set is, and the splits that are not plain tensors."""

import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor
from torch.utils import data as torch_data

from pyro_lvm.data.checks import DataError, check_finite, check_levels, check_shapes

Index = int | slice | list[int] | Tensor
SplitName = Literal["train", "validation", "test"]

#: What would take more than this many bytes as float32 is converted as it is used: bytes in memory, or rows of a file.
LARGE = 2**29


def rows_at_once(shape: torch.Size) -> int:
    """How many examples of a split of shape (N, *shape) to convert at a time: 4096, or 64 MiB as float32.

    Example:
        >>> rows_at_once(torch.Size([60_000, 28, 28])), rows_at_once(torch.Size([1000, 3, 1024, 1024]))
        (4096, 5)
    """
    return max(1, min(4096, 2**26 // (4 * max(1, shape[1:].numel()))))


class IndexedDataset(torch_data.Dataset[Tensor], ABC):
    """A split that is indexed as a tensor of shape (N, *shape) is, but computes what it returns.

    ``split[index]`` takes an integer, a slice, a list of integers or a tensor of indices of shape (B,), and returns a
    float32 tensor of shape (*shape), or (B, *shape), on the CPU. It is a map-style torch Dataset, so that a DataLoader
    takes it as well.
    """

    @property
    @abstractmethod
    def shape(self) -> torch.Size:
        """The shape (N, *shape) of the whole split, which may be larger than memory."""

    @abstractmethod
    def __getitem__(self, index: Index) -> Tensor: ...

    @abstractmethod
    def subset(self, index: slice | Tensor) -> "IndexedDataset":
        """The same kind of split over the examples at ``index``, in that order."""

    @property
    def reads_ahead(self) -> bool:
        """Whether a batch is worth reading before its time, on another thread: slow to come by, and never random.

        What draws random numbers must draw them when its turn comes, or it would take those of the step before.
        """
        return False

    def checksum(self) -> int | None:
        """A number that other values would change, whatever file they lie in; None where it would cost an epoch."""
        return None

    def __len__(self) -> int:
        return self.shape[0]

    def __getitems__(self, index: list[int]) -> list[Tensor]:
        # A DataLoader fetches a whole batch by this: one indexing instead of B.
        return list(self[index])

    def __repr__(self) -> str:
        return f"{type(self).__name__}{tuple(self.shape)}"


Split = Tensor | IndexedDataset


class CompactDataset(IndexedDataset):
    """Whole numbers kept as bytes, and divided by ``divisor`` on their way out.

    Args:
        values: A uint8 tensor of shape (N, *shape), which is kept and not copied.
        divisor: What values are divided by.

    Raises:
        DataError: ``values`` is not of type uint8.

    Example:
        >>> CompactDataset(torch.tensor([[0, 51], [102, 255]], dtype=torch.uint8), divisor=255)[torch.tensor([1, 0])]
        tensor([[0.4000, 1.0000],
                [0.0000, 0.2000]])
    """

    def __init__(self, values: Tensor, divisor: int = 1) -> None:
        if values.dtype != torch.uint8:
            raise DataError(f"'values' must be of dtype torch.uint8, but is {values.dtype}: convert with values.byte()")
        self.values, self.divisor = values, divisor

    @property
    def shape(self) -> torch.Size:
        """The shape (N, *shape)."""
        return self.values.shape

    def __getitem__(self, index: Index) -> Tensor:
        return self.values[index].to(torch.float32) / self.divisor

    def subset(self, index: slice | Tensor) -> "CompactDataset":
        """The examples at ``index``."""
        return CompactDataset(self.values[index], self.divisor)

    def checksum(self) -> int:
        """Of every byte, and of the divisor."""
        content: Any = self.values.cpu().contiguous().numpy()
        return zlib.crc32(content, self.divisor)


class StreamedDataset(IndexedDataset):
    """A split that may be larger than memory: its examples are read, checked and divided as they are used.

    Args:
        index: The examples of the source that make up this split, of shape (N,).
        divisor: What values are divided by.
        levels: Number of discrete levels, held against every batch; None for real data.
    """

    def __init__(self, index: Tensor, divisor: int, levels: int | None) -> None:
        self.index, self.divisor, self.levels = index, divisor, levels

    @abstractmethod
    def derive(
        self, *, index: Tensor | None = None, divisor: int | None = None, levels: int | None = None
    ) -> "StreamedDataset":
        """Another split of the same source, with what is left out as it is here."""

    def subset(self, index: slice | Tensor) -> "StreamedDataset":
        """The examples at ``index``."""
        return self.derive(index=self.index[index])


class StackedDataset(StreamedDataset):
    """A user's torch Dataset, too large for memory, whose items are read, checked and stacked as they are used.

    Args:
        dataset: A map-style torch Dataset.
        value: Makes the tensor of one example, of shape (*shape), of one item.
        index: The items that make up this split, of shape (N,); all if left out.
        divisor: What values are divided by.
        levels: Number of discrete levels, held against every batch; None for real data.

    Raises:
        DataError: At use, an item is not finite, has another shape than the first, or is no whole number below levels.

    Example:
        >>> squares = StackedDataset(torch_data.TensorDataset(torch.arange(5.0) ** 2), value=lambda item: item[0])
        >>> squares.subset(torch.tensor([4, 2]))[:]
        tensor([16.,  4.])
    """

    def __init__(
        self,
        dataset: torch_data.Dataset[Any],
        value: Callable[[Any], Tensor],
        index: Tensor | None = None,
        divisor: int = 1,
        levels: int | None = None,
    ) -> None:
        # A Dataset need not say its length as far as types go; those without one are turned away before this.
        super().__init__(torch.arange(len(dataset)) if index is None else index, divisor, levels)  # type: ignore[arg-type]
        self.dataset, self.value = dataset, value
        self.item_shape = value(dataset[0]).shape

    @property
    def shape(self) -> torch.Size:
        """The shape (N, *shape)."""
        return torch.Size([len(self.index), *self.item_shape])

    def __getitem__(self, index: Index) -> Tensor:
        where = self.index[index]
        items = [self.value(self.dataset[int(i)]) for i in where.flatten()]
        for i, item in zip(where.flatten(), items, strict=True):
            name = f"item {int(i)}"
            check_shapes({"item 0": (1, *self.item_shape), name: (1, *item.shape)})
            check_finite(item, name)
            if self.levels is not None:
                check_levels(item, self.levels, name)
        stacked = torch.stack(items) if items else torch.empty(0, *self.item_shape)
        return stacked.reshape(*where.shape, *self.item_shape).to(torch.float32) / self.divisor

    def derive(
        self, *, index: Tensor | None = None, divisor: int | None = None, levels: int | None = None
    ) -> "StackedDataset":
        """Another split of the same items, with what is left out as it is here."""
        return StackedDataset(
            self.dataset,
            self.value,
            self.index if index is None else index,
            self.divisor if divisor is None else divisor,
            self.levels if levels is None else levels,
        )


@dataclass(frozen=True, eq=False, repr=False)
class Dataset:
    """A named data set in up to three splits.

    A split is a float32 tensor of shape (N, *shape), whatever the default dtype is, of the values that the likelihood
    scores: whole numbers 0, 1, ..., levels - 1 for discrete data, anything finite for real data. Networks rescale their
    input inside. Where that tensor would be too large, or is drawn anew at every use, the split is an
    `IndexedDataset`, whose ``len(split)``, ``split.shape`` and ``split[index]`` read like a tensor's.

    Args:
        name: Which data they are, and which variant of them.
        train: Examples to train on.
        validation: Examples to choose by, or None.
        test: Examples to judge by, or None.
        labels: From a split's name to its labels, a LongTensor of shape (N,); unlabelled splits are missing.
        levels: Number of discrete levels: 2 for binary data, 256 for bytes, None for real values.
        description: One sentence on the variant.
        source: Where the data come from.

    Raises:
        DataError: The splits hold examples of different shapes.

    Example:
        >>> Dataset("ramp", train=torch.arange(6.0).reshape(3, 2), test=torch.zeros(1, 2))
        Dataset('ramp', train=3, validation=None, test=1, shape=(2,), levels=None)
    """

    name: str
    train: Split
    validation: Split | None = None
    test: Split | None = None
    labels: dict[str, Tensor] = field(default_factory=dict)
    levels: int | None = None
    description: str = ""
    source: str = ""

    def __post_init__(self) -> None:
        check_shapes({name: split.shape for name, split in self.splits.items()})

    @property
    def splits(self) -> dict[str, Split]:
        """The splits that there are, by name."""
        splits = {"train": self.train, "validation": self.validation, "test": self.test}
        return {name: split for name, split in splits.items() if split is not None}

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one example."""
        return tuple(self.train.shape[1:])

    def __repr__(self) -> str:
        sizes = {
            name: len(self.splits[name]) if name in self.splits else None for name in ("train", "validation", "test")
        }
        words = ", ".join(f"{name}={size}" for name, size in sizes.items())
        return f"Dataset({self.name!r}, {words}, shape={self.shape}, levels={self.levels})"
