"""The processes that work on one run: what each has a share of, and what they tell one another."""

import pickle
import traceback
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch import distributed as dist

from pyro_lvm.capture import CannotCapture, being_captured

__all__ = ["OneProcess", "ProcessLost", "Processes", "SeveralProcesses", "Share"]

T = TypeVar("T")

_LAST_WORDS = "pyro_lvm/error"  # where in the processes' common store one that leaves says why


class ProcessLost(ConnectionError):
    """Another process of the run has ended, or cannot be reached."""


@dataclass(frozen=True)
class Share:
    """The rows of a batch that one process works on.

    Attributes:
        start, stop: the first of them, and the one after the last.
        total: the rows of the whole batch.
        counted: how many of them count: none where there are fewer rows than processes and this process works on
            another one's row, only to stay in step.
    """

    start: int
    stop: int
    total: int
    counted: int

    @property
    def length(self) -> int:
        """Rows to work on, one at least."""
        return self.stop - self.start

    def of(self, rows: Tensor) -> Tensor:
        """This share of a batch's rows."""
        return rows if self.length == self.total else rows[self.start : self.stop]


@lru_cache(maxsize=64)
def _share(rank: int, size: int, total: int) -> Share:
    start, stop = total * rank // size, total * (rank + 1) // size
    if start == stop:
        row = min(start, total - 1)
        return Share(row, row + 1, total, 0)
    return Share(start, stop, total, stop - start)


class Processes(ABC):
    """The processes of a run, abstract, as one of them sees them: number `rank` of `size`, `on_host` on its host.

    Everything but `share` and `work_on` is a thing that all of them do together, in the same order.
    """

    rank: int
    size: int
    local_rank: int
    on_host: int

    @property
    def leads(self) -> bool:
        """Whether this is the one that writes, prints and decides."""
        return self.rank == 0

    @abstractmethod
    def share(self, total: int) -> Share:
        """This process's share of a batch."""

    @abstractmethod
    def work_on(self, share: Share) -> None:
        """Tells that what is summed next belongs to this share."""

    @abstractmethod
    def whole(self, loss: Tensor, parameters: Sequence[Tensor]) -> Tensor:
        r"""$\ell = \sum_r \frac{b_r}{B} \ell_r$, the loss per datum of the whole batch, from those of the shares.

        The gradients on the parameters are replaced by the same sum of them; a parameter that no process has a gradient
        of keeps none. Where the optimiser steps, every process takes the same step.
        """

    @abstractmethod
    def mean(self, value: Tensor) -> Tensor:
        """The same sum of any value, without gradient."""

    @abstractmethod
    def total(self, values: dict[str, float]) -> dict[str, float]:
        """The sums over the processes of numbers that go by the same names in all, in double precision."""

    @abstractmethod
    def agree_to_stop(self, wish: bool) -> bool:
        """Whether to stop, which all answer alike: yes where one wished it a step ago."""

    @abstractmethod
    def from_leader(self, value: T) -> T:
        """What the leader has of this value."""

    @abstractmethod
    def gather(self, value: T) -> list[T]:
        """What every process has of this value, by rank."""

    @abstractmethod
    def add(self, tensor: Tensor) -> None:
        """Replaces a tensor by its sum over the processes."""

    @abstractmethod
    def copy_from_leader(self, tensors: Iterable[Tensor]) -> None:
        """Gives tensors, of the same shapes everywhere, the leader's values."""

    @abstractmethod
    def leave(self, error: BaseException) -> None:
        """Ends this process's part: all others, whatever they wait for, raise this error too."""

    def first(self, value: T | None) -> T | None:
        """Of what the processes have of this value, the first that is not None."""
        return next((v for v in self.gather(value) if v is not None), None)


class OneProcess(Processes):
    """A run that one process does alone: nothing to share, nobody to tell."""

    rank, size, local_rank, on_host = 0, 1, 0, 1

    def share(self, total: int) -> Share:
        """All of it."""
        return _share(0, 1, total)

    def work_on(self, share: Share) -> None:
        """Nothing."""

    def whole(self, loss: Tensor, parameters: Sequence[Tensor]) -> Tensor:
        """The loss as it is."""
        return loss

    def mean(self, value: Tensor) -> Tensor:
        """The value as it is."""
        return value

    def total(self, values: dict[str, float]) -> dict[str, float]:
        """The numbers as they are."""
        return values

    def agree_to_stop(self, wish: bool) -> bool:
        """Whatever is wished."""
        return wish

    def from_leader(self, value: T) -> T:
        """The value."""
        return value

    def gather(self, value: T) -> list[T]:
        """The value alone."""
        return [value]

    def add(self, tensor: Tensor) -> None:
        """Nothing."""

    def copy_from_leader(self, tensors: Iterable[Tensor]) -> None:
        """Nothing."""

    def leave(self, error: BaseException) -> None:
        """Nothing."""


class SeveralProcesses(Processes):
    """One of the processes of a PyTorch process group.

    Where one fails it leaves the group, whose connections break: so the others notice wherever they are, and find its
    last words in the store. Where it was killed there are none, and they raise `ProcessLost`.

    Args:
        rank, size: of the group.
        local_rank, on_host: of the processes on the same host.
        store: which all of them reach, and which outlives the group.
        what_became: in words, what has become of processes that ended without saying why; an empty text if unknown.
    """

    def __init__(
        self, rank: int, size: int, local_rank: int, on_host: int, store: Any, what_became: Callable[[], str]
    ) -> None:
        self.rank, self.size, self.local_rank, self.on_host = rank, size, local_rank, on_host
        self._store, self._what_became = store, what_became
        self._share = _share(rank, size, size)
        self._wish = self._stopping = False

    def share(self, total: int) -> Share:
        """Rows ⌊total · rank / size⌋ to ⌊total · (rank + 1) / size⌋."""
        return _share(self.rank, self.size, total)

    def work_on(self, share: Share) -> None:
        """Remembers it."""
        self._share = share

    def whole(self, loss: Tensor, parameters: Sequence[Tensor]) -> Tensor:
        """One sum of one flat vector: gradients, the loss, which gradients there are, and the wish to stop."""
        has = [p.grad is not None for p in parameters]
        for p in parameters:
            if p.grad is None:
                p.grad = torch.zeros_like(p)
        gradients: list[Tensor] = [p.grad for p in parameters if p.grad is not None]
        more = torch.tensor([*has, self._wish], dtype=loss.dtype, device=loss.device)
        flat = torch.cat([*(g.reshape(-1) for g in gradients), loss.reshape(1), more])
        if self._share.counted:
            flat *= self._share.counted / self._share.total
        else:
            flat.zero_()  # and not times 0: another one's row may be infinite
        self._sum(flat)
        *sums, whole, more = flat.split([*(g.numel() for g in gradients), 1, len(more)])
        torch._foreach_copy_(gradients, [s.view(g.shape) for s, g in zip(sums, gradients, strict=True)])
        *shares, wishes = more.tolist()
        for p, had in zip(parameters, shares, strict=True):
            if not had:
                p.grad = None
        self._stopping = wishes > 0
        return whole.squeeze(0).to(loss.dtype)

    def mean(self, value: Tensor) -> Tensor:
        """Every process's value by its rows; refused to a capture, whose replays would talk out of turn."""
        if being_captured():
            raise CannotCapture("the processes of the run exchange numbers in the middle of it")
        weighed = value.detach() * (self._share.counted / self._share.total)
        weighed = weighed if self._share.counted else torch.zeros_like(weighed)
        self._sum(weighed)
        return weighed

    def total(self, values: dict[str, float]) -> dict[str, float]:
        """One sum of them all."""
        numbers = torch.tensor(list(values.values()), dtype=torch.float64)
        self._sum(numbers)
        return dict(zip(values, numbers.tolist(), strict=True))

    def agree_to_stop(self, wish: bool) -> bool:
        """The wish goes out with the next gradients; the answer is what came with the last."""
        self._wish = wish
        return self._stopping

    def from_leader(self, value: T) -> T:
        """Pickled by the leader."""
        box = [value if self.leads else None]
        self._together(lambda: dist.broadcast_object_list(box, src=0))
        return box[0]  # type: ignore[return-value]

    def gather(self, value: T) -> list[T]:
        """Pickled by each."""
        boxes: list[Any] = [None] * self.size
        self._together(lambda: dist.all_gather_object(boxes, value))
        return boxes

    def add(self, tensor: Tensor) -> None:
        """In place."""
        self._sum(tensor)

    def copy_from_leader(self, tensors: Iterable[Tensor]) -> None:
        """In place."""
        with torch.no_grad():
            for tensor in tensors:
                sent = tensor.detach().contiguous()
                self._together(lambda sent=sent: dist.broadcast(sent, src=0))  # type: ignore[misc]
                tensor.copy_(sent)

    def leave(self, error: BaseException) -> None:
        """Says why, and lets the connections go."""
        try:
            if not isinstance(error, ProcessLost) and not self._store.check([_LAST_WORDS]):
                self._store.set(_LAST_WORDS, _packed(error, self.rank))
        except RuntimeError:
            pass  # the store has gone with the process that kept it
        _let_go(error)
        if dist.is_initialized():
            dist.destroy_process_group()

    def _sum(self, tensor: Tensor) -> None:
        self._together(lambda: dist.all_reduce(tensor))

    def _together(self, collective: Callable[[], object]) -> None:
        try:
            collective()
        except RuntimeError as error:
            why = self._why()
            if why.__cause__ is None:
                why.__cause__ = error
            raise why  # noqa: B904  # which has the cause that another process gave it

    def _why(self) -> BaseException:
        """The error that another process left by, or that it left without one."""
        try:
            if self._store.check([_LAST_WORDS]):
                return _unpacked(self._store.get(_LAST_WORDS))
        except RuntimeError:
            pass
        what = self._what_became() or (
            f"process {self.rank} of {self.size} has lost the connection to another one, which was killed, ran out of "
            "memory, or has a host that cannot be reached"
        )
        return ProcessLost(what)


def _let_go(error: BaseException) -> None:
    """Clears PyTorch's frames in an error's tracebacks: while they hold the group, its connections stay open."""
    met, chain = set[int](), [error]
    while chain:
        link = chain.pop()
        if id(link) in met:
            continue
        met.add(id(link))
        chain += [other for other in (link.__cause__, link.__context__) if other is not None]
        for frame, _ in traceback.walk_tb(link.__traceback__):
            if frame.f_globals.get("__name__", "").startswith("torch.distributed"):
                with suppress(RuntimeError):  # it is still running
                    frame.clear()


class _Elsewhere(Exception):
    """The traceback of an error that another process met."""

    def __str__(self) -> str:
        return f"\n{self.args[0]}"


def _packed(error: BaseException, rank: int) -> bytes:
    text = f"process {rank}:\n" + "".join(traceback.format_exception(type(error), error, error.__traceback__))
    try:
        packed = pickle.dumps((error, text))
        pickle.loads(packed)  # an error of several arguments may be packed, but not unpacked
    except Exception:
        packed = pickle.dumps((RuntimeError(f"{type(error).__name__}: {error}"), text))
    return packed


def _unpacked(packed: bytes) -> BaseException:
    error, text = pickle.loads(packed)
    error.__cause__ = _Elsewhere(text)
    return error
