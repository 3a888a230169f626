"""What networks ask of what they are given."""

from torch import Tensor

__all__ = ["check_spread", "checked_condition", "checked_input"]


def check_spread(spread: float) -> None:
    """Refuses a spread that is not positive."""
    if not spread > 0:
        raise ValueError(f"'spread' divides the input and must be positive, not {spread}.")


def checked_input(z: Tensor, shape: tuple[int, ...], name: str) -> Tensor:
    """An input of a network, if it has the shape (..., *shape).

    Raises:
        ValueError: where it has not.
    """
    n = len(shape)
    if z.dim() < n or tuple(z.shape[z.dim() - n :]) != shape:
        raise ValueError(f"'{name}' must have shape ({', '.join(map(str, ('...', *shape)))}), not {tuple(z.shape)}.")
    return z


def checked_condition(c: Tensor | None, shape: tuple[int, ...] | None) -> Tensor | None:
    """A condition, if the network takes one of that shape, or None if it takes none.

    Raises:
        ValueError: where one is given that the network does not take, or left out, or is of another shape.
    """
    if shape is None and c is not None:
        raise ValueError("'c' is a condition, but the network takes none: build it with the 'condition_shape' of one.")
    if shape is not None and c is None:
        raise ValueError(f"'c' is left out, but the network takes a condition of shape (..., {shape}).")
    return c if c is None or shape is None else checked_input(c, shape, "c")
