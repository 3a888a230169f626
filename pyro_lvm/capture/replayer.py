"""A function of a batch, captured for every shape it is called with, and replayed once that is seen to be right."""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pyro_lvm.capture.lowering import Replay, replay
from pyro_lvm.capture.products import ProductChoices
from pyro_lvm.capture.tracing import CannotCapture

__all__ = ["Replayer", "same_but_for_rounding"]

_log = logging.getLogger("pyro_lvm")

_TRIES = 3  # batches on which a replay may differ from the function before it is given up
_CHANGES = 3  # times that what was captured may be out of date before no more is captured

_TOLERANCE = {torch.float64: 1e-7, torch.float32: 1e-3, torch.float16: 1e-2, torch.bfloat16: 5e-2}

Results = Sequence[Tensor]


def same_but_for_rounding(
    found: Sequence[Tensor], expected: Sequence[Tensor], arithmetic: torch.dtype = torch.float64
) -> bool:
    """Whether tensors, taken together, are equal up to what rounding makes of long sums.

    Args:
        found, expected: the tensors.
        arithmetic: the precision of what they were computed with, where it is lower than their own.
    """
    tolerance = max(_TOLERANCE[dtype] for dtype in (arithmetic, *(t.dtype for t in expected)))
    difference = sum(float((a - b).double().square().sum()) for a, b in zip(found, expected, strict=True)) ** 0.5
    norm = sum(float(b.double().square().sum()) for b in expected) ** 0.5
    return difference <= tolerance * (norm + 1e-6)


@dataclass
class _Shape:
    """How far a shape of batch has come: seen once, captured, and compared until it is trusted."""

    run: Replay | None = None
    is_captured: bool = False
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
        agree: Callable[[Results, Results], bool] = same_but_for_rounding,
        is_worth_it: Callable[[Tensor], bool] = lambda x: True,
        what: str,
    ) -> None:
        self._function, self._tensors, self._choices = function, tensors, choices
        self._agree, self._is_worth_it, self._what = agree, is_worth_it, what
        self._shapes: dict[tuple[torch.Size, torch.dtype], _Shape] = {}
        self._changes = 0
        self.failure: str | None = None  # why nothing is captured any more

    def __call__(self, x: Tensor) -> Results:
        """The function's results."""
        key = (x.shape, x.dtype)
        shape = self._shapes.get(key)
        if self.failure is not None:
            return self._function(x)
        if shape is None:
            self._shapes[key] = _Shape()
            return self._function(x)
        if shape.is_captured:
            if shape.run is None and not self._capture(shape, x):
                return self._function(x)
            return self._replayed(shape, x) if shape.is_trusted else self._compared(shape, x)
        results = self._function(x)
        if self._is_worth_it(x):
            self._capture(shape, x)
        return results

    def forget(self) -> None:
        """Captures anew from now on: something has changed that the graphs have made a constant.

        What changes again and again, as a temperature that falls from epoch to epoch, is not worth the captures.
        """
        if self.failure is not None or not any(shape.is_captured for shape in self._shapes.values()):
            return
        self._shapes.clear()
        self._changes += 1
        if self._changes == _CHANGES:
            self._give_up("a number or a word among their attributes keeps changing (a buffer may)")

    def state(self) -> dict[str, Any]:
        """How far each shape has come, for a checkpoint: one that goes on from it replays what this one would."""
        shapes = [
            {"shape": list(size), "dtype": str(dtype), "is_captured": s.is_captured, "differed": s.differed}
            | {"is_trusted": s.is_trusted}
            for (size, dtype), s in self._shapes.items()
        ]
        return {"shapes": shapes, "failure": self.failure, "changes": self._changes}

    def load(self, state: Mapping[str, Any]) -> None:
        """Takes up a state; what it had captured is captured again when it is needed."""
        self.failure, self._changes = state["failure"], state["changes"]
        for given in state["shapes"]:
            key = torch.Size(given["shape"]), getattr(torch, given["dtype"].removeprefix("torch."))
            how_far = {name: given[name] for name in ("is_captured", "differed", "is_trusted")}
            self._shapes[key] = _Shape(**how_far)

    def _capture(self, shape: _Shape, x: Tensor) -> bool:
        start = time.perf_counter()
        x = x.clone()  # whatever else it is, to the graph it is the batch
        try:
            shape.run = replay(lambda: self._function(x), [*self._tensors(), x], self._choices)
        except CannotCapture as error:
            self._give_up(str(error))
            return False
        shape.is_captured = True
        _log.info("compiled %s for batches of %d in %.1f s", self._what, len(x), time.perf_counter() - start)
        return True

    def _replayed(self, shape: _Shape, x: Tensor) -> Results:
        assert shape.run is not None
        with torch.no_grad():  # gradients are among the results
            return shape.run([*self._tensors(), x])

    def _compared(self, shape: _Shape, x: Tensor) -> Results:
        before = _generators(x)
        replayed = self._replayed(shape, x)
        _set_generators(x, before)
        own = self._function(x)
        shape.is_trusted = self._agree(replayed, own)
        shape.differed += not shape.is_trusted
        if shape.differed == _TRIES:
            self._give_up("they do not do the same at every call")
        return own

    def _give_up(self, reason: str) -> None:
        self.failure = reason
        self._shapes.clear()
        _log.warning("the programs run as they are, and %s is not compiled: %s.", self._what, reason)


def _generators(x: Tensor) -> list[Tensor]:
    return [torch.get_rng_state(), *([torch.cuda.get_rng_state(x.device)] if x.is_cuda else [])]


def _set_generators(x: Tensor, states: list[Tensor]) -> None:
    torch.set_rng_state(states[0])
    if x.is_cuda:
        torch.cuda.set_rng_state(states[1], x.device)
