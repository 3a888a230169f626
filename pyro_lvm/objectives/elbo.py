"""The evidence lower bound, whole or with its divergence weighed."""

from typing import Any, Literal

import torch
from torch import Tensor

from pyro_lvm.objectives.objective import Objective, valued
from pyro_lvm.objectives.schedules import Schedule
from pyro_lvm.objectives.score import score_surrogate
from pyro_lvm.objectives.table import Site, Table
from pyro_lvm.objectives.whole_batch import over_whole_batch


class ELBO(Objective):
    r"""$\mathcal L = E_{q(z \mid x)}[\log p(x \mid z)] - \beta \sum_g \max(\lambda, \mathrm{KL}_g)$, by K draws.

    With β = 1 and λ = 0, where it starts, this is the evidence lower bound, $E_q[\log p(x, z) - \log q(z \mid x)] \le
    \log p(x)$. With β > 1 it is a lower one; with β < 1 it is no bound; free bits λ make it lower by what the groups
    that need less than λ do not use. The history of `fit` has the true `elbo` beside it.

    With `analytic_kl` the divergence of each latent's q from its p is taken in closed form where
    `torch.distributions.kl_divergence` knows one and the latent's parents are drawn before it in the guide; every other
    term is sampled. Both estimators are unbiased. Latents that cannot be reparameterised get the score function's
    gradient, with the other particles' mean as a baseline where K > 1, or the baseline their statement asks for (see
    `pyro_lvm.objectives.score`).

    Args:
        num_particles: K.
        analytic_kl: use divergences in closed form.
        beta: β ≥ 0, a number or a schedule; with a schedule, validation takes its end.
        free_bits: λ ≥ 0, nats per datum and group.
        free_bits_per: what a group g is: a "dimension" of a latent, or a "layer", a whole latent. $\mathrm{KL}_g$ is
            the batch's mean.
        vectorize_particles, max_plate_nesting: see `Objective`.

    Raises:
        ValueError: for a negative β or λ; for free bits per dimension of a density that is no product over dimensions.

    References:
        Jordan et al. (1999), An Introduction to Variational Methods for Graphical Models. Kingma & Welling (2014),
        Auto-Encoding Variational Bayes: estimators A (sampled) and B (analytic). Higgins et al. (2017), β-VAE. Kingma
        et al. (2016), Improved Variational Inference with Inverse Autoregressive Flow: free bits.

    Example:
        >>> import torch
        >>> from pyro_lvm import guides, models
        >>> _ = torch.manual_seed(0)
        >>> model = models.ProbabilisticPCA(4, latent_dim=2)
        >>> exact = guides.ExactPPCA(model)
        >>> x = torch.randn(3, 4)
        >>> round(ELBO().loss(model, exact, x), 3) == round(ELBO(50).loss(model, exact, x), 3)  # −log p(x), always
        True
        >>> ELBO(50, beta=4.0).loss(model, exact, x) > ELBO(50).loss(model, exact, x)
        True
    """

    def __init__(
        self,
        num_particles: int = 1,
        *,
        analytic_kl: bool = False,
        beta: float | Schedule = 1.0,
        free_bits: float = 0.0,
        free_bits_per: Literal["dimension", "layer"] = "dimension",
        vectorize_particles: bool = True,
        max_plate_nesting: int | float = float("inf"),
    ) -> None:
        super().__init__(num_particles, vectorize_particles=vectorize_particles, max_plate_nesting=max_plate_nesting)
        if not isinstance(beta, Schedule) and not 0 <= beta < float("inf"):
            raise ValueError(f"'beta' weighs the divergence and must be 0 or more, or a schedule, not {beta!r}.")
        if not 0 <= free_bits < float("inf"):
            raise ValueError(f"'free_bits' are nats of divergence per group and must be 0 or more, not {free_bits!r}.")
        if free_bits_per not in ("dimension", "layer"):
            raise ValueError(f"'free_bits_per' must be 'dimension' or 'layer', not {free_bits_per!r}.")
        self._analytic_kl, self._beta = analytic_kl, beta
        self._free_bits, self._by_dimension = free_bits, free_bits > 0 and free_bits_per == "dimension"
        self.restart()

    @property
    def beta(self) -> float:
        """β, now."""
        return float(self._weight())

    def restart(self) -> None:
        """Starts the schedule again."""
        super().restart()
        if isinstance(self._beta, Schedule):
            self._set_time(torch.zeros((), dtype=torch.float64), self._beta)

    def advance(self, epochs: float) -> None:
        """Moves the schedule on."""
        if isinstance(self._beta, Schedule):
            self._set_time(self.state["time"] + epochs, self._beta)

    def table(self, model: Any, guide: Any, *args: Any, **kwargs: Any) -> Table:
        """The table this objective reads for these arguments of the programs."""
        reading = {"with_kl": self._analytic_kl, "by_dimension": self._by_dimension}
        return self._run(model, guide, args, kwargs, **reading)

    def bound(self, table: Table) -> Tensor:
        """The bound, nats, summed over data."""
        return self._weighed(table, self._weight())

    def judge(self, table: Table) -> Tensor:
        """The bound with β as it is at the end of its schedule."""
        return self._weighed(table, self._beta.end if isinstance(self._beta, Schedule) else self._beta)

    def _set_time(self, time: Tensor, schedule: Schedule) -> None:
        # The weight is a tensor too, and not worked out by the bound, so that a captured step can be given it.
        beta = torch.full((), schedule(float(time)), dtype=torch.float64, device=time.device)
        self.state = {**self.state, "time": time, "beta": beta}

    def _weight(self) -> float | Tensor:
        return self.state["beta"] if isinstance(self._beta, Schedule) else self._beta

    def _weighed(self, table: Table, beta: float | Tensor) -> Tensor:
        terms, unused = likelihoods(table), torch.zeros(())
        beta = beta.to(next(iter(terms.values()))) if isinstance(beta, Tensor) else beta
        for site in table.latents:
            kl = _by_dimension(site) if self._by_dimension else scaled_kl(site)  # (K, *plates, *dimensions)
            if self._free_bits:
                kl, left = _above(kl, site, self._free_bits)
                unused = unused + left
            terms[site.name] = -beta * kl
        return weighed(table, terms, -beta * unused, self.state)


def weighed(table: Table, terms: dict[str, Tensor], constant: Tensor, state: dict[str, Tensor]) -> Tensor:
    """The mean of a sum over sites and a constant, with the gradient through draws and through the score of q.

    Args:
        terms: what sites add, (K, *plates), scaled.
        state: keeps moving averages; see `score_surrogate`.
    """
    value = total(table, terms).mean(0).sum() + constant
    if not any(site.needs_score for site in table.latents):
        return value
    # A datum's own latents are rewarded with what is its own: given what data share, they have no part in the rest.
    local = table.without_global_latents()
    value = valued(value, score_surrogate(local, local.latents, total(local, terms), state))
    shared = [table.sites[name] for name in table.global_latents]
    return valued(value, score_surrogate(table, shared, total(table, terms), state))


def total(table: Table, terms: dict[str, Tensor]) -> Tensor:
    """What sites of the table add, (K, *plates), as one sum, (K, *common plates)."""
    parts = [table.per_datum(term) for name, term in terms.items() if name in table.sites]
    return sum(parts[1:], parts[0])


def likelihoods(table: Table) -> dict[str, Tensor]:
    """log p(x | z) of each data site, scaled, (K, *plates)."""
    return {name: site.scale_p * site.log_p for name, site in table.sites.items() if not site.is_latent}


def scaled_kl(site: Site) -> Tensor:
    """log q − log p of a latent or its mean in closed form, scaled, (K, *plates)."""
    if site.kl is not None and _one_scale(site):
        return site.scale_q * site.kl
    return site.scale_q * site.log_q - site.scale_p * site.log_p


def _by_dimension(site: Site) -> Tensor:
    """The same dimension by dimension, scaled, (K, *plates, *dimensions)."""
    kl = site.kl_by_dimension
    if kl is None or not _one_scale(site):
        raise ValueError(
            f"free bits per dimension need a posterior and a prior of '{site.name}' that are products over its "
            "dimensions (made with `to_event`) under one scale, and these are not: use free_bits_per='layer'."
        )
    scale = torch.as_tensor(site.scale_q, dtype=kl.dtype, device=kl.device)
    return scale.reshape(*scale.shape, *(1,) * (kl.dim() - site.log_p.dim())) * kl


def _above(kl: Tensor, site: Site, free_bits: float) -> tuple[Tensor, Tensor]:
    """Each datum's part in the groups that need more than their free bits, (K, *plates), and what the others count.

    Together they sum to Σ_g max(λ, KL_g) times the number of data.
    """
    data, dimensions = tuple(range(site.log_p.dim())), tuple(range(site.log_p.dim(), kl.dim()))
    count = site.count()
    floor = free_bits * count
    active = over_whole_batch(kl.sum(data) / (len(kl) * count)) > free_bits  # (*dimensions)
    part = kl * active
    return part.sum(dimensions) if dimensions else part, floor * (~active).sum()


def _one_scale(site: Site) -> bool:
    return bool(torch.as_tensor(site.scale_p == site.scale_q).all())
