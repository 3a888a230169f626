"""Estimates of the evidence log p(x), each with its error."""

from pyro_lvm.evidence.annealed import Bracket, annealed_importance_sampling
from pyro_lvm.evidence.gaps import Estimate, Gaps, gaps
from pyro_lvm.evidence.log_likelihood import LogLikelihood, log_likelihood
from pyro_lvm.evidence.lower_bound import LowerBound, lower_bound
from pyro_lvm.evidence.naive import naive_log_likelihood
from pyro_lvm.evidence.refined import sample_refined

__all__ = [
    "Bracket",
    "Estimate",
    "Gaps",
    "LogLikelihood",
    "LowerBound",
    "annealed_importance_sampling",
    "gaps",
    "log_likelihood",
    "lower_bound",
    "naive_log_likelihood",
    "sample_refined",
]
