"""Several runs in one picture: their evidence, and how they learned."""

from collections.abc import Mapping, Sequence
from math import isfinite
from typing import TYPE_CHECKING

from pyro_lvm.diagnostics.curves import BOUND
from pyro_lvm.diagnostics.figures import COLOURS, LINES, MARKERS, axes, plain, whole_numbers

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_WIDE = 2.0  # standard errors, to either side


def plot_evidence(estimates: Mapping[str, tuple[float, float | None]], *, ax: "Axes | None" = None) -> "Axes":
    """Draws the evidence of each model as a point with two standard errors to either side, the best at the top.

    Args:
        estimates: by model, the mean of log p(x) or of its bound in nats per datum, and its standard error; None where
            that is exact.
        ax: the axes to draw into; a new figure's where left out.

    Returns:
        The axes.

    Raises:
        ValueError: where no estimate is finite.

    Example:
        >>> ax = plot_evidence({"vae": (-93.1, 0.1), "ppca": (-148.5, None)})
        >>> [label.get_text() for label in ax.get_yticklabels()]
        ['ppca', 'vae']
    """
    found = sorted((value, name, error or 0.0) for name, (value, error) in estimates.items() if isfinite(value))
    if not found:
        raise ValueError("'estimates' must hold a finite number; none is.")
    ax = axes(ax, 6.4, 1.0 + 0.35 * len(found))
    for i, (value, _, error) in enumerate(found):
        ax.errorbar(value, i, xerr=_WIDE * error, fmt="o", color=COLOURS[0], capsize=3)
    ax.set_yticks(range(len(found)), [plain(name) for _, name, _ in found])
    ax.set_ylim(-0.6, len(found) - 0.4)
    ax.set_xlabel("evidence or its lower bound, ± 2 standard errors (nats per datum)")
    ax.grid(axis="x", alpha=0.25)
    return ax


def plot_runs(histories: Mapping[str, Sequence[Mapping[str, float]]], *, ax: "Axes | None" = None) -> "Axes":
    """Draws the bound of several runs over epochs: of validation data, of training data where a run has none.

    Args:
        histories: by run, rows with the keys `epoch`, `train` and, not in every row, `validation`, as `fit` returns
            them.
        ax: the axes to draw into; a new figure's where left out.

    Returns:
        The axes, whose frame leaves out first epochs that lie far below all others.

    Raises:
        ValueError: where no row has a bound.

    Example:
        >>> rows = [{"epoch": 1, "train": -30.0, "validation": -31.0}, {"epoch": 2, "train": -25.0}]
        >>> [text.get_text() for text in plot_runs({"vae": rows}).get_legend().get_texts()]
        ['vae']
    """
    series = {name: _bounds(history) for name, history in histories.items()}
    series = {name: points for name, points in series.items() if points}
    if not series:
        raise ValueError("'histories' must hold a finite number under 'train' or 'validation'; none does.")
    ax = axes(ax, 6.4, 3.6)
    for i, (name, points) in enumerate(series.items()):
        epochs, values = zip(*points, strict=True)
        marker = MARKERS[i % len(MARKERS)] if len(points) <= 30 else None
        colour, line = COLOURS[i % len(COLOURS)], LINES[i // len(COLOURS) % len(LINES)]
        ax.plot(epochs, values, line, color=colour, marker=marker, markersize=4, label=plain(name))
    every = [value for points in series.values() for _, value in points]
    ends = [points[-1][1] for points in series.values()]
    high, low = max(every), min(ends)
    reach = max(high - low, 0.1 * abs(high), 1e-9)
    if min(every) < low - reach:
        ax.set_ylim(low - reach, high + 0.1 * reach)
    whole_numbers(ax.xaxis)
    ax.set_xlabel("epoch")
    ax.set_ylabel(BOUND)
    ax.grid(alpha=0.25)
    ax.legend(frameon=False)
    return ax


def _bounds(history: Sequence[Mapping[str, float]]) -> list[tuple[float, float]]:
    """(epoch, bound), the true one where the objective is another."""
    for key in ("validation", "elbo", "train"):
        points = [(row.get("epoch", i + 1), row.get(key)) for i, row in enumerate(history)]
        finite = [(float(epoch), float(value)) for epoch, value in points if value is not None and isfinite(value)]
        if finite:
            return finite
    return []
