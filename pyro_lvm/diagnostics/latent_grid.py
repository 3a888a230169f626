"""The manifold of data that two latents make."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, final

import torch
from torch import Tensor

from pyro_lvm.diagnostics.centres import Centres
from pyro_lvm.diagnostics.figures import COLOURS, array, axes, is_image, name_pictures, plain
from pyro_lvm.diagnostics.galleries import plot_samples
from pyro_lvm.diagnostics.marginals import diagonal_normal, quantiles
from pyro_lvm.diagnostics.randomness import seeded

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Of the aggregated posterior, the middle 98 %: the last data far out would leave most of the grid to nothing.
_RANGE = (0.01, 0.99)


@final
@dataclass(frozen=True)
class Manifold:
    """Decoded data on a grid of two latents.

    Attributes:
        across, up: the values of the first and the second latent, rising, (G,) each.
        x: what `(across[j], up[i])` is decoded to, (G, G, *data_shape) by i and j.
    """

    across: Tensor
    up: Tensor
    x: Tensor


def manifold(
    model: Callable[..., Any],
    guide: Callable[..., Any],
    x: Tensor,
    size: int = 15,
    *,
    site: str | None = None,
    seed: int | None = None,
) -> Manifold:
    r"""Decodes a grid of a latent of two units.

    Where its prior is a diagonal normal, the grid is at quantiles, $F_d^{-1}\big((g + \tfrac12) / G\big)$ for g = 0 to
    G − 1, so that every cell holds as much of the prior. For other priors it is even, from the 1 % to the 99 % quantile
    of the posterior means of `x`, the aggregated posterior's range. Other latents of a datum are at their centres under
    the model, given those before them.

    Args:
        model, guide: the pair; programs that accept only `x` are taken too.
        x: some data, (N, *data_shape); many, where the prior is not normal.
        size: G, points on each axis.
        site: the latent; may be left out where a datum has only one that is continuous.
        seed: makes the result repeatable and leaves the caller's random state alone; draws are made only where a
            density tells neither mean nor mode.

    Returns:
        The grid, and the means of $p(x \mid z)$ on it, or its modes where it tells no mean.

    Raises:
        ValueError: where the latent has not two units or lies on a circle, or `size` < 1.

    References:
        Kingma & Welling (2014), Auto-Encoding Variational Bayes, figure 4.

    Example:
        >>> from pyro_lvm import guides, models
        >>> _ = torch.manual_seed(0)
        >>> model = models.ProbabilisticPCA(5, latent_dim=2)
        >>> grid = manifold(model, guides.ExactPPCA(model), torch.zeros(1, 5), size=4)
        >>> grid.across, grid.x.shape
        (tensor([-1.1503, -0.3186,  0.3186,  1.1503]), torch.Size([4, 4, 5]))
    """
    if size < 1:
        raise ValueError(f"'size' is a number of points on each axis and must be at least 1, not {size}.")
    with seeded(seed):
        centres = Centres(model, guide, x)
        return _manifold(centres, x, size, centres.site(site))


def plot_manifold(
    model: Callable[..., Any],
    guide: Callable[..., Any],
    x: Tensor,
    size: int = 15,
    *,
    site: str | None = None,
    shape: tuple[int, ...] | None = None,
    levels: int | None = None,
    seed: int | None = None,
    ax: "Axes | None" = None,
) -> "Axes":
    """Draws the data that two latents make, pictures where their latents are; data of two values as a bent mesh.

    Args:
        model, guide, x, size, site, seed: see `manifold`.
        shape: of a datum, for pictures that come as vectors.
        levels: number of grey or colour levels; see `plot_samples`.
        ax: the axes to draw into; a new figure's where left out.

    Returns:
        The axes. The values of the latents at rows and columns are those of the grid, which need not be even.

    Raises:
        ValueError: as `manifold` does, and where data are neither pictures nor of two values.

    Example:
        >>> from pyro_lvm import data, zoo
        >>> digits = data.load("digits")
        >>> model, guide, _ = zoo.build("vae", digits, latent_dim=2)
        >>> ax = plot_manifold(model, guide, digits.test[:20], size=5, levels=17)
        >>> [label.get_text() for label in ax.get_xticklabels()]
        ['−1.28', '−0.52', '0.00', '0.52', '1.28']
    """
    shape = shape or tuple(x.shape[1:])
    if not is_image(shape) and x[0].numel() != 2:
        raise ValueError(f"'x' must hold pictures or points in the plane to be drawn, not data of shape {shape}.")
    with seeded(seed):
        centres = Centres(model, guide, x)
        name = centres.site(site)
        grid = _manifold(centres, x, size, name)
    labels = [f"{plain(name)}{digit} ({place} of 2 latents)" for digit, place in (("₁", "first"), ("₂", "second"))]
    if is_image(shape):
        ax = plot_samples(grid.x.flip(0).flatten(0, 1), shape=shape, levels=levels, columns=size, ax=ax)
        name_pictures(ax, shape, _every(grid.up.flip(0)), _every(grid.across), *labels)
        return ax
    ax = axes(ax, 5.0, 4.6)
    mesh = array(grid.x).reshape(size, size, 2)
    for colour, lines, label in ((COLOURS[0], mesh, labels[0]), (COLOURS[1], mesh.swapaxes(0, 1), labels[1])):
        style = "-" if colour == COLOURS[0] else "--"
        for i, line in enumerate(lines):
            ax.plot(*line.T, style, color=colour, linewidth=0.8, label=f"along {label}" if not i else None)
    ax.set_aspect("equal", adjustable="datalim")
    ax.set_xlabel("x₁ (data's units)")
    ax.set_ylabel("x₂ (data's units)")
    ax.legend(frameon=False, fontsize="small", loc="lower center", bbox_to_anchor=(0.5, 1.0))
    return ax


def _manifold(centres: Centres, x: Tensor, size: int, site: str) -> Manifold:
    latents = centres.encode(x)
    z = latents[site]
    if z[0].numel() != 2 or site in centres.spheres:
        what = "a circle" if site in centres.spheres and z[0].numel() == 2 else f"a latent of {z[0].numel()} units"
        raise ValueError(f"'site' must be a latent of two units for a grid to be laid over it, but '{site}' is {what}.")
    shared = {name: value for name, value in latents.items() if centres.is_shared(name)}
    density = centres.densities(shared)[site]
    if diagonal_normal(density) is None:
        low, high = z.reshape(-1, 2).quantile(torch.tensor(_RANGE).to(z), dim=0)  # (2,) each
        values = low + (high - low) * torch.linspace(0, 1, size).to(z)[:, None]  # (G, 2)
    else:
        scores = torch.special.ndtri((torch.arange(size, dtype=torch.float64) + 0.5) / size)
        values = quantiles(density, scores).reshape(size, 2)
    across, up = values.unbind(-1)
    points = torch.cartesian_prod(up, across).flip(-1).reshape(-1, *z.shape[1:])
    return Manifold(across, up, centres.decode({**shared, site: points}).unflatten(0, (size, size)))


def _every(values: Tensor) -> list[str]:
    """Names of rows or columns, of every second or third where there are many."""
    step = -(-len(values) // 8)
    names = [f"{value:.2f}".replace("-0.00", "0.00") for value in values.tolist()]
    return [name if (i - len(names) // 2) % step == 0 else "" for i, name in enumerate(names)]
