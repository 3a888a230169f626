"""Exact answers: closed forms and expectation-maximisation, without Pyro. Everything else is held against them."""

from pyro_lvm.exact.bayesian_mixture import BayesianGaussianMixture, log_marginal_likelihood_normal_wishart
from pyro_lvm.exact.factor_analysis import FactorAnalysis
from pyro_lvm.exact.gaussian_mixture import GaussianMixture
from pyro_lvm.exact.linear_gaussian import kl_normal, log_evidence, posterior
from pyro_lvm.exact.linear_gaussian_chain import LinearGaussianChain
from pyro_lvm.exact.ppca import ProbabilisticPCA, ProbabilisticPCAEM

__all__ = [
    "BayesianGaussianMixture",
    "FactorAnalysis",
    "GaussianMixture",
    "LinearGaussianChain",
    "ProbabilisticPCA",
    "ProbabilisticPCAEM",
    "kl_normal",
    "log_evidence",
    "log_marginal_likelihood_normal_wishart",
    "posterior",
]
