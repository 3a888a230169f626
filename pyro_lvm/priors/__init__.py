"""Priors p(z): modules that take nothing and return a distribution over latent vectors."""

from pyro_lvm.priors.standard_normal import StandardNormal

__all__ = ["StandardNormal"]
