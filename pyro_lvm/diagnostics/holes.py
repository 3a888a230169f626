"""Holes: where the prior puts mass and the aggregated posterior does not."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, final

import numpy as np
import torch
from torch import Tensor

from pyro_lvm.diagnostics.aggregated import AggregatedPosterior
from pyro_lvm.diagnostics.drawing import checked
from pyro_lvm.diagnostics.figures import COLOURS, array, axes, draw_shares
from pyro_lvm.diagnostics.randomness import seeded
from pyro_lvm.sizes import check_sizes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_RESAMPLED = 200  # times, for a standard error


@final
@dataclass(frozen=True)
class Excess:
    """How much of the mass of one distribution lies where there is next to none of another, with its standard error."""

    mass: float
    standard_error: float

    def __repr__(self) -> str:
        return f"{self.mass:.4f} ± {self.standard_error:.4f}"


@final
@dataclass(frozen=True)
class Holes:
    """How prior and aggregated posterior cover each other; see `holes`.

    Attributes:
        prior: the mass of the prior that lies in holes.
        posterior: the mass of the aggregated posterior that lies where the prior puts next to none; None where the
            prior's density is not known.
        threshold: the log-density of the aggregated posterior below which a draw from the prior counts as in a hole.
        log_q_of_prior, log_q_of_posterior: log-densities of the aggregated posterior, (S,) and (K·N,), nats.
        prior_draws, posterior_draws: the latents they belong to, as rows of real numbers, (S, M) and (K·N, M).
    """

    prior: Excess
    posterior: Excess | None
    threshold: float
    log_q_of_prior: Tensor
    log_q_of_posterior: Tensor
    prior_draws: Tensor
    posterior_draws: Tensor

    @property
    def coverage(self) -> float:
        """The mass of the prior that the aggregated posterior covers: 1 − that in holes."""
        return 1 - self.prior.mass

    def __repr__(self) -> str:
        return (
            f"Holes(mass of the prior in holes {self.prior!r}, of the aggregated posterior outside the prior "
            f"{self.posterior!r}, {len(self.log_q_of_prior)} draws)"
        )


def holes(
    model: Callable[..., Any],
    guide: Callable[..., Any],
    x: Tensor,
    *,
    alpha: float = 0.05,
    latents: Sequence[str] | None = None,
    num_particles: int = 1,
    prior_draws: int | None = None,
    seed: int | None = None,
    progress: bool = True,
) -> Holes:
    r"""The mass of the prior where the aggregated posterior $q(z) = \frac1N \sum_n q(z \mid x_n)$ puts next to none.

    With $t_\alpha$ the α-quantile of log q(z) under q(z) itself, the set $A = \{z : \log q(z) < t_\alpha\}$ holds the
    mass Q(A) = α of the aggregated posterior, where it is thinnest. A prior that is the same puts α there too; the mass
    in holes is what a prior puts there in excess,

    $$h = \frac{P(A) - Q(A)}{1 - Q(A)} .$$

    Cut a hole of mass h into a prior, and let q(z) be the rest: h is found again, for every α, because P is then h in
    the hole, which is a part of A, and 1 − h times Q elsewhere. In general P(A) − Q(A) is a lower bound on the total
    variation distance of the two. Draws from the prior that lie in holes are decoded into data that the decoder has
    never been trained to make.

    q(z) is that of N data at hand, and more than a few dimensions have room between any N data. Therefore each draw
    from q(z), when the threshold is set, is scored by the other N − 1 data alone, just as a draw from the prior is:
    where prior and aggregated posterior agree, h is 0 within its error for any N, even where N data are far too few.
    What too few data cost is power: small holes, and those between the data, are then not seen, and h is a lower bound.
    It is below 0 where the prior keeps to the middle of what the data fill. The other direction, the mass of the
    aggregated posterior that lies outside of the prior, exchanges the roles of the two.

    Args:
        model, guide: the pair; programs that accept only `x` are taken too.
        x: data, (N, *data_shape), some hundreds at least.
        alpha: α, between 0 and 1; smaller means emptier, and fewer draws to tell by.
        latents: names of those to look at, which must be the first that the guide draws, as the top of a hierarchy that
            it goes down; all of them jointly where left out. The density of any others hangs on these.
        num_particles: draws from the guide for each datum.
        prior_draws: draws from the prior, as many as from the guide where left out.
        seed: makes the result repeatable and leaves the caller's random state alone; with None, that is consumed.
        progress: show a bar on a terminal.

    Returns:
        Both masses, their errors by resampling data and draws, and the log-densities to draw.

    Raises:
        ValueError: where `alpha` or a number is out of range, α times a number of draws is less than one of them, N <
            2, `latents` are not the first of the guide, the prior cannot be sampled or is another one for every datum,
            or the guide cannot score draws that it made for other data.

    References:
        Rezende & Viola (2018), Taming VAEs: holes. Makhzani et al. (2016), Adversarial Autoencoders: the aggregated
        posterior.

    Example:
        >>> from pyro_lvm import guides, models
        >>> _ = torch.manual_seed(0)
        >>> model = models.ProbabilisticPCA(3, latent_dim=2)
        >>> found = holes(model, guides.ExactPPCA(model), model.sample(500), seed=0)
        >>> abs(found.prior.mass) < 4 * found.prior.standard_error  # data from the model leave no holes
        True
    """
    if not 0 < alpha < 1:
        raise ValueError(f"'alpha' is a mass and must lie between 0 and 1, not be {alpha!r}.")
    check_sizes(num_particles=num_particles, **({} if prior_draws is None else {"prior_draws": prior_draws}))
    x = checked(model, guide, x)
    with seeded(seed):
        aggregated = AggregatedPosterior(model, guide, x, progress=progress)
        names = list(aggregated.names) if latents is None else list(latents)
        last = len(names) - 1
        if not names or set(names) != set(aggregated.names[: last + 1]):
            raise ValueError(
                f"'latents' must be the first that the guide draws, of {aggregated.latents} in this order, not {names}."
            )
        own = aggregated.draws(num_particles)
        prior = aggregated.prior(num_particles * len(x) if prior_draws is None else prior_draws)
        of_own, of_prior = (aggregated.density(points).by_others[:, last] for points in (own, prior))
        threshold = _threshold(of_own, alpha)
        outside = None
        if aggregated.without_weights is None and set(names) == set(aggregated.model_names[: last + 1]):
            columns = [aggregated.names.index(name) for name in names]
            log_p = prior.log_p[:, columns].sum(-1), own.log_p[:, columns].sum(-1)
            outside = excess(log_p[0], log_p[1], alpha, 1, num_particles)
        return Holes(
            excess(of_own, of_prior, alpha, num_particles, 1),
            outside,
            threshold,
            of_prior,
            of_own,
            prior.features(names),
            own.features(names),
        )


def _threshold(reference: Tensor, alpha: float) -> float:
    ordered = reference.sort().values
    return float(ordered[min(len(ordered) - 1, int(alpha * len(ordered)))])


def excess(reference: Tensor, other: Tensor, alpha: float, reference_draws: int = 1, other_draws: int = 1) -> Excess:
    """(P(A) − Q(A)) / (1 − Q(A)), A being where the reference Q has its α lowest scores and P is the other.

    Each has so many draws of each datum, (K·N,), those of a datum N apart, which are resampled together.
    """

    def mass(q: Tensor, p: Tensor) -> float:
        t = _threshold(q, alpha)
        in_q, in_p = float((q < t).double().mean()), float((p < t).double().mean())
        return (in_p - in_q) / (1 - in_q)

    if alpha * len(reference) < 1:
        raise ValueError(
            f"'alpha' = {alpha} of {len(reference)} draws is less than one of them: make it larger, or draw more."
        )
    rows = reference.reshape(reference_draws, -1), other.reshape(other_draws, -1)  # (K, N): a datum's stay together
    again = [
        mass(*(each[:, torch.randint(each.shape[1], (each.shape[1],))].flatten() for each in rows))
        for _ in range(_RESAMPLED)
    ]
    return Excess(mass(reference, other), float(np.std(again, ddof=1)))


def plot_holes(found: Holes, *, ax: "Axes | None" = None) -> "Axes":
    """Draws which draws from the prior lie in holes: for two latents where they lie, else what tells it.

    For two latents: draws from the aggregated posterior in grey, those from the prior over them, crosses where in a
    hole. Otherwise the log-densities of the aggregated posterior at both, and the threshold between hole and not.

    Args:
        found: what `holes` returns.
        ax: the axes to draw into; a new figure's where left out.

    Returns:
        The axes.

    Example:
        >>> from pyro_lvm import guides, models
        >>> _ = torch.manual_seed(0)
        >>> model = models.ProbabilisticPCA(3, latent_dim=2)
        >>> plot_holes(holes(model, guides.ExactPPCA(model), model.sample(50))).get_xlabel()
        'z₁ (first of 2 latents)'
    """
    inside = array(found.log_q_of_prior) < found.threshold
    share = f"hole mass {found.prior.mass:.3f} ± {found.prior.standard_error:.3f}"
    if found.prior_draws.shape[1] == 2:
        ax = axes(ax, 5.6, 5.2)
        points, codes = array(found.prior_draws), array(found.posterior_draws)
        for rows, size, colour, marker, name in (
            (codes, 10, "0.75", "o", "aggregated posterior"),
            (points[~inside], 12, COLOURS[0], "o", "prior, covered"),
            (points[inside], 22, COLOURS[1], "x", "prior, in a hole"),
        ):
            width = 1.2 if marker == "x" else 0
            ax.scatter(rows[:, 0], rows[:, 1], size, colour, marker=marker, linewidths=width, label=name)
        ax.set_aspect("equal", adjustable="datalim")
        ax.set_xlabel("z₁ (first of 2 latents)")
        ax.set_ylabel("z₂ (second of 2 latents)")
        ax.legend(title=share, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3, frameon=False, fontsize="small")
        return ax
    ax = axes(ax, 6.4, 3.6)
    both = [array(found.log_q_of_posterior), array(found.log_q_of_prior)]
    finite = [row[np.isfinite(row)] for row in both]
    # Draws far out, of heavy tails, would shrink all the rest: they are counted in the first bin.
    low, high = min(np.quantile(row, 0.01) for row in finite if len(row)), max(row.max() for row in finite if len(row))
    bins = np.linspace(low, high, 50).tolist()
    for i, (row, name) in enumerate(zip(both, ("aggregated posterior", "prior"), strict=True)):
        draw_shares(ax, row, bins, f"draws from the {name}", i)
    ax.axvline(found.threshold, color="black", linewidth=1, linestyle=":", label="threshold")
    ax.set_xlabel("log-density of the aggregated posterior, log q(z) (nats)")
    ax.set_ylabel("share of the draws")
    ax.legend(title=share, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3, frameon=False, fontsize="small")
    return ax
