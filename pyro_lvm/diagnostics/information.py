"""What latents say of the data: the mutual information of the two."""

from collections.abc import Callable
from dataclasses import dataclass
from math import log
from typing import Any, final

import torch
from torch import Tensor

from pyro_lvm.diagnostics.aggregated import AggregatedPosterior, check_particles
from pyro_lvm.diagnostics.drawing import checked
from pyro_lvm.diagnostics.randomness import seeded
from pyro_lvm.evidence.gaps import Estimate


@final
@dataclass(frozen=True)
class MutualInformation:
    """Mutual information of a datum and its latents, nats; see `mutual_information`.

    Attributes:
        lower: KL(q(z | x_n) ‖ q(z)) of each datum, q(z) being the mean over all N of them: its mean is the information
            that z has on which datum it is of, at most log N, and in expectation no more than I_q(x; z).
        upper: the same with q(z) of the other data, in expectation no less than I_q(x; z).
        by_site: `lower` in parts that sum to it, of each latent given those that the guide drew before it.
        ceiling: log N. A `lower` near it says no more than that N data are too few.
    """

    lower: Estimate
    upper: Estimate
    by_site: dict[str, Estimate]
    ceiling: float

    def __repr__(self) -> str:
        return (
            f"MutualInformation(lower {self.lower!r}, upper {self.upper!r}, ceiling {self.ceiling:.4f} nats, "
            f"{len(self.lower.values)} data)"
        )


def mutual_information(
    model: Callable[..., Any],
    guide: Callable[..., Any],
    x: Tensor,
    num_particles: int = 4,
    *,
    seed: int | None = None,
    progress: bool = True,
) -> MutualInformation:
    r"""$I_q(x; z) = E_{q(x)} E_{q(z \mid x)}[\log q(z \mid x) - \log q(z)]$, $q(z) = \int q(z \mid x)\, q(x)\, dx$.

    The aggregated posterior is that of the N data at hand, and that makes a bias. With the datum itself among them,

    $$I_N = \frac1N \sum_n E_{q(z \mid x_n)} \Big[\log q(z \mid x_n) - \log \frac1N \sum_m q(z \mid x_m)\Big]$$

    is the information of z on the number n, exactly, but of x it is a lower bound in expectation, and never above log
    N; without the datum, $\frac{1}{N-1} \sum_{m \ne n}$, the same is an upper bound. Where the two are far apart, take
    more data. A hierarchy's latents count jointly: `by_site` has the terms $I_q(x; z_l \mid \text{those drawn before})$
    of the chain rule, in the order in which the guide draws them. Latents that all data share are drawn once from the
    guide, and held.

    Args:
        model, guide: the pair; programs that accept only `x` are taken too.
        x: the data, (N, *data_shape), N ≥ 2. N² · `num_particles` densities are computed.
        num_particles: draws from the guide for each datum, at least 2.
        seed: makes the result repeatable and leaves the caller's random state alone; with None, that is consumed.
        progress: show a bar on a terminal.

    Returns:
        Estimates per datum, with errors: `mean_standard_error` is the Monte Carlo error of the mean given these data,
        `sampling_error` the one over the population that they come from.

    Raises:
        ValueError: where `num_particles` or N < 2, no latent belongs to single data, or the guide cannot score draws
            that it made for other data, as one of Hamiltonian steps.

    References:
        Hoffman & Johnson (2016), ELBO surgery: yet another way to carve up the variational evidence lower bound. Poole
        et al. (2019), On Variational Bounds of Mutual Information: both bounds.

    Example:
        >>> import torch
        >>> from pyro_lvm import guides, models
        >>> _ = torch.manual_seed(0)
        >>> model = models.ProbabilisticPCA(3, latent_dim=1)
        >>> found = mutual_information(model, guides.ExactPPCA(model), model.sample(500), seed=0)
        >>> found.lower.mean < found.upper.mean < found.ceiling
        True
    """
    check_particles(num_particles)
    x = checked(model, guide, x)
    with seeded(seed):
        aggregated = AggregatedPosterior(model, guide, x, progress=progress)
        points = aggregated.draws(num_particles)
        density = aggregated.density(points)
    own = points.log_q.cumsum(-1)
    so_far = own - density.log_q  # (S, sites): of the first latent, of the first two, ...
    terms = so_far.diff(dim=-1, prepend=torch.zeros_like(so_far[:, :1]))
    return MutualInformation(
        points.per_datum(so_far[:, -1]),
        points.per_datum(own[:, -1] - density.by_others[:, -1]),
        {name: points.per_datum(term) for name, term in zip(aggregated.names, terms.T, strict=True)},
        log(len(x)),
    )
