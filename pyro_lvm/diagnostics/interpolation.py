"""Interpolation: data on the way from one latent to another."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from pyro_lvm.diagnostics.centres import Centres
from pyro_lvm.diagnostics.figures import is_image
from pyro_lvm.diagnostics.paths import Path, linear, spherical
from pyro_lvm.diagnostics.randomness import seeded
from pyro_lvm.diagnostics.strips import draw_strips

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def interpolate(
    model: Callable[..., Any],
    guide: Callable[..., Any],
    start: Tensor,
    end: Tensor,
    steps: int = 7,
    *,
    path: Path | None = None,
    seed: int | None = None,
) -> Tensor:
    r"""Decodes latents on the way from those of one datum, $E_q[z \mid x_0]$, to those of another, $E_q[z \mid x_1]$.

    All continuous latents of a datum go the way at once, each on its own path; separate values change in the middle.

    Args:
        model, guide: the pair; programs that accept only `x` are taken too.
        start, end: data, (B, *data_shape) each; the b-th leads to the b-th.
        steps: S, both ends counted, at least 2.
        path: `paths.linear`, `paths.spherical`, or any function like them, of latents as vectors; where left out,
            spherical for latents on a sphere and linear for all others.
        seed: makes the result repeatable and leaves the caller's random state alone; draws are made only where a
            density tells neither mean nor mode.

    Returns:
        The means of $p(x \mid z)$, or its modes where it tells no mean, (B, steps, *data_shape).

    Raises:
        ValueError: where the shapes differ, `steps` < 2, the path leaves a latent's sphere, or has no way to go.

    References:
        White (2016), Sampling Generative Networks.

    Example:
        >>> from pyro_lvm import guides, models
        >>> _ = torch.manual_seed(0)
        >>> model = models.ProbabilisticPCA(5, latent_dim=2)
        >>> x = model.sample(6)
        >>> interpolate(model, guides.ExactPPCA(model), x[:3], x[3:], steps=4).shape
        torch.Size([3, 4, 5])
    """
    if start.shape != end.shape:
        raise ValueError(f"'end' must have the shape of 'start', {tuple(start.shape)}, but has {tuple(end.shape)}.")
    if steps < 2:
        raise ValueError(f"'steps' counts both ends and must be at least 2, not {steps}.")
    with seeded(seed):
        centres = Centres(model, guide, start)
        t = torch.linspace(0, 1, steps, dtype=torch.float64)
        ends = centres.encode(torch.cat((start, end)))
        B = len(start)
        between = {}
        for name, z in ends.items():
            if centres.is_shared(name):
                between[name] = z
            elif name not in centres.continuous:
                halves = torch.where(t < 0.5, 0, B)[:, None] + torch.arange(B)  # (S, B)
                between[name] = z[halves].flatten(0, 1)
            else:
                between[name] = _way(z[:B], z[B:], t, path, name, name in centres.spheres).flatten(0, 1)
        return centres.decode(between).unflatten(0, (steps, B)).transpose(0, 1)


def plot_interpolation(
    model: Callable[..., Any],
    guide: Callable[..., Any],
    start: Tensor,
    end: Tensor,
    steps: int = 7,
    *,
    path: Path | None = None,
    shape: tuple[int, ...] | None = None,
    levels: int | None = None,
    seed: int | None = None,
    ax: "Axes | None" = None,
) -> "Axes":
    """Draws the way from one datum to another, a row a pair; pictures have the data themselves at both ends.

    Args:
        model, guide, start, end, steps, path, seed: see `interpolate`.
        shape: of a datum, for pictures that come as vectors.
        levels: number of grey or colour levels; see `plot_samples`.
        ax: the axes to draw into; a new figure's where left out.

    Returns:
        The axes. Data that are no pictures are drawn as lines, one colour a pair.

    Raises:
        ValueError: as `interpolate` does.

    Example:
        >>> from pyro_lvm import data, zoo
        >>> digits = data.load("digits")
        >>> model, guide, _ = zoo.build("vae", digits, latent_dim=3)
        >>> ax = plot_interpolation(model, guide, digits.test[:2], digits.test[2:4], steps=3, levels=17)
        >>> [label.get_text() for label in ax.get_xticklabels()]
        ['x₀', '0', '0.5', '1', 'x₁']
    """
    decoded = interpolate(model, guide, start, end, steps, path=path, seed=seed)
    positions = torch.linspace(0, 1, steps).tolist()
    names = [f"{t:.2g}" for t in positions]
    if is_image(shape or tuple(start.shape[1:])):
        ends = (part.unsqueeze(1).to(decoded) for part in (start, end))
        decoded = torch.cat([next(ends), decoded, next(ends)], 1)
        names = ["x₀", *names, "x₁"]
    return draw_strips(
        decoded,
        positions,
        [str(b + 1) for b in range(len(start))],
        names,
        across="t, of the way from the latent of x₀ to that of x₁",
        down="pair of data",
        shape=shape,
        levels=levels,
        ax=ax,
    )


def _way(start: Tensor, end: Tensor, t: Tensor, path: Path | None, name: str, on_a_sphere: bool) -> Tensor:
    """(S, B, *latent_shape)."""
    shape = start.shape
    # A latent in several dimensions is one vector, unless its points lie on spheres, one each.
    ends = (start, end) if on_a_sphere else (start.reshape(len(start), -1), end.reshape(len(end), -1))
    z = (path or (spherical if on_a_sphere else linear))(*ends, t)
    if on_a_sphere and not torch.allclose(z.norm(dim=-1), torch.ones((), dtype=z.dtype), atol=1e-4):
        raise ValueError(f"'path' leaves the sphere that '{name}' lies on: use paths.spherical, or leave it out.")
    return z.reshape(len(t), *shape)
