"""Learning curves."""

from collections.abc import Mapping, Sequence
from math import isfinite
from typing import TYPE_CHECKING

from pyro_lvm.diagnostics.figures import COLOURS, LINES, axes, plain, whole_numbers

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: What objectives that are bounds are called on an axis.
BOUND = "bound on log p(x) (nats per datum)"

_BOUNDS = {"train": "training", "validation": "validation"}
_KL = "kl_"

# Bounds of the first epochs are often a hundred times lower than all later ones. A frame that holds them would show
# the rest as a flat line, so they may leave it below, and the label says that they do.
_FIRST = 0.1


def plot_history(history: Sequence[Mapping[str, float]], *, objective: str = BOUND, ax: "Axes | None" = None) -> "Axes":
    """Draws the bound on training and validation data over epochs, in nats per datum; higher is better.

    Args:
        history: rows with the keys `epoch`, `train` and, not in every row, `validation`, as `fit` returns them.
        objective: the axis's name, where what was climbed is no bound.
        ax: the axes to draw into; a new figure's where left out.

    Returns:
        The axes; `ax.figure.savefig("history.png")` writes the figure.

    Raises:
        ValueError: where no row has a bound.

    Example:
        >>> rows = [{"epoch": 1, "train": -30.0, "validation": -31.0}, {"epoch": 2, "train": -25.0}]
        >>> plot_history(rows).get_ylabel()
        'bound on log p(x) (nats per datum)'
    """
    ax = axes(ax, 6.4, 3.6)
    shown = [value for key in _BOUNDS for _, value in _series(history, key)]
    if not shown:
        raise ValueError("'history' must hold rows with a finite number under 'train' or 'validation'; none does.")
    for i, (key, name) in enumerate(_BOUNDS.items()):
        _draw(ax, _series(history, key), name, i)
    ax.set_ylabel(objective)
    later = [v for key in _BOUNDS for v in _after_the_first([v for _, v in _series(history, key)])]
    low, high = min(later), max(shown)
    if high > low and min(shown) < low - (high - low):
        ax.set_ylim(low - 0.05 * (high - low), high + 0.05 * (high - low))
        ax.set_xlabel("epoch (the first lie below the frame)")
    ax.legend(frameon=False)
    return ax


def plot_kl(history: Sequence[Mapping[str, float]], *, ax: "Axes | None" = None) -> "Axes":
    r"""Draws each latent site's $\mathrm{KL}(q(z \mid x) \,\|\, p(z))$ over epochs, in nats per datum.

    At 0 a latent has collapsed: it carries nothing about the data.

    Args:
        history: rows with the keys `epoch` and `kl_<site>`, as `fit` returns them.
        ax: the axes to draw into; a new figure's where left out.

    Returns:
        The axes.

    Raises:
        ValueError: where no row has such a key.

    Example:
        >>> plot_kl([{"epoch": 1, "kl_z": 0.5}, {"epoch": 2, "kl_z": 3.0}]).get_ylabel()
        'KL of posterior from prior (nats per datum)'
    """
    keys = list(dict.fromkeys(key for row in history for key in row if key.startswith(_KL)))
    series = {key: _series(history, key) for key in keys}
    if not any(series.values()):
        raise ValueError("'history' must hold rows with a finite number under 'kl_<site>'; none does.")
    ax = axes(ax, 6.4, 3.6)
    for i, (key, points) in enumerate(series.items()):
        _draw(ax, points, f"latent {key.removeprefix(_KL)}", i)
    ax.set_ylabel("KL of posterior from prior (nats per datum)")
    ax.set_ylim(bottom=min(0.0, *(value for points in series.values() for _, value in points)))
    ax.legend(frameon=False)
    return ax


def _series(history: Sequence[Mapping[str, float]], key: str) -> list[tuple[float, float]]:
    """(epoch, value) of the rows that have a finite value."""
    points = [(row.get("epoch", i + 1), row.get(key)) for i, row in enumerate(history)]
    return [(float(epoch), float(value)) for epoch, value in points if value is not None and isfinite(value)]


def _after_the_first(values: list[float]) -> list[float]:
    return values[int(len(values) * _FIRST) + 1 :] if len(values) > 5 else values


def _draw(ax: "Axes", points: list[tuple[float, float]], name: str, i: int) -> None:
    if not points:
        return
    epochs, values = zip(*points, strict=True)
    marker = "o" if len(points) <= 30 else None  # a single epoch has no line
    ax.plot(epochs, values, LINES[i % 4], color=COLOURS[i % 10], marker=marker, markersize=3, label=plain(name))
    ax.set_xlabel("epoch")
    whole_numbers(ax.xaxis)
    if len(set(epochs)) == 1:  # matplotlib would show thousandths of an epoch around it
        ax.set_xlim(epochs[0] - 1, epochs[0] + 1)
    ax.grid(alpha=0.25)
