"""The random numbers of a whole batch, of which a process that has a share of it uses its own."""

from collections.abc import Callable, Collection
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from pyro.poutine.messenger import Messenger
from torch import Size, Tensor
from torch.overrides import TorchFunctionMode

from pyro_lvm.processes import Processes, Share

__all__ = ["DataDraws", "Draws", "WholeDraws"]

#: Processes up to which each draws for the whole batch; what that costs grows with them.
ALIKE = 8


class Draws:
    """How the processes of a run draw: up to `ALIKE` what one process would draw, more of them each for itself.

    Args:
        processes: the run's.
        plates: names of the plates over data.
        alike: False makes each draw for itself in any case.
    """

    def __init__(self, processes: Processes, plates: Collection[str], *, alike: bool = True) -> None:
        self._rank, self._plates = processes.rank, plates
        self._alike = alike and 1 < processes.size <= ALIKE
        self._apart = processes.size > 1 and not self._alike

    def begin(self) -> None:
        """Where each draws for itself, gives it random numbers of its own; before, all are in the same state."""
        if self._apart:
            seeds = torch.randint(2**62, (self._rank + 1,), device="cpu")
            torch.manual_seed(int(seeds[-1]))

    def of_latents(self, share: Share) -> AbstractContextManager[object]:
        """What to enter while programs run on a share of a batch."""
        return WholeDraws(share, self._plates) if self._alike else nullcontext()

    def of_data(self, share: Share) -> AbstractContextManager[object]:
        """What to enter while a share is fetched from data that are drawn anew at every use."""
        return DataDraws(share) if self._alike else nullcontext()


class WholeDraws(Messenger):
    """While it is entered, latents of a share's data are drawn as if with the whole batch.

    Several processes whose generators are in the same state then draw together what one would draw, and the generators
    stay in the same state. That holds for densities whose draws take as many random numbers whatever their parameters
    are: normal, uniform, Bernoulli, categorical and what is made of them. Others, such as the gamma, which rejects, are
    drawn from the process's own generator for its own data; the processes' draws are then equal to one's in
    distribution only, and so are those that follow.

    Args:
        share: what the process has of the batch.
        plates: names of the plates over data.
    """

    def __init__(self, share: Share, plates: Collection[str]) -> None:
        super().__init__()
        self._share, self._plates = share, plates

    def _pyro_sample(self, msg: Any) -> None:
        batch_shape = getattr(msg["fn"], "batch_shape", None)
        if batch_shape is None or msg["done"] or msg["is_observed"] or msg["value"] is not None:
            return
        for frame in msg["cond_indep_stack"]:
            if frame.name in self._plates and frame.vectorized and frame.size == self._share.length:
                before = batch_shape[: max(0, len(batch_shape) + frame.dim)]
                with DataDraws(self._share, before):
                    msg["value"] = msg["fn"](*msg["args"], **msg["kwargs"])
                msg["done"] = True
                return


class DataDraws(TorchFunctionMode):
    """While it is entered, PyTorch's random numbers of shape (*before, share's rows, ...) are the whole batch's.

    Args:
        share: what the process has of the batch.
        before: sizes of the dimensions to the left of the data's.
    """

    def __init__(self, share: Share, before: Size = Size()) -> None:  # noqa: B008  # an empty tuple
        super().__init__()
        self._share, self._before, self._dim = share, before, len(before)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Draws for the whole batch where the function draws for the share."""
        kwargs = kwargs or {}
        draw = _DRAWN.get(func)
        result = None if draw is None else draw(self, func, *args, **kwargs)
        return func(*args, **kwargs) if result is None else result

    def fill(self, func: Any, out: Tensor, *args: Any, **kwargs: Any) -> Tensor | None:
        """In place, with numbers that depend on nothing but numbers: `x.normal_()`."""
        shape = self._whole(out.shape)
        if shape is None or any(isinstance(arg, Tensor) for arg in args):
            return None
        return out.copy_(self._own(func(out.new_empty(shape), *args, **kwargs)))

    def by_size(self, func: Any, *size: Any, **kwargs: Any) -> Tensor | None:
        """Of a size given in numbers: `torch.rand(size)`."""
        flat = size[0] if len(size) == 1 and not isinstance(size[0], int) else size
        shape = self._whole(Size(flat))
        return None if shape is None else self._own(func(shape, **kwargs))

    def like(self, func: Any, *args: Any, **kwargs: Any) -> Tensor | None:
        """By the parameters of each number, or of its size: `torch.bernoulli(p)`, `torch.rand_like(x)`."""
        shapes = {arg.shape for arg in args if isinstance(arg, Tensor)}
        if len(shapes) != 1 or self._whole(shapes.pop()) is None:
            return None
        return self._own(func(*(self._padded(arg) if isinstance(arg, Tensor) else arg for arg in args), **kwargs))

    def by_rows(self, func: Any, given: Tensor, num_samples: int, *args: Any, **kwargs: Any) -> Tensor | None:
        """`torch.multinomial`, whose probabilities have all dimensions but the last in one."""
        rows = self._share.length * self._before.numel()
        if given.dim() != 2 or given.shape[0] % rows:
            return None
        probs = given.reshape(*self._before, self._share.length, -1, given.shape[1])
        whole = self._padded(probs)
        drawn = func(whole.flatten(0, -2), num_samples, *args, **kwargs)
        return self._own(drawn.reshape(*whole.shape[:-1], num_samples)).reshape(-1, num_samples)

    def _whole(self, shape: Size) -> Size | None:
        """The whole batch's shape for a share's, or None where this is none."""
        if shape[: self._dim + 1] != (*self._before, self._share.length):
            return None
        return Size((*self._before, self._share.total, *shape[self._dim + 1 :]))

    def _own(self, whole: Tensor) -> Tensor:
        return whole.narrow(self._dim, self._share.start, self._share.length)

    def _padded(self, own: Tensor) -> Tensor:
        """A share's parameters with some for the rest of the batch, which are as good as any."""
        one = own.narrow(self._dim, 0, 1)
        shape = list(own.shape)
        parts = []
        for rows in (self._share.start, self._share.total - self._share.stop):
            shape[self._dim] = rows
            parts.append(one.expand(shape))
        return torch.cat([parts[0], own, parts[1]], self._dim)


_Draw = Callable[..., Tensor | None]

_DRAWN: dict[Any, _Draw] = {
    **dict.fromkeys(
        (
            torch.Tensor.normal_,
            torch.Tensor.uniform_,
            torch.Tensor.exponential_,
            torch.Tensor.cauchy_,
            torch.Tensor.log_normal_,
            torch.Tensor.geometric_,
            torch.Tensor.bernoulli_,
        ),
        DataDraws.fill,
    ),
    torch.rand: DataDraws.by_size,
    torch.randn: DataDraws.by_size,
    torch.bernoulli: DataDraws.like,
    torch.normal: DataDraws.like,
    torch.rand_like: DataDraws.like,
    torch.randn_like: DataDraws.like,
    torch.multinomial: DataDraws.by_rows,
}
