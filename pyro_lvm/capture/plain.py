"""The plain Python values that a capture has made constants of."""

from collections.abc import Iterable
from typing import Any

__all__ = ["plain_attributes"]

_PLAIN = (bool, int, float, str)


def plain_attributes(objects: Iterable[Any]) -> tuple[tuple[str, Any], ...]:
    """Numbers and words among the attributes of objects: when these change, so may what was captured.

    Example:
        >>> import torch
        >>> plain_attributes([torch.nn.Dropout(0.1)])
        (('training', True), ('p', 0.1), ('inplace', False))
    """
    attributes = (getattr(thing, "__dict__", {}) for thing in objects)
    return tuple((name, value) for held in attributes for name, value in held.items() if isinstance(value, _PLAIN))
