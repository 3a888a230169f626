"""Data, samples and reconstructions: pictures as grids of pictures, other data as scatters and lines."""

from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from pyro_lvm.diagnostics.figures import COLOURS, MARKERS, array, axes, is_image, name_pictures, whole_numbers

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_GAP = 1  # pixels between pictures
_FEW = 200  # lines drawn at most: more of them are a solid block


def plot_samples(
    x: Tensor,
    *,
    shape: tuple[int, ...] | None = None,
    levels: int | None = None,
    limits: tuple[float, float] | None = None,
    columns: int | None = None,
    ax: "Axes | None" = None,
) -> "Axes":
    """Draws data or samples: a grid of pictures, a histogram (D = 1), a scatter (D = 2), or one line a datum.

    Args:
        x: (N, *shape); pictures are (H, W), or (C, H, W) with 1 or 3 channels.
        shape: of a datum, for pictures that come as vectors.
        levels: number of grey or colour levels, which fixes black to 0 and white to `levels` − 1.
        limits: the values shown as black and white, or the ends of the axis of values; two figures to be compared need
            the same. The data's own where both are left out.
        columns: of the grid; about the square root of N where left out.
        ax: the axes to draw into; a new figure's where left out.

    Returns:
        The axes. Pixels are drawn as squares, not smoothed.

    Raises:
        ValueError: where there are no data, or `shape` does not fit them.

    Example:
        >>> import torch
        >>> plot_samples(torch.zeros(6, 8, 8), levels=17, columns=3).images[0].get_array().shape
        (19, 28)
    """
    data = array(x, shape)
    if is_image(data.shape[1:]):
        columns = columns or int(np.ceil(np.sqrt(len(data))))
        return _draw_pictures(_grid(data, columns), _range(data, levels, limits), columns, ax)
    flat = data.reshape(len(data), -1)
    ax = axes(ax, 5.0, 4.0)
    if flat.shape[1] == 1:
        ax.hist(flat[:, 0], bins="auto" if len(flat) < 10_000 else 100, color=COLOURS[0], range=limits)
        ax.set_xlabel("x (data's units)")
        ax.set_ylabel("number of data")
    elif flat.shape[1] == 2:
        ax.scatter(flat[:, 0], flat[:, 1], s=12, color=COLOURS[0], alpha=0.6, linewidths=0)
        ax.set_xlabel("x₁ (data's units)")
        ax.set_ylabel("x₂ (data's units)")
        if limits is not None:
            ax.set_xlim(limits)
            ax.set_ylim(limits)
    else:
        _draw_lines(ax, flat[:_FEW])
        if limits is not None:
            ax.set_ylim(limits)
    return ax


def plot_reconstructions(
    x: Tensor,
    reconstruction: Tensor,
    *,
    shape: tuple[int, ...] | None = None,
    levels: int | None = None,
    columns: int | None = None,
    ax: "Axes | None" = None,
) -> "Axes":
    """Draws data beside their reconstructions: pictures above theirs, other data against theirs.

    Args:
        x: (N, *shape).
        reconstruction: of the same shape, for instance the means of p(x | z) at draws of q(z | x).
        shape: of a datum, for pictures that come as vectors.
        levels: number of grey or colour levels; see `plot_samples`.
        columns: of the grid, whose odd rows are data and whose even rows are their reconstructions; 10 or N where left
            out.
        ax: the axes to draw into; a new figure's where left out.

    Returns:
        The axes. Rows of pictures are named.

    Raises:
        ValueError: where the shapes differ.

    Example:
        >>> import torch
        >>> ax = plot_reconstructions(torch.zeros(20, 4, 4), torch.ones(20, 4, 4), columns=10)
        >>> ax.images[0].get_array().shape  # four rows of ten
        (21, 51)
    """
    if x.shape != reconstruction.shape:
        raise ValueError(
            f"'reconstruction' must have the shape of 'x', {tuple(x.shape)}, but has {tuple(reconstruction.shape)}."
        )
    data, again = array(x, shape), array(reconstruction, shape)
    if is_image(data.shape[1:]):
        columns = columns or min(10, len(data))
        rows = [part for i in range(0, len(data), columns) for part in (data[i : i + columns], again[i : i + columns])]
        rows[-2:] = [_filled(part, columns) for part in rows[-2:]]
        ax = _draw_pictures(_grid(np.concatenate(rows), columns), _range(data, levels, None), columns, ax)
        name_pictures(ax, data.shape[1:], rows=["data", "recon."] * (len(rows) // 2))
        return ax
    ax = axes(ax, 5.0, 4.0)
    columns_of = data.reshape(len(data), -1).T
    named = len(columns_of) <= len(COLOURS)  # more dimensions cannot be told apart, and look alike
    for d, (value, value_again) in enumerate(zip(columns_of, again.reshape(len(data), -1).T, strict=True)):
        look = d if named else 0
        ax.scatter(
            value,
            value_again,
            s=12,
            color=COLOURS[look],
            marker=MARKERS[look],
            alpha=0.6 if named else 0.3,
            linewidths=0,
            label=f"dimension {d + 1}" if named else None if d else f"{len(columns_of)} dimensions",
        )
    ends = (float(data.min()), float(data.max()))
    ax.plot(ends, ends, "--", color="black", linewidth=1, label="equal")
    ax.set_xlabel("x (data's units)")
    ax.set_ylabel("reconstruction (data's units)")
    ax.legend(frameon=False, fontsize="small")
    return ax


def _filled(pictures: np.ndarray, columns: int) -> np.ndarray:
    """A row of the grid with blanks at its end."""
    blank = np.full((columns - len(pictures), *pictures.shape[1:]), np.nan)
    return np.concatenate([pictures, blank])


def _range(data: np.ndarray, levels: int | None, limits: tuple[float, float] | None) -> tuple[float, float]:
    if limits is not None:
        return limits
    if levels is not None:
        return 0.0, float(levels - 1)
    finite = data[np.isfinite(data)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
    return low, high if high > low else low + 1.0


def _grid(pictures: np.ndarray, columns: int) -> np.ndarray:
    """One picture of all, row by row, (H', W') or (H', W', 3); NaN between them and where there are none."""
    channels = pictures[:, None] if pictures.ndim == 3 else pictures  # (N, C, H, W)
    N, C, H, W = channels.shape
    columns = min(columns, N)
    rows = -(-N // columns)
    canvas = np.full((rows * (H + _GAP) + _GAP, columns * (W + _GAP) + _GAP, C), np.nan)
    for n, picture in enumerate(channels):
        top, left = (n // columns) * (H + _GAP) + _GAP, (n % columns) * (W + _GAP) + _GAP
        canvas[top : top + H, left : left + W] = picture.transpose(1, 2, 0)
    return canvas if C == 3 else canvas[..., 0]


def _draw_pictures(canvas: np.ndarray, limits: tuple[float, float], columns: int, ax: "Axes | None") -> "Axes":
    from matplotlib import colormaps

    height, width = canvas.shape[:2]
    across = min(8.0, max(2.0, 0.7 * columns))
    ax = axes(ax, across, across * height / width)
    low, high = limits
    if canvas.ndim == 3:
        shown = np.clip((canvas - low) / (high - low), 0, 1)
        ax.imshow(np.where(np.isnan(shown), 0.6, shown), interpolation="nearest")
    else:
        # Neither black nor white: a frame that no picture can run into.
        cmap = colormaps["gray"].with_extremes(bad="#7f9fbf")
        ax.imshow(np.ma.masked_invalid(canvas), cmap=cmap, vmin=low, vmax=high, interpolation="nearest")
    ax.set_axis_off()
    return ax


def _draw_lines(ax: "Axes", rows: np.ndarray) -> None:
    D = rows.shape[1]
    marker = "." if D <= 20 else None
    alpha = float(np.clip(20 / len(rows), 0.1, 0.8))
    ax.plot(np.arange(1, D + 1), rows.T, color=COLOURS[0], alpha=alpha, linewidth=1, marker=marker)
    whole_numbers(ax.xaxis)
    ax.set_xlabel("dimension of x")
    ax.set_ylabel("value (data's units)")
