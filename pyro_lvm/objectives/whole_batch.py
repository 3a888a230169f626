"""What an objective must know of the whole batch, where several processes have a share of it each."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from torch import Tensor

__all__ = ["over_whole_batch", "sharing"]

Mean = Callable[[Tensor], Tensor]

_means: list[Mean] = []


def over_whole_batch(value: Tensor) -> Tensor:
    r"""$\sum_r \frac{b_r}{B} v_r$: a share's value, a mean over its $b_r$ data, as the whole batch's of B; no gradient.

    A bound is a sum over data, of which every process may take its part. An objective that decides by a number of the
    whole batch, or learns from one, must ask for it here; with one process it is the value itself.
    """
    return _means[-1](value.detach()) if _means else value.detach()


@contextmanager
def sharing(mean: Mean) -> Iterator[None]:
    """While it is entered, batches are shared by processes, over which `mean` takes the mean."""
    _means.append(mean)
    try:
        yield
    finally:
        _means.pop()
