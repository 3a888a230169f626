"""What the data say about latents: prior and posterior side by side."""

from typing import TYPE_CHECKING, Any

import numpy as np

from pyro_lvm.diagnostics.figures import COLOURS, axes, plain
from pyro_lvm.diagnostics.reading import by_datum, continuous, dataset, unit_names

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_POINTS = 200  # at which a density is drawn
_HEIGHT = 0.85  # of the highest density of a row, in rows


def plot_prior_posterior(
    idata: Any, name: str | None = None, datum: int = 0, *, units: int = 16, ax: "Axes | None" = None
) -> "Axes":
    """Draws the prior's and the posterior's densities of a datum's latents, a row for each unit.

    Where the two are the same, the datum says nothing about the unit; where that is so for all data, it has collapsed.
    Densities are smoothed from draws, and of one scale within a row.

    Args:
        idata: from `posterior`, with prior draws, or `diagnostics.nuts`.
        name: which latent; the first continuous one where left out.
        datum: which of the data; of no effect for latents that all data share.
        units: how many to draw at most, the first ones.
        ax: the axes to draw into; a new figure's where left out.

    Returns:
        The axes.

    Raises:
        ValueError: where there are no prior draws, no such latent, or no such datum.

    Example:
        >>> import torch
        >>> from pyro_lvm import diagnostics, guides, models
        >>> _ = torch.manual_seed(0)
        >>> model = models.ProbabilisticPCA(5, latent_dim=2)
        >>> idata = diagnostics.posterior(model, guides.ExactPPCA(model), torch.zeros(2, 5), seed=0)
        >>> [text.get_text() for text in plot_prior_posterior(idata).get_yticklabels()]
        ['z[0]', 'z[1]']
    """
    before, after = dataset(idata, "prior"), dataset(idata, "posterior")
    names = continuous(after)
    name = names[0] if name is None else name
    if name not in names:
        raise ValueError(f"'name' must be one of the continuous latents {names}, not {name!r}.")
    draws = [by_datum(of[name]) for of in (before, after)]
    data = draws[1].shape[2]
    if not isinstance(datum, int) or not (0 <= datum < data or "datum" not in after[name].dims):
        raise ValueError(f"'datum' is the number of one of the {data} data, from 0, not {datum!r}.")
    rows = unit_names(after[name])[:units]
    ax = axes(ax, 6.0, 1.4 + 0.55 * len(rows))
    prior, posterior = (of[:, :, min(datum, data - 1)].reshape(-1, of.shape[-1]) for of in draws)  # (K, units)
    for i in range(len(rows)):
        low, high = np.quantile(np.concatenate([prior[:, i], posterior[:, i]]), [0.001, 0.999])
        at = np.linspace(low - 0.1 * (high - low), high + 0.1 * (high - low), _POINTS)
        heights = [_density(of[:, i], at) for of in (prior, posterior)]
        scale = _HEIGHT / max(height.max() for height in heights)
        for height, colour, label in zip(heights, ("#888888", COLOURS[0]), ("prior", "posterior"), strict=True):
            top = i - scale * height
            ax.fill_between(at, i, top, color=colour, alpha=0.35, linewidth=0, label=None if i else label)
            ax.plot(at, top, color=colour, linewidth=1.2, linestyle="--" if label == "prior" else "-")
    ax.set_yticks(range(len(rows)), [plain(row) for row in rows])
    ax.set_ylim(len(rows) - 0.85, -1.0)
    ax.set_xlabel(f"value of the latent {plain(name)}")
    ax.set_ylabel(f"unit, of datum {datum}" if "datum" in after[name].dims else "unit")
    ax.legend(loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=2, frameon=False)
    return ax


def _density(draws: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Smoothed by a normal of Silverman's width; what does not vary is a narrow peak."""
    quartiles = np.quantile(draws, [0.25, 0.75])
    spreads = [s for s in (draws.std(), (quartiles[1] - quartiles[0]) / 1.34) if s > 0]
    width = max(0.9 * min(spreads, default=0.0) * len(draws) ** -0.2, 0.5 * (at[1] - at[0]))
    return np.exp(-np.square((at[:, None] - draws) / width) / 2).mean(1) / width
