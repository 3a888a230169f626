"""Traversals: what the data become as one unit of a latent moves."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from pyro_lvm.diagnostics.centres import Centres
from pyro_lvm.diagnostics.collapse import active_units
from pyro_lvm.diagnostics.figures import plain
from pyro_lvm.diagnostics.marginals import quantiles
from pyro_lvm.diagnostics.randomness import seeded
from pyro_lvm.diagnostics.strips import draw_strips

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_STEPS = (-3.0, -2.0, -1.0, 0.0, 1.0, 2.0, 3.0)


def traverse(
    model: Callable[..., Any],
    guide: Callable[..., Any],
    x: Tensor,
    *,
    site: str | None = None,
    units: Sequence[int] | None = None,
    steps: Sequence[float] = _STEPS,
    seed: int | None = None,
) -> Tensor:
    r"""Sets one unit of a datum's latent to values across its prior, the others left at $E_q[z \mid x]$, and decodes.

    Unit d goes to $z_d = F_d^{-1}(\Phi(s))$ for every step s, $F_d$ the distribution function of its prior: for a
    normal, s standard deviations from the mean; for any other, the quantile of the same probability. On a sphere the
    other units are scaled so that the point stays on it, which is the great circle through z and the unit's axis.

    In a hierarchy the prior of a level is that given the levels above. Latents that the model draws before `site` stay;
    those after it follow as the model expects: each keeps its distance from its mean under the model, which is nothing
    for latents that do not depend on `site`.

    Args:
        model, guide: the pair; programs that accept only `x` are taken too.
        x: the datum, (1, *data_shape).
        site: the latent; may be left out where a datum has only one that is continuous.
        units: which, counted from 0 in the latent of one datum laid out flat; all where left out.
        steps: s, in the prior's standard deviations.
        seed: makes the result repeatable and leaves the caller's random state alone; draws are made only where a
            density tells neither mean nor mode, or no quantiles.

    Returns:
        The means of $p(x \mid z)$, or its modes where it tells no mean, (units, steps, *data_shape).

    Raises:
        ValueError: where `x` is not one datum, there is no such `site` or unit, or a step is not finite.

    References:
        Higgins et al. (2017), beta-VAE: Learning Basic Visual Concepts with a Constrained Variational Framework.

    Example:
        >>> from pyro_lvm import guides, models
        >>> _ = torch.manual_seed(0)
        >>> model = models.ProbabilisticPCA(5, latent_dim=2)
        >>> x = traverse(model, guides.ExactPPCA(model), torch.zeros(1, 5), steps=(-1, 0, 1))
        >>> x.shape, bool(torch.allclose(x[:, 2] - x[:, 1], model.weight.T))  # a step adds the unit's column of W
        (torch.Size([2, 3, 5]), True)
    """
    if len(x) != 1:
        raise ValueError(f"'x' must be one datum, (1, *data_shape), but holds {len(x)}: give x[:1], say.")
    with seeded(seed):
        centres = Centres(model, guide, x)
        return _traverse(centres, x, centres.site(site), units, steps)


def plot_traversals(
    model: Callable[..., Any],
    guide: Callable[..., Any],
    x: Tensor,
    *,
    site: str | None = None,
    datum: int = 0,
    rows: int = 8,
    steps: Sequence[float] = _STEPS,
    shape: tuple[int, ...] | None = None,
    levels: int | None = None,
    seed: int | None = None,
    ax: "Axes | None" = None,
) -> "Axes":
    r"""Draws what a datum becomes as its units move, a row a unit, those that move most with the data first.

    Beside each unit stands $\mathrm{Var}_x(E_q[z_d \mid x])$, what `active_units` counts by: rows of collapsed units,
    near 0, do not change.

    Args:
        model, guide, site, steps, seed: see `traverse`.
        x: data that tell how active units are, (N, *data_shape), N ≥ 2.
        datum: which of them moves.
        rows: number of units drawn at most.
        shape: of a datum, for pictures that come as vectors.
        levels: number of grey or colour levels; see `plot_samples`.
        ax: the axes to draw into; a new figure's where left out.

    Returns:
        The axes. Data that are no pictures are drawn as lines, one colour a unit.

    Raises:
        ValueError: as `traverse` does, and where `x` has no such datum, holds fewer than two, or `rows` < 1.

    Example:
        >>> from pyro_lvm import data, zoo
        >>> digits = data.load("digits")
        >>> model, guide, _ = zoo.build("vae", digits, latent_dim=3)
        >>> ax = plot_traversals(model, guide, digits.test[:20], levels=17, seed=0)
        >>> ax.images[0].get_array().shape, ax.get_xlabel()
        ((28, 64), 'place in its prior (standard deviations)')
    """
    if rows < 1:
        raise ValueError(f"'rows' is a number of units and must be at least 1, not {rows}.")
    if not -len(x) <= datum < len(x):
        raise ValueError(f"'datum' must be one of the {len(x)} in 'x', not {datum}.")
    activity = active_units(model, guide, x, seed=seed)
    with seeded(seed):
        centres = Centres(model, guide, x)
        name = centres.site(site)
        assert activity is not None  # since there is a continuous latent
        variances = activity.variances[name].flatten()
        units = variances.argsort(descending=True, stable=True)[:rows].tolist()
        decoded = _traverse(centres, x[datum : datum + 1 or None], name, units, steps)
    return draw_strips(
        decoded,
        [float(step) for step in steps],
        [f"{unit + 1} ({variances[unit].item():.2f})" for unit in units],
        [f"{step:.3g}" for step in steps],
        across="place in its prior (standard deviations)",
        down=f"unit of {plain(name)}\n(variance of mean)",
        shape=shape,
        levels=levels,
        ax=ax,
    )


def _traverse(centres: Centres, x: Tensor, site: str, units: Sequence[int] | None, steps: Sequence[float]) -> Tensor:
    scores = torch.as_tensor(steps, dtype=torch.float64)
    if scores.dim() != 1 or not len(scores) or not bool(scores.isfinite().all()):
        raise ValueError(f"'steps' must be finite numbers, in standard deviations, at least one, not {steps!r}.")
    latents = centres.encode(x)
    z = latents[site][0]  # (*latent_shape,)
    units = range(z.numel()) if units is None else units
    if not len(units) or not all(0 <= unit < z.numel() for unit in units):
        raise ValueError(f"'units' must be numbers from 0 to {z.numel() - 1}, those of '{site}', not {list(units)}.")
    values = quantiles(centres.densities(latents)[site], scores).reshape(len(scores), -1)  # (S, M)
    U, S = len(units), len(scores)
    moved = z.flatten().repeat(U, S, 1)  # (U, S, M)
    for u, unit in enumerate(units):
        moved[u, :, unit] = values[:, unit]
    moved = moved.reshape(U, S, *z.shape)
    if site in centres.spheres:
        moved = torch.stack([_on_the_sphere(row, unit % z.shape[-1]) for row, unit in zip(moved, units, strict=True)])
    residuals = centres.below(site, latents)
    given = {name: value for name, value in latents.items() if name not in residuals}
    given = {n: v if centres.is_shared(n) else v.expand(U * S, *v.shape[1:]) for n, v in given.items()}
    given[site] = moved.flatten(0, 1)
    follow = {name: value.expand(U * S, *value.shape[1:]) for name, value in residuals.items()}
    return centres.decode(given, follow).unflatten(0, (U, S))


def _on_the_sphere(z: Tensor, unit: int) -> Tensor:
    """The points whose coordinate is as set, the others scaled to make unit vectors, (..., M)."""
    set_to = z[..., unit : unit + 1].clamp(-1, 1)
    others = z.clone()
    others[..., unit] = 0.0
    norm = others.norm(dim=-1, keepdim=True)
    if bool((norm == 0).any()):
        raise ValueError(f"unit {unit} of 'x' lies on its own axis: no great circle through both is the one to follow.")
    scaled = others * (1 - set_to.square()).sqrt() / norm
    scaled[..., unit] = set_to[..., 0]
    return scaled
