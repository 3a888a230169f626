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
        name: what is compared.
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
    """Prints the comparisons as a table, why each gate is what it is, and how many passed."""
    table = RichTable(title="Trained by SVI on the digits, against exact answers (nats per datum)")
    table.add_column("comparison")
    for heading in ("measured", "exact", "difference", "gate"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("")
    for c in comparisons:
        gate = f"≥ {c.at_least:.4f}" if c.at_most == torch.inf else f"{c.at_least:.4f} to {c.at_most:.4f}"
        row = (c.name, f"{c.measured:.4f}", f"{c.exact:.4f}", f"{c.difference:+.4f}", gate)
        table.add_row(*row, "[green]passed[/green]" if c.passed else "[red]FAILED[/red]")
    console = console or Console()
    console.print(table)
    for c in comparisons:
        console.print(f"{c.name}: gate {c.why}", highlight=False)
    console.print(f"{sum(c.passed for c in comparisons)} of {len(comparisons)} passed")


def _probabilistic_pca(digits: data.Dataset, seed: int, progress: bool) -> Iterator[Comparison]:
    x = torch.as_tensor(digits.train).double()
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
        name = f"ppca, {covariance}:"
        if covariance == "full":
            yield Comparison(
                f"{name} evidence, its maximum",
                evidence,
                maximum,
                -0.05,
                1e-9,
                "0.05 nats below the maximum likelihood, never above",
            )
            yield Comparison(
                f"{name} ELBO, evidence", elbo, evidence, -0.01, 4 * error, "0.01 nats, with 4 standard errors above"
            )
        why = "4 standard errors of 200 estimates of the ELBO"
        yield Comparison(f"{name} gap, KL(q ‖ p(z|x))", evidence - elbo, kl, -4 * error, 4 * error, why)


def _mixture(digits: data.Dataset, seed: int, progress: bool) -> Iterator[Comparison]:
    x = torch.as_tensor(digits.train).double()
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
    why = "0.01 nats below; above, SVI found a better optimum than EM"
    yield Comparison("gmm: SVI, EM from the same start", log_likelihood, float(em.score(x)), -0.01, torch.inf, why)


def _bayesian_mixture(digits: data.Dataset, seed: int, progress: bool) -> Iterator[Comparison]:
    x = torch.as_tensor(digits.train).double()
    model, guide, recipe = _double("gmm-bayes", digits, seed)
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
    name = "gmm-bayes: ELBO, coordinate ascent"
    yield Comparison(name, bound, ascent.lower_bound_ / len(x), low, torch.inf, why)


def _double(name: str, dataset: data.Dataset, seed: int, **settings: Any) -> tuple[Any, Any, zoo.Recipe]:
    model, guide, recipe = zoo.build(name, dataset, seed=seed, **settings)
    return model.double(), guide.double(), recipe


def _elbo(model: Any, guide: Any, x: Tensor, seed: int) -> tuple[float, float]:
    """The ELBO and its standard error from 200 draws, nats per datum."""
    objective = objectives.ELBO()  # all sampled: close to the exact posterior its draws hardly vary
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        draws = torch.tensor([-objective.loss(model, guide, x) / len(x) for _ in range(200)])
    return float(draws.mean()), float(draws.std()) / len(draws) ** 0.5
