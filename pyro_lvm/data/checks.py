"""Checks of data that come from outside, each failing with one sentence.

The sentence names the argument in quotes and says what was expected, what was given and what to do about it.
"""

import difflib
import math
from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor


class DataError(ValueError):
    """Data, or a request for data, that the library cannot use.

    Example:
        >>> raise DataError("'train' is empty")
        Traceback (most recent call last):
        ...
        pyro_lvm.data.checks.DataError: 'train' is empty
    """


def check_choice(value: str, choices: Iterable[str], name: str, otherwise: str = "") -> None:
    """Raise unless ``value`` is one of ``choices``; the error offers the nearest one.

    Args:
        value: What was asked for.
        choices: What there is.
        name: The argument's name, for the error.
        otherwise: What else it could be, in words that follow the choices.

    Raises:
        DataError: ``value`` is not among ``choices``.

    Example:
        >>> check_choice("minst", ["digits", "mnist"], "name")
        Traceback (most recent call last):
        ...
        pyro_lvm.data.checks.DataError: 'name' must be one of 'digits', 'mnist', but is 'minst': did you mean 'mnist'?
    """
    choices = list(choices)
    if value in choices:
        return
    nearest = difflib.get_close_matches(str(value), choices, n=1, cutoff=0.5)
    hint = f": did you mean {nearest[0]!r}?" if nearest else ""
    raise DataError(f"{name!r} must be one of {', '.join(map(repr, choices))}{otherwise}, but is {value!r}{hint}")


def check_not_empty(x: Tensor, name: str) -> None:
    """Raise unless ``x`` holds at least one example, and every example at least one number.

    Args:
        x: Examples, of shape (N, *shape).
        name: The argument's name, for the error.

    Raises:
        DataError: ``x`` has no axis of examples, or holds no number.

    Example:
        >>> check_not_empty(torch.zeros(0, 8, 8), "train")
        Traceback (most recent call last):
        ...
        pyro_lvm.data.checks.DataError: 'train' must hold at least one number, but has shape (0, 8, 8)
    """
    if x.dim() == 0:
        raise DataError(f"{name!r} must have shape (N, *shape), but is the single number {x.item()}")
    if x.numel() == 0:
        raise DataError(f"{name!r} must hold at least one number, but has shape {tuple(x.shape)}")


def check_finite(x: Tensor, name: str, rows: Tensor | None = None) -> None:
    """Raise if ``x`` holds NaN or an infinity; the error names the first.

    Args:
        x: Numbers of any shape.
        name: The argument's name, for the error.
        rows: Where the B examples of ``x`` stand in what is called ``name``, of shape (B,); in the same places if left
            out.

    Raises:
        DataError: A value is not finite.

    Example:
        >>> check_finite(torch.tensor([[0.0, 1.0], [2.0, float("nan")]]), "train")
        Traceback (most recent call last):
        ...
        pyro_lvm.data.checks.DataError: 'train' must be finite, but train[1, 1] is nan: fill in or drop such values
    """
    if not x.is_floating_point():
        return
    finite = torch.isfinite(x)
    if not finite.all():
        raise DataError(f"{name!r} must be finite, but {_first(x, ~finite, name, rows)}: fill in or drop such values")


def check_levels(x: Tensor, levels: int, name: str, rows: Tensor | None = None) -> None:
    """Raise unless ``x`` holds whole numbers from 0 to ``levels - 1``; the error names the first that is not.

    Args:
        x: Numbers of any shape, of a floating, integer or boolean type.
        levels: Number of discrete levels, L.
        name: The argument's name, for the error.
        rows: As in `check_finite`.

    Raises:
        DataError: ``levels`` is not a whole number from 2 to 2²⁴ (above it float32 cannot tell neighbours apart), or a
            value is not among 0, 1, ..., L - 1.

    Example:
        >>> check_levels(torch.tensor([0.0, 16.0, 17.0]), 17, "train")  # doctest: +NORMALIZE_WHITESPACE
        Traceback (most recent call last):
        ...
        pyro_lvm.data.checks.DataError: 'train' must hold whole numbers from 0 to 16, but train[2] is 17.0: rescale,
        round or binarise the values, or correct 'levels'
    """
    if isinstance(levels, bool) or not isinstance(levels, int) or not 2 <= levels <= 2**24:
        raise DataError(
            f"'levels' must be a whole number from 2 to {2**24}, but is {levels!r}: leave it out for real data"
        )
    if x.dtype == torch.bool or (x.dtype == torch.uint8 and levels >= 256):
        return
    wrong = (x < 0) | (x > levels - 1)
    if x.is_floating_point():
        wrong |= x != x.round()  # also true of NaN
    if wrong.any():
        raise DataError(
            f"{name!r} must hold whole numbers from 0 to {levels - 1}, but {_first(x, wrong, name, rows)}: "
            "rescale, round or binarise the values, or correct 'levels'"
        )


def check_labels(labels: Tensor, size: int, name: str) -> None:
    """Raise unless ``labels`` holds one whole number per example.

    Args:
        labels: Labels, to be of shape (N,) and of an integer or boolean type.
        size: Number of examples, N.
        name: The argument's name, for the error.

    Raises:
        DataError: The type is not an integer one, or the shape is not (N,).

    Example:
        >>> check_labels(torch.arange(9), 10, "labels")
        Traceback (most recent call last):
        ...
        pyro_lvm.data.checks.DataError: 'labels' must have shape (10,), one label per example, but has shape (9,)
    """
    if labels.is_floating_point() or labels.is_complex():
        raise DataError(f"{name!r} must be whole numbers, but has dtype {labels.dtype}: convert it to integers")
    if tuple(labels.shape) != (size,):
        raise DataError(
            f"{name!r} must have shape ({size},), one label per example, but has shape {tuple(labels.shape)}"
        )


def check_shapes(shapes: Mapping[str, Sequence[int]]) -> None:
    """Raise unless the examples of all splits have one shape.

    Args:
        shapes: From the name of a split to its whole shape (N, *shape).

    Raises:
        DataError: Two splits differ in more than N.

    Example:
        >>> check_shapes({"train": (100, 8, 8), "test": (20, 64)})  # doctest: +NORMALIZE_WHITESPACE
        Traceback (most recent call last):
        ...
        pyro_lvm.data.checks.DataError: 'test' must hold examples of shape (8, 8) as 'train' does, but they have
        shape (64,): reshape one of the two
    """
    first: str | None = None
    for name, shape in shapes.items():
        if first is None:
            first = name
        elif tuple(shape[1:]) != tuple(shapes[first][1:]):
            raise DataError(
                f"{name!r} must hold examples of shape {tuple(shapes[first][1:])} as {first!r} does, "
                f"but they have shape {tuple(shape[1:])}: reshape one of the two"
            )


def check_size(size: float, total: int, name: str) -> int:
    """The number of examples that ``size``, a count or a fraction of ``total``, asks for.

    Args:
        size: A count (int) or a fraction in [0, 1) (float). A fraction above 0 gives at least one example.
        total: Number of examples there are.
        name: The argument's name, for the error.

    Returns:
        A count in [0, total).

    Raises:
        DataError: ``size`` is neither, or leaves nothing for training.

    Example:
        >>> check_size(0.1, 1797, "validation"), check_size(350, 1797, "validation")
        (180, 350)
    """
    if isinstance(size, bool) or not isinstance(size, (int, float)):
        raise DataError(f"{name!r} must be a count (int) or a fraction (float), but is {size!r}")
    if isinstance(size, float):
        if not (math.isfinite(size) and 0 <= size < 1):
            raise DataError(f"{name!r} must, as a fraction, lie in [0, 1), but is {size!r}: give a count as an int")
        count = max(1, round(size * total)) if size > 0 else 0
    else:
        count = size
    if not 0 <= count < total:
        raise DataError(
            f"{name!r} must leave some of the {total} examples for training, but asks for {count}: "
            f"give a smaller one, or {name}=0 for none"
        )
    return count


def _first(x: Tensor, wrong: Tensor, name: str, rows: Tensor | None) -> str:
    """«name[i, j] is value» for the first True of ``wrong``."""
    position = torch.nonzero(wrong.flatten())[0]
    if x.dim() == 0:
        return f"{name} is {x.item()}"
    place = [int(i) for i in torch.unravel_index(position[0], x.shape)]
    if rows is not None:
        place[0] = int(rows[place[0]])
    return f"{name}[{', '.join(map(str, place))}] is {x.flatten()[position].item()}"
