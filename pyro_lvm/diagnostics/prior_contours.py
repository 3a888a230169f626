"""A prior over two latents, and what the data make of it."""

from itertools import chain
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from pyro_lvm.diagnostics.figures import array, axes
from pyro_lvm.diagnostics.latent_space import draw_points

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Shares of the prior's mass that the contours hold, and greys that the points' colours all stand out from.
_SHARES = (0.99, 0.9, 0.7, 0.5, 0.3, 0.1)
_GREYS = ("#f4f4f4", "#e8e8e8", "#dadada", "#cccccc", "#bebebe", "#b0b0b0")

_DRAWS = 2000  # that tell how far the prior reaches
_POINTS = 200  # of the grid, on each axis


def plot_prior(
    prior: nn.Module, z: Tensor | None = None, labels: Tensor | None = None, *, ax: "Axes | None" = None
) -> "Axes":
    r"""Draws a prior over two latents, its darkest region the densest that holds a tenth of its mass, the widest 99 %.

    With draws of $q(z \mid x)$ for many data, the aggregated posterior, over it: dark regions without points are holes,
    which draws from the model are decoded from and no datum is encoded to; points outside cost divergence.

    Args:
        prior: () to a distribution of two latents, one of `pyro_lvm.priors`; it is run in evaluation mode.
        z: draws, (N, 2).
        labels: of the data they belong to, (N,); see `plot_latent`.
        ax: the axes to draw into; a new figure's where left out.

    Returns:
        The axes.

    Raises:
        ValueError: where the latents are not two, or `z` or `labels` are of another shape.

    Example:
        >>> from pyro_lvm import priors
        >>> _ = torch.manual_seed(0)
        >>> plot_prior(priors.MixtureOfGaussians(2), torch.randn(50, 2)).get_xlabel()
        'z₁ (first of 2 latents)'
    """
    if z is not None and (z.dim() != 2 or z.shape[1] != 2 or not len(z)):
        raise ValueError(f"'z' must hold draws of two latents, (N, 2), but has shape {tuple(z.shape)}.")
    if labels is not None and (z is None or labels.shape != z.shape[:1]):
        raise ValueError(f"'labels' must be one for each draw in 'z', but have shape {tuple(labels.shape)}.")
    training = [module for module in prior.modules() if module.training]
    prior.eval()
    try:
        with torch.no_grad(), torch.random.fork_rng():
            across, up, density = _on_a_grid(prior, z)
    finally:
        for module in training:
            module.training = True
    ax = axes(ax, 5.6, 5.0)
    # The density above which lies so much of the mass.
    ordered = density.flatten().sort(descending=True).values
    mass = ordered.cumsum(0) / ordered.sum()
    levels = [ordered[int((mass < share).sum())].item() for share in _SHARES]
    drawn = [(level, grey) for level, grey in zip(levels, _GREYS, strict=True) if 0 < level < ordered[0]]
    at = array(across), array(up), array(density)
    for level, grey in drawn:
        ax.contourf(*at, [level, 2.0], colors=[grey], zorder=0)
        ax.contour(*at, [level], colors="#777777", linewidths=0.6, zorder=0)
    ax.set_title(f"regions hold {', '.join(f'{100 * s:.0f}' for s in _SHARES[::-1])} % of the prior", fontsize="small")
    if z is not None:
        return draw_points(z, labels, "z", "latents", "label", ax)
    ax.set_aspect("equal", adjustable="datalim")
    ax.set_xlabel("z₁ (first of 2 latents)")
    ax.set_ylabel("z₂ (second of 2 latents)")
    return ax


def _on_a_grid(prior: nn.Module, z: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """Coordinates (G,) of a grid that holds the prior and the draws, and the prior's density there, (G, G)."""
    distribution = prior()
    if tuple(distribution.event_shape) != (2,):
        raise ValueError(
            f"'prior' must be over two latents to be drawn, but its event shape is {tuple(distribution.event_shape)}."
        )
    reference = next(chain(prior.parameters(), prior.buffers()), torch.empty(0))
    drawn = distribution.sample((_DRAWS,))
    # Single draws far out, of heavy tails, would shrink all the rest.
    reach = drawn.quantile(torch.tensor([0.002, 0.998]).to(drawn), dim=0)  # (2, 2)
    if z is not None:
        reach = torch.cat((reach, z.to(reach)))
    low, high = reach.amin(0), reach.amax(0)
    middle, half = (low + high) / 2, 0.6 * (high - low).max()
    across, up = (m + half * torch.linspace(-1, 1, _POINTS).to(reference) for m in middle)
    log_prob = distribution.log_prob(torch.cartesian_prod(across, up)).reshape(_POINTS, _POINTS).T
    return across, up, (log_prob - log_prob.max()).exp()
