"""The latent space in two dimensions."""

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from pyro_lvm.diagnostics.figures import COLOURS, MARKERS, array, axes, plain, principal_axes, whole_numbers

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_CLASSES = 20  # classes told apart in a legend; more, or real numbers, are shown by a scale of colours


def plot_latent(
    z: Tensor, labels: Tensor | None = None, *, name: str = "z", label_name: str = "label", ax: "Axes | None" = None
) -> "Axes":
    r"""Draws latents as points, coloured by label: one histogram (M = 1), the two units, or two principal axes (M > 2).

    Integers, the assignments of a mixture, are counted instead, one bar for each component. The axes' labels say which
    of these it is, and what share of the variance a projection shows.

    Args:
        z: means or draws of q(z | x), (N, *latent_shape), or integers (N,).
        labels: (N,); up to 20 classes have a colour and a marker each, more of them or real numbers a colour scale.
        name: what the latent is called.
        label_name: what labels are called in the legend.
        ax: the axes to draw into; a new figure's where left out.

    Returns:
        The axes.

    Raises:
        ValueError: where there are no latents, or another number of labels.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> plot_latent(torch.randn(50, 2), torch.arange(50) % 3).get_xlabel()
        'z₁ (first of 2 latents)'
        >>> plot_latent(torch.randn(50, 4)).get_xlabel().split(" (")[0]
        'principal axis 1 of z'
    """
    if labels is not None and labels.shape != z.shape[:1]:
        raise ValueError(
            f"'labels' must be one for each of the {len(z)} latents, but have shape {tuple(labels.shape)}."
        )
    if not z.is_floating_point():
        return _draw_counts(z, _groups(labels), name, label_name, axes(ax, 6.4, 3.6))
    return draw_points(z, labels, name, "latents", label_name, axes(ax, 6.4, 5.0))


def plot_code(z: Tensor, *, name: str = "z", ax: "Axes | None" = None) -> "Axes":
    """Draws how often each category of each variable of a discrete code is used, as a map of shares of the data.

    A variable whose row has one bright cell says nothing: it has collapsed.

    Args:
        z: one-hot codes, (N, variables, categories).
        name: what the latent is called.
        ax: the axes to draw into; a new figure's where left out.

    Returns:
        The axes.

    Raises:
        ValueError: for anything but one-hot codes of at least one datum.

    Example:
        >>> plot_code(torch.eye(3)[torch.tensor([[0, 1], [2, 1]])]).get_ylabel()
        'variable of z'
    """
    from matplotlib.colors import PowerNorm

    if z.dim() != 3 or len(z) == 0 or not bool(((z == 0) | (z == 1)).all()) or not bool((z.sum(-1) == 1).all()):
        raise ValueError(f"'z' must hold one-hot codes, (N, variables, categories), but has shape {tuple(z.shape)}.")
    ax = axes(ax, 6.4, 4.2)
    shares = array(z).mean(0)
    # Evenly used categories have small shares: on an even scale they would all be black.
    norm = PowerNorm(0.5, vmin=0, vmax=1)
    shown = ax.imshow(shares, aspect="auto", cmap="viridis", norm=norm, interpolation="nearest")
    ticks = [0, 0.01, 0.05, 0.1, 0.25, 0.5, 1]
    ax.figure.colorbar(shown, ax=ax, label="share of the data", ticks=ticks, format="{x:g}")
    whole_numbers(ax.xaxis)
    whole_numbers(ax.yaxis)
    ax.set_xlabel("category")
    ax.set_ylabel(f"variable of {plain(name)}")
    return ax


def draw_points(x: Tensor, labels: Tensor | None, name: str, noun: str, label_name: str, ax: "Axes") -> "Axes":
    """Points (N, *shape) in one or two dimensions, coloured by label; `noun` says what their values are."""
    groups = _groups(labels)
    points = array(x).reshape(len(x), -1)
    if points.shape[1] == 1:
        bins = np.histogram_bin_edges(points, bins=40).tolist()
        rows = [points[mask, 0] for _, mask in groups] if groups else [points[:, 0]]
        colours = [COLOURS[i % len(COLOURS)] for i in range(len(rows))]
        ax.hist(rows, bins=bins, stacked=True, color=colours, label=[text for text, _ in groups] or None)
        ax.set_xlabel(plain(name))
        ax.set_ylabel("number of data")
    else:
        points = _project(points, name, noun, ax)
        if labels is not None and not groups:
            values = labels.detach().cpu().double().numpy()
            shown = ax.scatter(points[:, 0], points[:, 1], s=14, c=values, cmap="viridis", linewidths=0)
            ax.figure.colorbar(shown, ax=ax, label=plain(label_name))
        for i, (text, mask) in enumerate(groups or [("", np.ones(len(points), bool))]):
            if labels is None or groups:
                colour, marker = COLOURS[i % len(COLOURS)], MARKERS[(i + i // len(COLOURS)) % len(MARKERS)]
                across, up = points[mask].T
                ax.scatter(across, up, s=16, color=colour, marker=marker, alpha=0.75, linewidths=0, label=text)
        ax.set_aspect("equal", adjustable="datalim")
    if groups:
        _name_classes(ax, label_name, stacked=points.shape[1] == 1)
    return ax


def _name_classes(ax: "Axes", label_name: str, stacked: bool) -> None:
    """A legend beside the axes, in the order in which bars are stacked where they are."""
    ax.legend(
        title=plain(label_name),
        loc="center left",
        bbox_to_anchor=(1.0, 0.5),
        frameon=False,
        markerscale=1.5,
        reverse=stacked,
    )


def _groups(labels: Tensor | None) -> list[tuple[str, np.ndarray]]:
    """(class, mask) where labels are a few classes; else empty."""
    if labels is None or labels.is_floating_point():
        return []
    classes = torch.unique(labels)
    if len(classes) > _CLASSES:
        return []
    return [(str(int(c)), (labels == c).cpu().numpy()) for c in classes]


def _project(points: np.ndarray, name: str, noun: str, ax: "Axes") -> np.ndarray:
    M = points.shape[1]
    if M == 2:
        ax.set_xlabel(f"{plain(name)}₁ (first of 2 {noun})")
        ax.set_ylabel(f"{plain(name)}₂ (second of 2 {noun})")
        return points
    projected, shares = principal_axes(points)
    texts = [
        f"principal axis {i + 1} of {plain(name)} ({100 * share:.0f} % of the variance of {M} {noun})"
        for i, share in enumerate(shares)
    ]
    ax.set_xlabel(texts[0])
    ax.set_ylabel(texts[1])
    return projected


def _draw_counts(z: Tensor, groups: list[tuple[str, np.ndarray]], name: str, label_name: str, ax: "Axes") -> "Axes":
    assigned = z.detach().cpu().flatten().numpy()
    if len(assigned) == 0:
        raise ValueError("'z' must hold the latent of at least one datum, but is empty.")
    components = np.arange(int(assigned.max()) + 1)
    below = np.zeros(len(components))
    for i, (text, mask) in enumerate(groups if z.dim() == 1 and groups else [("", np.ones(len(assigned), bool))]):
        counts = np.bincount(assigned[mask], minlength=len(components))
        hatch = ("", "//", "..", "xx")[(i // len(COLOURS)) % 4]
        ax.bar(components, counts, bottom=below, color=COLOURS[i % len(COLOURS)], hatch=hatch, label=text)
        below += counts
    whole_numbers(ax.xaxis)
    whole_numbers(ax.yaxis)
    ax.set_xlabel(f"{plain(name)}, the component assigned")
    ax.set_ylabel("number of data")
    if z.dim() == 1 and groups:
        _name_classes(ax, label_name, stacked=True)
    return ax
