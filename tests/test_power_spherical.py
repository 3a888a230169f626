"""The power spherical density's own closed forms; what it shares with others is in test_von_mises_fisher.py."""

from typing import Any

import mpmath
import numpy as np
import pytest
import torch
from scipy import stats
from torch.autograd import grad
from torch.distributions import kl_divergence
from torch.nn.functional import normalize

from pyro_lvm.distributions import HypersphericalUniform, PowerSpherical

DIMENSIONS, CONCENTRATIONS = (2, 3, 5, 10, 19, 22, 100, 1000), (0.1, 1.0, 2.0, 10.0, 50.0, 1e3, 1e4, 1e5)


def closed_forms(m: int, kappa: float) -> dict[str, Any]:
    """De Cao & Aziz (2020), equations 7 and 18 to 21, in 40 digits."""
    with mpmath.workdps(40):
        k, beta = mpmath.mpf(kappa), mpmath.mpf(m - 1) / 2
        alpha = beta + k
        log_normaliser = -(
            (alpha + beta) * mpmath.log(2)
            + beta * mpmath.log(mpmath.pi)
            + mpmath.loggamma(alpha)
            - mpmath.loggamma(alpha + beta)
        )
        mean_log = mpmath.log(2) + mpmath.digamma(alpha) - mpmath.digamma(alpha + beta)  # E log(1 + w)
        entropy = -(log_normaliser + k * mean_log)
        area = mpmath.log(2) + mpmath.mpf(m) / 2 * mpmath.log(mpmath.pi) - mpmath.loggamma(mpmath.mpf(m) / 2)
        slope = k * (mpmath.polygamma(1, alpha) - mpmath.polygamma(1, alpha + beta))  # of the divergence
        return {
            "peak": log_normaliser + k * mpmath.log(2),
            "entropy": entropy,
            "divergence": area - entropy,
            "slope": slope,
            "area": area,
        }


@pytest.mark.parametrize(("dtype", "gate"), [(torch.float64, 1e-10), (torch.float32, 1e-4)])
def test_closed_forms_against_mpmath(dtype: torch.dtype, gate: float):
    """Relative to their size; for density and entropy to the sphere's log area too, which is in them.

    In single precision an error of 1e-6 nats is let pass: the divergence, of order κ² / m, is the difference of two
    numbers of order κ.
    """
    small = 0 if dtype == torch.float64 else 1e-2
    for m in DIMENSIONS:
        mu = torch.eye(m, dtype=dtype)[0]
        for k in CONCENTRATIONS:
            kappa = torch.tensor(k, dtype=dtype, requires_grad=True)
            q, expected = PowerSpherical(mu, kappa), closed_forms(m, kappa.item())
            divergence = kl_divergence(q, HypersphericalUniform(m, dtype=dtype))
            (slope,) = grad(divergence, kappa, retain_graph=True)
            area = abs(expected["area"])
            for name, value, size in (
                ("peak", q.log_prob(mu), max(area, 1)),
                ("entropy", q.entropy(), max(area, 1)),
                ("divergence", divergence, small),
                ("slope", slope, small),
            ):
                error = abs(value.item() - expected[name])
                assert error < gate * max(abs(expected[name]), size), (m, k, name, float(error))


def test_density_is_a_power_of_the_cosine():
    """At random points, from the formula itself; 1e-10."""
    for m in (2, 3, 30):
        mu, z = normalize(torch.randn(m), dim=-1), normalize(torch.randn(50, m), dim=-1)
        for k in (0.1, 3.0, 80.0):
            expected = float(closed_forms(m, k)["peak"]) + k * torch.log((1 + z @ mu) / 2)
            torch.testing.assert_close(
                PowerSpherical(mu, torch.tensor(k)).log_prob(z), expected, rtol=1e-10, atol=1e-10
            )


def test_cosines_of_draws_are_beta_variables():
    """Kolmogorov-Smirnov, 50,000 draws for each of nine; gate 1e-4 / 9."""
    for m in (2, 3, 50):
        mu = normalize(torch.randn(m), dim=-1)
        for k in (0.1, 5.0, 500.0):
            share = (1 + PowerSpherical(mu, torch.tensor(k)).sample((50_000,)) @ mu) / 2
            expected = stats.beta((m - 1) / 2 + k, (m - 1) / 2)
            assert stats.kstest(share.numpy(), expected.cdf).pvalue > 1e-4 / 9, (m, k)


def test_mean_cosine_and_its_derivative_against_closed_forms():
    """E w = κ / (κ + m − 1) and (m − 1) / (κ + m − 1)², 100,000 draws each for 24 pairs; gates as for the 144 there.

    By chance 0.13 of the 48 scores are beyond 3 standard errors: more than 2 in one of 3,000 runs.
    """
    replicates, scores = 200, {}
    for m in (2, 3, 10, 50):
        mu = torch.eye(m)[0]
        for k in (0.1, 1.0, 10.0, 100.0, 1e3, 1e4):
            kappa = torch.full((replicates,), k, requires_grad=True)
            means = PowerSpherical(mu, kappa).rsample((500,))[..., 0].mean(0)
            (slopes,) = grad(means.sum(), kappa)
            for name, values, expected in (
                ("mean", means.detach(), k / (k + m - 1)),
                ("slope", slopes, (m - 1) / (k + m - 1) ** 2),
            ):
                scores[name, m, k] = ((values.mean() - expected) / (values.std() / replicates**0.5)).item()
    z = np.abs(list(scores.values()))
    assert (z > 3).sum() <= 2, scores
    assert z.max() < 4.5, scores
