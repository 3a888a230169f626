"""The drawings of a report: learning curves, samples, reconstructions, latents."""

from collections.abc import Mapping, Sequence
from math import ceil, isfinite
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from pyro_lvm.diagnostics.curves import plot_history, plot_kl
from pyro_lvm.diagnostics.drawing import Sampler
from pyro_lvm.diagnostics.figures import axes, is_image
from pyro_lvm.diagnostics.galleries import plot_reconstructions, plot_samples
from pyro_lvm.diagnostics.latent_space import draw_points, plot_code, plot_latent
from pyro_lvm.report.number import shown
from pyro_lvm.report.page import Picture

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PICTURES = 64  # in a grid
PAIRS = 20  # of data and reconstructions, in a grid
POINTS = 1000  # in a scatter
_LATENTS = 3  # sites drawn at most

History = Sequence[Mapping[str, float]]


def learning_curves(history: History, objective: str) -> list[Picture]:
    """What was climbed, and the KL of each latent where the history has it."""
    curves = plot_history(history, objective=objective, ax=_small())
    drawn = [Picture(curves, _curve_text(history, objective), "The objective over epochs; higher is better.")]
    keys = list(dict.fromkeys(key for row in history for key in row if key.startswith("kl_")))
    ends = {key: _finite(history, key) for key in keys}
    if any(ends.values()):
        words = "; ".join(f"{k.removeprefix('kl_')} ends at {shown(v[-1])}" for k, v in ends.items() if v)
        drawn.append(
            Picture(
                plot_kl(history, ax=_small()),
                f"Line chart of each latent's KL by epoch, in nats per datum: {words}.",
                "How far the posterior of each latent is from its prior; at 0 the latent has collapsed.",
            )
        )
    return drawn


def samples(sampler: Sampler, dataset_levels: int | None, split: str) -> list[Picture]:
    """Data, and as many samples, in the same frame."""
    name = _data_site(sampler)
    x = sampler.observed[name]
    again = sampler.new_data(1).values[name][0].to(x.dtype)
    shared = [n for n in sampler.latents if not sampler.variables[n].per_datum]
    origin = f", its shared latents ({', '.join(shared)}) drawn from the guide" if shared else ""
    captions = (f"Data ({split}).", f"Samples: data drawn from the model{origin}.")
    shape = tuple(x.shape[1:])
    if is_image(shape):
        limits = None if dataset_levels is not None else _limits(x)
        columns = ceil(len(x) ** 0.5)
        height = 4.8 * ceil(len(x) / columns) * shape[-2] / (columns * shape[-1])
        plots = [
            plot_samples(part, levels=dataset_levels, limits=limits, columns=columns, ax=_small(height))
            for part in (x, again)
        ]
        alts = [f"Grid of {len(part)} {kind}." for part, kind in ((x, "pictures of the data"), (again, "samples"))]
    else:
        plots = [plot_samples(part, ax=_small()) for part in (x, again)]
        outside = _frame_alike(plots, x, again)
        if outside:
            captions = captions[0], f"{captions[1]} {outside} of {len(x)} samples reach outside the frame."
        alts = [
            f"{_kind(shape)} of {len(part)} {kind}; {_spread(part)}."
            for part, kind in ((x, "data"), (again, "samples"))
        ]
    return [Picture(ax, alt, caption) for ax, alt, caption in zip(plots, alts, captions, strict=True)]


def reconstructions(sampler: Sampler, dataset_levels: int | None, split: str) -> list[Picture]:
    """Data and what the model makes of a draw of their latents."""
    name = _data_site(sampler)
    x = sampler.observed[name]
    _, again = sampler.posterior(1)
    centre, kind = sampler.centres(again, name)
    shape = tuple(x.shape[1:])
    if is_image(shape):
        x, centre = x[:PAIRS], centre[:, :PAIRS]
    ax = plot_reconstructions(x, centre[0].to(x.dtype), levels=dataset_levels)
    error = (x - centre[0]).double().square().mean().sqrt().item()
    where = "Odd rows: data; even rows: their reconstructions" if is_image(shape) else "Each value against its own"
    return [
        Picture(
            ax,
            f"{len(x)} data and their reconstructions; root mean square difference {shown(error)} in the data's units.",
            f"{where}, the {kind} of p(x | z) at one draw z from q(z | x) ({split}).",
        )
    ]


def latents(sampler: Sampler, labels: Tensor | None, split: str) -> list[Picture]:
    """The latents that each datum has of its own, by label where there are labels."""
    drawn = sampler.guide_only(1)
    by = " by label" if labels is not None else ""
    pictures = []
    for name in [n for n in sampler.latents if sampler.variables[n].per_datum][:_LATENTS]:
        if sampler.variables[name].is_discrete:
            pictures += _assignments(sampler, drawn.values[name][0], name, labels, split)
            continue
        mean = sampler.means(drawn, name)
        z, kind = (drawn.values[name], "draws") if mean is None else (mean, "means")
        units = z[0, 0].numel()
        pictures.append(
            Picture(
                plot_latent(z[0], labels, name=name),
                f"Scatter of the latent {name} ({units} units) of {z.shape[1]} data{by}; {_spread(z[0])}.",
                f"Latent {name}: {kind} of q({name} | x){by} ({split}).",
            )
        )
    return pictures


def _assignments(sampler: Sampler, z: Tensor, name: str, labels: Tensor | None, split: str) -> list[Picture]:
    """How many data each component has, and which."""
    by = " by label" if labels is not None else ""
    if z.dim() == 3 and bool((z.sum(-1) == 1).all()):
        used = int((z.mean(0) > 0.01).sum())
        return [
            Picture(
                plot_code(z, name=name),
                f"Map of how often each of the {z.shape[2]} categories of the {z.shape[1]} variables of {name} is "
                f"used; {used} of {z[0].numel()} by more than 1 % of the data.",
                f"Code {name}: how often q({name} | x) draws each category ({split}).",
            )
        ]
    z = z.long()
    if z.dim() > 1:
        return [
            Picture(plot_latent(z, name=name), f"Bar chart of the values of {name}.", f"Values of {name} ({split}).")
        ]
    counts = ", ".join(f"{c}: {n}" for c, n in enumerate(z.bincount().tolist()) if n)
    x = sampler.observed[_data_site(sampler)]
    return [
        Picture(
            plot_latent(z, labels, name=name, ax=_small()),
            f"Bar chart of the number of data assigned to each component: {counts}.",
            f"Latent {name}: the component drawn from q({name} | x) for each of {len(z)} data{by} ({split}).",
        ),
        Picture(
            draw_points(x.flatten(1) if x.dim() > 1 else x[:, None], z, "x", "values", "component", _small(4.2)),
            f"Scatter of {len(z)} data coloured by the component assigned to them.",
            f"The data, coloured by component ({split}).",
        ),
    ]


def _small(height: float = 3.4) -> "Axes":
    """Axes of which two stand beside one another on the page, with text of the page's size."""
    return axes(None, 4.8, height)


def _data_site(sampler: Sampler) -> str:
    if sampler.data_site is None:
        raise ValueError("the model observes no site that has the data's shape")
    return sampler.data_site


def _finite(history: History, key: str) -> list[float]:
    values = [row.get(key) for row in history]
    return [float(value) for value in values if value is not None and isfinite(value)]


def _curve_text(history: History, objective: str) -> str:
    parts = []
    for key, word in (("train", "training"), ("validation", "validation")):
        values = _finite(history, key)
        if values:
            parts.append(f"{word} from {shown(values[0])} to {shown(values[-1])}, best {shown(max(values))}")
    return f"Line chart by epoch of {objective} over {len(history)} epochs: {'; '.join(parts)}."


def _limits(x: Tensor) -> tuple[float, float]:
    low, high = float(x.min()), float(x.max())
    return low, high if high > low else low + 1.0


def _kind(shape: tuple[int, ...]) -> str:
    return {1: "Histogram", 2: "Scatter"}.get(int(np.prod(shape)), "Lines, one a datum,")


def _spread(x: Tensor) -> str:
    flat = x.double()
    return f"mean {shown(flat.mean().item())}, standard deviation {shown(flat.std(correction=0).item())}"


def _frame_alike(plots: "list[Axes]", x: Tensor, again: Tensor) -> int:
    """Gives two plots one frame, around the data and what lies near; the number of samples that reach outside."""
    data, new = (part.double().cpu().reshape(len(part), -1).numpy() for part in (x, again))  # (N, D)
    D = data.shape[1]
    axis = 0 if D <= 2 else None  # a dimension is an axis of the frame, or all share the one of values
    low, high = np.atleast_1d(data.min(axis)), np.atleast_1d(data.max(axis))
    width = high - low
    low_, high_ = np.maximum(new.min(axis), low - width), np.minimum(new.max(axis), high + width)
    low, high = np.minimum(low, low_), np.maximum(high, high_)
    margin = np.maximum(0.05 * (high - low), 1e-9)
    for ax in plots:
        if D <= 2:
            ax.set_xlim(low[0] - margin[0], high[0] + margin[0])
        if D >= 2:
            ax.set_ylim(low[-1] - margin[-1], high[-1] + margin[-1])
    return int(((new < low) | (new > high)).any(1).sum())
