"""Probabilistic PCA, whose evidence and posteriors are known, and what judges models, judged by it."""

import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from pyro_lvm import data, diagnostics, evidence, exact, models
from pyro_lvm.diagnostics.reading import dataset
from pyro_lvm.fit import fit
from pyro_lvm.guides import ExactPPCA, LinearNormal
from pyro_lvm.programs import data_plate
from pyro_lvm.verify.comparison import Comparison, double_precision, elbo


def linear_gaussian(digits: data.Dataset, seed: int, progress: bool) -> Iterator[Comparison]:
    """`ppca`, trained by its recipe with a full covariance and a diagonal one."""
    x = torch.as_tensor(digits.train).double()
    full = _trained("full", digits, x, seed, progress)
    yield from _bounds(*full, x, seed, "ppca, full:", float(exact.ProbabilisticPCA(16).fit(x).score(x)))
    diagonal = _trained("diagonal", digits, x, seed, progress)
    yield from _bounds(*diagonal, x, seed, "ppca, diagonal:", None)
    yield from _estimates(*diagonal, x, seed, progress)
    yield from _posteriors(*diagonal, x, seed, progress)
    yield from _calibration(full[0], seed, progress)


def _trained(
    covariance: str, digits: data.Dataset, x: Tensor, seed: int, progress: bool
) -> tuple[models.ProbabilisticPCA, LinearNormal]:
    model, guide, recipe = double_precision("ppca", digits, seed, covariance=covariance)
    fit(model, guide, x, objective=recipe.objective, seed=seed, progress=progress, **recipe.training)
    return model, guide


def _bounds(
    model: models.ProbabilisticPCA, guide: LinearNormal, x: Tensor, seed: int, name: str, maximum: float | None
) -> Iterator[Comparison]:
    truth, kl = float(_evidence(model, x).mean()), _gap(model, guide, x)
    bound, error = elbo(model, guide, x, seed)
    if maximum is not None:
        why = "0.05 nats below the maximum likelihood, never above"
        yield Comparison(f"{name} evidence, its maximum", truth, maximum, -0.05, 1e-9, why)
        why = "0.01 nats, with 4 standard errors above"
        yield Comparison(f"{name} ELBO, evidence", bound, truth, -0.01, 4 * error, why)
    why = "4 standard errors of 200 estimates of the ELBO"
    yield Comparison(f"{name} gap, KL(q ‖ p(z|x))", truth - bound, kl, -4 * error, 4 * error, why)


def _gap(model: models.ProbabilisticPCA, guide: LinearNormal, x: Tensor) -> float:
    """KL(q(z | x) ‖ p(z | x)), nats per datum."""
    mean, covariance = _posterior(model, x)
    with torch.no_grad():
        own = guide.scale_tril() @ guide.scale_tril().mT
        return float(exact.kl_normal(guide.mean(x), own, mean, covariance).mean())


def _estimates(
    model: models.ProbabilisticPCA, guide: LinearNormal, x: Tensor, seed: int, progress: bool
) -> Iterator[Comparison]:
    few = x[:100]
    ll = evidence.log_likelihood(model, guide, few, 2000, seed=seed, progress=progress)
    error = float(ll.mean_standard_error)
    # The logarithm of a mean is lower on average by half the relative variance of it.
    low = -4 * error - 0.5 * float(ll.standard_error.square().mean())
    why = "4 standard errors, and the bias of a logarithm below"
    name = "ppca, diagonal: evidence by 2000 weighted draws"
    yield Comparison(name, float(ll.mean()), float(_evidence(model, few).mean()), low, 4 * error, why)
    bracket = evidence.annealed_importance_sampling(
        model, guide=guide, size=20, chains=8, temperatures=60, seed=seed, progress=progress
    )
    truth, gap = float(_evidence(model, bracket.x).mean()), _gap(model, guide, bracket.x)
    below, above = 4 * float(bracket.mean_lower_standard_error), 4 * float(bracket.mean_upper_standard_error)
    why = "a bound in expectation, no looser than that of the guide it starts from; 4 standard errors"
    name = "ppca, diagonal: annealed chains,"
    yield Comparison(f"{name} forwards", float(bracket.mean_lower), truth, -gap - below, below, why)
    yield Comparison(f"{name} backwards", float(bracket.mean_upper), truth, -above, gap + above, why)


def _posteriors(
    model: models.ProbabilisticPCA, guide: LinearNormal, x: Tensor, seed: int, progress: bool
) -> Iterator[Comparison]:
    few = x[:2]
    factor = torch.linalg.cholesky(_posterior(model, few)[1])
    with torch.no_grad():
        half = torch.linalg.solve_triangular(factor, guide.scale_tril(), upper=False)
        off = float((half @ half.mT - torch.eye(16).double()).norm() / 4)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # what it would warn of has a gate here
        gold = diagnostics.nuts(model, few, draws=500, warmup=200, seed=seed, progress=progress)
    why = "the bar of the field (Vehtari et al., 2021)"
    rhat = float(dataset(gold, "posterior").attrs["max_rhat"])
    yield Comparison("ppca: no-U-turn sampler, R-hat", rhat, 1.0, -torch.inf, 0.01, why, "")
    true = diagnostics.posterior(model, ExactPPCA(model), few, draws=2000, prior_draws=0, seed=seed)
    compared = diagnostics.compare_to(true, gold)
    worst = float((compared.mean_error["z"] / compared.mean_error_mcse["z"]).abs().max())
    why = "the largest of 32 standard normals, 1 run in 500 beyond"
    yield Comparison("ppca: no-U-turn sampler, worst mean", worst, 0.0, 0.0, 4.0, why, "standard errors")
    approximate = diagnostics.posterior(model, guide, few, draws=2000, prior_draws=0, seed=seed)
    compared = diagnostics.compare_to(approximate, gold)
    error, at = compared.covariance_error["z"][0], compared.covariance_error_mcse["z"][0]
    name = "ppca, diagonal: error of the covariance by these draws"
    why = "4 Monte Carlo errors"
    yield Comparison(name, float(error), off, -4 * float(at), 4 * float(at), why, "relative")


def _calibration(model: models.ProbabilisticPCA, seed: int, progress: bool) -> Iterator[Comparison]:
    right, narrow = (
        diagnostics.simulation_based_calibration(model, guide, seed=seed, progress=progress).p_value
        for guide in (ExactPPCA(model), _scaled(model, 0.5))
    )
    why = "uniform ranks give less in 1 run of 100"
    yield Comparison("ppca: calibration of the exact posterior", right, 0.0, 0.01, 1.0, why, "p-value")
    why = "half the scale is found out beyond doubt"
    yield Comparison("ppca: calibration of half its scale", narrow, 0.0, 0.0, 1e-6, why, "p-value")


def _scaled(model: models.ProbabilisticPCA, factor: float) -> Callable[..., Any]:
    def guide(x: Tensor, *, size: int | None = None) -> None:
        mean, covariance = _posterior(model, x)
        with data_plate(x, size):
            pyro.sample("z", dist.MultivariateNormal(mean, covariance_matrix=factor**2 * covariance))

    return guide


@torch.no_grad()
def _posterior(model: models.ProbabilisticPCA, x: Tensor) -> tuple[Tensor, Tensor]:
    return exact.posterior(x.flatten(1), model.weight, model.bias, model.noise_scale.square())


@torch.no_grad()
def _evidence(model: models.ProbabilisticPCA, x: Tensor) -> Tensor:
    return exact.log_evidence(x.flatten(1), model.weight, model.bias, model.noise_scale.square())
