"""Exact answers: closed forms and expectation-maximisation, without Pyro. Everything else is held against them."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from pyro_lvm.exact.linear_gaussian import kl_normal, log_evidence, posterior
from pyro_lvm.exact.linear_gaussian_chain import LinearGaussianChain

if TYPE_CHECKING:
    from pyro_lvm.exact.bayesian_mixture import BayesianGaussianMixture, log_marginal_likelihood_normal_wishart
    from pyro_lvm.exact.factor_analysis import FactorAnalysis
    from pyro_lvm.exact.gaussian_mixture import GaussianMixture
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

# Estimators are scikit-learn's, which takes a second to import; who asks for none does not wait for it.
_LATE = {
    "BayesianGaussianMixture": "bayesian_mixture",
    "FactorAnalysis": "factor_analysis",
    "GaussianMixture": "gaussian_mixture",
    "ProbabilisticPCA": "ppca",
    "ProbabilisticPCAEM": "ppca",
    "log_marginal_likelihood_normal_wishart": "bayesian_mixture",
}


def __getattr__(name: str) -> Any:
    if name not in _LATE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_LATE[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
