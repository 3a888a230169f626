"""One step of training: the loss of a batch, its gradient, and the optimiser's update of the weights."""

import inspect
import math
from typing import Any

import pyro
from torch import Tensor, nn
from torch.linalg import LinAlgError  # type: ignore[attr-defined]  # it is there, but not declared as exported

from pyro_lvm.fit.randomness import random_state, set_random_state
from pyro_lvm.fit.update import Update
from pyro_lvm.programs import Program

__all__ = ["PerDatumLoss", "Step", "StepFailed"]


class StepFailed(Exception):
    """A loss or a gradient is not finite; the weights and the random state are as they were before the step.

    Attributes:
        of_gradient: whether the loss is finite.
        is_own: whether the loss of this process's own data is not; other processes see only that the sum is not.
    """

    def __init__(self, what: str, *, of_gradient: bool, is_own: bool = True) -> None:
        super().__init__(what)
        self.of_gradient, self.is_own = of_gradient, is_own


class PerDatumLoss(nn.Module):
    """The loss of a batch per datum, as a module for Fabric to set up."""

    def __init__(self, programs: tuple[Program, Program], objective: Any) -> None:
        super().__init__()
        self.holders = nn.ModuleList(program.module() for program in programs)
        self._programs, self._objective = programs, objective

    def forward(self, x: Tensor, size: int) -> Tensor:
        """Minus the bound, nats per datum, the batch standing for a data set of `size`."""
        if self._programs[0].accepts_size:
            loss: Tensor = self._objective.differentiable_loss(*self._programs, x, size=size)
            return loss / size
        loss = self._objective.differentiable_loss(*self._programs, x)
        return loss / len(x)


class Step:
    """A step that runs the programs as they are.

    Args:
        update: what it trains, and with what.
    """

    def __init__(self, update: Update) -> None:
        self._update = update
        self._nan = update.parameters[0].new_full((), math.nan)
        closure = inspect.signature(update.optimizer.optimizer.step).parameters["closure"]
        self.asks_for_losses = closure.default is inspect.Parameter.empty  # as LBFGS does

    def __call__(self, batch: Tensor, size: int) -> float:
        """Takes the step for a batch, or this process's share of one; the whole batch's loss, nats per datum.

        Raises:
            StepFailed: where loss or gradient is not finite.
        """
        state = random_state()

        def loss_and_gradient() -> Tensor:
            set_random_state(state)  # an optimiser that asks several times is to see one function
            return self._loss_and_gradient(batch, size, state)

        if self.asks_for_losses:
            return float(self._update.optimizer.step(loss_and_gradient))
        loss = loss_and_gradient()
        self._update.optimizer.step()
        return loss.item()

    def _loss_and_gradient(self, batch: Tensor, size: int, state: list[Tensor]) -> Tensor:
        """The loss, its gradient left on the parameters."""
        update = self._update
        update.optimizer.zero_grad()
        what, own = None, self._nan
        try:
            # Pyro's own checks have passed on the first batch; the loss and the gradients are checked at every step.
            with pyro.validation_enabled(False):
                loss: Tensor = update.module(batch, size)
            update.fabric.backward(loss)
            own = loss.detach()
        except LinAlgError as error:
            what = str(error).splitlines()[0]
        # Looked at only when it is the whole batch's, so that all processes see the same.
        whole = update.processes.whole(own, update.parameters)
        value = whole.item()
        if not math.isfinite(value):
            set_random_state(state)
            is_own = not math.isfinite(own.item())
            raise StepFailed(what or f"the loss is {value}", of_gradient=False, is_own=is_own)
        norm = update.clip()
        if norm is not None and not math.isfinite(norm.item()):
            set_random_state(state)
            raise StepFailed("a gradient is not finite", of_gradient=True)
        return whole
