"""Tracing: what a function does to tensors, written down once as a graph."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache

import pyro
import pyro.util
import torch
from torch import Tensor
from torch._ops import OpOverload
from torch.func import functionalize
from torch.fx import GraphModule
from torch.fx.experimental.proxy_tensor import get_proxy_mode, make_fx
from torch.fx.node import Node

__all__ = ["CannotCapture", "being_captured", "is_draw", "trace"]


class CannotCapture(Exception):
    """A function cannot be replayed from a graph; the message says why, in a clause."""


def being_captured() -> bool:
    """Whether tensor operations are being traced: then no value can be looked at, and checks of values are left out.

    Example:
        >>> being_captured()
        False
    """
    return get_proxy_mode() is not None


def is_draw(node: Node) -> bool:
    """Whether a node draws random numbers."""
    return torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ())


def trace(function: Callable[[], Sequence[Tensor]], inputs: Sequence[Tensor]) -> GraphModule:
    """The graph of a function, whose arguments are `inputs` and whose results are the function's.

    The function takes no arguments: it reads `inputs` where it finds them, as attributes or in closures, and each is
    known by its identity. Gradients that it takes are part of the graph. Random numbers are drawn inside it from
    PyTorch's generator, in the order in which the function draws them; tracing leaves the generator as it was.

    Raises:
        CannotCapture: where the function decides by a tensor's value (a rejection loop, an early stop), changes an
            input, or fails; and where the function raises it itself.
    """
    versions = [tensor._version for tensor in inputs]
    devices = {tensor.device.index or 0 for tensor in inputs if tensor.is_cuda}
    with (
        torch.random.fork_rng(sorted(devices)),
        pyro.validation_enabled(False),
        _without_nan_warnings(),
    ):
        try:
            graph = make_fx(lambda *_: function())(*inputs)
            # Again, for operations that write into what others made: the compiler takes it that there are none.
            plain = [tensor.detach() for tensor in inputs]
            graph = make_fx(functionalize(graph), decomposition_table=_decompositions())(*plain)
        except CannotCapture:
            raise
        except Exception as error:
            raise CannotCapture(_reason(error)) from error
    if [tensor._version for tensor in inputs] != versions:
        raise CannotCapture("they change a buffer of theirs as they run")
    _free(graph)
    return graph


@cache
def _decompositions() -> dict[OpOverload, Callable[..., object]]:
    """The compiler's own, but none of random draws: what these are made of uses other numbers than they do."""
    from torch._inductor.decomposition import select_decomp_table  # here, because it takes a second to import

    table = select_decomp_table()
    seeded = torch.Tag.nondeterministic_seeded
    return {op: rule for op, rule in table.items() if isinstance(op, OpOverload) and seeded not in op.tags}


def _reason(error: Exception) -> str:
    text = str(error).split("\n", maxsplit=1)[0]
    if "value out of a tracing tensor" in text or "data-dependent" in text.lower():
        return "they decide by the value of a tensor what to do next (`if`, `while`, `.item()`)"
    return f"tracing them fails: {text}"


@contextmanager
def _without_nan_warnings() -> Iterator[None]:
    """Pyro's own objectives look at their losses' values to warn of NaN; `fit` looks at every loss itself."""
    before = pyro.util.torch_isnan
    pyro.util.torch_isnan = lambda value: False  # type: ignore[assignment]
    try:
        yield
    finally:
        pyro.util.torch_isnan = before


def _free(graph: GraphModule) -> None:
    """Takes out what is computed for nothing, but for random draws: those after them would be others."""
    aten = torch.ops.aten
    graph.graph.eliminate_dead_code(lambda node: node.is_impure() or is_draw(node))
    for node in list(graph.graph.nodes):  # an alias is there for autograd, which is done
        if node.target is aten.alias.default:
            node.replace_all_uses_with(node.args[0])
            graph.graph.erase_node(node)
    graph.recompile()
