"""Latent variable models as probabilistic programs: Pyro pairs trained by SVI and held against exact answers."""

from pyro_lvm import (
    data,
    diagnostics,
    distributions,
    evidence,
    exact,
    guides,
    levels,
    likelihoods,
    models,
    networks,
    objectives,
    posteriors,
    priors,
    zoo,
)
from pyro_lvm.compilation import CompiledObjective, compile
from pyro_lvm.configuration import Part
from pyro_lvm.diagnostics import posterior
from pyro_lvm.evidence import LogLikelihood, log_likelihood
from pyro_lvm.fit import FitResult, History, NonFiniteError, fit
from pyro_lvm.saving import load, save

__version__ = "0.1.0"

__all__ = [
    "CompiledObjective",
    "FitResult",
    "History",
    "LogLikelihood",
    "NonFiniteError",
    "Part",
    "compile",
    "data",
    "diagnostics",
    "distributions",
    "evidence",
    "exact",
    "fit",
    "guides",
    "levels",
    "likelihoods",
    "load",
    "log_likelihood",
    "models",
    "networks",
    "objectives",
    "posterior",
    "posteriors",
    "priors",
    "save",
    "zoo",
]
