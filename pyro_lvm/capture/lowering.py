"""From a traced graph to something quick to run again: machine code, or the graph itself where there is no compiler."""

import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache

import torch
from torch import Tensor
from torch.fx import GraphModule

from pyro_lvm.capture.draws import draws_apart
from pyro_lvm.capture.products import ProductChoices
from pyro_lvm.capture.tracing import trace

__all__ = ["Replay", "replay"]

_log = logging.getLogger("pyro_lvm")

Replay = Callable[[list[Tensor]], Sequence[Tensor]]


def replay(function: Callable[[], Sequence[Tensor]], inputs: Sequence[Tensor], choices: ProductChoices) -> Replay:
    """What the function does, as a function of a list of tensors like `inputs`, in their order; see `trace`.

    Raises:
        CannotCapture: see `trace`.
    """
    with _quiet():  # PyTorch's compiler uses what PyTorch announces the end of
        graph = trace(function, inputs)
        choices.rewrite(graph)
    lowered = _lower(graph, [tensor.detach() for tensor in inputs])
    if any(tensor.is_cuda for tensor in inputs):
        from pyro_lvm.capture.cuda import GraphReplay

        return GraphReplay(lowered)
    return lowered


def _lower(graph: GraphModule, inputs: list[Tensor]) -> Replay:
    if not _has_compiler(inputs[-1].device.type):
        return lambda tensors: graph(*tensors)
    try:
        with _quiet():
            from torch._inductor import config  # here, because it takes seconds to import
            from torch._inductor.compile_fx import compile_fx_inner

            # The same draws as the operations of the graph make; and no checks of sizes, which are the traced ones.
            with config.patch(fallback_random=True, size_asserts=False, nan_asserts=False), torch.random.fork_rng():
                before, after = draws_apart(graph)
                run = compile_fx_inner(after, [*inputs, *before()])
                return lambda tensors: run([*tensors, *before()])
    except Exception as error:
        _log.warning("the captured graph runs without PyTorch's compiler: %s", str(error).split("\n", maxsplit=1)[0])
        return lambda tensors: graph(*tensors)


@contextmanager
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@cache
def _has_compiler(device: str) -> bool:
    if device != "cpu":
        from torch.utils._triton import has_triton

        return bool(has_triton())
    from torch._inductor.cpp_builder import get_cpp_compiler

    try:
        get_cpp_compiler()
    except Exception:  # whatever it is, there is none to be had
        _log.warning("there is no C++ compiler: the captured graph runs without one, at less speed. Install g++.")
        return False
    return True
