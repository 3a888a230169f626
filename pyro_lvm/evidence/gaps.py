"""Why a bound lies below the evidence: for want of a better family, or of a better encoder."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from math import log
from typing import Any

import torch
from torch import Tensor

from pyro_lvm.evidence.khat import pareto_khat
from pyro_lvm.evidence.local import (
    Family,
    Flow,
    FullNormal,
    GuideFamily,
    Latents,
    check_settings,
    log_joint,
    maximise,
    moments,
)
from pyro_lvm.evidence.log_likelihood import datum_log_weight
from pyro_lvm.evidence.memory import bytes_per_row
from pyro_lvm.objectives.table import run, structure
from pyro_lvm.preflight import as_tensor, check_pair
from pyro_lvm.programs import Constant, Program, pair
from pyro_lvm.progress import progress_bar

__all__ = ["Estimate", "Gaps", "gaps"]

FAMILIES = ("same family", "full normal", "flow")


@dataclass(frozen=True, eq=False, repr=False)
class Estimate:
    """A number for each datum and their mean, with two errors that are not to be mixed up.

    Attributes:
        values: one per datum, (N,), nats.
        standard_error: Monte Carlo error of each, (N,), nats.

    Example:
        >>> estimate = Estimate(torch.tensor([1.0, 3.0]), torch.tensor([0.3, 0.4]))
        >>> estimate.mean, round(estimate.mean_standard_error, 6), round(estimate.sampling_error, 6)
        (2.0, 0.25, 1.0)
    """

    values: Tensor
    standard_error: Tensor

    @property
    def mean(self) -> float:
        """Nats per datum."""
        return self.values.mean().item()

    @property
    def mean_standard_error(self) -> float:
        """Monte Carlo error of the mean over these data, nats per datum: smaller with more draws."""
        return self.standard_error.square().sum().sqrt().item() / len(self.values)

    @property
    def sampling_error(self) -> float:
        """Error of the mean as one over the population the data come from, nats per datum: smaller with more data."""
        return self.values.std().item() / len(self.values) ** 0.5

    def __repr__(self) -> str:
        return f"{self.mean:.4f} ± {self.mean_standard_error:.4f} (± {self.sampling_error:.4f})"


@dataclass(frozen=True, eq=False, repr=False)
class Gaps:
    """What lies between the guide's bound and the evidence; every number in nats, see `gaps`.

    Attributes:
        log_likelihood: log p̂(x).
        khat: shape of the tail of its weights, (N,); above 0.7 neither it nor its error are to be trusted.
        elbo: L[q], the guide's.
        inference: log p̂(x) − L[q], the whole gap.
        optimised: L[q*], by family.
        approximation: log p̂(x) − L[q*], by family.
        amortisation: L[q*] − L[q], by family.
        num_particles: draws of each q for each datum.
    """

    log_likelihood: Estimate
    khat: Tensor
    elbo: Estimate
    inference: Estimate
    optimised: dict[str, Estimate]
    approximation: dict[str, Estimate]
    amortisation: dict[str, Estimate]
    num_particles: int

    def table(self) -> list[dict[str, Any]]:
        """One row for each family: means in nats per datum, each with its Monte Carlo error and its error over data."""
        columns = {"elbo": self.optimised, "approximation": self.approximation, "amortisation": self.amortisation}
        rows = []
        for family in self.optimised:
            row: dict[str, Any] = {"family": family}
            for name, column in columns.items():
                row[name] = column[family].mean
                row[f"{name}_standard_error"] = column[family].mean_standard_error
                row[f"{name}_sampling_error"] = column[family].sampling_error
            rows.append(row)
        return rows

    def __repr__(self) -> str:
        lines = [
            f"Gaps of {len(self.khat)} data, nats per datum ± Monte Carlo error (± error over data)",
            f"log p(x) {self.log_likelihood!r}, worst k-hat {self.khat.max():.2f}",
            f"L[q] {self.elbo!r}, {self.inference!r} below",
            f"{'q*':<12} {'L[q*]':>34} {'approximation gap':>34} {'amortisation gap':>34}",
        ]
        for family in self.optimised:
            columns = self.optimised[family], self.approximation[family], self.amortisation[family]
            lines.append(f"{family:<12} " + " ".join(f"{column!r:>34}" for column in columns))
        return "\n".join(lines)


def gaps(
    model: Callable[..., Any],
    guide: Callable[..., Any],
    x: Tensor,
    *,
    num_particles: int = 4000,
    steps: int = 500,
    draws_per_step: int = 16,
    learning_rate: float = 0.1,
    max_bytes: int = 256 * 2**20,
    seed: int | None = None,
    vectorize_particles: bool = True,
    progress: bool = True,
) -> Gaps:
    r"""$\log p(x) - L[q] = (\log p(x) - L[q^*]) + (L[q^*] - L[q])$: the approximation gap and the amortisation gap.

    $L[q] = E_{q(z)}[\log p(x, z) - \log q(z)]$ is the bound with the guide's q(z | x), and $L[q^*]$ the highest that
    some q of a family reaches with parameters of the datum's own: what the first gap leaves, no encoder could close;
    what the second leaves, one could. Three families are tried, each started where the one before ended:

    - `"same family"`: the distributions at the guide's latent sites, from the guide's own parameters;
    - `"full normal"`: one normal over all latents of a datum, made real where they are not;
    - `"flow"`: four spline couplings on top of that normal.

    $L[q^*]$ is estimated with fresh draws. The evidence is estimated by importance sampling from the guide and the
    three q* as one mixture, $\log \hat p(x) = \log \frac{1}{4K} \sum_{jk} p(x, z_{jk}) / \bar q(z_{jk})$ with
    $z_{jk} \sim q_j$ and $\bar q = \frac14 \sum_j q_j$. It is a lower bound in expectation, so the approximation gaps
    are, if anything, too small; but no optimisation is perfect, so some of them may be the optimisation's: compare with
    more `steps`. A posterior of several modes shows in a family that found one of them, with a high k-hat as a rule.

    Args:
        model, guide: the pair, zoo or your own; the guide's latents reparameterised and independent given the data.
        x: data, (N, *data_shape).
        num_particles: K, fresh draws of each q for each datum and estimate.
        steps, draws_per_step, learning_rate: of each family's optimisation, by Adam in units of q's width; the learning
            rate goes to 0 along a cosine.
        max_bytes: bound on the memory for intermediate values, as far as it can be kept with one datum at a time.
        seed: makes the result repeatable and leaves the caller's random state alone; drawn from it where left out.
        vectorize_particles: False runs the model once per draw, for programs that cannot take a dimension of particles
            on the left of their latents; slow.
        progress: show a bar on a terminal.

    Raises:
        ValueError: for settings out of range; latents that all data share; a guide whose latents hang on one another's
            draws, are not reparameterised, or are not of distributions made of parameters alone; and whatever
            `log_likelihood` refuses.
        FloatingPointError: where a log-weight is NaN.

    References:
        Cremer, Li & Duvenaud (2018), Inference Suboptimality in Variational Autoencoders. Veach & Guibas (1995),
        Optimally Combining Sampling Techniques for Monte Carlo Rendering: the mixture's weights, the balance heuristic.

    Example:
        >>> from pyro_lvm import guides, models
        >>> _ = torch.manual_seed(0)
        >>> model = models.ProbabilisticPCA(3, latent_dim=1)
        >>> guide, x = guides.LinearNormal(3, latent_dim=1), model.sample(4)
        >>> found = gaps(model, guide, x, num_particles=500, steps=150, seed=0)
        >>> found.amortisation["same family"].mean > 0.1, abs(found.approximation["same family"].mean) < 0.01
        (True, True)
    """
    check_settings(num_particles, steps, draws_per_step, learning_rate)
    programs = pair(model, guide)
    x = as_tensor(x, "x", programs)
    check_pair(programs, x, "x", lambda rows: datum_log_weight(run(*programs, (rows,), {}), rows))
    seed = int(torch.randint(2**62, ())) if seed is None else seed
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(seed)
        nesting = _nesting(programs, x[:1])

        def task(rows: Tensor) -> _Task:
            latents = Latents(programs[1], rows, nesting)
            return _Task(latents, partial(log_joint, programs[0], rows, latents, vectorize=vectorize_particles))

        per_draw = bytes_per_row(lambda rows: task(rows).one_draw(), x)
        # Gradients keep what is computed, and take about as much again.
        B = min(len(x), max(1, max_bytes // (2 * per_draw * draws_per_step)))
        at_once = min(num_particles, max(1, max_bytes // (per_draw * B)))
        chunks, parts = x.split(B), []
        # The model's parameters are constants: nothing need be kept for gradients that nobody asks for.
        with progress_bar("gaps", 3 * steps * len(chunks), progress) as advance, Constant(programs[0]):
            for rows in chunks:
                improve = partial(
                    maximise, steps=steps, draws=draws_per_step, learning_rate=learning_rate, advance=advance
                )
                parts.append(_read(*task(rows).log_weights(improve, num_particles, at_once)))
    return _joined(parts)


def _nesting(programs: tuple[Program, Program], x: Tensor) -> int:
    found = structure(*programs, (x,), {})
    if found.global_latents:
        names = ", ".join(f"'{name}'" for name in found.global_latents)
        raise ValueError(
            f"all data share the latents {names}, so a datum has no gap of its own: 'gaps' takes pairs whose latents "
            "all belong to single data."
        )
    return found.nesting


@dataclass(frozen=True)
class _Task:
    """Some data's latents, and log p(x, z) of draws of them."""

    latents: Latents
    log_p: Callable[[Mapping[str, Tensor]], Tensor]

    def one_draw(self) -> None:
        """Scores a draw of the dearest family, to see what that takes."""
        u, _ = self.latents.coordinates({name: fn.sample((1,)) for name, fn in self.latents.fns.items()})
        flow = Flow(FullNormal(self.latents, u[0], torch.diag_embed(torch.ones_like(u[0]))))
        draws = flow.rsample(1)
        flow.log_prob(draws)
        self.log_p(draws)

    def log_weights(self, improve: Callable[..., Any], num_particles: int, at_once: int) -> tuple[Tensor, Tensor]:
        """Fits, and weighs fresh draws of the guide's q and the three q*: both (4, K, B), float64.

        Returns:
            log p(x, z) − log q(z) with each draw's own q, and with the mixture of all four.
        """
        same = improve(GuideFamily(self.latents), self.log_p)
        normal = improve(FullNormal(self.latents, *moments(same, self.latents)), self.log_p)
        families: list[Family] = [GuideFamily(self.latents), same, normal, improve(Flow(normal), self.log_p)]
        own, mixed, left = [], [], num_particles
        while left:
            k = min(at_once, left)
            seed = int(torch.randint(2**62, ()))
            weights = []
            for j, family in enumerate(families):
                torch.manual_seed(seed)  # the same noise for all: differences of their bounds then vary less
                draws = family.rsample(k)
                log_q = torch.stack([each.log_prob(draws) for each in families]).double()
                log_p = self.log_p(draws).double()
                weights.append((log_p - log_q[j], log_p - log_q.logsumexp(0) + log(len(families))))
            own.append(torch.stack([weight for weight, _ in weights]))
            mixed.append(torch.stack([weight for _, weight in weights]))
            left -= k
        log_w, log_v = torch.cat(own, dim=1), torch.cat(mixed, dim=1)
        if bool((log_w.isnan() | log_w.isinf() | log_v.isnan()).any()):
            raise FloatingPointError(
                "a log-weight is NaN or infinite: the optimisation of a datum's own q went astray (try a smaller "
                "'learning_rate'), or the model's density is not finite where q puts its draws."
            )
        return log_w, log_v


def _read(log_w: Tensor, log_v: Tensor) -> Gaps:
    """The gaps of some data, from (J, K, B) log-weights: their own, and the mixture's."""
    J, K, _ = log_w.shape
    log_evidence = log_v.flatten(0, 1).logsumexp(0) - log(J * K)  # (B,)
    # The k-th draws of all families belong together, having the same noise: what varies are these groups. The evidence
    # varies with the mean of its weights, to first order.
    share = (log_v - log_evidence).exp().mean(0)  # (K, B), 1 in the mean

    def estimate(values: Tensor, samples: Tensor) -> Estimate:
        return Estimate(values, samples.std(0) / K**0.5)

    bound, fitted = log_w.mean(1), list(enumerate(FAMILIES, start=1))  # (J, B)
    return Gaps(
        log_likelihood=estimate(log_evidence, share),
        khat=pareto_khat(log_v.flatten(0, 1)),
        elbo=estimate(bound[0], log_w[0]),
        inference=estimate(log_evidence - bound[0], share - log_w[0]),
        optimised={name: estimate(bound[j], log_w[j]) for j, name in fitted},
        approximation={name: estimate(log_evidence - bound[j], share - log_w[j]) for j, name in fitted},
        amortisation={name: estimate(bound[j] - bound[0], log_w[j] - log_w[0]) for j, name in fitted},
        num_particles=K,
    )


def _joined(parts: list[Gaps]) -> Gaps:
    """The gaps of all data."""

    def join(estimates: Iterable[Estimate]) -> Estimate:
        columns = zip(*((each.values, each.standard_error) for each in estimates), strict=True)
        return Estimate(*(torch.cat(column) for column in columns))

    return Gaps(
        log_likelihood=join(part.log_likelihood for part in parts),
        khat=torch.cat([part.khat for part in parts]),
        elbo=join(part.elbo for part in parts),
        inference=join(part.inference for part in parts),
        optimised={name: join(part.optimised[name] for part in parts) for name in FAMILIES},
        approximation={name: join(part.approximation[name] for part in parts) for name in FAMILIES},
        amortisation={name: join(part.amortisation[name] for part in parts) for name in FAMILIES},
        num_particles=parts[0].num_particles,
    )
