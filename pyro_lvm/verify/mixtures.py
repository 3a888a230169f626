"""Mixtures against expectation-maximisation and coordinate ascent."""

from collections.abc import Iterator

import torch

from pyro_lvm import data, exact, models
from pyro_lvm.fit import fit
from pyro_lvm.guides import NormalWishart
from pyro_lvm.verify.comparison import Comparison, double_precision, elbo


def mixtures(digits: data.Dataset, seed: int, progress: bool) -> Iterator[Comparison]:
    """`gmm` and `gmm-bayes`, trained by their recipes."""
    yield from _mixture(digits, seed, progress)
    yield from _bayesian_mixture(digits, seed, progress)


def _mixture(digits: data.Dataset, seed: int, progress: bool) -> Iterator[Comparison]:
    x = torch.as_tensor(digits.train).double()
    model, guide, recipe = double_precision("gmm", digits, seed)
    assert isinstance(model, models.GaussianMixture)
    with torch.no_grad():
        em = exact.GaussianMixture(
            model.components,
            model.covariance_type,
            covariance_floor=model.covariance_floor,
            weights_init=model.weights,
            means_init=model.means.clone(),
            covariances_init=model.scales.square(),
            tol=1e-10,
        ).fit(x)
    fit(model, guide, x, objective=recipe.objective, seed=seed, progress=progress, **recipe.training)
    with torch.no_grad():
        log_likelihood = float(model.log_joint(x).logsumexp(-1).mean())
    why = "0.01 nats below; above, SVI found a better optimum than EM"
    yield Comparison("gmm: SVI, EM from the same start", log_likelihood, float(em.score(x)), -0.01, torch.inf, why)


def _bayesian_mixture(digits: data.Dataset, seed: int, progress: bool) -> Iterator[Comparison]:
    x = torch.as_tensor(digits.train).double()
    model, guide, recipe = double_precision("gmm-bayes", digits, seed)
    assert isinstance(model, models.BayesianGaussianMixture)
    assert isinstance(guide, NormalWishart)
    with torch.no_grad():  # coordinate ascent from the guide's start
        weights = guide.log_concentration.softmax(-1)
        precisions = guide.precision_tril() @ guide.precision_tril().mT
        responsibilities = model.log_joint(x, weights, guide.means, precisions).softmax(-1)
    ascent = exact.BayesianGaussianMixture(
        model.components,
        weight_concentration_prior=model.weight_concentration,
        mean_prior=model.prior_mean,
        mean_precision_prior=model.mean_precision,
        degrees_of_freedom_prior=model.degrees_of_freedom,
        covariance_prior=model.degrees_of_freedom * model.prior_covariance,
        responsibilities_init=responsibilities,
    ).fit(x)
    fit(model, guide, x, objective=recipe.objective, seed=seed, progress=progress, **recipe.training)
    bound, error = elbo(model, guide, x, seed)
    # The guide's family holds coordinate ascent's optimum, and does not factorise the assignments away.
    low, why = -0.05 - 4 * error, "at least as high, less 0.05 and 4 standard errors"
    name = "gmm-bayes: ELBO, coordinate ascent"
    yield Comparison(name, bound, ascent.lower_bound_ / len(x), low, torch.inf, why)
