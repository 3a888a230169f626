"""Matrix products: PyTorch's default against oneDNN's, whichever is faster for a shape on this machine.

PyTorch gives float32 products on the CPU to MKL, which does not use all of every processor: on AMD's it can take twice
the time of oneDNN, which comes with PyTorch as well. A captured graph shows its products, so that each can be timed
both ways once. Results agree to rounding.
"""

import time
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule
from torch.fx.node import Node

__all__ = ["ProductChoices"]

_ROUNDS = 15  # the quickest of so many is compared: other work on the machine can only slow a product down
_MARGIN = 0.95  # how much quicker oneDNN's has to be


class ProductChoices:
    """Which products go to oneDNN, by shape, strides and number of threads; each choice is made once and kept.

    A choice decides the last bits of a result, so a run that is to be continued exactly keeps its choices.

    Attributes:
        made: the choices, by product.
    """

    def __init__(self) -> None:
        self.made: dict[str, bool] = {}

    def rewrite(self, graph: GraphModule) -> None:
        """Sends the products of a traced graph where they are quicker."""
        for node in list(graph.graph.nodes):
            if node.target is torch.ops.aten.addmm.default and _is_plain(node):
                _unfuse(graph, node)
        for node in graph.graph.nodes:
            if node.target is torch.ops.aten.mm.default and _in_question(node):
                _define()
                ours = torch.ops.pyro_lvm
                node.target = (ours.product_onednn if self._prefers_onednn(node) else ours.product_default).default
        graph.recompile()

    def _prefers_onednn(self, node: Node) -> bool:
        a, b = (_value(argument) for argument in node.args)
        shapes = [f"{t.shape[0]}x{t.shape[1]} {tuple(t.stride())}" for t in (a, b)]
        key = f"{shapes[0]}, {shapes[1]}, {torch.get_num_threads()} threads"
        if key not in self.made:
            default, onednn = _quickest(torch.mm, _onednn, a, b)
            self.made[key] = onednn < _MARGIN * default
        return self.made[key]


def _value(node: Any) -> Tensor:
    """A tensor like a node's result, without the numbers in it."""
    found: Tensor = node.meta["val"]
    return found


def _is_plain(node: Node) -> bool:
    """Whether an addmm is bias + a @ b."""
    return not node.kwargs and _value(node.args[0]).dim() == 1


def _unfuse(graph: GraphModule, node: Node) -> None:
    """A product and a sum for the two in one: the sum then goes with what follows it, at no cost."""
    bias, a, b = node.args
    with graph.graph.inserting_before(node):
        product = graph.graph.call_function(torch.ops.aten.mm.default, (a, b))
        total = graph.graph.call_function(torch.ops.aten.add.Tensor, (product, bias))
    product.meta["val"] = total.meta["val"] = node.meta["val"]
    node.replace_all_uses_with(total)
    graph.graph.erase_node(node)


def _in_question(node: Node) -> bool:
    tensors = [_value(argument) for argument in node.args]
    return torch.backends.mkldnn.is_available() and all(
        t.device.type == "cpu" and t.dtype == torch.float32 and t.numel() for t in tensors
    )


def _onednn(a: Tensor, b: Tensor) -> Tensor:
    """a @ b; the operator is that of a linear layer, and takes its weights transposed, with any strides."""
    product: Tensor = torch.ops.mkldnn._linear_pointwise(a, b.t(), None, "none", [], "")
    return product


def _quickest(first: Callable[..., Any], second: Callable[..., Any], a: Any, b: Any) -> tuple[float, float]:
    """The least time of each, in seconds, run in turns: products take the same time for all normal numbers."""
    a, b = (torch.empty_strided(t.shape, t.stride(), dtype=t.dtype, device=t.device).fill_(0.5) for t in (a, b))
    times = ([], [])  # type: tuple[list[float], list[float]]
    for _ in range(_ROUNDS):
        for function, taken in zip((first, second), times, strict=True):
            start = time.perf_counter()
            function(a, b)
            taken.append(time.perf_counter() - start)
    return min(times[0]), min(times[1])


@cache
def _define() -> torch.library.Library:
    """Operators of ours for both, so that PyTorch's compiler leaves them as they are.

    It lets oneDNN's only have constant weights, and would make one operator of a default product and the sum after it.
    In machine code they are PyTorch's own operators, without a way through Python.
    """
    from torch._inductor.lowering import fallback_handler, lowerings, register_lowering

    library = torch.library.Library("pyro_lvm", "DEF")
    for name, function in (("product_onednn", _onednn), ("product_default", torch.mm)):
        library.define(f"{name}(Tensor a, Tensor b) -> Tensor")
        library.impl(name, function, "CPU")
        library.impl(name, lambda a, b: a.new_empty(a.shape[0], b.shape[1]), "Meta")
    linear = fallback_handler(torch.ops.mkldnn._linear_pointwise.default, add_to_fallback_set=False)

    @register_lowering(torch.ops.pyro_lvm.product_onednn.default, type_promotion_kind=None)
    def _(a: Any, b: Any) -> Any:
        return linear(a, lowerings[torch.ops.aten.permute.default](b, [1, 0]), None, "none", [], "")

    @register_lowering(torch.ops.pyro_lvm.product_default.default, type_promotion_kind=None)
    def _(a: Any, b: Any) -> Any:
        return lowerings[torch.ops.aten.mm.default](a, b)

    return library
