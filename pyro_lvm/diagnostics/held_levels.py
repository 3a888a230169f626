"""What the levels of a hierarchy decide: samples that share the upper ones."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pyro.poutine as poutine
import torch
from torch import Tensor

from pyro_lvm.diagnostics.galleries import plot_samples
from pyro_lvm.diagnostics.randomness import seeded
from pyro_lvm.programs import Program
from pyro_lvm.sizes import check_sizes

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def sample_levels(
    model: Callable[..., Any], held: int = 1, rows: int = 8, columns: int = 8, *, seed: int | None = None
) -> Tensor:
    r"""Draws data in rows: those of a row share their upper latents, $z_L$ and so on; those below are drawn anew.

    Args:
        model: a program of several latents that accepts `size`; for any other than `models.Hierarchical`, the upper
            latents are those it draws first.
        held: how many of the latents a row shares, 1 or more.
        rows: number of draws of the shared latents.
        columns: number of data for each of them.
        seed: makes the result repeatable and leaves the caller's random state alone; with None, that is consumed.

    Returns:
        (rows · columns, *data_shape), row by row.

    Raises:
        ValueError: where a size is less than 1, or the model has fewer latents than `held`.

    Example:
        >>> from pyro_lvm import levels, likelihoods, models, networks, priors
        >>> _ = torch.manual_seed(0)
        >>> top = levels.TopLevel(priors.StandardNormal(2), networks.MLP(2, 8, (8,)))
        >>> decoder = likelihoods.Bernoulli(networks.MLP(8, (4, 4), (8,)))
        >>> sample_levels(models.Hierarchical([levels.DenseLevel(8, 3), top], decoder), rows=2, columns=3).shape
        torch.Size([6, 4, 4])
    """
    check_sizes(held=held, rows=rows, columns=columns)
    program = Program(model)
    with torch.no_grad(), poutine.block(), seeded(seed):
        nodes: dict[str, Any] = poutine.trace(program).get_trace(size=rows).nodes
        # The data are what the program draws last; the plate's own entry is no draw.
        drawn = [name for name, node in nodes.items() if node["type"] == "sample" and name != "data"][:-1]
        if held > len(drawn):
            raise ValueError(
                f"'held' is the number of latents that a row shares: the model has {len(drawn)}, {', '.join(drawn)}, "
                f"not {held}."
            )
        shared = {name: nodes[name]["value"].repeat_interleave(columns, 0) for name in drawn[:held]}
        x: Tensor = poutine.condition(program, data=shared)(size=rows * columns)
        return x


def plot_levels(
    model: Callable[..., Any],
    held: int = 1,
    rows: int = 8,
    columns: int = 8,
    *,
    levels: int | None = None,
    seed: int | None = None,
    ax: "Axes | None" = None,
) -> "Axes":
    """Draws samples in rows that share their upper latents, one beside the other; see `sample_levels`.

    What is alike along a row is decided by the latents held, what differs by those below them. Data must be pictures.

    Args:
        model, held, rows, columns, seed: see `sample_levels`.
        levels: number of grey or colour levels, which fixes black to 0 and white to `levels` − 1.
        ax: the axes to draw into; a new figure's where left out.

    Returns:
        The axes.

    Raises:
        ValueError: as `sample_levels` does.

    Example:
        >>> from pyro_lvm import data, zoo
        >>> model, _, _ = zoo.build("hvae-top-down", data.load("digits"))
        >>> plot_levels(model, rows=2, columns=3, levels=17).images[0].get_array().shape
        (19, 28)
    """
    x = sample_levels(model, held, rows, columns, seed=seed)
    ax = plot_samples(x, levels=levels, columns=columns, ax=ax)
    ax.set_title(f"a row shares its {'uppermost latent' if held == 1 else f'{held} uppermost latents'}")
    return ax
