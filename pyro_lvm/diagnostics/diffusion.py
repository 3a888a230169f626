"""How draws of a diffusion come out of noise."""

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from pyro_lvm.diagnostics.figures import COLOURS, array, axes, is_image, name_pictures
from pyro_lvm.diagnostics.galleries import plot_samples

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def plot_diffusion(
    times: Tensor,
    latents: Tensor,
    *,
    columns: int = 11,
    limits: tuple[float, float] = (-1.0, 1.0),
    ax: "Axes | None" = None,
) -> "Axes":
    """Draws latents on the way from noise to data: pictures in a row for each draw, other data as lines over time.

    Args:
        times: that were visited, (S,), as the `path` of one of `pyro_lvm.diffusion`'s samplers gives them.
        latents: at these times, (S, n, *data_shape), likewise.
        columns: how many of the times to show pictures of, spread evenly over those visited.
        limits: the values shown as black and white, in the process's units.
        ax: the axes to draw into; a new figure's where left out.

    Returns:
        The axes.

    Raises:
        ValueError: where there are not as many latents as times, or no columns.

    Example:
        >>> ax = plot_diffusion(torch.linspace(1, 0, 50), torch.randn(50, 3, 8, 8), columns=5)
        >>> [label.get_text() for label in ax.get_xticklabels()]
        ['1', '0.76', '0.51', '0.24', '0']
    """
    if len(times) != len(latents) or columns < 1:
        raise ValueError(
            f"'latents' must be at each of the {len(times)} 'times', and 'columns' at least 1; there are "
            f"{len(latents)} latents and {columns} columns."
        )
    t, z = array(times), array(latents)
    shape = z.shape[2:]
    if not is_image(shape):
        ax = axes(ax, 6.0, 4.0)
        for n, path in enumerate(z.reshape(len(t), z.shape[1], -1).swapaxes(0, 1)):
            ax.plot(t, path, color=COLOURS[n % len(COLOURS)], linewidth=0.8)
        ax.invert_xaxis()
        ax.set_xlabel("time")
        ax.set_ylabel("z (process's units)")
        return ax
    chosen = np.unique(np.linspace(0, len(t) - 1, columns).round().astype(int))
    pictures = z[chosen].swapaxes(0, 1).reshape(-1, *shape)  # a draw after the other, each through all times
    ax = plot_samples(torch.from_numpy(pictures), limits=limits, columns=len(chosen), ax=ax)
    name_pictures(ax, shape, columns=[f"{time:.2g}" for time in t[chosen]], across="time", down="draw")
    return ax
