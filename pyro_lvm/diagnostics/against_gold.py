"""Draws from an approximation against draws from the posterior."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, final

import numpy as np
import torch
from torch import Tensor

from pyro_lvm.diagnostics.figures import COLOURS, axes, plain
from pyro_lvm.diagnostics.reading import arviz, by_datum, continuous, dataset, unit_names

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_SURE = 3.0  # Monte Carlo standard errors that an error has to be above its threshold by
_BLOCKS = 5  # of each chain, at most, left out in turn: to be much longer than draws are correlated
_SHOWN = 10  # data in the printed table
_INTERVALS = ((0.94, 1.5), (0.5, 4.5))  # mass between equal tails, and the width of its line in points


@final
@dataclass(frozen=True)
class PosteriorComparison:
    r"""How far an approximation q is from a gold standard p, by latent site and datum.

    Units of a site are counted in one row; a latent that all data share counts as that of a single datum. With L the
    Cholesky factor of p's covariance, $A = L^{-1} S_q L^{-\top}$ is q's covariance in p's own coordinates: its
    eigenvalues are the ratios of the variances in the directions where they differ.

    Attributes:
        mean_error: mean of q minus mean of p, in standard deviations of p, (B, U).
        mean_error_mcse: its Monte Carlo standard error, (B, U).
        covariance_error: $\|A - I\|_F / \sqrt U$, the root mean square of the relative errors of variances, (B,). What
            the draws' noise adds to it is subtracted.
        covariance_error_mcse: its Monte Carlo standard error, (B,).
        wasserstein: distance $W_1$ of the margins, in standard deviations of p, (B, U).
        wasserstein_noise: what it would be on average, were the margins equal: the noise of so many draws, (B, U).
        kl: KL(q ‖ p) of normals with the moments of q and p, nats, (B,), less what noise adds.
        kl_mcse: its Monte Carlo standard error, (B,).
        mean_threshold, covariance_threshold, wasserstein_threshold: an error is flagged where it is above its threshold
            by more than three Monte Carlo errors.
        gold_warnings: what the gold standard said of itself, in words.
    """

    mean_error: dict[str, Tensor]
    mean_error_mcse: dict[str, Tensor]
    covariance_error: dict[str, Tensor]
    covariance_error_mcse: dict[str, Tensor]
    wasserstein: dict[str, Tensor]
    wasserstein_noise: dict[str, Tensor]
    kl: dict[str, Tensor]
    kl_mcse: dict[str, Tensor]
    mean_threshold: float
    covariance_threshold: float
    wasserstein_threshold: float
    gold_warnings: str

    @property
    def flagged_units(self) -> dict[str, Tensor]:
        """By site, units whose mean or margin is off beyond doubt, booleans (B, U)."""
        return {
            name: (error.abs() - _SURE * self.mean_error_mcse[name] > self.mean_threshold)
            | (self.wasserstein[name] - _SURE * self.wasserstein_noise[name] > self.wasserstein_threshold)
            for name, error in self.mean_error.items()
        }

    @property
    def flagged_covariances(self) -> dict[str, Tensor]:
        """By site, data whose covariance is off beyond doubt, booleans (B,)."""
        return {
            name: error - _SURE * self.covariance_error_mcse[name] > self.covariance_threshold
            for name, error in self.covariance_error.items()
        }

    @property
    def flagged(self) -> dict[str, Tensor]:
        """By site, data of which anything is off beyond doubt, booleans (B,)."""
        return {name: units.any(1) | self.flagged_covariances[name] for name, units in self.flagged_units.items()}

    def __str__(self) -> str:
        flagged = self.flagged
        lines = [
            f"{'site':<10} {'datum':>5} {'worst mean error':>19} {'covariance error':>18} {'worst W1':>9} {'KL':>16}"
        ]
        for name, errors in self.mean_error.items():
            worst = self.covariance_error[name].argsort(descending=True)[:_SHOWN]
            for n in worst.sort().values.tolist():
                unit = int(errors[n].abs().argmax())
                lines.append(
                    f"{name:<10} {n:>5} {errors[n, unit]:>+9.3f} ± {self.mean_error_mcse[name][n, unit]:<7.3f} "
                    f"{self.covariance_error[name][n]:>9.3f} ± {self.covariance_error_mcse[name][n]:<6.3f} "
                    f"{self.wasserstein[name][n].max():>9.3f} {self.kl[name][n]:>8.3f} ± {self.kl_mcse[name][n]:<6.3f}"
                    f"{'flagged' if flagged[name][n] else ''}".rstrip()
                )
            if len(errors) > _SHOWN:
                lines.append(f"{name:<10} (the {_SHOWN} of {len(errors)} data with the largest covariance error)")
        counts = [f"{int(of.sum())} of {len(of)} data flagged in '{name}'" for name, of in flagged.items()]
        lines.append(
            f"{', '.join(counts)}: beyond thresholds of {self.mean_threshold:g} (means), {self.covariance_threshold:g} "
            f"(covariances) and {self.wasserstein_threshold:g} (margins) by more than three Monte Carlo errors"
        )
        if self.gold_warnings:
            lines.append(f"The gold standard is none: {self.gold_warnings}")
        return "\n".join(lines)


def compare_to(
    idata: Any,
    gold: Any,
    *,
    mean_threshold: float = 0.1,
    covariance_threshold: float = 0.1,
    wasserstein_threshold: float = 0.1,
) -> PosteriorComparison:
    r"""Holds draws from an approximation against draws from the posterior, by latent site and datum.

    Everything is measured in the posterior's own scales, so that latents need no units, and has its Monte Carlo error:
    that of means by ArviZ, that of covariances and divergences by leaving out a fifth of a chain in turn, which also
    says what noise adds to them. Latents that are discrete are passed over.

    Args:
        idata: draws from the approximation, from `posterior`.
        gold: draws from the posterior of the same data, from `diagnostics.nuts`.
        mean_threshold: what error of a mean matters, in the posterior's standard deviations.
        covariance_threshold: what relative error of variances matters.
        wasserstein_threshold: what distance of margins matters, in the posterior's standard deviations.

    Returns:
        The comparison; printed, a table.

    Raises:
        ValueError: where the two are not of the same data or latents, a posterior has no spread, or there are fewer
            than ten draws for each unit of a latent, too few for its covariance.

    References:
        Yao, Vehtari, Simpson & Gelman (2018), Yes, but Did It Work?: Evaluating Variational Inference. Huggins,
        Kasprzak, Campbell & Broderick (2020), Validated Variational Inference via Practical Posterior Error Bounds.

    Example:
        >>> from pyro_lvm import diagnostics, guides, models
        >>> _ = torch.manual_seed(0)
        >>> model, x = models.ProbabilisticPCA(5, latent_dim=2), torch.zeros(2, 5)
        >>> exact = diagnostics.posterior(model, guides.ExactPPCA(model), x, seed=0)
        >>> loose = diagnostics.posterior(model, guides.LinearNormal(5, latent_dim=2), x, seed=1)
        >>> bool(compare_to(exact, exact).flagged["z"].any()), bool(compare_to(loose, exact).flagged["z"].all())
        (False, True)
    """
    own, true = dataset(idata, "posterior"), dataset(gold, "posterior", "gold")
    _check_same(idata, gold, own, true)
    columns: dict[str, dict[str, Tensor]] = {}
    for name in continuous(true, "gold"):
        found = _moments(by_datum(own[name]), by_datum(true[name]), name) | _margins(own[[name]], true[[name]], name)
        for column, values in found.items():
            columns.setdefault(column, {})[name] = torch.from_numpy(values)
    return PosteriorComparison(
        **columns,
        mean_threshold=mean_threshold,
        covariance_threshold=covariance_threshold,
        wasserstein_threshold=wasserstein_threshold,
        gold_warnings=str(true.attrs.get("warnings", "")),
    )


def plot_comparison(idata: Any, gold: Any, datum: int = 0, *, ax: "Axes | None" = None) -> "Axes":
    """Draws margins of an approximation and of the posterior side by side, a row for each unit of a datum's latents.

    A point is the mean, the thick line holds half of the mass between equal tails, the thin line 94 %.

    Args:
        idata: draws from the approximation, from `posterior`.
        gold: draws from the posterior, from `diagnostics.nuts`.
        datum: which of the data.
        ax: the axes to draw into; a new figure's where left out.

    Returns:
        The axes.

    Raises:
        ValueError: where the two are not of the same data or latents, or there is no such datum.

    Example:
        >>> from pyro_lvm import diagnostics, guides, models
        >>> _ = torch.manual_seed(0)
        >>> model, x = models.ProbabilisticPCA(5, latent_dim=2), torch.zeros(2, 5)
        >>> exact = diagnostics.posterior(model, guides.ExactPPCA(model), x, seed=0)
        >>> loose = diagnostics.posterior(model, guides.LinearNormal(5, latent_dim=2), x, seed=1)
        >>> [text.get_text() for text in plot_comparison(loose, exact).get_yticklabels()]
        ['z[0]', 'z[1]']
    """
    own, true = dataset(idata, "posterior"), dataset(gold, "posterior", "gold")
    _check_same(idata, gold, own, true)
    names = continuous(true, "gold")
    data = true.sizes.get("datum", 1)
    if not isinstance(datum, int) or not 0 <= datum < data:
        raise ValueError(f"'datum' is the number of one of the {data} data, from 0, not {datum!r}.")
    rows = [row for name in names for row in unit_names(true[name])]
    ax = axes(ax, 6.0, 1.4 + 0.38 * len(rows))
    for draws, place, colour, marker, label in (
        (true, -0.16, "#555555", "s", "gold standard"),
        (own, 0.16, COLOURS[1], "o", "approximation"),
    ):
        units = [by_datum(draws[name]) for name in names]
        drawn = np.concatenate([u[:, :, min(datum, u.shape[2] - 1)].reshape(-1, u.shape[3]) for u in units], 1)
        at = np.arange(len(rows)) + place
        for mass, width in _INTERVALS:
            low, high = np.quantile(drawn, [(1 - mass) / 2, (1 + mass) / 2], axis=0)
            ax.hlines(at, low, high, colors=colour, linewidth=width)
        ax.plot(drawn.mean(0), at, marker, color=colour, markersize=6, markeredgecolor="white", label=label)
    ax.set_yticks(range(len(rows)), [plain(row) for row in rows])
    ax.set_ylim(len(rows) - 0.5, -0.5)
    ax.set_xlabel("value of the latent: mean, half and 94 % of the mass")
    ax.set_ylabel(f"unit, of datum {datum}")
    ax.legend(loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=2, frameon=False)
    return ax


def _check_same(idata: Any, gold: Any, own: Any, true: Any) -> None:
    for name in continuous(true, "gold"):
        if name not in own or own[name].shape[2:] != true[name].shape[2:]:
            has = f"of shape {own[name].shape[2:]}" if name in own else "none of that name"
            raise ValueError(
                f"'gold' has a latent '{name}' of shape {true[name].shape[2:]}, but 'idata' has {has}: both must be of "
                "the same model and data."
            )
    data = [dataset(of, "observed_data", argument) for of, argument in ((idata, "idata"), (gold, "gold"))]
    if not data[0].equals(data[1]):
        raise ValueError("'idata' and 'gold' are conditioned on different data: give the same 'x' to both.")


def _moments(own: np.ndarray, true: np.ndarray, name: str) -> dict[str, np.ndarray]:
    """Errors of covariances, and divergences, with their Monte Carlo errors, (B,) each."""
    units = true.shape[-1]
    for draws, argument in ((own, "idata"), (true, "gold")):
        if draws.shape[0] * draws.shape[1] < 10 * units:
            raise ValueError(
                f"'{argument}' has {draws.shape[0] * draws.shape[1]} draws of '{name}' with {units} units, and its "
                f"covariance takes ten for each: give 'draws' or 'chains' that make {10 * units}."
            )
    found = [_moments_of_datum(own[:, :, n], true[:, :, n], name) for n in range(true.shape[2])]
    squared, squared_error, kl, kl_error = np.array(found).T
    error = np.sqrt(squared.clip(0))
    return {
        "covariance_error": error,
        "covariance_error_mcse": np.sqrt(error**2 + squared_error) - error,
        "kl": kl,
        "kl_mcse": kl_error,
    }


def _moments_of_datum(own: np.ndarray, true: np.ndarray, name: str) -> tuple[float, float, float, float]:
    """The squared error of the covariance and the divergence, each with its error, by leaving out blocks in turn."""
    centre = true.mean((0, 1))
    q, p = _Blocks(own - centre), _Blocks(true - centre)
    if not np.all(np.linalg.eigvalsh(p.covariance(None)) > 0):
        raise ValueError(f"'gold' has draws of '{name}' without spread: its chains did not move, or it is a point.")
    whole = _distances(q.mean(None), q.covariance(None), p.mean(None), p.covariance(None))
    value, variance = whole.copy(), np.zeros(2)
    for left_out in (q, p):
        some = np.stack(
            [
                _distances(
                    q.mean(i if left_out is q else None),
                    q.covariance(i if left_out is q else None),
                    p.mean(i if left_out is p else None),
                    p.covariance(i if left_out is p else None),
                )
                for i in range(left_out.number)
            ]
        )  # (blocks, 2)
        n = left_out.number
        with np.errstate(invalid="ignore"):  # infinite divergences, of an approximation without spread
            value = value - (n - 1) * (some.mean(0) - whole)
            variance = variance + (n - 1) / n * np.square(some - some.mean(0)).sum(0)
    error = np.sqrt(variance)
    if not np.isfinite(whole[1]):
        value[1], error[1] = np.inf, np.inf
    return value[0], error[0], value[1], error[1]


@final
class _Blocks:
    """Moments of draws (chain, draw, U), of all or of all but one block of a chain."""

    def __init__(self, draws: np.ndarray) -> None:
        blocks = max(2, min(_BLOCKS, draws.shape[1] // 10))
        parts = [part for chain in draws for part in np.array_split(chain, blocks)]
        self.number = len(parts)
        self._n = np.array([len(part) for part in parts])
        self._sum = np.stack([part.sum(0) for part in parts])
        self._products = np.stack([part.T @ part for part in parts])

    def mean(self, without: int | None) -> np.ndarray:
        n, total, _ = self._totals(without)
        return total / n

    def covariance(self, without: int | None) -> np.ndarray:
        n, total, products = self._totals(without)
        return (products - np.outer(total, total) / n) / (n - 1)

    def _totals(self, without: int | None) -> tuple[Any, Any, Any]:
        n, total, products = (
            values.sum(0) - (0 if without is None else values[without])
            for values in (self._n, self._sum, self._products)
        )
        return n, total, products


def _distances(mean_q: np.ndarray, cov_q: np.ndarray, mean_p: np.ndarray, cov_p: np.ndarray) -> np.ndarray:
    """‖A − I‖² / U, and the divergence of normals with these moments: inf where q has no spread in some direction."""
    factor = np.linalg.cholesky(cov_p)
    half = np.linalg.solve(factor, cov_q)
    ratios = np.linalg.eigvalsh(np.linalg.solve(factor, half.T))  # of variances
    shift = np.linalg.solve(factor, mean_q - mean_p)
    log_det = np.log(ratios).sum() if ratios.min() > 1e-12 else -np.inf
    return np.array([np.square(ratios - 1).mean(), (ratios.sum() + np.square(shift).sum() - len(ratios) - log_det) / 2])


def _margins(own: Any, true: Any, name: str) -> dict[str, np.ndarray]:
    """Errors of means and distances of margins, with their Monte Carlo errors, (B, U) each."""
    errors = [_by_datum(arviz().mcse(draws)[name]) for draws in (own, true)]
    q, p = (by_datum(draws[name]) for draws in (own, true))
    scale = p.std((0, 1), ddof=1)
    mean_error = (q.mean((0, 1)) - p.mean((0, 1))) / scale
    mcse = np.sqrt(np.square(errors[0]) + np.square(errors[1])) / scale
    q, p = (np.sort(draws.reshape(-1, *draws.shape[2:]), axis=0) / scale for draws in (q, p))
    return {
        "mean_error": mean_error,
        "mean_error_mcse": mcse,
        "wasserstein": _wasserstein(q, p),
        "wasserstein_noise": _expected_wasserstein(p) * mcse,
    }


def _by_datum(values: Any) -> np.ndarray:
    """What is known of each unit of a variable, (B, U)."""
    return by_datum(values.expand_dims(("chain", "draw")))[0, 0]


def _wasserstein(q: np.ndarray, p: np.ndarray) -> np.ndarray:
    r"""$W_1 = \int_0^1 |Q^{-1}(u) - P^{-1}(u)|\, du$ of sorted draws (N, ...) and (N', ...): exact, by its steps."""
    ends = np.union1d(np.arange(len(q) + 1) / len(q), np.arange(len(p) + 1) / len(p))
    middles, widths = (ends[1:] + ends[:-1]) / 2, np.diff(ends)
    steps = q[(middles * len(q)).astype(int)] - p[(middles * len(p)).astype(int)]
    return np.tensordot(widths, np.abs(steps), 1)


def _expected_wasserstein(p: np.ndarray) -> np.ndarray:
    r"""$\sqrt{2/\pi} \int \sqrt{P(x)(1 - P(x))}\, dx$ of sorted draws (N, ...), in standard deviations.

    √n times the mean distance between P and n draws from it, in the limit: at every x the difference of the
    distribution functions is a normal of variance $P(1 - P)/n$. Times the Monte Carlo error of a difference of means,
    √(1/n + 1/n') standard deviations, it is that of two sets of draws.
    """
    levels = np.arange(1, len(p)) / len(p)
    return np.sqrt(2 / np.pi) * np.tensordot(np.sqrt(levels * (1 - levels)), np.diff(p, axis=0), 1)
