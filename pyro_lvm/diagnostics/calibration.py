"""Calibration: whether the truth behind simulated data is anywhere in q as often as q says."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import torch
from scipy.special import bdtrc, chdtrc
from torch import Tensor

from pyro_lvm.diagnostics.drawing import Draws, Sampler, checked, undisturbed
from pyro_lvm.diagnostics.randomness import seeded
from pyro_lvm.evidence.annealed import simulated
from pyro_lvm.objectives.table import run
from pyro_lvm.programs import Program, pair
from pyro_lvm.progress import progress_bar

LOG_JOINT = "log_joint"  # the quantity that is ranked beside the latents: log p(x, z)

_NUMBERS_AT_ONCE = 2**20  # of simulated data and latents
_MOST_BINS = 20
_PER_BIN = 10  # simulations expected in a bin, at least, for the statistic to be as good as chi-squared


@dataclass(frozen=True)
class Ranks(ABC):
    """Ranks of the truth among draws from q, and what they say; abstract.

    Attributes:
        ranks: by site, how many of the draws lie below the truth, 0 to `draws`, (N, *units).
        draws: L, from q for each simulation.
        p_values: by site, for each unit, (*units).
    """

    ranks: dict[str, Tensor]
    draws: int
    p_values: dict[str, Tensor]

    @property
    def simulations(self) -> int:
        """N."""
        return len(next(iter(self.ranks.values())))

    @property
    def p_value(self) -> float:
        """One for all units: the smallest times their number (Bonferroni), valid however units depend on each other."""
        values = torch.cat([p.flatten() for p in self.p_values.values()])
        return min(1.0, float(values.min()) * len(values))

    def __str__(self) -> str:
        lines = [f"{self._title()}: {self.simulations} simulations, {self.draws} draws each, p {shown(self.p_value)}"]
        for name, values in self.p_values.items():
            first = ", ".join(shown(p) for p in values.flatten()[:10].tolist())
            more = f" and {values.numel() - 10} more" if values.numel() > 10 else ""
            lines.append(f"  {name}: p {first}{more}")
        return "\n".join(lines)

    @abstractmethod
    def _title(self) -> str: ...


@final
@dataclass(frozen=True)
class Calibration(Ranks):
    """Simulation-based calibration: ranks are uniform where q is the posterior; see `Ranks`.

    Beside the latents, `"log_joint"` is the rank of log p(x, z), (N,).
    """

    def _title(self) -> str:
        return "simulation-based calibration"


@final
@dataclass(frozen=True)
class VariationalCalibration(Ranks):
    """Variational simulation-based calibration: ranks are symmetric where q's margins are unbiased; see `Ranks`."""

    @property
    def probabilities(self) -> dict[str, Tensor]:
        r"""By site, $P_q(z < z_{true})$ as estimated, between 0 and 1, (N, *units)."""
        return {name: (ranks.double() + 0.5) / (self.draws + 1) for name, ranks in self.ranks.items()}

    @property
    def bias(self) -> dict[str, Tensor]:
        """By site, their mean minus ½, (*units): above zero where q lies too low."""
        return {name: p.mean(0) - 0.5 for name, p in self.probabilities.items()}

    def _title(self) -> str:
        return "variational simulation-based calibration"


def simulation_based_calibration(
    model: Callable[..., Any],
    guide: Callable[..., Any],
    simulations: int = 500,
    draws: int = 99,
    *,
    seed: int | None = None,
    progress: bool = True,
) -> Calibration:
    r"""Simulates $z^* \sim p(z)$ and $x \sim p(x \mid z^*)$, and ranks $z^*_d$ among L draws of $q(z_d \mid x)$.

    Where q is the posterior for all x, ranks are uniform on 0, ..., L. Where q is too narrow they pile up at both ends,
    where it is too wide in the middle, where it is biased at one end. It is the model's own data that q is judged on: a
    guide trained on other data is judged where it has not been.

    Ranks of single latents are uniform also for a guide that ignores the data and returns the prior; that of
    $\log p(x, z)$, which is ranked beside them, is not (Modrák et al.). It is all there is for discrete latents, whose
    ties are broken by chance.

    Each unit has the p-value of a chi-squared test of its ranks, in up to 20 bins.

    Args:
        model, guide: the pair; the model must run without data.
        simulations: N, at least 20.
        draws: L, from the guide for each.
        seed: makes the result repeatable and leaves the caller's random state alone; with None, that is consumed.
        progress: show a bar on a terminal.

    Returns:
        Ranks and p-values; printed, a summary.

    Raises:
        ValueError: where `simulations` or `draws` are too small; for latents that all data share, whose guide is made
            for one set of data; for a pair without exact log-weights, as a diffusion's.

    References:
        Talts, Betancourt, Simpson, Vehtari & Gelman (2018), Validating Bayesian Inference Algorithms with
        Simulation-Based Calibration. Modrák et al. (2023), Simulation-Based Calibration Checking for Bayesian
        Computation: The Choice of Test Quantities Shapes Sensitivity.

    Example:
        >>> from pyro_lvm import guides, models
        >>> _ = torch.manual_seed(0)
        >>> model = models.ProbabilisticPCA(5, latent_dim=2)
        >>> right = simulation_based_calibration(model, guides.ExactPPCA(model), seed=0)
        >>> wrong = simulation_based_calibration(model, guides.LinearNormal(5, latent_dim=2), seed=0)
        >>> right.p_value > 0.01, wrong.p_value < 1e-6
        (True, True)
    """
    ranks = _ranked(model, guide, simulations, draws, seed, progress)
    return Calibration(ranks, draws, {name: _of_uniformity(of, draws) for name, of in ranks.items()})


def variational_calibration(
    model: Callable[..., Any],
    guide: Callable[..., Any],
    simulations: int = 500,
    draws: int = 99,
    *,
    seed: int | None = None,
    progress: bool = True,
) -> VariationalCalibration:
    r"""As `simulation_based_calibration`, but asks of q's margins only that they are not biased.

    Where no normal with independent dimensions is the posterior, calibration fails for all of them. Their means may
    be right nonetheless: then $P_q(z_d < z^*_d)$ is as often below as above ½ by any amount, which is what is tested.

    Each unit has the p-value of the test of symmetry by $\sup_t |F_N(t) - 1 + F_N(1 - t)|$, exact for any margin: under
    symmetry the signs of $P - ½$, in order of size, are tosses of a coin, and the statistic is the largest excursion of
    their random walk.

    Args:
        model, guide: the pair; the model must run without data.
        simulations: N, at least 20.
        draws: L, from the guide for each, that estimate the probability.
        seed: makes the result repeatable and leaves the caller's random state alone; with None, that is consumed.
        progress: show a bar on a terminal.

    Returns:
        Ranks, probabilities and p-values; printed, a summary.

    Raises:
        ValueError: as `simulation_based_calibration`, and where all latents are discrete.

    References:
        Yao, Vehtari, Simpson & Gelman (2018), Yes, but Did It Work?: Evaluating Variational Inference. Butler (1969),
        A Test for Symmetry Using the Sample Distribution Function.

    Example:
        >>> from pyro_lvm import guides, models
        >>> _ = torch.manual_seed(0)
        >>> model = models.ProbabilisticPCA(5, latent_dim=2)
        >>> variational_calibration(model, guides.ExactPPCA(model), seed=0).p_value > 0.01
        True
    """
    ranks = _ranked(model, guide, simulations, draws, seed, progress)
    ranks = {name: of for name, of in ranks.items() if name != LOG_JOINT}
    if not ranks:
        raise ValueError("'model' has no continuous latent, and a discrete one has no side to be biased to.")
    return VariationalCalibration(ranks, draws, {name: _of_symmetry(of, draws) for name, of in ranks.items()})


def _ranked(
    model: Callable[..., Any],
    guide: Callable[..., Any],
    simulations: int,
    draws: int,
    seed: int | None,
    progress: bool,
) -> dict[str, Tensor]:
    """By site, the ranks of the truth, (N, *units)."""
    for name, number, least in (("simulations", simulations, 20), ("draws", draws, 1)):
        if not isinstance(number, int) or number < least:
            raise ValueError(f"'{name}' must be a whole number, at least {least}, not {number!r}.")
    program = Program(model)
    if not program.accepts_size:
        raise ValueError(
            "'model' accepts no 'size', so no data can be simulated from it: let it take (x=None, *, size=None) and "
            "draw 'size' data where 'x' is None."
        )
    with seeded(seed):
        with undisturbed(program):
            first, _ = simulated(program, 2)
        first = checked(model, guide, first)
        sampler = Sampler(model, guide, first)
        _check(sampler)
        numbers = sum(values.numel() for values in sampler.prior(1).values.values()) // 2
        at_once = max(1, min(simulations, _NUMBERS_AT_ONCE // numbers))
        sizes = [min(at_once, simulations - start) for start in range(0, simulations, at_once)]
        parts = []
        with progress_bar("calibration", simulations, progress) as advance:
            for size in sizes:
                with undisturbed(program):
                    x, truth = simulated(program, size)
                parts.append(_ranks(Sampler(model, guide, x), truth, draws))
                advance(size, "")
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def _check(sampler: Sampler) -> None:
    for name in sampler.latents:
        if not sampler.variables[name].per_datum:
            raise ValueError(
                f"the latent '{name}' is shared by all data, and its guide is made for one set of them: calibration "
                "asks what a guide makes of any data, so every latent must be inside the data plate."
            )
    check_weights(sampler.model, sampler.guide, sampler.x)


def check_weights(model: Callable[..., Any], guide: Callable[..., Any], x: Tensor) -> None:
    """Refuses a pair without exact log-weights, also before data are simulated, which takes long for a diffusion."""
    programs = pair(model, guide)
    with undisturbed(*programs), torch.random.fork_rng():
        run(*programs, (x,), {}).check_weights("calibration")


def _ranks(sampler: Sampler, truth: dict[str, Tensor], draws: int) -> dict[str, Tensor]:
    drawn = sampler.scored(1, {name: value.unsqueeze(0) for name, value in truth.items()})
    true = {name: value for name, value in _quantities(sampler, drawn).items() if name in truth or name == LOG_JOINT}
    below = {name: torch.zeros(value.shape[1:], dtype=torch.long) for name, value in true.items()}
    equal = {name: torch.zeros_like(count) for name, count in below.items()}
    for K in sampler.chunks(draws):
        found = _quantities(sampler, sampler.scored(K))
        for name, value in true.items():
            below[name] += (found[name] < value).sum(0).cpu()
            equal[name] += (found[name] == value).sum(0).cpu()
    # Ties, of what takes separate values, are broken by chance: uniform ranks stay so.
    return {name: count + (torch.rand(count.shape) * (equal[name] + 1)).long() for name, count in below.items()}


def _quantities(sampler: Sampler, drawn: Draws) -> dict[str, Tensor]:
    """What is ranked, (K, B, *units)."""
    assert drawn.table is not None
    values = {name: value for name, value in drawn.values.items() if not sampler.variables[name].is_discrete}
    terms = [drawn.table.per_datum(site.log_p.double()) for site in drawn.table.sites.values()]
    return values | {LOG_JOINT: sampler.log_weight.align(sum(terms[1:], terms[0]))}


def _units(ranks: Tensor) -> Iterator[np.ndarray]:
    yield from ranks.flatten(1).T.numpy() if ranks.dim() > 1 else ranks.unsqueeze(0).numpy()


def shown(p: float) -> str:
    """A p-value in words of a formula; the smallest are too small for a float."""
    return f"= {p:.2g}" if p > 0 else "< 1e-300"


def _of_uniformity(ranks: Tensor, draws: int) -> Tensor:
    """p-values of a chi-squared test of ranks (N, *units), (*units)."""
    bins = min(draws + 1, _MOST_BINS, max(2, len(ranks) // _PER_BIN))
    bin_of_rank = np.arange(draws + 1) * bins // (draws + 1)  # of one rank more or less, where they do not divide
    expected = np.bincount(bin_of_rank) * len(ranks) / (draws + 1)
    counts = np.stack([np.bincount(bin_of_rank[of], minlength=bins) for of in _units(ranks)])  # (U, bins)
    values = chdtrc(bins - 1, (np.square(counts - expected) / expected).sum(1))
    return torch.from_numpy(values).reshape(ranks.shape[1:])


def _of_symmetry(ranks: Tensor, draws: int) -> Tensor:
    """p-values of Butler's test of ranks (N, *units), (*units)."""
    values = [excursion_p_value(*asymmetry(of, draws)[1:]) for of in _units(ranks)]
    return torch.tensor(values, dtype=torch.float64).reshape(ranks.shape[1:])


def asymmetry(ranks: np.ndarray, draws: int) -> tuple[np.ndarray, int, int]:
    r"""How many more of the ranks r are at most k than at least L − k, for k below L/2; the largest; of how many.

    Divided by N, it is $F(t) - 1 + F(1 - t)$ of probabilities. Ranks in the very middle, L/2, have no side.
    """
    counts = np.bincount(ranks, minlength=draws + 1)
    half = (draws + 1) // 2
    difference = np.cumsum(counts[:half] - counts[: -half - 1 : -1])
    # From the outside in, as here, or from the inside out, as the walk's first step: its law is the same.
    return difference, int(np.abs(difference).max()), int(counts[:half].sum() + counts[-half:].sum())


def excursion_p_value(largest: int, steps: int) -> float:
    r"""$P(\max_k |S_k| \ge m)$ of a simple random walk of n steps: by reflection, exactly.

    $P(\max |S| < m) = \sum_j (-1)^j P((2j - 1) m < S_n < (2j + 1) m)$, taken from one so that small ones keep their
    digits.
    """
    if largest <= 0:
        return 1.0
    # P(max |S| ≥ m) = Σ over j ≥ 0 of (−1)^j 2 [P(S ≥ (2j + 1) m) + P(S > (2j + 1) m)]
    total, sign = 0.0, 1.0
    for end in range(largest, steps + 1, 2 * largest):
        # S = 2 successes − n
        at_least, above = bdtrc((steps + end + 1) // 2 - 1, steps, 0.5), bdtrc((steps + end) // 2, steps, 0.5)
        total, sign = total + sign * 2 * (at_least + above), -sign
    return float(min(1.0, total))
