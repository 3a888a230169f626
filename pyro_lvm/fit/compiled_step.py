"""A step of training by replaying a captured graph."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from pyro_lvm.compilation import CompiledLoss
from pyro_lvm.fit.fused_adam import FusedAdam
from pyro_lvm.processes import Processes

if TYPE_CHECKING:
    from lightning_fabric import Fabric

__all__ = ["CompiledStep", "ReplayFailed"]


class ReplayFailed(Exception):
    """A loss or a weight is not finite after replayed steps: which step was the first to go wrong is not known."""


class CompiledStep:
    """A step like `Step`, with the loss and its gradient from a captured graph.

    It looks at the loss only: weights that a gradient without a value has spoilt show in the next step's.

    Args:
        fabric: what the module and the optimiser were set up with.
        module, optimizer: as Fabric gave them back; the optimiser is none that asks for losses.
        parameters: those that are trained.
        gradient_clip: largest norm of the gradient, or None.
        processes: which have a share of the batch each.
        loss: of a batch and its gradient.
    """

    def __init__(
        self,
        fabric: "Fabric",
        module: nn.Module,
        optimizer: Any,
        parameters: list[nn.Parameter],
        gradient_clip: float | None,
        processes: Processes,
        loss: CompiledLoss,
    ) -> None:
        self._fabric, self._module, self._fabric_optimizer, self._processes = fabric, module, optimizer, processes
        self._optimizer: torch.optim.Optimizer = optimizer.optimizer
        self._parameters, self._gradient_clip, self._loss = parameters, gradient_clip, loss
        self._update_is_plain = gradient_clip is None and processes.size == 1 and FusedAdam.serves(self._optimizer)
        self._adam: FusedAdam | None = None  # once the optimiser has a state

    def __call__(self, batch: Tensor, size: int) -> float:
        """Takes the step for a batch, or this process's share of one; the whole batch's loss, nats per datum.

        Raises:
            ReplayFailed: where the loss is not finite; the step that went wrong may be the one before.
        """
        loss, gradients = self._loss(batch)
        if self._update_is_plain and all(gradient is not None for gradient in gradients):
            self._plain_update([gradient for gradient in gradients if gradient is not None])
        else:
            loss = self._update(loss, gradients)
        value = loss.item()
        if not math.isfinite(value):
            raise ReplayFailed(f"the loss is {value}")
        return value

    def begin(self) -> None:
        """Tells that an epoch begins: since the last one the caller may have changed the programs."""
        self._loss.look_for_changes()

    def check(self) -> None:
        """Raises where the last step of an epoch has left a weight that is not finite."""
        if not all(bool(parameter.isfinite().all()) for parameter in self._parameters):
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

    def _update(self, loss: Tensor, gradients: Sequence[Tensor | None]) -> Tensor:
        self._hand_over(gradients)
        loss = self._processes.whole(loss, self._parameters)
        if self._gradient_clip is not None:
            self._fabric.clip_gradients(
                self._module, self._fabric_optimizer, max_norm=self._gradient_clip, error_if_nonfinite=False
            )
        self._optimizer.step()
        return loss

    def _hand_over(self, gradients: Sequence[Tensor | None]) -> None:
        for parameter, gradient in zip(self._parameters, gradients, strict=True):
            parameter.grad = gradient
