"""What the von Mises-Fisher density needs of the modified Bessel functions, without ever forming one."""

from fractions import Fraction
from functools import cache
from math import ceil
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd import Function

# Terms of the expansion, and the order from which on they leave errors below 1e-9 of each function; smaller orders are
# reached by recurrence.
_TERMS, _ORDER = 6, 16


class BesselTerms(NamedTuple):
    r"""Functions of κ for the direction z on the sphere in $\mathbb R^m$, with w = μᵀz and $v = m/2 - 1$.

    Attributes:
        log_partition: $g = \log \mathbb E\, e^{\kappa w} = \log[\Gamma(v + 1) (2/\kappa)^v I_v(\kappa)]$, z uniform.
        log_peak: κ − g, the log density at the mean direction relative to the uniform one.
        resultant: $A_m = I_{v+1}(\kappa) / I_v(\kappa) = g'$, the mean of w.
        divergence: κ A_m − g, KL from the uniform density.
    """

    log_partition: Tensor
    log_peak: Tensor
    resultant: Tensor
    divergence: Tensor


def bessel_terms(kappa: Tensor, dim: int) -> BesselTerms:
    r"""These functions with nine digits in float64 and five in float32, for κ ≥ 0 of any size, 0 included.

    Debye's expansion, uniform in κ, gives them at an order $N \ge 16$, and the recurrence of the ratios leads down to
    v, by a sum of positive terms. What cancels, for small κ the value at 0 and for large κ the exponent, is taken out
    on paper. The derivatives are the known ones, $g' = A$ and $A' = 1 - A^2 - (m - 1) A / \kappa$, the last by a
    recurrence of its own, as its terms cancel at both ends.

    Args:
        kappa: κ, (...).
        dim: m ≥ 2.

    References:
        Debye (1909), Näherungsformeln für die Zylinderfunktionen. Abramowitz & Stegun (1964), Handbook of Mathematical
        Functions, 9.7.7. Amos (1974), Computation of Modified Bessel Functions and Their Ratios.

    Example:
        >>> terms = bessel_terms(torch.tensor([0.0, 1.0, 1e5]), dim=3)
        >>> terms.resultant  # coth κ − 1/κ
        tensor([0.0000, 0.3130, 1.0000])
    """
    v = dim / 2 - 1
    steps = max(0, ceil(_ORDER - v))
    N = v + steps
    square = kappa * kappa
    z = kappa / N
    r = (1 + z * z).sqrt()
    t = 1 / r
    u = z * z / (1 + r)  # r − 1
    rest, first, second = (_horner(polynomial, t) for polynomial in _debye(N))
    # At order N: g, κ − g, A / κ, κ (1 − A) and A'.
    log_partition = N * (u - (u / 2).log1p()) - 0.5 * u.log1p() - u * t * rest
    log_peak = N * ((z + u) / (z + r) + (u / 2).log1p()) + 0.5 * u.log1p() + u * t * rest
    ratio = (1 / (1 + r) - t * t / (2 * N) - t**3 * first / N) / N
    lack = N * z / (1 + r) * (1 + 1 / (z + r)) + (1 - t * t) * (0.5 + t * first)
    slope = 1 / (1 + t) - (2 * t * t - 1) / (2 * N) - t * ((3 * t * t - 2) * first - (1 - t * t) * t * second) / N
    slope = t * t * slope / N
    increments = []
    for step in range(steps):
        order = N - step
        increments.append(square * ratio / (2 * order))
        ratio = 1 / (2 * order + square * ratio)
        lack = (2 * order - lack) * (kappa * ratio)
        slope = ratio * ratio * (2 * order - square * slope)
    if increments:
        climb = torch.stack(increments).log1p().sum(0)
        log_partition, log_peak = log_partition + climb, log_peak - climb
    resultant = _Known.apply(kappa, kappa * ratio, slope)
    shortfall = torch.where(kappa < 1, 1 - kappa * ratio, lack / kappa.clamp_min(1))  # 1 − A
    divergence = torch.where(kappa < dim, square * ratio - log_partition, log_peak - lack)
    return BesselTerms(
        _Known.apply(kappa, log_partition, resultant),
        _Known.apply(kappa, log_peak, _Known.apply(kappa, shortfall, -slope)),
        resultant,
        _Known.apply(kappa, divergence, kappa * slope),
    )


class _Known(Function):
    """A function of κ whose derivative is known better than automatic differentiation would find it."""

    @staticmethod
    def forward(ctx: Any, kappa: Tensor, value: Tensor, slope: Tensor) -> Tensor:
        ctx.save_for_backward(slope)
        return value.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        return gradient * ctx.saved_tensors[0], None, None


def _horner(polynomial: tuple[float, ...], t: Tensor) -> Tensor:
    value = torch.full_like(t, polynomial[-1])
    for coefficient in reversed(polynomial[:-1]):
        value = value * t + coefficient
    return value


@cache
def _debye(order: float) -> tuple[tuple[float, ...], ...]:
    r"""The polynomials $(S(1) - S(t)) / (1 - t)$, $S'$ and $S''$ of Debye's $S(t) = \log \sum_k U_k(t) N^{-k}$."""
    series = [0.0] * (3 * _TERMS + 1)
    for k, polynomial in enumerate(_log_coefficients(), start=1):
        for i, coefficient in enumerate(polynomial):
            series[i] += float(coefficient) / order**k
    rest = [sum(series[i + 1 :]) for i in range(len(series) - 1)]
    first = [i * c for i, c in enumerate(series)][1:]
    second = [i * c for i, c in enumerate(first)][1:]
    return tuple(rest), tuple(first), tuple(second)


@cache
def _log_coefficients() -> list[list[Fraction]]:
    """The polynomials in t that stand at 1/N, 1/N², … in S."""
    u = [[Fraction(1)]]
    for _ in range(_TERMS):
        last, new = u[-1], [Fraction(0)] * (len(u[-1]) + 3)
        for i, c in enumerate(last):  # U_{k+1} = t² (1 − t²) U_k' / 2 + ∫ (1 − 5 t²) U_k / 8
            new[i + 1] += c * Fraction(i, 2) + c / (8 * (i + 1))
            new[i + 3] -= c * Fraction(i, 2) + 5 * c / (8 * (i + 3))
        u.append(new)
    logs: list[list[Fraction]] = [[]]
    for k in range(1, _TERMS + 1):  # k U_k = Σ_j j c_j U_{k−j}
        new = list(u[k])
        for j in range(1, k):
            for i, c in enumerate(logs[j]):
                for n, d in enumerate(u[k - j]):
                    new[i + n] -= Fraction(j, k) * c * d
        logs.append(new)
    return logs[1:]
