"""Replaying on an NVIDIA GPU: the kernels of a step are recorded once and started together."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["GraphReplay"]

_WARM_UP = 3  # runs before the recording, as PyTorch asks for: libraries set themselves up in them


class GraphReplay:
    """A function of a list of tensors, recorded as a CUDA graph at its first call.

    What is passed later is copied where the recorded kernels read it; parameters, which an optimiser changes in place,
    need no copy. Random numbers go on from PyTorch's generator. Results are copies.

    Args:
        function: what to record; it must not wait for the GPU.
    """

    def __init__(self, function: Any) -> None:
        self._function = function
        self._graph: torch.cuda.CUDAGraph | None = None
        self._inputs: list[Tensor] = []
        self._outputs: Sequence[Tensor] = ()

    def __call__(self, tensors: list[Tensor]) -> Sequence[Tensor]:
        """The function's results."""
        if self._graph is None:
            self._record(tensors)
        for own, given in zip(self._inputs, tensors, strict=True):
            if own.data_ptr() != given.data_ptr():
                own.copy_(given)
        assert self._graph is not None
        self._graph.replay()
        return [output.clone() for output in self._outputs]

    def _record(self, tensors: list[Tensor]) -> None:
        # What is no parameter, a batch or an objective's state, may be another tensor at every call: it needs a place
        # of its own. A parameter's is the one it has now, whatever it is given later.
        self._inputs = [t.detach() if isinstance(t, nn.Parameter) else t.detach().clone() for t in tensors]
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.random.fork_rng([tensors[-1].device]), torch.cuda.stream(side):
            for _ in range(_WARM_UP):
                self._function(list(self._inputs))
        torch.cuda.current_stream().wait_stream(side)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            self._outputs = self._function(list(self._inputs))
