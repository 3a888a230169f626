"""Collapse: the units of a latent that carry nothing about the data."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor

from pyro_lvm.diagnostics.drawing import Sampler, checked
from pyro_lvm.diagnostics.randomness import seeded

# Draws of all latents that are held at once, in numbers.
_NUMBERS_AT_ONCE = 2**22


@final
@dataclass(frozen=True)
class ActiveUnits:
    """How much each unit of the latents moves with the data.

    Attributes:
        variances: by latent site, the variance over x of a unit's posterior mean, of the shape of the latent of one
            datum, in the latent space's units squared.
        threshold: a unit is active where its variance is larger.
    """

    variances: dict[str, Tensor]
    threshold: float

    @property
    def active(self) -> dict[str, Tensor]:
        """By site, whether each unit is active, booleans of the shape of `variances`."""
        return {name: variance > self.threshold for name, variance in self.variances.items()}

    @property
    def count(self) -> int:
        """The number of active units, of all sites."""
        return sum(int(active.sum()) for active in self.active.values())

    @property
    def total(self) -> int:
        """The number of units, active or not."""
        return sum(variance.numel() for variance in self.variances.values())


def active_units(
    model: Callable[..., Any],
    guide: Callable[..., Any],
    x: Tensor,
    threshold: float = 0.01,
    num_particles: int = 64,
    *,
    seed: int | None = None,
) -> ActiveUnits | None:
    r"""Counts the units d with $\mathrm{Var}_x\big(E_{q(z \mid x)}[z_d]\big)$ above a threshold; the others collapsed.

    Where q tells its mean given what was drawn before it, that mean stands for the draw: for a guide with one normal
    latent the inner expectation is exact, whatever the number of draws. Where it is estimated, the variance that the
    estimate adds, $\mathrm{Var}_q / K$, is subtracted (uncorrected, a collapsed unit would count as active at K ≤ 100).

    Args:
        model, guide: the pair; programs that accept only `x` are taken too.
        x: data to take the variance over, (N, *data_shape), N ≥ 2; some hundreds at least for a firm count.
        threshold: in the latent space's units squared; a standard normal prior has variance 1.
        num_particles: K, draws from the guide per datum, at least 2.
        seed: makes the result repeatable and leaves the caller's random state alone; with None, that is consumed.

    Returns:
        The count and each unit's variance; None where no latent that a datum has of its own is continuous, as in a
        mixture: the count is not defined there.

    Raises:
        ValueError: where `threshold` is negative, `num_particles` < 2, or `x` holds fewer than two data.

    References:
        Burda, Grosse & Salakhutdinov (2016), Importance Weighted Autoencoders, appendix C.

    Example:
        >>> from pyro_lvm import guides, models
        >>> _ = torch.manual_seed(0)
        >>> model = models.ProbabilisticPCA(5, latent_dim=2)
        >>> model.weight.data[:, 1] = 0.0  # the second unit does not reach the data
        >>> active_units(model, guides.ExactPPCA(model), model.sample(100)).count
        1
    """
    if threshold < 0:
        raise ValueError(f"'threshold' is a variance and must not be negative, not {threshold}.")
    if num_particles < 2:
        raise ValueError(
            f"'num_particles' must be at least 2, to know the estimate's own variance, not {num_particles}."
        )
    if len(x) < 2:
        raise ValueError(f"'x' must hold at least two data to take a variance over, not {len(x)}.")
    x = checked(model, guide, x)
    with seeded(seed):
        first = Sampler(model, guide, x[:1])
        names = [n for n in first.latents if first.variables[n].per_datum and not first.variables[n].is_discrete]
        if not names:
            return None
        numbers = sum(values.numel() for values in first.guide_only(1).values.values())
        batch = max(1, _NUMBERS_AT_ONCE // (numbers * num_particles))
        parts = [_means_and_noise(Sampler(model, guide, part), names, num_particles) for part in x.split(batch)]
    variances = {}
    for name in names:
        means = torch.cat([part[name][0] for part in parts])  # (N, *units)
        noise = torch.cat([part[name][1] for part in parts])
        variances[name] = (means.var(0) - noise.mean(0)).clamp_min(0.0)
    return ActiveUnits(variances, threshold)


def _means_and_noise(sampler: Sampler, names: list[str], num_particles: int) -> dict[str, tuple[Tensor, Tensor]]:
    """By site, E_q[z | x] as estimated and the variance of that estimate, both (B, *units)."""
    rows: dict[str, list[Tensor]] = {name: [] for name in names}
    for K in sampler.chunks(num_particles):
        drawn = sampler.guide_only(K)
        for name in names:
            mean = sampler.means(drawn, name)
            rows[name].append(drawn.values[name] if mean is None else mean)
    means = {name: torch.cat(parts) for name, parts in rows.items()}  # (K, B, *units)
    return {name: (mean.mean(0), mean.var(0) / num_particles) for name, mean in means.items()}
