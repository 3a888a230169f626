"""Latents on the sphere in three dimensions."""

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from pyro_lvm.diagnostics.figures import COLOURS, MARKERS, array, plain

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_CLASSES = 20  # classes told apart in a legend; more, or real numbers, are shown by a scale of colours
_ELEVATION, _AZIMUTH = 20.0, 35.0  # degrees, of the view on the near half; the far half is seen from the opposite point


def plot_sphere(
    z: Tensor,
    labels: Tensor | None = None,
    *,
    name: str = "z",
    label_name: str = "label",
    ax: "tuple[Axes, Axes] | None" = None,
) -> "tuple[Axes, Axes]":
    r"""Draws points on the sphere $S^2$, coloured by label: one half of it each in two orthographic views.

    The second view is from the opposite point, so that every point is seen in one of the two and none through the
    sphere.

    Args:
        z: unit vectors, (N, 3): means or draws of q(z | x).
        labels: (N,); up to 20 classes have a colour and a marker each, more of them or real numbers a colour scale.
        name: what the latent is called.
        label_name: what labels are called in the legend.
        ax: two axes with `projection="3d"` to draw into; a new figure's where left out.

    Returns:
        The two axes.

    Raises:
        ValueError: where `z` holds no points in three dimensions, they are off the sphere, there is another number of
            labels, or the axes are flat.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> z = torch.nn.functional.normalize(torch.randn(50, 3), dim=-1)
        >>> front, back = plot_sphere(z, torch.arange(50) % 3)
        >>> front.get_xlabel(), back.get_title()
        ('z₁', 'from the opposite point')
    """
    if z.dim() != 2 or z.shape[1] != 3:
        raise ValueError(f"'z' must hold points in three dimensions, (N, 3), but has shape {tuple(z.shape)}.")
    points = array(z)
    norms = np.linalg.norm(points, axis=1)
    if not np.all(np.abs(norms - 1) < 1e-3):
        worst = norms[np.abs(norms - 1).argmax()]
        raise ValueError(f"'z' must hold unit vectors, but one has the norm {worst:.4g}: divide each by its norm.")
    if labels is not None and labels.shape != z.shape[:1]:
        raise ValueError(f"'labels' must be one for each of the {len(z)} points, but have shape {tuple(labels.shape)}.")
    views = _views(ax)
    coloured = None
    for view, sign, title in zip(views, (1, -1), ("from one side", "from the opposite point"), strict=True):
        towards = sign * _eye()
        _draw_globe(view, towards)
        seen = points @ towards >= 0
        # matplotlib sorts by depth on its own: raised a little, points never lie below the lines of the globe.
        coloured = _draw(view, 1.01 * points[seen], None if labels is None else labels.cpu()[seen], labels) or coloured
        view.view_init(elev=sign * _ELEVATION, azim=_AZIMUTH + (0 if sign == 1 else 180))
        view.set_title(title)
        view.set_xlabel(f"{plain(name)}₁")
        view.set_ylabel(f"{plain(name)}₂")
        view.set_zlabel(f"{plain(name)}₃")
    figure = views[1].figure
    if coloured is not None:
        figure.colorbar(coloured, ax=list(views), label=plain(label_name), shrink=0.7)
    elif labels is not None:
        views[1].legend(
            title=plain(label_name), loc="center left", bbox_to_anchor=(1.15, 0.5), frameon=False, markerscale=1.5
        )
    return views


def _views(ax: "tuple[Axes, Axes] | None") -> tuple[Any, Any]:
    if ax is None:
        from matplotlib.figure import Figure  # here, since matplotlib takes a third of a second to import

        figure = Figure(figsize=(10.0, 4.6), layout="constrained")
        return figure.add_subplot(1, 2, 1, projection="3d"), figure.add_subplot(1, 2, 2, projection="3d")
    if [view.name for view in ax] != ["3d", "3d"]:
        raise ValueError("'ax' must be two axes made with projection='3d'.")
    return ax


def _eye() -> np.ndarray:
    """The unit vector towards the first view's eye."""
    up, around = np.radians(_ELEVATION), np.radians(_AZIMUTH)
    return np.array([np.cos(up) * np.cos(around), np.cos(up) * np.sin(around), np.sin(up)])


def _draw_globe(view: Any, towards: np.ndarray) -> None:
    """The near half's meridians and parallels, and the outline."""
    angles = np.linspace(0, 2 * np.pi, 241)
    circle = np.stack((np.cos(angles), np.sin(angles)))
    lines = [np.stack((c * circle[0], c * circle[1], s * np.ones_like(angles))) for s, c in _sines(5)]
    lines += [np.stack((circle[0] * c, circle[0] * s, circle[1])) for s, c in _sines(6, whole=True)]
    for line in lines:
        hidden = towards @ line < 0
        view.plot(*np.where(hidden, np.nan, line), color="0.75", linewidth=0.6)
    across = np.linalg.svd(towards[None])[2][1:]
    view.plot(*(across.T @ circle), color="0.5", linewidth=0.9)
    view.set_proj_type("ortho")
    view.set_box_aspect((1, 1, 1), zoom=0.9)  # room for the axes' names
    for setter in (view.set_xlim, view.set_ylim, view.set_zlim):
        setter(-1, 1)
    for axis in (view.xaxis, view.yaxis, view.zaxis):
        axis.set_ticks([-0.5, 0, 0.5])
        axis.pane.set_visible(False)
    view.grid(False)


def _sines(number: int, whole: bool = False) -> list[tuple[float, float]]:
    """(sin, cos) of the parallels' latitudes, or of the meridians' longitudes."""
    angles = np.arange(number) * np.pi / number if whole else (np.arange(number) + 1) * np.pi / (number + 1) - np.pi / 2
    return [(float(np.sin(a)), float(np.cos(a))) for a in angles]


def _draw(view: Any, points: np.ndarray, labels: Tensor | None, every: Tensor | None) -> Any:
    """The points of one half; what a colour bar is made from, where labels are no classes."""
    settings = {"s": 14, "alpha": 0.85, "linewidths": 0, "depthshade": False}
    if labels is None or every is None:
        view.scatter(*points.T, color=COLOURS[0], **settings)
        return None
    classes = torch.unique(every.detach().cpu())
    if every.is_floating_point() or len(classes) > _CLASSES:
        values, low, high = labels.detach().double().numpy(), float(classes.min()), float(classes.max())
        return view.scatter(*points.T, c=values, cmap="viridis", vmin=low, vmax=high, **settings)
    for i, label in enumerate(classes):
        colour, marker = COLOURS[i % len(COLOURS)], MARKERS[(i + i // len(COLOURS)) % len(MARKERS)]
        at = points[(labels == label).numpy()]
        view.scatter(*at.T, color=colour, marker=marker, label=str(int(label)), **settings)
    return None
