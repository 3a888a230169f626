"""What a report needs of a data set."""

from collections.abc import Mapping
from typing import Any, Protocol

import torch
from torch import Tensor


class RunData(Protocol):
    """A data set as `pyro_lvm.data.load` gives it, or anything that has its attributes.

    Attributes:
        name: of the set.
        train, validation, test: tensors (N, *shape), torch Datasets of such, or None.
        labels: by the split's name, LongTensors (N,); may be empty.
        levels: number of discrete levels, None for real values.
        shape: of a datum.
    """

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def train(self) -> Any: ...  # noqa: D102
    @property
    def validation(self) -> Any: ...  # noqa: D102
    @property
    def test(self) -> Any: ...  # noqa: D102
    @property
    def labels(self) -> Mapping[str, Tensor]: ...  # noqa: D102
    @property
    def levels(self) -> int | None: ...  # noqa: D102
    @property
    def shape(self) -> tuple[int, ...]: ...  # noqa: D102


def splits(dataset: RunData) -> dict[str, Any]:
    """The splits that there are, by name."""
    named = {"train": dataset.train, "validation": dataset.validation, "test": dataset.test}
    return {name: split for name, split in named.items() if split is not None and len(split) > 0}


def shown_split(dataset: RunData) -> str:
    """The split that is drawn: data the pair was not trained on, where there are some.

    Raises:
        ValueError: where no split has data.
    """
    present = splits(dataset)
    for name in ("test", "validation", "train"):
        if name in present:
            return name
    raise ValueError("'dataset' has no data in 'train', 'validation' or 'test'.")


def first_data(split: Any, n: int) -> Tensor:
    """The first data of a split, at most n, (n, *shape), reading no others."""
    if isinstance(split, Tensor):
        return split[:n]
    items = [split[i] for i in range(min(n, len(split)))]
    # A torch Dataset may give a datum alone or with a label behind it.
    return torch.stack([item if isinstance(item, Tensor) else torch.as_tensor(item[0]) for item in items])
