"""Estimates of the evidence log p(x), each with its error."""

from pyro_lvm.evidence.log_likelihood import LogLikelihood, log_likelihood

__all__ = ["LogLikelihood", "log_likelihood"]
