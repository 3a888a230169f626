"""From gradients to new weights."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn
from torch.nn.utils import get_total_norm

from pyro_lvm.processes import Processes

if TYPE_CHECKING:
    from lightning_fabric import Fabric

__all__ = ["Update"]


@dataclass(frozen=True)
class Update:
    """What a step trains, and with what.

    Attributes:
        fabric: what the module and the optimiser were set up with.
        module, optimizer: as Fabric gave them back.
        parameters: those that are trained.
        gradient_clip: largest norm of the gradient, or None.
        processes: which have a share of the batch each.
    """

    fabric: "Fabric"
    module: nn.Module
    optimizer: Any
    parameters: list[nn.Parameter]
    gradient_clip: float | None
    processes: Processes

    def clip(self) -> Tensor | None:
        """The norm of the gradient on the parameters, which is clipped where that is asked for."""
        if self.gradient_clip is None:
            return get_total_norm([p.grad for p in self.parameters if p.grad is not None])
        return self.fabric.clip_gradients(
            self.module, self.optimizer, max_norm=self.gradient_clip, error_if_nonfinite=False
        )
