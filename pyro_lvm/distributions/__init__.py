"""Densities the field needs and PyTorch and Pyro lack, one file each."""

import pyro_lvm.distributions.divergences  # noqa: F401  # importing registers them
from pyro_lvm.distributions.bounded_density import BoundedDensity
from pyro_lvm.distributions.continuous_bernoulli import ContinuousBernoulli
from pyro_lvm.distributions.discretized_logistic import DiscretizedLogistic, DiscretizedLogisticMixture
from pyro_lvm.distributions.discretized_normal import DiscretizedNormal
from pyro_lvm.distributions.hyperspherical_uniform import HypersphericalUniform
from pyro_lvm.distributions.indexed_normal import IndexedNormal, component_log_prob
from pyro_lvm.distributions.known_level import KnownLevel
from pyro_lvm.distributions.one_hot import OneHotCategorical, StraightThrough
from pyro_lvm.distributions.power_spherical import PowerSpherical
from pyro_lvm.distributions.reshaped import reshaped
from pyro_lvm.distributions.stratified_uniform import StratifiedUniform
from pyro_lvm.distributions.von_mises_fisher import VonMisesFisher
from pyro_lvm.distributions.wishart import Wishart

__all__ = [
    "BoundedDensity",
    "ContinuousBernoulli",
    "DiscretizedLogistic",
    "DiscretizedLogisticMixture",
    "DiscretizedNormal",
    "HypersphericalUniform",
    "IndexedNormal",
    "KnownLevel",
    "OneHotCategorical",
    "PowerSpherical",
    "StraightThrough",
    "StratifiedUniform",
    "VonMisesFisher",
    "Wishart",
    "component_log_prob",
    "reshaped",
]
