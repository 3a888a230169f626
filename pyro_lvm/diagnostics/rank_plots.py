"""Pictures of calibration."""

from typing import TYPE_CHECKING

import numpy as np
from scipy.special import bdtr
from torch import Tensor

from pyro_lvm.diagnostics.calibration import Calibration, Ranks, asymmetry, excursion_p_value, shown
from pyro_lvm.diagnostics.figures import COLOURS, LINES, axes, plain

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_NAMED = 8  # units with a colour of their own
_LEVEL = 0.05
_OUTSIDE = 100  # of the simulated curves, to find the band from: those that leave it


def plot_ranks(result: Ranks, *, ax: "Axes | None" = None) -> "Axes":
    r"""Draws ranks against what they should be, a line for each unit, and a band that holds all lines in 95 % of cases.

    Of simulation-based calibration, the distribution function of the ranks minus the uniform one: an S that starts
    downwards says that q is too wide, one that starts upwards that it is too narrow, an arch that it is biased, upwards
    where q lies too high. The band is that of Säilynoja et al., simultaneous over ranks and, by Bonferroni, over units.

    Of its variational form, $F(t) - 1 + F(1 - t)$ of the probabilities, above zero where q lies too high, with the
    band of its test.

    Up to eight units have a colour each; of more, those that leave the band furthest have.

    Args:
        result: from `simulation_based_calibration` or `variational_calibration`.
        ax: the axes to draw into; a new figure's where left out.

    Returns:
        The axes.

    References:
        Säilynoja, Bürkner & Vehtari (2022), Graphical Test for Discrete Uniformity and Its Applications in
        Goodness-of-Fit Evaluation and Multiple Sample Comparison.

    Example:
        >>> import torch
        >>> from pyro_lvm import diagnostics, guides, models
        >>> _ = torch.manual_seed(0)
        >>> model = models.ProbabilisticPCA(5, latent_dim=2)
        >>> result = diagnostics.simulation_based_calibration(model, guides.ExactPPCA(model), simulations=100, seed=0)
        >>> plot_ranks(result).get_xlabel()
        'rank of the truth among 99 draws of q'
    """
    units = _units(result.ranks)
    level = _LEVEL / len(units)
    if isinstance(result, Calibration):
        at = np.arange(result.draws + 1.0)
        uniform = (at + 1) / (result.draws + 1)
        lines = {name: _distribution(ranks, result.draws) - uniform for name, ranks in units.items()}
        low, high = uniform_band(result.simulations, result.draws, level)
        low, high = low - uniform, high - uniform
        labels = f"rank of the truth among {result.draws} draws of q", "share of ranks up to here − uniform"
        held = "calibrated"
    else:
        at = (np.arange((result.draws + 1) // 2) + 1) / (result.draws + 1)
        counted = {name: asymmetry(ranks, result.draws) for name, ranks in units.items()}
        lines = {name: difference / result.simulations for name, (difference, _, _) in counted.items()}
        critical = next(
            m for m in range(result.simulations + 2) if excursion_p_value(m, result.simulations) < level
        )  # the first that the test takes for asymmetric
        high = np.full(len(at), critical / result.simulations)
        low = -high
        labels = "t, a mass of q below the truth", "share with less than t − share with more than 1 − t"
        held = "unbiased"
    ax = axes(ax, 6.4, 4.0)
    ax.fill_between(at, low, high, color="0.88", step="mid", label=f"95 % of {held} guides", zorder=0)
    ax.axhline(0.0, color="0.5", linewidth=0.8, zorder=1)
    excess = {name: float(np.maximum(line - high, low - line).max()) for name, line in lines.items()}
    worst = sorted(lines, key=lambda name: -excess[name])
    named = list(lines) if len(lines) <= _NAMED else [name for name in worst[:_NAMED] if excess[name] > 0]
    for name, line in lines.items():
        if name not in named:
            ax.plot(at, line, color="0.6", linewidth=0.6, zorder=2)
    for i, name in enumerate(named):
        style = LINES[i % len(LINES)]
        ax.plot(at, lines[name], color=COLOURS[i % len(COLOURS)], linestyle=style, label=plain(name), zorder=3)
    ax.set_xlabel(labels[0])
    ax.set_ylabel(labels[1])
    ax.set_title(f"p {shown(result.p_value)}, {result.simulations} simulations", loc="left", fontsize="medium")
    ax.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)
    return ax


def uniform_band(simulations: int, draws: int, level: float) -> tuple[np.ndarray, np.ndarray]:
    """What holds the distribution function of N uniform ranks at all of 0, ..., L at once, but for a share `level`.

    Each end is a quantile of a binomial; the common level of these quantiles is that which a share `level` of
    simulated ranks has somewhere outside.
    """
    generator = np.random.default_rng(0)
    uniform = np.arange(1, draws + 1) / (draws + 1)  # at the last rank the function is 1
    cdf = bdtr(np.arange(simulations + 1)[:, None], simulations, uniform)  # (N + 1, L)
    below = np.concatenate([np.zeros((1, draws)), cdf[:-1]])
    tails = np.minimum(cdf, 1 - below)  # of a count, the smaller one
    sets = int(np.clip(_OUTSIDE / level, 1000, 20000))
    counts = generator.multinomial(simulations, np.full(draws + 1, 1 / (draws + 1)), size=sets).cumsum(1)[:, :-1]
    smallest = tails[counts, np.arange(draws)].min(1)
    inside = tails >= np.quantile(smallest, level)  # (N + 1, L)
    low, high = inside.argmax(0), simulations - inside[::-1].argmax(0)
    return np.append(low, simulations) / simulations, np.append(high, simulations) / simulations


def _distribution(ranks: np.ndarray, draws: int) -> np.ndarray:
    return np.bincount(ranks, minlength=draws + 1).cumsum() / len(ranks)


def _units(ranks: dict[str, Tensor]) -> dict[str, np.ndarray]:
    """Ranks by unit, (N,) each, by the names z[0], z[1], ..."""
    found = {}
    for name, of in ranks.items():
        for index in np.ndindex(*of.shape[1:]):
            found[f"{name}[{', '.join(map(str, index))}]" if index else name] = of[(slice(None), *index)].numpy()
    return found
