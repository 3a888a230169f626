"""A step of training by replaying a captured graph."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.linalg import LinAlgError  # type: ignore[attr-defined]  # it is there, but not declared as exported

from pyro_lvm.compilation import CompiledLoss
from pyro_lvm.fit.fused_adam import FusedAdam
from pyro_lvm.fit.update import Update

__all__ = ["CompiledStep", "ReplayFailed"]


class ReplayFailed(Exception):
    """A loss or a weight is not finite after replayed steps: which step was the first to go wrong is not known."""


class CompiledStep:
    """A step like `Step`, with the loss and its gradient from a captured graph.

    It looks at the loss only: weights that a gradient without a value has spoilt show in the next step's.

    Args:
        update: what it trains, and with what: an optimiser that asks for no losses.
        loss: of a batch and its gradient.
    """

    def __init__(self, update: Update, loss: CompiledLoss) -> None:
        self._update, self._loss = update, loss
        self._optimizer: torch.optim.Optimizer = update.optimizer.optimizer
        self._update_is_plain = (
            update.gradient_clip is None and update.processes.size == 1 and FusedAdam.serves(self._optimizer)
        )
        self._adam: FusedAdam | None = None  # once the optimiser has a state

    def __call__(self, batch: Tensor, size: int) -> float:
        """Takes the step for a batch, or this process's share of one; the whole batch's loss, nats per datum.

        Raises:
            ReplayFailed: where there is no finite loss; the step that went wrong may be the one before.
        """
        try:
            loss, gradients = self._loss(batch)
        except LinAlgError as error:
            raise ReplayFailed(str(error).splitlines()[0]) from error
        if self._update_is_plain and all(gradient is not None for gradient in gradients):
            self._plain_update([gradient for gradient in gradients if gradient is not None])
        else:
            loss = self._whole_update(loss, gradients)
        value = loss.item()
        if not math.isfinite(value):
            raise ReplayFailed(f"the loss is {value}")
        return value

    def begin(self) -> None:
        """Tells that an epoch begins: since the last one the caller may have changed the programs."""
        self._loss.look_for_changes()

    def check(self) -> None:
        """Raises where the last step of an epoch has left a weight that is not finite."""
        if not all(bool(parameter.isfinite().all()) for parameter in self._update.parameters):
            raise ReplayFailed("a weight is not finite")

    def state(self) -> dict[str, Any]:
        """How far the capture has come, for a checkpoint."""
        return self._loss.state()

    def load(self, state: dict[str, Any]) -> None:
        """Takes up a state."""
        self._loss.load(state)

    def _plain_update(self, gradients: list[Tensor]) -> None:
        if self._adam is None and self._optimizer.state:
            self._adam = FusedAdam(self._optimizer)
        if self._adam is not None:
            self._adam.step(gradients)
            return
        self._hand_over(gradients)
        self._optimizer.step()

    def _whole_update(self, loss: Tensor, gradients: Sequence[Tensor | None]) -> Tensor:
        self._hand_over(gradients)
        loss = self._update.processes.whole(loss, self._update.parameters)
        if self._update.gradient_clip is not None:
            self._update.clip()
        self._optimizer.step()
        return loss

    def _hand_over(self, gradients: Sequence[Tensor | None]) -> None:
        for parameter, gradient in zip(self._update.parameters, gradients, strict=True):
            parameter.grad = gradient
