"""Quantiles of each unit of a prior."""

from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions import Independent

from pyro_lvm.progress import progress_bar

_DRAWS = 10_000  # that tell the quantiles where they have no formula
_AT_ONCE = 1000


def quantiles(density: Any, scores: Tensor) -> Tensor:
    r"""$F_d^{-1}(\Phi(s))$ of each unit d: s standard deviations from the mean for a normal, as probable for others.

    Exact for diagonal normals; others are drawn from, 10,000 times.

    Args:
        density: of values (*batch, *event).
        scores: s, (S,).

    Returns:
        (S, *batch, *event).

    Example:
        >>> quantiles(dist.Normal(torch.tensor([0.0, 5.0]), 2.0).to_event(1), torch.tensor([-1.0, 1.0]))
        tensor([[-2.,  3.],
                [ 2.,  7.]])
    """
    normal = diagonal_normal(density)
    if normal is not None:
        return normal.loc + normal.scale * scores.to(normal.loc).reshape(-1, *(1,) * normal.loc.dim())
    with progress_bar("quantiles of the prior", _DRAWS) as advance:
        parts = []
        for _ in range(0, _DRAWS, _AT_ONCE):
            parts.append(density.sample((_AT_ONCE,)))
            advance(_AT_ONCE, "")
    drawn = torch.cat(parts).sort(0).values
    at = torch.special.ndtr(scores.to(drawn)) * (len(drawn) - 1)
    below = at.floor().long().clamp_max(len(drawn) - 2)
    rest = (at - below).reshape(-1, *(1,) * (drawn.dim() - 1))
    return torch.lerp(drawn[below], drawn[below + 1], rest.expand(-1, *drawn.shape[1:]))


def diagonal_normal(density: Any) -> Any | None:
    """The normal densities of the units, where these are independent and normal; else None."""
    while isinstance(density, Independent):
        density = density.base_dist
    return density if isinstance(density, dist.Normal) else None
