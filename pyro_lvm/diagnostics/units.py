"""What each latent, and each of its units, costs: the divergence from the prior, one by one."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, final

import torch
from torch import Tensor

from pyro_lvm.diagnostics.aggregated import check_particles
from pyro_lvm.diagnostics.drawing import Sampler, checked, undisturbed
from pyro_lvm.diagnostics.figures import COLOURS, axes, plain
from pyro_lvm.diagnostics.randomness import seeded
from pyro_lvm.evidence.gaps import Estimate
from pyro_lvm.evidence.memory import bytes_per_row
from pyro_lvm.objectives.table import Table, run

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_BYTES = 2**28  # intermediate values of one run of the programs
_HATCHES = ("", "//", "..", "xx")


@final
@dataclass(frozen=True)
class UnitDivergences:
    """KL(q ‖ p) of latents and their units, nats; see `unit_divergences`.

    Attributes:
        levels: by latent site, in the model's order, that of each datum.
        units: by site, the mean over data of each unit's part, nats per datum, of the shape of the latent of one datum;
            the parts sum to the level's mean. None where q or p is no product over units.
    """

    levels: dict[str, Estimate]
    units: dict[str, Tensor | None]

    @property
    def total(self) -> float:
        """Of all levels, nats per datum."""
        return sum(level.mean for level in self.levels.values())


def unit_divergences(
    model: Callable[..., Any],
    guide: Callable[..., Any],
    x: Tensor,
    num_particles: int = 16,
    *,
    seed: int | None = None,
) -> UnitDivergences:
    r"""$E_q\, \mathrm{KL}\big(q(z_{ld} \mid z_<, x) \,\|\, p(z_{ld} \mid z_<)\big)$, unit d by unit d of every level l.

    $z_<$ is what each program has drawn before. Levels of a hierarchy have a number each; so do units, where both
    densities are products over them. A unit at 0 has collapsed: its posterior is its prior, whatever the datum.
    Divergences are in closed form where there is one, and are otherwise means over the draws. Latents that all data
    share are left out: they are not paid for datum by datum.

    Args:
        model, guide: the pair; programs that accept only `x` are taken too.
        x: data, (N, *data_shape).
        num_particles: K, draws from the guide per datum, at least 2.
        seed: makes the result repeatable and leaves the caller's random state alone; with None, that is consumed.

    Raises:
        ValueError: where `num_particles` < 2, no latent belongs to single data, or log p is itself an estimate, as a
            diffusion's is.

    References:
        Sønderby et al. (2016), Ladder Variational Autoencoders. Bowman et al. (2016), Generating Sentences from a
        Continuous Space: the collapse.

    Example:
        >>> from pyro_lvm import guides, likelihoods, models, networks, posteriors, priors
        >>> _ = torch.manual_seed(0)
        >>> model = models.VAE(priors.StandardNormal(3), likelihoods.Bernoulli(networks.MLP(3, (4, 4), (8,))))
        >>> guide = guides.Amortized(posteriors.DiagonalNormal(networks.MLP((4, 4), 2 * 3, (8,))))
        >>> found = unit_divergences(model, guide, torch.ones(5, 4, 4))
        >>> found.units["z"].shape, abs(found.total - found.units["z"].sum().item()) < 1e-5
        (torch.Size([3]), True)
    """
    check_particles(num_particles)
    x = checked(model, guide, x)
    with seeded(seed):
        first = Sampler(model, guide, x[:1])
        names = [name for name in first.latents if first.variables[name].per_datum]
        if not names:
            raise ValueError("no latent belongs to single data, so none has a divergence that is paid datum by datum.")
        table = _table(first, 1)
        if table.without_weights is not None:
            raise ValueError(
                f"the pair's log p is itself an estimate ({table.without_weights}), and so would be its divergences."
            )
        per_draw = bytes_per_row(lambda rows: _table(first, 1, rows), x)
        K = min(num_particles, max(1, _BYTES // per_draw)) if first.vectorized else 1
        batches = x.split(max(1, _BYTES // (K * per_draw)))
        parts = [_of_rows(Sampler(model, guide, rows), names, num_particles, K) for rows in batches]
    levels = {name: Estimate(*(torch.cat([part[name][i] for part in parts]) for i in (0, 1))) for name in names}
    units = {name: torch.cat([part[name][2] for part in parts]) for name in names}
    return UnitDivergences(levels, {name: values.mean(0) if len(values) else None for name, values in units.items()})


def _table(sampler: Sampler, draws: int, x: Tensor | None = None) -> Table:
    programs, rows = (sampler.model, sampler.guide), sampler.x if x is None else x
    with undisturbed(*programs):
        return run(
            *programs, (rows,), {}, num_particles=draws, nesting=sampler.nesting, with_kl=True, by_dimension=True
        )


def _of_rows(
    sampler: Sampler, names: list[str], num_particles: int, at_once: int
) -> dict[str, tuple[Tensor, Tensor, Tensor]]:
    """By site, the divergence of each datum and its error, (B,), and those of its units, (B, *units) or none at all."""
    levels: dict[str, list[Tensor]] = {name: [] for name in names}
    units: dict[str, list[Tensor]] = {name: [] for name in names}
    left = num_particles
    while left:
        k = min(at_once, left)
        table = _table(sampler, k)
        for name in names:
            site, variable = table.sites[name], sampler.variables[name]
            level = variable.align(site.divergence).double()  # (K, B, *other plates); closed forms may need no K
            levels[name].append(level.flatten(2).sum(2).expand(k, -1) if level.dim() > 2 else level.expand(k, -1))
            of_units = site.kl_by_dimension if site.event_dim else site.divergence
            if of_units is not None:
                values = variable.align(of_units, of_units.dim() - site.divergence.dim()).double()
                units[name].append(values.expand(k, *values.shape[1:]))
        left -= k
    return {name: _read(torch.cat(levels[name]), units[name]) for name in names}


def _read(levels: Tensor, units: list[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    of_units = torch.cat(units).mean(0) if units else levels[:0, 0]
    return levels.mean(0), levels.std(0) / len(levels) ** 0.5, of_units


def plot_units(found: UnitDivergences, *, ax: "Axes | None" = None) -> "Axes":
    r"""Draws each unit's KL of posterior from prior as a bar, level beside level; one without units has a bar for all.

    Args:
        found: what `unit_divergences` returns.
        ax: the axes to draw into; a new figure's where left out.

    Returns:
        The axes. Units of a level are in descending order, so that the number of those in use is seen.

    Raises:
        ValueError: where there is no level.

    Example:
        >>> found = UnitDivergences({"z": Estimate(torch.ones(4), torch.zeros(4))}, {"z": torch.tensor([0.0, 1.0])})
        >>> plot_units(found).get_ylabel()
        'KL of posterior from prior (nats per datum)'
    """
    if not found.levels:
        raise ValueError("'found' must hold the divergences of at least one latent, but has none.")
    ax = axes(ax, 6.4, 3.6)
    start, ticks = 0.0, []
    for i, (name, level) in enumerate(found.levels.items()):
        units = found.units[name]
        heights = [level.mean] if units is None else sorted(units.flatten().tolist(), reverse=True)
        whole = "all units together, " if units is None else f"{len(heights)} units, "
        style: dict[str, Any] = {"color": COLOURS[i % len(COLOURS)], "hatch": _HATCHES[i % 4], "edgecolor": "white"}
        label = f"{plain(name)}: {whole}{level.mean:.2f} nats"
        ax.bar([start + d for d in range(len(heights))], heights, 0.9, label=label, **style)
        ticks.append((start + (len(heights) - 1) / 2, plain(name)))
        start += len(heights) + 1.5
    ax.set_xticks([at for at, _ in ticks], [name for _, name in ticks])
    ax.axhline(0, color="black", linewidth=0.8)
    ax.set_xlabel("unit of each latent, in descending order")
    ax.set_ylabel("KL of posterior from prior (nats per datum)")
    ax.legend(frameon=False, fontsize="small")
    return ax
