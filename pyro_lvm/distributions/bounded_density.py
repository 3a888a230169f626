"""Densities known only by a lower bound that is estimated."""

from pyro.distributions import TorchDistribution

__all__ = ["BoundedDensity"]


class BoundedDensity(TorchDistribution):
    r"""A distribution whose `log_prob` is an unbiased estimate of a lower bound on its log-density, abstract.

    $E[\ell(z)] \le \log p(z)$ for what it gives, $\ell$, by draws of its own, anew at every call. Sums of it over data
    are bounds in expectation, so that the evidence lower bound remains one; means of its exponential, as importance
    weights have, are nothing, and what takes them refuses a program with such a site.
    """
