"""PyTorch's fused Adam without the bookkeeping around it, which takes longer than a small model's update itself."""

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["FusedAdam"]


class FusedAdam:
    """The update of a `torch.optim.Adam` or `AdamW` that is fused: the same operation on the same state.

    Args:
        optimizer: one that has made a step, so that it has a state.
    """

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self._optimizer = optimizer
        self._groups = [_Group(group, optimizer.state) for group in optimizer.param_groups]

    @staticmethod
    def serves(optimizer: torch.optim.Optimizer) -> bool:
        """Whether an optimiser is one that this can stand in for."""
        return (
            type(optimizer) in (torch.optim.Adam, torch.optim.AdamW)
            and all(group["fused"] and not group["capturable"] for group in optimizer.param_groups)
            and not optimizer._optimizer_step_pre_hooks
            and not optimizer._optimizer_step_post_hooks
        )

    def step(self, gradients: Sequence[Tensor]) -> None:
        """Updates the parameters, which have these gradients, in the optimiser's order."""
        done = 0
        for group in self._groups:
            group.update(list(gradients[done : done + len(group.parameters)]))
            done += len(group.parameters)


class _Group:
    def __init__(self, options: dict[str, object], state: dict[Tensor, dict[str, Tensor]]) -> None:
        self._options = options
        self.parameters: list[Tensor] = [p.detach() for p in options["params"]]  # type: ignore[attr-defined]
        states = [state[p] for p in options["params"]]  # type: ignore[attr-defined]
        self._first = [s["exp_avg"] for s in states]
        self._second = [s["exp_avg_sq"] for s in states]
        self._largest = [s["max_exp_avg_sq"] for s in states] if options["amsgrad"] else []
        # Counted all at once: each parameter's count becomes a view of one tensor.
        self._count = torch.stack([s["step"] for s in states])
        self._counts = list(self._count.unbind())
        for s, count in zip(states, self._counts, strict=True):
            s["step"] = count
        self._operation = torch._fused_adamw_ if options["decoupled_weight_decay"] else torch._fused_adam_

    def update(self, gradients: list[Tensor]) -> None:
        options = self._options
        self._count.add_(1)
        self._operation(  # type: ignore[call-overload]
            self.parameters,
            gradients,
            self._first,
            self._second,
            self._largest,
            self._counts,
            lr=options["lr"],
            beta1=options["betas"][0],  # type: ignore[index]
            beta2=options["betas"][1],  # type: ignore[index]
            weight_decay=options["weight_decay"],
            eps=options["eps"],
            amsgrad=options["amsgrad"],
            maximize=options["maximize"],
        )
