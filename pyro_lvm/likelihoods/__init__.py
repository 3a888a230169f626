"""Likelihoods p(x | z): decoders, modules that take z (..., M) and return a distribution over data (..., *shape).

Each wraps a network from z to the numbers it needs per value of x. The network's output may have the data's shape
already, or be flat and be given it by `shape`.
"""

from pyro_lvm.likelihoods.bernoulli import Bernoulli
from pyro_lvm.likelihoods.categorical import Categorical
from pyro_lvm.likelihoods.continuous_bernoulli import ContinuousBernoulli
from pyro_lvm.likelihoods.discretized_logistic import DiscretizedLogistic
from pyro_lvm.likelihoods.discretized_logistic_mixture import DiscretizedLogisticMixture
from pyro_lvm.likelihoods.discretized_normal import DiscretizedNormal, NoisedLevels
from pyro_lvm.likelihoods.floor import Floor
from pyro_lvm.likelihoods.normal import Normal

__all__ = [
    "Bernoulli",
    "Categorical",
    "ContinuousBernoulli",
    "DiscretizedLogistic",
    "DiscretizedLogisticMixture",
    "DiscretizedNormal",
    "Floor",
    "NoisedLevels",
    "Normal",
]
