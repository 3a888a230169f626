"""How far from the data what a model makes is: decoded draws from the prior, beside decoded posteriors."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, final

import numpy as np
import torch
from torch import Tensor

from pyro_lvm.diagnostics.auroc import AUROC, auroc
from pyro_lvm.diagnostics.drawing import Sampler, checked
from pyro_lvm.diagnostics.figures import array, axes, draw_shares
from pyro_lvm.diagnostics.holes import Excess, excess
from pyro_lvm.diagnostics.randomness import seeded

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_NUMBERS = 2**22  # distances computed at once
_DATA = 256  # that one run of the programs is given


@final
@dataclass(frozen=True)
class Plausibility:
    """Distances to the nearest training datum, root mean squares over its values, in the data's units.

    Attributes:
        held_out: of data that the model has not seen, (N,).
        reconstructed: of data drawn anew from p(x | z), with z from the posteriors of those, (N,).
        sampled: of data drawn from the model, (N,).
        implausible: the mass of the model's draws that are farther off than reconstructions are, in excess.
        auroc: how well the distance tells the model's draws from reconstructions: 1/2 where it does not.
    """

    held_out: Tensor
    reconstructed: Tensor
    sampled: Tensor
    implausible: Excess
    auroc: AUROC

    def __repr__(self) -> str:
        means = ", ".join(
            f"{name} {values.mean():.4f}"
            for name, values in (
                ("held out", self.held_out),
                ("reconstructed", self.reconstructed),
                ("sampled", self.sampled),
            )
        )
        return f"Plausibility(implausible {self.implausible!r}, AUROC {self.auroc}, mean distances: {means})"


def plausibility(
    model: Callable[..., Any],
    guide: Callable[..., Any],
    train: Tensor,
    held_out: Tensor,
    *,
    alpha: float = 0.05,
    seed: int | None = None,
) -> Plausibility:
    r"""How far decoded draws from the prior are from the data, beside decoded draws from posteriors.

    The distance $d(x) = \min_n \lVert x - x_n \rVert / \sqrt D$ to the nearest training datum is defined for any data,
    and so for any pair. By itself it says little, since the likelihood's noise adds to it; but reconstructions, data
    drawn from p(x | z) at z ~ q(z | x) of held-out x, have the same noise and go through the same decoder. What
    draws from the model, z ~ p(z), are farther off by is therefore due to where the prior puts its z: into holes. The
    implausible mass is $(P(d > t) - \alpha) / (1 - \alpha)$, t being the distance that a share α of the reconstructions
    exceed; see `holes`.

    The measure knows nothing of what data mean: a picture moved by a pixel is far, a blurred or a memorised one is
    near, and what the decoder makes implausible out of any code is not seen, but in how reconstructions compare with
    the held-out data themselves.

    Args:
        model, guide: the pair; programs that accept only `x` are taken too.
        train: the data it was trained on, (T, *data_shape).
        held_out: data of the same kind that it was not, (N, *data_shape), N ≥ 2; as many are drawn.
        alpha: α, between 0 and 1.
        seed: makes the result repeatable and leaves the caller's random state alone; with None, that is consumed.

    Raises:
        ValueError: where `alpha` is out of range, `held_out` holds fewer than two data or others than `train`, or the
            model does not draw the data at one site, or cannot be sampled.

    References:
        Rosca, Lakshminarayanan & Mohamed (2018), Distribution Matching in Variational Inference: samples from holes.

    Example:
        >>> from pyro_lvm import guides, models
        >>> _ = torch.manual_seed(0)
        >>> model = models.ProbabilisticPCA(3, latent_dim=2)
        >>> found = plausibility(model, guides.ExactPPCA(model), model.sample(200), model.sample(200), seed=0)
        >>> abs(found.auroc.value - 0.5) < 4 * found.auroc.standard_error
        True
    """
    if not 0 < alpha < 1:
        raise ValueError(f"'alpha' is a mass and must lie between 0 and 1, not be {alpha!r}.")
    train, held_out = checked(model, guide, train), checked(model, guide, held_out)
    if len(held_out) < 2 or held_out.shape[1:] != train.shape[1:]:
        raise ValueError(
            f"'held_out' must hold at least two data of the shape of 'train', {tuple(train.shape[1:])}, but has shape "
            f"{tuple(held_out.shape)}."
        )
    drawn: list[list[Tensor]] = [[], []]
    with seeded(seed):
        for rows in held_out.split(_DATA):
            sampler = Sampler(model, guide, rows)
            if sampler.data_site is None:
                raise ValueError("no site of the model has the data as they are, so there are none to be drawn anew.")
            drawn[0].append(sampler.posterior(1)[1].values[sampler.data_site][0])
            try:
                drawn[1].append(sampler.new_data(1).values[sampler.data_site][0])
            except NotImplementedError as error:
                raise ValueError(f"the model cannot be sampled ({next(iter(str(error).splitlines()), '')}).") from error
        known, reconstructed, sampled = (
            _nearest(values, train) for values in (held_out, torch.cat(drawn[0]), torch.cat(drawn[1]))
        )
        mass = excess(-reconstructed, -sampled, alpha)
        return Plausibility(known, reconstructed, sampled, mass, auroc(reconstructed, sampled))


def _nearest(x: Tensor, train: Tensor) -> Tensor:
    """Root mean square distances to the nearest of the training data, (N,)."""
    rows, known = x.flatten(1).double(), train.flatten(1).double()
    least = [torch.cdist(part, known).amin(1) for part in rows.split(max(1, _NUMBERS // len(known)))]
    return torch.cat(least) / rows.shape[1] ** 0.5


def plot_plausibility(found: Plausibility, *, ax: "Axes | None" = None) -> "Axes":
    """Draws the distances of held-out data, their reconstructions and the model's draws to the nearest training datum.

    Args:
        found: what `plausibility` returns.
        ax: the axes to draw into; a new figure's where left out.

    Returns:
        The axes.

    Example:
        >>> from pyro_lvm import guides, models
        >>> _ = torch.manual_seed(0)
        >>> model = models.ProbabilisticPCA(3, latent_dim=2)
        >>> found = plausibility(model, guides.ExactPPCA(model), model.sample(50), model.sample(50))
        >>> plot_plausibility(found).get_ylabel()
        'share of the data'
    """
    ax = axes(ax, 6.4, 3.6)
    names = ("held-out data", "their reconstructions", "draws from the model")
    rows = [array(values) for values in (found.held_out, found.reconstructed, found.sampled)]
    bins = np.histogram_bin_edges(np.concatenate(rows), bins=40).tolist()
    for i, (row, name) in enumerate(zip(rows, names, strict=True)):
        draw_shares(ax, row, bins, name, i)
    ax.set_xlabel("distance to the nearest training datum (root mean square, data's units)")
    ax.set_ylabel("share of the data")
    ax.legend(frameon=False, fontsize="small")
    return ax
