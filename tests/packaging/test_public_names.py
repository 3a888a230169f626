"""The public names and their signatures: what scripts are written against."""

import inspect
from collections.abc import Callable
from typing import Any

import pytest
from pyro.infer.elbo import ELBO as PyroELBO

import pyro_lvm as lvm
from pyro_lvm import (
    data,
    diagnostics,
    evidence,
    exact,
    guides,
    likelihoods,
    models,
    objectives,
    posteriors,
    priors,
    zoo,
)

REQUIRED = inspect.Parameter.empty


def signature(function: Callable[..., Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Defaults of the parameters that may be given by position, and of those by name only."""
    parameters = inspect.signature(function).parameters.values()
    by_name = {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}
    return {p.name: p.default for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD}, by_name


def test_fit():
    by_position, by_name = signature(lvm.fit)
    assert list(by_position) == ["model", "guide", "data"]
    promised = {
        "objective": None,
        "validation": None,
        "epochs": 100,
        "batch_size": 64,
        "learning_rate": 1e-3,
        "seed": 0,
        "compile": "auto",
        "run_dir": None,
        "resume": False,
        "accelerator": "auto",
        "devices": 1,
    }
    assert {name: by_name.get(name, REQUIRED) for name in promised} == promised
    assert {"model", "guide", "history", "best_epoch", "stopped_early", "seconds", "run_dir"} <= set(
        lvm.FitResult.__dataclass_fields__
    )
    assert issubclass(lvm.NonFiniteError, FloatingPointError)


def test_log_likelihood():
    by_position, _ = signature(lvm.log_likelihood)
    assert by_position == {"model": REQUIRED, "guide": REQUIRED, "x": REQUIRED, "num_particles": 5000}
    assert lvm.log_likelihood is evidence.log_likelihood
    for name in ("mean", "standard_error", "ess", "khat"):
        assert name in dir(lvm.LogLikelihood) or name in lvm.LogLikelihood.__annotations__


def test_posterior():
    by_position, _ = signature(lvm.posterior)
    assert by_position == {"model": REQUIRED, "guide": REQUIRED, "x": REQUIRED, "draws": 500, "chains": 4}
    assert lvm.posterior is diagnostics.posterior


def test_save_and_load():
    assert signature(lvm.save)[0] == {"path": REQUIRED, "model": REQUIRED, "guide": REQUIRED}
    assert signature(lvm.load)[0] == {"path": REQUIRED, "into": None}


def test_data():
    assert list(signature(data.load)[0]) == ["data"]
    digits = data.load("digits")
    assert (digits.train.shape, digits.validation.shape, digits.test.shape) == ((1000, 8, 8), (350, 8, 8), (447, 8, 8))
    assert (digits.name, digits.levels, digits.shape, len(digits.labels["test"])) == ("digits", 17, (8, 8), 447)


def test_zoo():
    assert signature(zoo.build) == ({"name": REQUIRED, "dataset": REQUIRED}, {"seed": 0})
    assert list(signature(zoo.recipe)[0]) == ["name"]
    assert {"ppca", "gmm", "gmm-bayes", "vae", "vae-bernoulli", "vae-gaussian", "iwae"} <= set(zoo.names())
    model, guide, recipe = zoo.build("vae", data.load("digits"), latent_dim=3)
    assert (type(model), type(guide)) == (models.VAE, guides.Amortized)
    assert isinstance(recipe.objective, objectives.ELBO)
    assert set(recipe.training) <= set(inspect.signature(lvm.fit).parameters)


@pytest.mark.parametrize(
    ("cls", "arguments"),
    [
        (models.ProbabilisticPCA, ["shape", "latent_dim"]),
        (models.GaussianMixture, ["shape", "components", "covariance_type"]),
        (models.BayesianGaussianMixture, ["shape", "components"]),
        (models.VAE, ["prior", "decoder"]),
        (guides.Amortized, ["posterior"]),
        (guides.ExactPPCA, ["model"]),
        (guides.LinearNormal, ["shape", "latent_dim", "covariance"]),
        (guides.NormalWishart, ["model"]),
        (guides.Responsibilities, ["model"]),
        (priors.StandardNormal, ["latent_dim"]),
        (likelihoods.Bernoulli, ["net"]),
        (likelihoods.Categorical, ["net", "levels"]),
        (likelihoods.Normal, ["net", "scale"]),
        (posteriors.DiagonalNormal, ["net"]),
        (posteriors.FullNormal, ["net"]),
        (objectives.ELBO, ["num_particles"]),
        (objectives.IWAE, ["num_particles"]),
        (exact.ProbabilisticPCA, ["n_components"]),
        (exact.ProbabilisticPCAEM, ["n_components"]),
        (exact.FactorAnalysis, ["n_components"]),
        (exact.GaussianMixture, ["n_components", "covariance_type"]),
        (exact.BayesianGaussianMixture, ["n_components"]),
    ],
    ids=lambda value: f"{value.__module__.split('.')[1]}.{value.__name__}" if isinstance(value, type) else "",
)
def test_class_starts_with_these_arguments(cls: type, arguments: list[str]):
    assert list(signature(cls)[0])[: len(arguments)] == arguments


@pytest.mark.parametrize("folder", [models, guides], ids=["models", "guides"])
def test_every_program_has_the_one_signature(folder: Any):
    assert folder.__all__ == sorted(folder.__all__, key=lambda name: (not name.isupper(), name))
    for name in folder.__all__:
        by_position, by_name = signature(getattr(folder, name).forward)
        assert list(by_position) == ["self", "x"], name
        assert by_position["x"] is (None if folder is models else REQUIRED), name
        assert by_name == {"size": None}, name


@pytest.mark.parametrize("name", ["loss", "differentiable_loss", "loss_and_grads"])
def test_objectives_are_pyros(name: str):
    for cls in (objectives.ELBO, objectives.IWAE):
        assert issubclass(cls, PyroELBO)
        assert callable(getattr(cls, name))


def test_whatever_is_announced_is_there():
    for module in (
        lvm,
        data,
        diagnostics,
        evidence,
        exact,
        guides,
        likelihoods,
        models,
        objectives,
        posteriors,
        priors,
    ):
        missing = [name for name in module.__all__ if not hasattr(module, name)]
        assert missing == [], module.__name__
