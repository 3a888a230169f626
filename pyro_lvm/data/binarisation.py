"""Grey levels made binary: one fixed draw, a new draw at every use, or a threshold."""

from collections.abc import Callable
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from pyro_lvm.data.checks import DataError
from pyro_lvm.data.dataset import LARGE, CompactDataset, Index, IndexedDataset, Split, StackedDataset

Binarisation = Literal["static", "dynamic", "threshold"]
BINARISATIONS: tuple[Binarisation, ...] = ("static", "dynamic", "threshold")

_ROWS = 4096  # examples converted at a time


class DynamicBinarisation(IndexedDataset):
    r"""Pixels drawn anew at every use: :math:`x_{nd} \sim \mathrm{Bernoulli}(p_{nd})`.

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
    if isinstance(x, StackedDataset):
        return StackedDataset(x.dataset, x.value, x.index, divisor, x.levels)
    p = x[:] / divisor
    _check_probabilities(p, name)
    return p


def draw(probabilities: Split, seed: int, stream: int) -> Split:
    """One Bernoulli draw per value, fixed by ``seed`` and ``stream`` alone; the global generator is left untouched.

    Args:
        probabilities: Values in [0, 1], of shape (N, *shape).
        seed: The user's seed.
        stream: Tells apart the draws that one seed is used for.

    Returns:
        Zeros and ones of the same shape.

    Example:
        >>> draw(torch.tensor([0.0, 0.5, 0.5, 0.5, 1.0]), seed=0, stream=0)
        tensor([0., 0., 0., 0., 1.])
    """
    generator = generator_of(seed, stream)
    return _by_rows(
        probabilities, lambda p: torch.rand(p.shape, generator=generator, dtype=torch.float32, device="cpu") < p
    )


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
    return _by_rows(probabilities, lambda p: p >= 0.5)


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


def _by_rows(p: Split, binary: Callable[[Tensor], Tensor]) -> Split:
    """``binary`` of some rows at a time, since neither p nor the draws behind it need fit into memory as float32."""
    x = torch.empty(p.shape, dtype=torch.uint8 if 4 * p.shape.numel() > LARGE else torch.float32)
    for start in range(0, len(p), _ROWS):
        x[start : start + _ROWS] = binary(p[start : start + _ROWS])
    return CompactDataset(x) if x.dtype == torch.uint8 else x
