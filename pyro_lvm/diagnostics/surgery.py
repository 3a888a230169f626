"""ELBO surgery: what the divergence from the prior is made of."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import log
from typing import TYPE_CHECKING, Any, final

from torch import Tensor

from pyro_lvm.diagnostics.aggregated import AggregatedPosterior, check_particles
from pyro_lvm.diagnostics.drawing import checked
from pyro_lvm.diagnostics.figures import COLOURS, axes, plain
from pyro_lvm.diagnostics.randomness import seeded
from pyro_lvm.evidence.gaps import Estimate

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_INFORMATION, _MARGINAL = "information I(n; z)", "KL(q(z) ‖ p(z))"
_CORRELATION, _DIMENSIONS = "total correlation", "dimension-wise KL"
_STYLES = {_INFORMATION: (0, ""), _MARGINAL: (1, "//"), _CORRELATION: (3, ".."), _DIMENSIONS: (8, "\\\\")}


@final
@dataclass(frozen=True)
class Surgery:
    """The parts of the evidence lower bound, estimates for each datum, nats; see `surgery`.

    All are read from the same draws, so that sums hold to rounding, datum by datum.

    Attributes:
        reconstruction: E[log p(x | z)]; the bound is it minus the regulariser.
        regulariser: KL(q(z | x) ‖ p(z)).
        cross_entropy: CE[q(z) ‖ p(z)] = −E[log p(z)].
        entropy: H[q(z | x)] = −E[log q(z | x)].
        information: I_q(n; z), at most log N.
        marginal: KL(q(z) ‖ p(z)), of the aggregated posterior from the prior.
        total_correlation: KL(q(z) ‖ ∏_d q(z_d)); None where the densities of single dimensions are not known.
        dimensions: Σ_d KL(q(z_d) ‖ p(z_d)); None where they are not, or the prior is no product over dimensions.
        by_dimension: the terms of its mean, (D,).
        ceiling: log N. An `information` near it says no more than that N data are too few.
    """

    reconstruction: Estimate
    regulariser: Estimate
    cross_entropy: Estimate
    entropy: Estimate
    information: Estimate
    marginal: Estimate
    total_correlation: Estimate | None
    dimensions: Estimate | None
    by_dimension: Tensor | None
    ceiling: float

    @property
    def parts(self) -> dict[str, Estimate]:
        """What sums to the regulariser, as finely as it is known."""
        if self.total_correlation is None or self.dimensions is None:
            return {_INFORMATION: self.information, _MARGINAL: self.marginal}
        return {
            _INFORMATION: self.information,
            _CORRELATION: self.total_correlation,
            _DIMENSIONS: self.dimensions,
        }

    def __repr__(self) -> str:
        lines = [
            f"Surgery of {len(self.regulariser.values)} data, nats per datum ± Monte Carlo error (± error over data)",
            f"{'reconstruction E[log p(x | z)]':<32} {self.reconstruction!r}",
            f"{'regulariser KL(q(z | x) ‖ p(z))':<32} {self.regulariser!r}",
        ]
        lines += [f"  {name:<30} {part!r}" for name, part in self.parts.items()]
        lines += [f"{'cross-entropy CE[q(z) ‖ p(z)]':<32} {self.cross_entropy!r}"]
        lines += [f"{'entropy H[q(z | x)]':<32} {self.entropy!r}", f"{'log N':<32} {self.ceiling:.4f}"]
        return "\n".join(lines)


def surgery(
    model: Callable[..., Any],
    guide: Callable[..., Any],
    x: Tensor,
    num_particles: int = 4,
    *,
    seed: int | None = None,
    progress: bool = True,
) -> Surgery:
    r"""$\frac1N \sum_n \mathrm{KL}(q(z \mid x_n) \,\|\, p(z)) = I_q(n; z) + \mathrm{KL}(q(z) \,\|\, p(z))$.

    With $q(z) = \frac1N \sum_n q(z \mid x_n)$, the aggregated posterior of the N data at hand. The regulariser of the
    bound is thus what z says about which datum it is of, plus how far all codes together are from the prior: only the
    second is a fault, and one that a better prior mends. As a term of the bound it is also $-\mathrm{CE}[q(z) \,\|\,
    p(z)] + H[q(z \mid x)]$. For a prior that is a product over dimensions the second part splits further,

    $$\mathrm{KL}(q(z) \,\|\, p(z)) = \mathrm{KL}(q(z) \,\|\, \prod_d q(z_d)) +
    \sum_d \mathrm{KL}(q(z_d) \,\|\, p(z_d)),$$

    into the total correlation and what single dimensions differ by. For that, q(z | x) has to tell the densities of
    single dimensions, as a product of them and normals of any covariance do, and flows and densities on spheres do not;
    and there is to be one latent. For several, as of a hierarchy, the other terms are those of all of them jointly.
    Discrete codes have the same terms, in probabilities; a dimension is then one variable.

    As estimates of what infinitely many data would give, the information is too low and the divergence from the prior
    too high by the same amount (see `mutual_information`, which brackets it).

    Args:
        model, guide: the pair; programs that accept only `x` are taken too.
        x: the data, (N, *data_shape), N ≥ 2. N² · `num_particles` densities are computed.
        num_particles: draws from the guide for each datum, at least 2.
        seed: makes the result repeatable and leaves the caller's random state alone; with None, that is consumed.
        progress: show a bar on a terminal.

    Raises:
        ValueError: where `num_particles` or N < 2, no latent belongs to single data, the guide cannot score draws that
            it made for other data, the prior's density is itself an estimate, as a diffusion's is, or it is another
            one for every datum.

    References:
        Hoffman & Johnson (2016), ELBO surgery: yet another way to carve up the variational evidence lower bound. Chen,
        Li, Grosse & Duvenaud (2018), Isolating Sources of Disentanglement in Variational Autoencoders.

    Example:
        >>> import torch
        >>> from pyro_lvm import guides, models
        >>> _ = torch.manual_seed(0)
        >>> model = models.ProbabilisticPCA(3, latent_dim=2)
        >>> found = surgery(model, guides.ExactPPCA(model), model.sample(500), seed=0)
        >>> abs(found.regulariser.mean - sum(part.mean for part in found.parts.values())) < 1e-6
        True
        >>> found.marginal.mean < 0.1  # codes of data from the model are draws from its prior, all together
        True
    """
    check_particles(num_particles)
    x = checked(model, guide, x)
    with seeded(seed):
        aggregated = AggregatedPosterior(model, guide, x, progress=progress)
        if aggregated.without_weights is not None:
            raise ValueError(
                f"the pair's log p is itself an estimate ({aggregated.without_weights}), so the terms of its bound are "
                "not known: `mutual_information`, which reads the guide alone, is."
            )
        aggregated.check_prior()
        points = aggregated.draws(num_particles)
        density = aggregated.density(points)
    log_p, log_q, aggregate = points.log_p.sum(-1), points.log_q.sum(-1), density.log_q[:, -1]
    total_correlation = dimensions = by_dimension = None
    if density.by_dimension is not None:
        total_correlation = aggregate - density.by_dimension.sum(-1)
        if points.log_p_by_dimension is not None and points.log_p_by_dimension.shape == density.by_dimension.shape:
            of_each = density.by_dimension - points.log_p_by_dimension  # (S, D)
            dimensions, by_dimension = of_each.sum(-1), of_each.mean(0)
    return Surgery(
        points.per_datum(points.reconstruction),
        points.per_datum(log_q - log_p),
        points.per_datum(-log_p),
        points.per_datum(-log_q),
        points.per_datum(log_q - aggregate),
        points.per_datum(aggregate - log_p),
        None if total_correlation is None else points.per_datum(total_correlation),
        None if dimensions is None else points.per_datum(dimensions),
        by_dimension,
        log(len(x)),
    )


def plot_surgery(found: Surgery | Mapping[str, Surgery], *, ax: "Axes | None" = None) -> "Axes":
    """Draws the regulariser as a stacked bar of its parts, nats per datum, beside log N, which information cannot pass.

    Args:
        found: what `surgery` returns, or several of these by name, one bar each.
        ax: the axes to draw into; a new figure's where left out.

    Returns:
        The axes. Parts below 0, which estimates may be, are drawn to the left of 0.

    Raises:
        ValueError: where there are none.

    Example:
        >>> import torch
        >>> from pyro_lvm import guides, models
        >>> _ = torch.manual_seed(0)
        >>> model = models.ProbabilisticPCA(3, latent_dim=2)
        >>> plot_surgery(surgery(model, guides.ExactPPCA(model), model.sample(50))).get_xlabel()
        'KL of posterior from prior (nats per datum)'
    """
    rows = {"": found} if isinstance(found, Surgery) else dict(found)
    if not rows:
        raise ValueError("'found' must hold at least one result of `surgery`, but is empty.")
    ax = axes(ax, 7.2, 1.3 + 0.6 * len(rows))
    named: set[str] = set()
    for row, (_, each) in enumerate(rows.items()):
        left, right = 0.0, 0.0
        for name, part in each.parts.items():
            colour, hatch = _STYLES[name]
            start = right if part.mean >= 0 else left
            label = None if name in named else name
            style: dict[str, Any] = {"color": COLOURS[colour], "hatch": hatch, "edgecolor": "white", "linewidth": 0.5}
            ax.barh(row, part.mean, 0.6, left=start, label=label, **style)
            left, right = min(left, start + part.mean), max(right, start + part.mean)
            named.add(name)
        ax.plot([each.ceiling] * 2, [row - 0.4, row + 0.4], "--", color="black", label=None if row else "log N")
    ax.axvline(0, color="black", linewidth=0.8)
    ax.set_yticks(range(len(rows)), [plain(name) for name in rows])
    ax.invert_yaxis()
    ax.set_xlabel("KL of posterior from prior (nats per datum)")
    ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3, frameon=False, fontsize="small")
    return ax
