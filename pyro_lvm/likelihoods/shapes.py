"""The shape and the levels of a datum, and a network's output in its shape."""

from collections.abc import Sequence

from torch import Tensor

from pyro_lvm.sizes import checked_shape


def checked(shape: Sequence[int] | None) -> tuple[int, ...] | None:
    """The shape, if it is one."""
    return None if shape is None else checked_shape(shape, "shape")


def shaped(out: Tensor, z: Tensor, shape: tuple[int, ...] | None, last: tuple[int, ...]) -> Tensor:
    """A network's output as (batch of z, *shape, *last); unchanged where `shape` is left out."""
    if shape is None:
        return out
    batch = z.shape[:-1]
    try:
        return out.reshape(*batch, *shape, *last)
    except RuntimeError:
        raise ValueError(
            f"the network's output, {tuple(out.shape[len(batch) :])} a datum, cannot be given the shape "
            f"{(*shape, *last)}: it has other numbers of entries."
        ) from None
