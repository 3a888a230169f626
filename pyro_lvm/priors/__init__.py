"""Priors p(z): modules that take nothing and return a distribution over latent vectors or codes."""

from pyro_lvm.priors.one_hot import OneHot
from pyro_lvm.priors.standard_normal import StandardNormal

__all__ = ["OneHot", "StandardNormal"]
