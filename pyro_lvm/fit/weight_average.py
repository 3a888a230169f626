"""The average of the weights that a run visits, which it is judged by and ends with."""

from collections.abc import Sequence
from typing import Any, final

import torch
from torch import Tensor

__all__ = ["WeightAverage"]


@final
class WeightAverage:
    r"""$\bar w_n = \sum_{i=1}^n d^{n-i} w_i \big/ \sum_{i=1}^n d^{n-i}$, with $w_i$ the weights after step i.

    The weights before the first step have no part in it. The exponential average of `torch.optim.swa_utils` does not
    divide: the first weights count $d^{n-1}$ in it, most of all for the first 0.7 / (1 − d) steps, which can be all
    that a small data set needs.

    Args:
        parameters: those that are trained; what they hold is read at every step. Those of half precision have an
            average in single precision, in which a step is not lost.
        decay: d; the average looks back over about 1 / (1 − d) steps.

    References:
        Polyak & Juditsky (1992), Acceleration of Stochastic Approximation by Averaging. Kingma & Ba (2015), Adam: A
        Method for Stochastic Optimization: the division.

    Example:
        >>> w = torch.tensor([1.0])
        >>> average = WeightAverage([w], decay=0.5)
        >>> for value in (4.0, 10.0):
        ...     _ = w.fill_(value)
        ...     average.update()
        >>> average.write()
        >>> w  # (0.5 · 4 + 10) / 1.5
        tensor([8.])
    """

    def __init__(self, parameters: Sequence[Tensor], decay: float) -> None:
        self._parameters = [p.detach() for p in parameters]
        self._decay, self._steps = decay, 0
        self._average = [p.to(torch.promote_types(p.dtype, torch.float32), copy=True) for p in self._parameters]

    def update(self) -> None:
        """Takes in the weights of another step."""
        self._steps += 1
        share = (1 - self._decay) / (1 - self._decay**self._steps)  # of the new weights: all for the first
        now = [p.to(a.dtype) for p, a in zip(self._parameters, self._average, strict=True)]
        torch._foreach_lerp_(self._average, now, share)

    def write(self) -> None:
        """Writes the average into the parameters."""
        torch._foreach_copy_(self._parameters, self._average)

    def state(self) -> dict[str, Any]:
        """Steps and average, for a checkpoint."""
        return {"steps": self._steps, "average": [a.clone() for a in self._average]}

    def load(self, state: dict[str, Any]) -> None:
        """Takes up a state."""
        self._steps = state["steps"]
        torch._foreach_copy_(self._average, state["average"])
