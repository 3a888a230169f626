"""Trained entries of the zoo against exact answers, on real data: what `pyro-lvm verify` prints."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from rich.console import Console
from rich.table import Table as RichTable
from torch import Tensor

from pyro_lvm import data, exact, models, objectives, zoo
from pyro_lvm.fit import fit
from pyro_lvm.guides import LinearNormal, NormalWishart

__all__ = ["Comparison", "print_table", "verify"]


@dataclass(frozen=True)
class Comparison:
    """One number held against an exact one.

    Attributes:
        name: what is compared, on which data.
        measured, exact: the two numbers, nats per datum.
        at_least, at_most: where measured − exact has to lie.
        why: where the gate comes from.
    """

    name: str
    measured: float
    exact: float
    at_least: float
    at_most: float
    why: str

    @property
    def difference(self) -> float:
        """measured − exact."""
        return self.measured - self.exact

    @property
    def passed(self) -> bool:
        """Whether the difference lies in the gate; NaN does not."""
        return self.at_least <= self.difference <= self.at_most


def verify(seed: int = 0, progress: bool = True) -> list[Comparison]:
    """Trains `ppca`, `gmm` and `gmm-bayes` on the digits with their recipes, in float64, and compares. About a minute.

    Args:
        seed: of the trainings.
        progress: show bars on a terminal.
    """
    digits = data.load("digits")
    return [
        *_probabilistic_pca(digits, seed, progress),
        *_mixture(digits, seed, progress),
        *_bayesian_mixture(digits, seed, progress),
    ]


def print_table(comparisons: list[Comparison], console: Console | None = None) -> None:
    """Prints the comparisons as a table, and how many passed."""
    table = RichTable(title="Trained by SVI against exact answers, nats per datum")
    for heading in ("comparison", "measured", "exact", "difference", "gate", "passed", "why this gate"):
        table.add_column(heading, justify="left" if heading in ("comparison", "why this gate") else "right")
    for c in comparisons:
        gate = f"[{c.at_least:g}, {c.at_most:g}]"
        numbers = (f"{c.measured:.4f}", f"{c.exact:.4f}", f"{c.difference:+.4f}", gate.replace("[", r"\["))
        table.add_row(c.name, *numbers, "yes" if c.passed else "NO", c.why)
    console = console or Console()
    console.print(table)
    console.print(f"{sum(c.passed for c in comparisons)} of {len(comparisons)} passed")


def _probabilistic_pca(digits: data.Dataset, seed: int, progress: bool) -> Iterator[Comparison]:
    x = digits.train.double()
    flat = x.flatten(1)
    maximum = float(exact.ProbabilisticPCA(16).fit(x).score(x))
    for covariance in ("full", "diagonal"):
        model, guide, recipe = _double("ppca", digits, seed, covariance=covariance)
        assert isinstance(model, models.ProbabilisticPCA)
        assert isinstance(guide, LinearNormal)
        fit(model, guide, x, objective=recipe.objective, seed=seed, progress=progress, **recipe.training)
        with torch.no_grad():
            parameters = model.weight, model.bias, model.noise_scale.square()
            evidence = float(exact.log_evidence(flat, *parameters).mean())
            mean, covariance_of_posterior = exact.posterior(flat, *parameters)
            own = guide.scale_tril() @ guide.scale_tril().mT
            kl = float(exact.kl_normal(guide.mean(x), own, mean, covariance_of_posterior).mean())
        elbo, error = _elbo(model, guide, x, seed)
        name = f"ppca, {covariance} covariance, digits:"
        if covariance == "full":
            yield Comparison(
                f"{name} evidence against its maximum", evidence, maximum, -0.05, 1e-9, "stated: 0.05 nats"
            )
            yield Comparison(f"{name} ELBO against the exact evidence", elbo, evidence, -0.01, 0.0, "stated: 0.01")
        why = "4 standard errors of 200 ELBOs"
        yield Comparison(f"{name} gap against KL(q ‖ p(z|x))", evidence - elbo, kl, -4 * error, 4 * error, why)


def _mixture(digits: data.Dataset, seed: int, progress: bool) -> Iterator[Comparison]:
    x = digits.train.double()
    model, guide, recipe = _double("gmm", digits, seed)
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
    why = "stated: 0.01 nats below; above, SVI left EM's optimum"
    yield Comparison(
        "gmm, digits: SVI against EM, same start", log_likelihood, float(em.score(x)), -0.01, torch.inf, why
    )


def _bayesian_mixture(digits: data.Dataset, seed: int, progress: bool) -> Iterator[Comparison]:
    x = digits.train.double()
    model, guide, recipe = _double("gmm-bayes", digits, seed, components=5)
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
    bound, error = _elbo(model, guide, x, seed)
    # The guide's family holds coordinate ascent's optimum, and does not factorise the assignments away.
    low, why = -0.05 - 4 * error, "at least as high, less 0.05 and 4 standard errors"
    name = "gmm-bayes, digits: ELBO against coordinate ascent's bound"
    yield Comparison(name, bound, ascent.lower_bound_ / len(x), low, torch.inf, why)


def _double(name: str, dataset: data.Dataset, seed: int, **settings: Any) -> tuple[Any, Any, zoo.Recipe]:
    model, guide, recipe = zoo.build(name, dataset, seed=seed, **settings)
    return model.double(), guide.double(), recipe


def _elbo(model: Any, guide: Any, x: Tensor, seed: int) -> tuple[float, float]:
    """The ELBO and its standard error from 200 draws, nats per datum."""
    objective = objectives.ELBO(analytic_kl=True)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        draws = torch.tensor([-objective.loss(model, guide, x) / len(x) for _ in range(200)])
    return float(draws.mean()), float(draws.std()) / len(draws) ** 0.5
