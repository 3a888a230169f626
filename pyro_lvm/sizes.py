"""What every part asks of the sizes it is built with."""

from collections.abc import Iterable, Sequence
from numbers import Integral

__all__ = ["check_sizes", "checked_levels", "checked_shape"]


def check_sizes(**sizes: int) -> None:
    """Refuses a size, given by its name, that is no whole number or below 1.

    Raises:
        ValueError: for the first such.

    Example:
        >>> check_sizes(latent_dim=2, components=0)
        Traceback (most recent call last):
        ValueError: 'components' must be at least 1, not 0.
    """
    for name, size in sizes.items():
        if not isinstance(size, Integral):
            raise ValueError(f"'{name}' must be a whole number, not {size!r}.")
        if size < 1:
            raise ValueError(f"'{name}' must be at least 1, not {size}.")


def checked_shape(shape: int | Sequence[int], name: str) -> tuple[int, ...]:
    """A shape as a tuple, that of a vector where it is one number, if all it holds are sizes; it may hold none.

    Raises:
        ValueError: where it holds anything else.

    Example:
        >>> checked_shape(5, "data_shape"), checked_shape([8, 8], "data_shape")
        ((5,), (8, 8))
    """
    sizes = tuple(shape) if isinstance(shape, Iterable) else (shape,)
    if not all(isinstance(size, Integral) and size >= 1 for size in sizes):
        raise ValueError(f"'{name}' must hold sizes, whole numbers of at least 1, not {sizes}.")
    return sizes


def checked_levels(levels: int) -> int:
    """The number of values that a datum's entries take, if there are two or more.

    Raises:
        ValueError: where there are fewer.

    Example:
        >>> checked_levels(17)
        17
    """
    if levels < 2:
        raise ValueError(f"'levels' is the number of values a datum's entries take and must be at least 2: {levels}.")
    return levels
