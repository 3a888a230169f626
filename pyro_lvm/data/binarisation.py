"""Grey levels made binary: one fixed draw, a new draw at every use, or a threshold."""

from typing import Literal

import numpy as np
import torch
from torch import Tensor

from pyro_lvm.data.checks import DataError
from pyro_lvm.data.dataset import (
    LARGE,
    CompactDataset,
    Index,
    IndexedDataset,
    Split,
    StreamedDataset,
    rows_at_once,
)
from pyro_lvm.data.fingerprint import checksum

Binarisation = Literal["static", "dynamic", "threshold"]
BINARISATIONS: tuple[Binarisation, ...] = ("static", "dynamic", "threshold")


class DynamicBinarisation(IndexedDataset):
    r"""Pixels drawn anew at every use: $x_{nd} \sim \mathrm{Bernoulli}(p_{nd})$.

    The draws take PyTorch's global generator, which a training loop seeds, so that a run is reproducible and two runs
    of different seeds see different pixels.

    Args:
        probabilities: Values in [0, 1], of shape (N, *shape): a tensor, or a split that returns such.

    Raises:
        DataError: A probability lies outside [0, 1] (tensors are looked at whole, other splits at every use).

    Example:
        >>> _ = torch.manual_seed(0)
        >>> train = DynamicBinarisation(torch.tensor([[0.0, 0.5, 1.0], [0.5, 0.5, 0.5]]))
        >>> draws = torch.stack([train[torch.tensor([0])] for _ in range(1000)])
        >>> draws.shape, draws[..., 0].sum().item(), draws[..., 2].sum().item()
        (torch.Size([1000, 1, 3]), 0.0, 1000.0)
        >>> abs(draws[..., 1].mean().item() - 0.5) < 4 * 0.5 / 1000**0.5
        True
    """

    def __init__(self, probabilities: Split) -> None:
        if isinstance(probabilities, Tensor):
            _check_probabilities(probabilities, "probabilities")
        self.probabilities = probabilities

    @property
    def shape(self) -> torch.Size:
        """The shape (N, *shape)."""
        return self.probabilities.shape

    def __getitem__(self, index: Index) -> Tensor:
        p = self.probabilities[index]
        if not isinstance(self.probabilities, Tensor):
            _check_probabilities(p, "probabilities")
        return torch.bernoulli(p).to(torch.float32)

    def subset(self, index: slice | Tensor) -> "DynamicBinarisation":
        """The examples at ``index``."""
        if isinstance(self.probabilities, Tensor):
            return DynamicBinarisation(self.probabilities[index])
        return DynamicBinarisation(self.probabilities.subset(index))

    def checksum(self) -> int | None:
        """Of the probabilities."""
        return checksum(self.probabilities)


def to_probabilities(x: Split, levels: int | None, name: str) -> Split:
    """The probability of ink, x / (levels - 1), or x itself for real values in [0, 1].

    Args:
        x: Examples, of shape (N, *shape).
        levels: Number of discrete levels of x; None for real values.
        name: The argument's name, for the error.

    Returns:
        Values in [0, 1], of the same shape.

    Raises:
        DataError: x is binary already, or holds real values outside [0, 1].

    Example:
        >>> to_probabilities(torch.tensor([[0.0, 8.0, 16.0]]), 17, "train")
        tensor([[0.0000, 0.5000, 1.0000]])
    """
    if levels == 2:
        raise DataError(f"'binarise' must be None for binary data, which {name!r} holds already: leave it out")
    divisor = 1 if levels is None else levels - 1
    if isinstance(x, CompactDataset):
        return CompactDataset(x.values, divisor)
    if isinstance(x, StreamedDataset):
        return x.derive(divisor=divisor)
    p = x[:] / divisor
    _check_probabilities(p, name)
    return p


def draw(probabilities: Split, seed: int, stream: int, rows: Tensor | None = None) -> Split:
    """One Bernoulli draw per value, fixed by ``seed`` and ``stream`` alone; the global generator is left untouched.

    Args:
        probabilities: Values in [0, 1], of shape (N, *shape).
        seed: The user's seed.
        stream: Tells apart the draws that one seed is used for.
        rows: The examples to draw, of shape (B,), each as it would be drawn with all others; all if left out.

    Returns:
        Zeros and ones of the same shape, or (B, *shape): bytes where they would be large as float32.

    Example:
        >>> draw(torch.tensor([0.0, 0.5, 0.5, 0.5, 1.0]), seed=0, stream=0)
        tensor([0., 0., 0., 0., 1.])
    """
    generator = generator_of(seed, stream)
    shape, step = probabilities.shape, rows_at_once(probabilities.shape)
    ordered, places = (torch.arange(len(probabilities)) if rows is None else rows).sort()
    x = _empty(torch.Size([len(ordered), *shape[1:]]))
    stops = torch.searchsorted(ordered, torch.arange(step, len(probabilities) + step, step)).tolist()
    for start, first, stop in zip(range(0, len(probabilities), step), [0, *stops], stops, strict=False):
        u = torch.rand(
            min(step, len(probabilities) - start), *shape[1:], generator=generator, dtype=torch.float32, device="cpu"
        )
        chosen = ordered[first:stop]
        x[places[first:stop]] = (u[chosen - start] < _checked(probabilities, chosen)).to(x.dtype)
    return CompactDataset(x) if x.dtype == torch.uint8 else x


def threshold(probabilities: Split) -> Split:
    """One where the probability is at least one half, zero elsewhere.

    Args:
        probabilities: Values in [0, 1], of shape (N, *shape).

    Returns:
        Zeros and ones of the same shape.

    Example:
        >>> threshold(torch.tensor([0.0, 0.49, 0.5, 1.0]))
        tensor([0., 0., 1., 1.])
    """
    x = _empty(probabilities.shape)
    for rows in torch.arange(len(x)).split(rows_at_once(x.shape)):
        x[rows] = (_checked(probabilities, rows) >= 0.5).to(x.dtype)
    return CompactDataset(x) if x.dtype == torch.uint8 else x


def generator_of(seed: int, stream: int) -> torch.Generator:
    """A generator of its own for each pair of ``seed`` and ``stream``.

    Args:
        seed: A whole number from 0.
        stream: A whole number from 0.

    Returns:
        A generator on the CPU.

    Raises:
        DataError: ``seed`` is not a whole number from 0.

    Example:
        >>> torch.equal(torch.rand(3, generator=generator_of(0, 0)), torch.rand(3, generator=generator_of(0, 1)))
        False
    """
    if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
        raise DataError(f"'seed' must be a whole number from 0, but is {seed!r}")
    # Hashed, so that streams of neighbouring seeds have nothing to do with each other.
    state = np.random.SeedSequence([seed, stream]).generate_state(2)
    return torch.Generator().manual_seed(int(state[0]) << 31 | int(state[1]) >> 1)


def _check_probabilities(p: Tensor, name: str) -> None:
    if p.numel() == 0:
        return  # an empty batch
    low, high = p.aminmax()
    if not (low >= 0 and high <= 1):  # written so that NaN fails too
        raise DataError(
            f"{name!r} must lie in [0, 1] to be binarised, but ranges from {low.item()} to {high.item()}: "
            "rescale it, or give 'levels' if it holds whole numbers"
        )


def _empty(shape: torch.Size) -> Tensor:
    """Room for zeros and ones: bytes where float32 would be large."""
    return torch.empty(shape, dtype=torch.uint8 if 4 * shape.numel() > LARGE else torch.float32)


def _checked(probabilities: Split, rows: Tensor) -> Tensor:
    p = probabilities[rows]
    if not isinstance(probabilities, Tensor):  # those have been looked at whole
        _check_probabilities(p, "probabilities")
    return p
