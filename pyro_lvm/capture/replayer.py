"""A function of a batch, captured for every shape it is called with, and replayed once that is seen to be right."""

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pyro_lvm.capture.lowering import Replay, replay
from pyro_lvm.capture.products import ProductChoices
from pyro_lvm.capture.tracing import CannotCapture

__all__ = ["Replayer"]

_log = logging.getLogger("pyro_lvm")

_TRIES = 3  # batches on which a replay may differ from the function before it is given up

Results = Sequence[Tensor]


@dataclass
class _Captured:
    run: Replay
    differed: int = 0
    is_trusted: bool = False


class Replayer:
    """A function of a batch, by replaying a captured graph where it can be.

    The first batch of a shape goes through the function itself, and so does the second, from which the graph is
    captured. The third goes both ways, and the results are compared: that finds what a graph cannot hold, a counter in
    Python or a draw from another library's generator. A function that cannot be captured, or whose replay differs, is
    run as it is from then on, with one line in the log that says why.

    Args:
        function: from a batch to tensors; it changes nothing.
        tensors: gives the tensors it reads besides the batch, in the same order at every call.
        choices: of matrix products.
        agree: whether two results are the same but for rounding.
        is_worth_it: of a batch, whether there will be enough of its shape to repay the capture.
        what: it is, for the log.
    """

    def __init__(
        self,
        function: Callable[[Tensor], Results],
        tensors: Callable[[], list[Tensor]],
        choices: ProductChoices,
        *,
        agree: Callable[[Results, Results], bool],
        is_worth_it: Callable[[Tensor], bool] = lambda x: True,
        what: str,
    ) -> None:
        self._function, self._tensors, self._choices = function, tensors, choices
        self._agree, self._is_worth_it, self._what = agree, is_worth_it, what
        self._captured: dict[Any, _Captured] = {}
        self._seen: set[Any] = set()
        self.failure: str | None = None  # why nothing is captured any more

    def __call__(self, x: Tensor) -> Results:
        """The function's results."""
        key = (x.shape, x.dtype)
        captured = self._captured.get(key)
        if captured is not None:
            return self._replayed(captured, x) if captured.is_trusted else self._compared(captured, x)
        results = self._function(x)
        if key not in self._seen:
            self._seen.add(key)
        elif self.failure is None and self._is_worth_it(x):
            self._capture(key, x)
        return results

    def forget(self) -> None:
        """Captures anew from now on: something has changed that the graphs have made a constant."""
        self._captured.clear()

    def _capture(self, key: Any, x: Tensor) -> None:
        start = time.perf_counter()
        x = x.clone()  # whatever else it is, to the graph it is the batch
        try:
            run = replay(lambda: self._function(x), [*self._tensors(), x], self._choices)
        except CannotCapture as error:
            self._give_up(str(error))
            return
        self._captured[key] = _Captured(run)
        _log.info("compiled %s for batches of %d in %.1f s", self._what, len(x), time.perf_counter() - start)

    def _replayed(self, captured: _Captured, x: Tensor) -> Results:
        with torch.no_grad():  # gradients are among the results
            return captured.run([*self._tensors(), x])

    def _compared(self, captured: _Captured, x: Tensor) -> Results:
        before = _generators(x)
        replayed = self._replayed(captured, x)
        _set_generators(x, before)
        own = self._function(x)
        captured.is_trusted = self._agree(replayed, own)
        captured.differed += not captured.is_trusted
        if captured.differed == _TRIES:
            self._give_up("they do not do the same at every call")
        return own

    def _give_up(self, reason: str) -> None:
        self.failure = reason
        self._captured.clear()
        _log.warning("the programs run as they are, and %s is not compiled: %s.", self._what, reason)


def _generators(x: Tensor) -> list[Tensor]:
    return [torch.get_rng_state(), *([torch.cuda.get_rng_state(x.device)] if x.is_cuda else [])]


def _set_generators(x: Tensor, states: list[Tensor]) -> None:
    torch.set_rng_state(states[0])
    if x.is_cuda:
        torch.cuda.set_rng_state(states[1], x.device)
