"""Random draws of a graph apart from the rest, so that a compiler cannot change their order."""

from copy import deepcopy

from torch import Tensor
from torch.fx import Graph, GraphModule
from torch.fx.node import Node

from pyro_lvm.capture.tracing import is_draw

__all__ = ["draws_apart"]


def draws_apart(graph: GraphModule) -> tuple[GraphModule, GraphModule]:
    """The draws that hang on no input, as a graph without inputs, and the graph with them as inputs behind its own.

    A compiler takes it that operations which do not need one another may trade places; two draws may not, as they share
    a generator. Draws are taken as far as the first that hangs on an input, since those behind it must stay there.
    """
    graph = GraphModule(graph, deepcopy(graph.graph))
    draws, free = _leading_draws(graph)
    first = Graph()
    copies: dict[Node, Node] = {}
    for node in free:
        copies[node] = first.node_copy(node, copies.__getitem__)
    first.output([copies[draw] for draw in draws])
    first.eliminate_dead_code()
    before = GraphModule(graph, first)
    last = [node for node in graph.graph.nodes if node.op == "placeholder"][-1]
    for i, draw in enumerate(draws):
        with graph.graph.inserting_after(last):
            last = graph.graph.placeholder(f"draw_{i}")
        last.meta = dict(draw.meta)
        draw.replace_all_uses_with(last)
        graph.graph.erase_node(draw)
    graph.graph.eliminate_dead_code(lambda node: node.is_impure() or is_draw(node))
    graph.recompile()
    return before, graph


def _leading_draws(graph: GraphModule) -> tuple[list[Node], list[Node]]:
    """The draws, and all that is computed of no input as far as the last of them, in order."""
    draws: list[Node] = []
    free: dict[Node, None] = {}
    for node in graph.graph.nodes:
        is_free = node.op == "get_attr" or node.op == "call_function"
        if is_free and all(other in free for other in node.all_input_nodes):
            free[node] = None
        if is_draw(node):
            if node not in free or not isinstance(node.meta.get("val"), Tensor):
                free.pop(node, None)
                break
            draws.append(node)
    return draws, list(free)
