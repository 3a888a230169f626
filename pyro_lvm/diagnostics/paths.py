"""Ways from one latent to another: straight, and along a sphere."""

from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["Path", "linear", "spherical"]

Path = Callable[[Tensor, Tensor, Tensor], Tensor]


def linear(start: Tensor, end: Tensor, t: Tensor) -> Tensor:
    r"""$z(t) = (1 - t)\, z_0 + t\, z_1$.

    Between independent draws of a normal with many units the middle is $\sqrt 2$ times closer to the origin than draws
    are: what is decoded there is of latents that the prior hardly ever draws.

    Args:
        start, end: z₀ and z₁, (..., M).
        t: (S,), 0 at the start and 1 at the end.

    Returns:
        (S, ..., M).

    Example:
        >>> linear(torch.tensor([0.0, 4.0]), torch.tensor([1.0, 0.0]), torch.tensor([0.0, 0.25, 1.0]))
        tensor([[0.0000, 4.0000],
                [0.2500, 3.0000],
                [1.0000, 0.0000]])
    """
    t = _times(start, end, t)
    return (1 - t) * start + t * end


def spherical(start: Tensor, end: Tensor, t: Tensor) -> Tensor:
    r"""The great circle at constant angular speed, the norm going evenly from one end's to the other's.

    With directions $u_i = z_i / \|z_i\|$ and the angle Ω between them,

    $$z(t) = \big((1 - t) \|z_0\| + t \|z_1\|\big)
             \Big(\frac{\sin((1 - t)\,\Omega)}{\sin \Omega} u_0 + \frac{\sin(t\,\Omega)}{\sin \Omega} u_1\Big).$$

    On a sphere it is the geodesic. Draws of a normal with M units have norms of about $\sqrt M$, and so has every point
    of the path. For ends of equal norms this is White's formula; his, which puts $z_i$ for $u_i$, turns unevenly where
    norms differ.

    Args:
        start, end: z₀ and z₁, (..., M).
        t: (S,), 0 at the start and 1 at the end.

    Returns:
        (S, ..., M).

    Raises:
        ValueError: where an end has no direction, being 0, or the ends lie opposite one another, where there is no one
            shortest way.

    References:
        Shoemake (1985), Animating Rotation with Quaternion Curves. White (2016), Sampling Generative Networks.

    Example:
        >>> spherical(torch.tensor([0.0, 4.0]), torch.tensor([2.0, 0.0]), torch.tensor([0.0, 0.5, 1.0]))
        tensor([[0.0000, 4.0000],
                [2.1213, 2.1213],
                [2.0000, 0.0000]])
    """
    t = _times(start, end, t)
    r0, r1 = (z.norm(dim=-1, keepdim=True) for z in (start, end))
    if bool((r0 == 0).any()) or bool((r1 == 0).any()):
        raise ValueError("'start' and 'end' must have a direction, but one is 0: use the linear path.")
    u0, u1 = start / r0, end / r1
    between, across = (u1 - u0).norm(dim=-1, keepdim=True), (u1 + u0).norm(dim=-1, keepdim=True)
    if bool((across < 1e3 * torch.finfo(across.dtype).eps).any()):
        raise ValueError("'start' and 'end' lie opposite one another: no way between them is the shortest.")
    angle = 2 * torch.atan2(between, across)  # the arc cosine loses half the digits near π, where sines are small
    near = angle < torch.finfo(angle.dtype).eps  # the same point, to rounding: sines and angles have the same ratio
    sine = torch.where(near, 1.0, angle.sin())
    before, after = (torch.where(near, part, (part * angle).sin() / sine) for part in (1 - t, t))
    return ((1 - t) * r0 + t * r1) * (before * u0 + after * u1)


def _times(start: Tensor, end: Tensor, t: Tensor) -> Tensor:
    """t as (S, 1, ..., 1), after a look at the ends.

    Raises:
        ValueError: where they have different shapes.
    """
    if start.shape != end.shape or start.dim() == 0:
        raise ValueError(
            f"'start' and 'end' must be vectors of one shape, (..., M), but have {tuple(start.shape)} and "
            f"{tuple(end.shape)}."
        )
    return t.to(start).reshape(-1, *(1,) * start.dim())
