"""Densities the field needs and PyTorch and Pyro lack, one file each."""

import pyro_lvm.distributions.divergences  # noqa: F401  # importing registers them
from pyro_lvm.distributions.continuous_bernoulli import ContinuousBernoulli
from pyro_lvm.distributions.discretized_logistic import DiscretizedLogistic, DiscretizedLogisticMixture
from pyro_lvm.distributions.hyperspherical_uniform import HypersphericalUniform
from pyro_lvm.distributions.indexed_normal import IndexedNormal, component_log_prob
from pyro_lvm.distributions.one_hot import OneHotCategorical, StraightThrough
from pyro_lvm.distributions.power_spherical import PowerSpherical
from pyro_lvm.distributions.reshaped import reshaped
from pyro_lvm.distributions.von_mises_fisher import VonMisesFisher
from pyro_lvm.distributions.wishart import Wishart

__all__ = [
    "ContinuousBernoulli",
    "DiscretizedLogistic",
    "DiscretizedLogisticMixture",
    "HypersphericalUniform",
    "IndexedNormal",
    "OneHotCategorical",
    "PowerSpherical",
    "StraightThrough",
    "VonMisesFisher",
    "Wishart",
    "component_log_prob",
    "reshaped",
]
