"""Priors p(z): modules that take nothing and return a distribution over latent vectors or codes."""

from pyro_lvm.priors.autoregressive import Autoregressive
from pyro_lvm.priors.diffusion import Diffusion
from pyro_lvm.priors.flow import Flow
from pyro_lvm.priors.gtm import GTM
from pyro_lvm.priors.gtm_vamp import GTMVamp
from pyro_lvm.priors.hyperspherical_uniform import HypersphericalUniform
from pyro_lvm.priors.mixture_of_gaussians import MixtureOfGaussians
from pyro_lvm.priors.mixture_of_levels import MixtureOfLevels
from pyro_lvm.priors.one_hot import OneHot
from pyro_lvm.priors.prior import Prior
from pyro_lvm.priors.resampled import Resampled
from pyro_lvm.priors.rescaled import Rescaled
from pyro_lvm.priors.standard_normal import StandardNormal
from pyro_lvm.priors.vamp import VampPrior

__all__ = [
    "GTM",
    "Autoregressive",
    "Diffusion",
    "Flow",
    "GTMVamp",
    "HypersphericalUniform",
    "MixtureOfGaussians",
    "MixtureOfLevels",
    "OneHot",
    "Prior",
    "Resampled",
    "Rescaled",
    "StandardNormal",
    "VampPrior",
]
