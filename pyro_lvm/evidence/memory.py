"""How much memory running a pair takes, measured rather than guessed."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class AllocatedBytes(TorchDispatchMode):
    """Adds up the bytes of everything operations return: at least as much as is ever held at once."""

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        # A view shares its input's storage, which was counted when it was made.
        storages = {a.untyped_storage().data_ptr() for a in tree_leaves((args, kwargs)) if isinstance(a, Tensor)}
        for tensor in tree_leaves(out):
            if isinstance(tensor, Tensor) and tensor.untyped_storage().data_ptr() not in storages:
                self.total += tensor.untyped_storage().nbytes()
        return out


def bytes_per_row(function: Callable[[Tensor], object], x: Tensor) -> int:
    """The memory `function(x)` allocates for each row of x, an upper bound on what it needs at once."""
    few, many = x[:1], x[:1].expand(9, *x.shape[1:])
    used = []
    for rows in (few, many):
        with torch.random.fork_rng(), torch.no_grad(), AllocatedBytes() as mode:
            function(rows)
        used.append(mode.total)
    return max(1, (used[1] - used[0]) // 8)
