"""Rows of data that change from left to right."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from pyro_lvm.diagnostics.figures import COLOURS, LINES, array, axes, is_image, name_pictures, whole_numbers
from pyro_lvm.diagnostics.galleries import plot_samples

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def draw_strips(
    x: Tensor,
    positions: Sequence[float],
    rows: Sequence[str],
    columns: Sequence[str],
    *,
    across: str,
    down: str,
    shape: tuple[int, ...] | None = None,
    levels: int | None = None,
    limits: tuple[float, float] | None = None,
    ax: "Axes | None" = None,
) -> "Axes":
    """Pictures as a grid with a scale on both sides; other data as lines, one for each row.

    Args:
        x: (R, S, *data_shape).
        positions: of the columns, (S,), where data are drawn as lines over them.
        rows, columns: what each is called.
        across, down: what they are, with units.
        shape: of a datum, for pictures that come as vectors.
        levels, limits: what is black and white; see `plot_samples`.
        ax: the axes to draw into; a new figure's where left out.
    """
    shape = shape or tuple(x.shape[2:])
    flat = x.flatten(0, 1)
    if is_image(shape):
        # Room for the names beside and below; a single row leaves room for its axis's name.
        size = 0.6 * len(columns) + 1.0, max(2.2, 0.6 * len(rows) * shape[-2] / shape[-1] + 0.8)
        ax = axes(ax, *size)
        plot_samples(flat, shape=shape, levels=levels, limits=limits, columns=len(columns), ax=ax)
        name_pictures(ax, shape, rows, columns, across, down)
        return ax
    values = array(flat).reshape(len(rows), len(columns), -1)  # (R, S, D)
    ax = axes(ax, 6.0, 4.0)
    D = values.shape[2]
    for r, (row, name) in enumerate(zip(values, rows, strict=True)):
        colour, style = COLOURS[r % len(COLOURS)], LINES[(r // len(COLOURS)) % len(LINES)]
        if D == 1:
            ax.plot(positions, row[:, 0], style, color=colour, label=name, marker=".")
        elif D == 2:
            ax.plot(*row.T, style, color=colour, label=name, marker=".")
            ax.plot(*row[0], "o", color=colour, markersize=7, fillstyle="none")
        else:
            for i, line in enumerate(row):
                shown = name if i + 1 == len(row) else None
                alpha = 0.25 + 0.75 * (i + 1) / len(row)
                ax.plot(np.arange(1, D + 1), line, style, color=colour, alpha=alpha, label=shown)
            whole_numbers(ax.xaxis)
    names = {1: (across, "x (data's units)"), 2: ("x₁ (data's units; a line starts at its ring)", "x₂ (data's units)")}
    xlabel, ylabel = names.get(D, ("dimension of x (a line is fainter near the start)", "value (data's units)"))
    ax.set_xlabel(xlabel)
    ax.set_ylabel(ylabel)
    ax.legend(title=down, frameon=False, fontsize="small", loc="center left", bbox_to_anchor=(1.0, 0.5))
    return ax
