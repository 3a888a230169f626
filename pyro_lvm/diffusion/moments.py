"""Time as a plate of which each datum meets one element: its plate, and the step that a draw stands for."""

import pyro
import torch
from torch import Tensor

__all__ = ["step_of", "time_plate"]


def time_plate(steps: int | None) -> pyro.plate:
    """The plate `"time"` at dim −2 of the steps from 2 to T; model and guide agree here on its scale, T − 1.

    Args:
        steps: T, 2 or more; None for continuous time, whose scale is 1.

    Example:
        >>> plate = time_plate(1000)
        >>> plate.size, plate.subsample_size, plate.dim
        (999, 1, -2)
    """
    if steps is None:
        return pyro.plate("time", 1, dim=-2)
    # The subsample is given, not drawn: which step it is, each datum draws for itself.
    return pyro.plate("time", steps - 1, subsample=torch.zeros(1, dtype=torch.long), dim=-2)


def step_of(moment: Tensor, steps: int) -> Tensor:
    """The step from 2 to T that a number in [0, 1) stands for, each as often as any other; (...), in its precision.

    Example:
        >>> step_of(torch.tensor([0.0, 0.5, 0.99]), 5)
        tensor([2., 4., 5.])
    """
    return 2 + (moment * (steps - 1)).floor().clamp_max(steps - 2)
