"""The data sets known by name: the digits that come with scikit-learn, and those that torchvision reads."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pyro_lvm.data.arrays import Part
from pyro_lvm.data.checks import DataError
from pyro_lvm.data.dataset import LARGE, CompactDataset
from pyro_lvm.data.torchvision_ops import declare_missing_operators

Parts = dict[str, Part]


@dataclass(frozen=True)
class NamedData:
    """A data set known by name.

    Args:
        read: Given the data root and whether to download, returns the parts ``"train"`` and ``"test"``.
        levels: Number of discrete levels.
        validation: How many examples of the training part are for validation, if not said otherwise.
        dynamic_validation: The same with dynamic binarisation.
        shuffle: Whether those are drawn at random, or are the last.
        description: What the data are.
        source: Where they come from.
    """

    read: Callable[[Path, bool], Parts]
    levels: int
    validation: int
    dynamic_validation: int
    shuffle: bool
    description: str
    source: str


def data_root(root: str | Path | None = None) -> Path:
    """The folder that data files are read from and downloaded to.

    Args:
        root: The folder, if it is to be this one.

    Returns:
        ``root``; else the environment variable ``PYRO_LVM_DATA``; else ``pyro-lvm`` in the user's cache folder.

    Example:
        >>> data_root("elsewhere").name
        'elsewhere'
    """
    chosen = root if root is not None else os.environ.get("PYRO_LVM_DATA") or None
    if chosen is None:
        chosen = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "pyro-lvm"
    return Path(chosen).expanduser()


def downsample(images: Any, size: int) -> Tensor:
    r"""Square images of fewer pixels, each the mean of the area that it covers: $W X W^\top$.

    Args:
        images: An array or tensor of shape (..., H, H).
        size: Pixels per side, h, of the result, at most H.

    Returns:
        A float32 tensor of shape (..., h, h).

    Raises:
        DataError: The images are not square, or have fewer pixels.

    Example:
        >>> downsample(torch.tensor([[[0, 3, 3], [0, 3, 3], [0, 0, 0]]]), 2)
        tensor([[[1.0000, 3.0000],
                 [0.3333, 1.0000]]])
    """
    x = images if isinstance(images, Tensor) else torch.from_numpy(np.array(images))
    side = x.shape[-1] if x.dim() > 1 else 0
    if x.dim() < 2 or x.shape[-2] != side or not 1 <= size <= side:
        raise DataError(
            f"'images' must be square and of at least {size} pixels a side, but have shape {tuple(x.shape)}: "
            "crop them, or give a smaller 'size'"
        )
    edges = torch.arange(size, dtype=torch.float64)[:, None] * side / size
    pixels = torch.arange(side, dtype=torch.float64)
    overlap = torch.minimum(pixels + 1, edges + side / size) - torch.maximum(pixels, edges)
    weights = (overlap.clamp(min=0) * size / side).to(torch.float32)  # (h, H)
    chunks = [weights @ part.to(torch.float32) @ weights.T for part in x.reshape(-1, side, side).split(4096)]
    return torch.cat(chunks).reshape(*x.shape[:-2], size, size)


def _read_digits(root: Path, download: bool) -> Parts:
    from sklearn.datasets import load_digits  # here, since it takes a second to import

    digits = load_digits()
    x = torch.tensor(digits.images, dtype=torch.float32)  # (1797, 8, 8)
    y = torch.tensor(digits.target, dtype=torch.int64)
    return {"train": Part(x[:1350], y[:1350]), "test": Part(x[1350:], y[1350:])}


def _read_mnist(root: Path, download: bool) -> Parts:
    return _read_torchvision("mnist", "MNIST", "MNIST/raw", root, download)


def _read_fashion_mnist(root: Path, download: bool) -> Parts:
    return _read_torchvision("fashion-mnist", "FashionMNIST", "FashionMNIST/raw", root, download)


def _read_cifar10(root: Path, download: bool) -> Parts:
    return _read_torchvision("cifar10", "CIFAR10", "cifar-10-batches-py", root, download)


def _read_torchvision(name: str, class_name: str, folder: str, root: Path, download: bool) -> Parts:
    declare_missing_operators()
    from torchvision import datasets  # here, since it takes seconds to import

    make = getattr(datasets, class_name)
    halves = {
        key: _open(partial(make, root, train=train, download=download), name, root / folder, download)
        for key, train in (("train", True), ("test", False))
    }
    values: dict[str, Tensor] = {}
    for key, half in halves.items():
        if isinstance(half.data, Tensor):
            values[key] = half.data  # (N, H, W) bytes
        else:
            values[key] = torch.from_numpy(half.data).movedim(-1, 1).contiguous()  # (N, C, H, W) bytes
    large = 4 * sum(x.numel() for x in values.values()) > LARGE
    return {
        key: Part(CompactDataset(x) if large else x.to(torch.float32), torch.as_tensor(halves[key].targets).long())
        for key, x in values.items()
    }


def _read_omniglot(root: Path, download: bool) -> Parts:
    declare_missing_operators()
    from torchvision import datasets

    parts: Parts = {}
    for key, background in (("train", True), ("test", False)):
        half = _open(
            partial(datasets.Omniglot, root, background=background, download=download),
            "omniglot",
            root / "omniglot-py",
            download,
        )
        images, labels = [], []
        for image, label in half:
            images.append(255 - np.asarray(image))  # the files are black ink on white
            labels.append(label)
        ink = downsample(np.stack(images), 28).round()  # (N, 28, 28)
        parts[key] = Part(ink, torch.tensor(labels, dtype=torch.int64))
    return parts


def _open(make: Callable[[], Any], name: str, folder: Path, download: bool) -> Any:
    """A torchvision data set, with what goes wrong about its files said in one sentence."""
    where = f"{name!r} must have its files in '{folder}'"
    try:
        return make()
    except Exception as error:  # a malformed file surfaces as whatever its parser stumbled over
        # torchvision says «not found» or «Error downloading» by a RuntimeError, which parsers raise as well.
        absent = isinstance(error, RuntimeError) and any(word in str(error) for word in ("not found", "downloading"))
        if download and (absent or isinstance(error, OSError)):
            raise DataError(
                f"{where}, but they could not be downloaded ({error}): fetch them by other means"
            ) from error
        if absent or isinstance(error, FileNotFoundError):
            raise DataError(
                f"{where}, but they are missing or damaged: set 'root' or the environment variable PYRO_LVM_DATA to a "
                "folder that holds them, or pass download=True"
            ) from error
        raise DataError(
            f"{where}, but they cannot be read ({type(error).__name__}: {error}): delete them and pass download=True"
        ) from error


NAMED: dict[str, NamedData] = {
    "digits": NamedData(
        _read_digits,
        levels=17,
        validation=350,
        dynamic_validation=350,
        shuffle=False,
        description="8×8 handwritten digits in 17 greys; the first 1,350 to train and validate, the other 447 to test",
        source="scikit-learn load_digits (test part of UCI Optical Recognition of Handwritten Digits)",
    ),
    "mnist": NamedData(
        _read_mnist,
        levels=256,
        validation=10_000,
        dynamic_validation=0,
        shuffle=False,
        description="28×28 handwritten digits in bytes; the official 60,000 to train and validate, and 10,000 to test",
        source="LeCun, Cortes and Burges, by torchvision.datasets.MNIST",
    ),
    "fashion-mnist": NamedData(
        _read_fashion_mnist,
        levels=256,
        validation=10_000,
        dynamic_validation=10_000,
        shuffle=False,
        description="28×28 clothes in bytes; the official 60,000 to train and validate, and 10,000 to test",
        source="Zalando Research, by torchvision.datasets.FashionMNIST",
    ),
    "omniglot-28": NamedData(
        _read_omniglot,
        levels=256,
        validation=1_928,
        dynamic_validation=1_928,
        shuffle=True,
        description=(
            "characters of 50 alphabets, area-averaged from 105×105 to 28×28 bytes of ink (own resize); "
            "19,280 background drawings to train and validate, "
            "and 13,180 of unseen alphabets to test (not the split of Burda et al.)"
        ),
        source="Lake, Salakhutdinov and Tenenbaum, by torchvision.datasets.Omniglot",
    ),
    "cifar10": NamedData(
        _read_cifar10,
        levels=256,
        validation=5_000,
        dynamic_validation=5_000,
        shuffle=False,
        description="3×32×32 photographs in bytes; the official 50,000 to train and validate, and 10,000 to test",
        source="Krizhevsky, by torchvision.datasets.CIFAR10",
    ),
}

#: Other names for the same data.
ALIASES = {"omniglot": "omniglot-28"}


def names() -> list[str]:
    """The names that ``load`` knows, each also with ``-static``, ``-dynamic`` or ``-threshold`` after it.

    Returns:
        Names in alphabetical order.

    Example:
        >>> names()
        ['cifar10', 'digits', 'fashion-mnist', 'mnist', 'omniglot-28']
    """
    return sorted(NAMED)
