"""Densities on spheres, against SciPy's special functions."""

from collections.abc import Callable, Iterator
from math import log, pi
from typing import Any

import torch
from scipy.special import digamma, gammaln, ive

from pyro_lvm.distributions import HypersphericalUniform, PowerSpherical, VonMisesFisher
from pyro_lvm.verify.comparison import Comparison

_DIMENSIONS, _CONCENTRATIONS, _DRAWS = (2, 3, 8, 17, 41), (0.1, 1.0, 10.0, 100.0, 1000.0), 20_000

Answers = tuple[float, float, float]  # log-density at the mean direction, KL from the uniform density, E μᵀz


def spheres(seed: int) -> Iterator[Comparison]:
    """Normalisers, divergences and moments, the worst of all cases."""
    yield from _family("von Mises-Fisher", VonMisesFisher, _von_mises_fisher, seed)
    yield from _family("power spherical", PowerSpherical, _power_spherical, seed)


def _family(name: str, cls: Any, answers: Callable[[int, float], Answers], seed: int) -> Iterator[Comparison]:
    peaks, divergences, moments = [], [], []
    cases = [(m, kappa) for m in _DIMENSIONS for kappa in _CONCENTRATIONS]
    for m, kappa in cases:
        log_peak, divergence, resultant = answers(m, kappa)
        mu = torch.eye(m, dtype=torch.float64)[0]
        q = cls(mu, torch.tensor(kappa, dtype=torch.float64))
        peaks.append(abs(float(q.log_prob(mu)) - log_peak))
        divergences.append(abs(float(torch.distributions.kl_divergence(q, HypersphericalUniform(m))) - divergence))
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            cosines = q.sample(torch.Size([_DRAWS]))[:, 0]
        moments.append(abs(float(cosines.mean()) - resultant) / (float(cosines.std()) / _DRAWS**0.5))
    where = f"{len(cases)} cases, m up to {max(_DIMENSIONS)}, κ up to {max(_CONCENTRATIONS):g}"
    for what, values in (("log-density at its peak", peaks), ("divergence from the uniform", divergences)):
        yield Comparison(f"{name}: worst {what}", max(values), 0.0, 0.0, 1e-9, f"rounding, {where}", "nats")
    why = f"{_DRAWS} draws each, {where}: 1 run in 600 is beyond 4"
    yield Comparison(f"{name}: worst mean of draws", max(moments), 0.0, 0.0, 4.0, why, "standard errors")


def _log_area(m: int) -> float:
    return log(2) + m / 2 * log(pi) - float(gammaln(m / 2))


def _von_mises_fisher(m: int, kappa: float) -> Answers:
    """By C_m(κ) = κ^(m/2−1) / ((2π)^(m/2) I_{m/2−1}(κ)), whose Bessel function SciPy scales by e^−κ."""
    order = m / 2 - 1
    scaled = float(ive(order, kappa))
    log_peak = order * log(kappa) - m / 2 * log(2 * pi) - log(scaled)
    resultant = float(ive(order + 1, kappa)) / scaled
    return log_peak, log_peak - kappa * (1 - resultant) + _log_area(m), resultant


def _power_spherical(m: int, kappa: float) -> Answers:
    """By the beta distribution of (1 + μᵀz)/2, with parameters β + κ and β = (m − 1)/2."""
    beta = (m - 1) / 2
    log_mean = float(gammaln(beta + kappa) - gammaln(2 * beta + kappa) + gammaln(2 * beta) - gammaln(beta))
    divergence = kappa * float(digamma(beta + kappa) - digamma(2 * beta + kappa)) - log_mean
    return -log_mean - _log_area(m), divergence, kappa / (kappa + 2 * beta)
