"""What the plots share: an axes without global state, colours, and arrays in the shape of images."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis

# Colours that colour-blind readers can tell apart (Tol's «muted» with black for its pale grey). Classes differ in their
# markers as well, so that nothing is said by colour alone.
COLOURS = (
    "#332288",
    "#CC6677",
    "#117733",
    "#88CCEE",
    "#882255",
    "#999933",
    "#44AA99",
    "#AA4499",
    "#DDCC77",
    "#000000",
)
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "*")
LINES = ("-", "--", "-.", ":")


def axes(ax: "Axes | None", width: float, height: float) -> "Axes":
    """The given axes, or those of a new figure (sizes in inches) that pyplot knows nothing of."""
    if ax is not None:
        return ax
    from matplotlib.figure import Figure  # here, since matplotlib takes a third of a second to import

    return Figure(figsize=(width, height), layout="constrained").add_subplot()


def name_pictures(
    ax: "Axes",
    shape: tuple[int, ...],
    rows: Sequence[str] = (),
    columns: Sequence[str] = (),
    across: str = "",
    down: str = "",
) -> None:
    """Names the rows and columns of a grid of pictures of a shape, which have a frame of one pixel."""
    ax.set_axis_on()
    for axis, names, size in ((ax.xaxis, columns, shape[-1] + 1), (ax.yaxis, rows, shape[-2] + 1)):
        axis.set_ticks(size * np.arange(len(names)) + size / 2, [name.replace("-", "−") for name in names])
    ax.tick_params(length=0, labelsize="small")
    ax.set_frame_on(False)
    ax.set_xlabel(across)
    ax.set_ylabel(down)


def whole_numbers(axis: "Axis") -> None:
    """Has an axis count in ones, twos or fives of some power of ten."""
    from matplotlib.ticker import MaxNLocator

    axis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))


def plain(text: object) -> str:
    """Text for matplotlib, to which a pair of dollar signs would be a formula."""
    return str(text).replace("$", r"\$")


def array(values: Tensor, shape: tuple[int, ...] | None = None) -> np.ndarray:
    """Data as an array of floats, (N, *shape).

    Raises:
        ValueError: where there are no data, or they do not have as many values as `shape`.
    """
    x = values.detach().cpu().double().numpy()
    if x.ndim == 0 or len(x) == 0:
        raise ValueError(f"'x' must hold at least one datum, (N, *shape), but has shape {tuple(x.shape)}.")
    if shape is None:
        return x
    if int(np.prod(x.shape[1:])) != int(np.prod(shape)):
        raise ValueError(f"'shape' is that of a datum, {tuple(shape)}, but 'x' has data of shape {x.shape[1:]}.")
    return x.reshape(len(x), *shape)


def is_image(shape: tuple[int, ...]) -> bool:
    """Whether data of this shape are pictures: (H, W), or (C, H, W) with 1 or 3 channels."""
    return len(shape) == 2 or (len(shape) == 3 and shape[0] in (1, 3))


def draw_shares(ax: "Axes", values: np.ndarray, bins: list[float], label: str, i: int) -> None:
    """A histogram of shares as an outline, the i-th of several; what lies beyond the bins is counted in the last."""
    weights, line = np.full(len(values), 1 / len(values)), LINES[i % len(LINES)]
    inside = values.clip(bins[0], bins[-1])
    ax.hist(
        inside, bins, weights=weights, histtype="step", label=label, color=COLOURS[i], linestyle=line, linewidth=1.6
    )


def principal_axes(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates (N, 2) of the rows of x (N, D ≥ 2) along the two axes of largest variance, and their shares of it.

    Signs are fixed by the largest loading, so that two figures of the same data agree.
    """
    centred = x - x.mean(0)
    _, scales, loadings = np.linalg.svd(centred, full_matrices=False)
    loadings = loadings[:2]
    if len(loadings) < 2:  # a single row
        return np.zeros((len(x), 2)), np.zeros(2)
    loadings = loadings * np.sign(loadings[np.arange(2), np.abs(loadings).argmax(1)])[:, None]
    variances = scales**2
    shares = variances[:2] / variances.sum() if variances.sum() > 0 else np.zeros(2)
    return centred @ loadings.T, shares
