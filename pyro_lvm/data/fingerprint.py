"""What tells one split from another without keeping either: its size, its shape and a checksum."""

import zlib
from typing import Any

import torch
from torch import Tensor

from pyro_lvm.data.dataset import Split


def fingerprint(split: Split) -> str:
    """Size, shape and checksum of a split in words, so that a run that goes on can tell that it has the same data.

    The checksum is of all values in memory, of some hundred rows of a file (`MappedDataset`), wherever it lies,
    and missing for a user's torch Dataset, whose items may be random.

    Args:
        split: Examples, of shape (N, *shape).

    Returns:
        One line.

    Example:
        >>> fingerprint(torch.zeros(3, 2))
        '3 of shape (2,), checksum a3c1ca20'
    """
    words = f"{len(split)} of shape {tuple(split.shape[1:])}"
    number = checksum(split)
    return words if number is None else f"{words}, checksum {number:08x}"


def checksum(split: Split) -> int | None:
    """The CRC-32 of a tensor's bytes, or what a split says of itself.

    Args:
        split: Examples, of shape (N, *shape).

    Returns:
        A whole number below 2³², or None.

    Example:
        >>> checksum(torch.tensor([[1.0, 2.0]])) == checksum(torch.tensor([[1.0, 3.0]]))
        False
    """
    if not isinstance(split, Tensor):
        return split.checksum()
    content: Any = split.cpu().contiguous().view(torch.uint8).numpy()
    return zlib.crc32(content)
