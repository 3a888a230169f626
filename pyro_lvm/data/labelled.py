"""Data with their labels beside them, for models of data given a class."""

import zlib
from dataclasses import replace
from typing import cast

import torch
from torch import Tensor

from pyro_lvm.data.checks import DataError
from pyro_lvm.data.dataset import Dataset, Index, IndexedDataset, Split
from pyro_lvm.data.fingerprint import checksum

__all__ = ["LabelledDataset", "with_labels"]


class LabelledDataset(IndexedDataset):
    """Vectors of the values of a datum and its label; some labels are unknown, others at every use.

    The draws take PyTorch's global generator, which a training loop seeds.

    Args:
        values: Examples, of shape (N, *shape).
        labels: Whole numbers from 0 to classes - 1, of shape (N,).
        classes: How many classes there are; the label ``classes`` stands for an unknown one.
        unknown: How likely a label is replaced by that, in [0, 1].

    Raises:
        DataError: There are not as many labels as examples, or one is out of range.

    Example:
        >>> split = LabelledDataset(torch.tensor([[[5.0, 6.0]], [[7.0, 8.0]]]), torch.tensor([1, 0]), classes=2)
        >>> split[:]
        tensor([[5., 6., 1.],
                [7., 8., 0.]])
    """

    def __init__(self, values: Split, labels: Tensor, classes: int, unknown: float = 0.0) -> None:
        if labels.shape != (len(values),):
            raise DataError(
                f"'labels' must have shape ({len(values)},), one for each example, not {tuple(labels.shape)}"
            )
        if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < classes:
            raise DataError(f"'labels' must be from 0 to {classes - 1}, not to {int(labels.max())}")
        if not 0 <= unknown <= 1:
            raise DataError(f"'unknown' is how likely a label is left out and must lie in [0, 1], not be {unknown}")
        self.values, self.labels, self.classes, self.unknown = values, labels, classes, unknown

    @property
    def shape(self) -> torch.Size:
        """The shape (N, D + 1)."""
        return torch.Size([len(self.values), self.values.shape[1:].numel() + 1])

    def __getitem__(self, index: Index) -> Tensor:
        x, y = self.values[index], self.labels[index].to(torch.float32)
        if self.unknown:
            y = torch.where(torch.rand_like(y) < self.unknown, self.classes, y)
        flat = x.reshape(*y.shape, -1).to(torch.float32)
        return torch.cat([flat, y.unsqueeze(-1)], dim=-1)

    def subset(self, index: slice | Tensor) -> "LabelledDataset":
        """The examples at ``index``."""
        values = self.values[index] if isinstance(self.values, Tensor) else self.values.subset(index)
        return LabelledDataset(values, self.labels[index], self.classes, self.unknown)

    def checksum(self) -> int | None:
        """Of values and labels."""
        of_values = checksum(self.values)
        own = repr((of_values, self.labels.tolist(), self.classes, self.unknown)).encode()
        return None if of_values is None else zlib.crc32(own)


def with_labels(dataset: Dataset, unknown: float = 0.1) -> Dataset:
    """The data set with its labels beside its values, for `pyro_lvm.diffusion.Label`.

    Args:
        dataset: With labels of every split.
        unknown: How likely a label of the training data is left out, at every use anew, in [0, 1]: what guidance
            without a classifier asks for. Labels to validate and to test by are all there.

    Returns:
        A data set whose examples are vectors of D + 1 numbers, the last of them the label; the label one beyond the
        last class stands for an unknown one.

    Raises:
        DataError: A split has no labels.

    Example:
        >>> from pyro_lvm import data
        >>> labelled = with_labels(data.load("digits"))
        >>> labelled.shape, int(labelled.test[0][-1]) == int(labelled.labels["test"][0])
        ((65,), True)
    """
    missing = [name for name in dataset.splits if name not in dataset.labels]
    if missing:
        raise DataError(f"'dataset' must have labels, but its {missing[0]} data have none")
    classes = 1 + max(int(labels.max()) for labels in dataset.labels.values())
    made = {
        name: LabelledDataset(split, dataset.labels[name], classes, unknown if name == "train" else 0.0)
        for name, split in dataset.splits.items()
    }
    return replace(
        dataset,
        name=f"{dataset.name}-labelled",
        train=cast(Split, made["train"]),
        validation=made.get("validation"),
        test=made.get("test"),
    )
