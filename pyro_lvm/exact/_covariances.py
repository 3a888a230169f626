"""The four shapes of a mixture's covariances: how each is estimated, floored, and divided by.

Throughout, deviations have shape (K, n, D): n data less each of K means. Data come in blocks small enough for the
processor's cache, and every product is taken of deviations, never of raw second moments, so that no digits cancel in
clusters that are narrow and far apart.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator

import torch
from torch import Tensor

from pyro_lvm.exact._estimator import LOG_2PI

# Numbers in one block of deviations: 1 MiB, to stay in a processor's cache; an accelerator wants more work at a time.
_BLOCK, _ACCELERATOR_BLOCK = 2**17, 2**24

EMPTY = 10 * torch.finfo(torch.float64).eps  # a component with no more data than this has none


class Covariance(ABC):
    """Abstract: one shape of K covariances, in scikit-learn's layout."""

    @abstractmethod
    def shape(self, components: int, features: int) -> tuple[int, ...]:
        """Return the layout's shape."""

    def keep_empty(self, covariances: Tensor, empty: Tensor, previous: Tensor) -> Tensor:
        """Return covariances, but the previous ones of components without data; `empty` is (K,)."""
        return previous.where(empty.reshape(-1, *[1] * (covariances.ndim - 1)), covariances)

    @abstractmethod
    def smallest(self, covariances: Tensor) -> float:
        """Return the smallest eigenvalue of any component."""

    @abstractmethod
    def scatter(self, deviation: Tensor, responsibility: Tensor) -> Tensor:
        """Return Σ_n r_kn d_kn d_knᵀ, or its diagonal; responsibilities are (K, n)."""

    @abstractmethod
    def estimate(self, scatter: Tensor, counts: Tensor, floor: float) -> Tensor:
        """Return the covariances of largest likelihood with no eigenvalue under the floor; finite for empty ones."""

    @abstractmethod
    def whitener(self, covariances: Tensor) -> tuple[Tensor, Tensor]:
        """Return what `whiten` multiplies with, and log |Σ_k| (K or 1,); NaN or infinity where singular."""

    @abstractmethod
    def whiten(self, deviation: Tensor, whitener: Tensor) -> Tensor:
        """Return deviations in units of each component's standard deviations, (K, n, D)."""

    @abstractmethod
    def colour(self, white: Tensor, labels: Tensor, covariances: Tensor) -> Tensor:
        """Return standard normal draws (n, D) with the covariances of their components."""


class _Matrix(Covariance):
    """Abstract: covariances that are matrices."""

    def scatter(self, deviation: Tensor, responsibility: Tensor) -> Tensor:
        return (responsibility.unsqueeze(-1) * deviation).mT @ deviation  # (K, D, D)

    def whitener(self, covariances: Tensor) -> tuple[Tensor, Tensor]:
        factor, info = torch.linalg.cholesky_ex(covariances.reshape(-1, *covariances.shape[-2:]))  # (K or 1, D, D)
        identity = torch.eye(factor.shape[-1], dtype=factor.dtype, device=factor.device)
        inverse = torch.linalg.solve_triangular(factor, identity.expand_as(factor), upper=False)
        log_det = 2.0 * factor.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        return inverse.mT.contiguous(), log_det.where(info == 0, torch.nan)

    def whiten(self, deviation: Tensor, whitener: Tensor) -> Tensor:
        return deviation @ whitener

    def smallest(self, covariances: Tensor) -> float:
        if not torch.allclose(covariances, covariances.mT):
            raise ValueError("'covariances_init' must be symmetric, got matrices that are not: use (S + S.T) / 2.")
        return torch.linalg.eigvalsh(covariances).min().item()


class Full(_Matrix):
    """A matrix of each component's own: (K, D, D)."""

    def shape(self, components: int, features: int) -> tuple[int, ...]:
        """Return the layout's shape."""
        return components, features, features

    def estimate(self, scatter: Tensor, counts: Tensor, floor: float) -> Tensor:
        """Return each component's scatter over its count, floored."""
        return _clamp_eigenvalues(scatter / counts.clamp(min=EMPTY)[:, None, None], floor)

    def colour(self, white: Tensor, labels: Tensor, covariances: Tensor) -> Tensor:
        """Return draws times their component's Cholesky factor."""
        factors = torch.linalg.cholesky(covariances)
        return (factors[labels] @ white.unsqueeze(-1)).squeeze(-1)


class Tied(_Matrix):
    """One matrix that all components share: (D, D)."""

    def shape(self, components: int, features: int) -> tuple[int, ...]:
        """Return the layout's shape."""
        return features, features

    def keep_empty(self, covariances: Tensor, empty: Tensor, previous: Tensor) -> Tensor:
        """Return covariances: a component without data leaves no trace in the shared matrix."""
        return covariances

    def estimate(self, scatter: Tensor, counts: Tensor, floor: float) -> Tensor:
        """Return the scatter of all components over the number of data, floored."""
        return _clamp_eigenvalues(scatter.sum(0) / counts.sum(), floor)

    def colour(self, white: Tensor, labels: Tensor, covariances: Tensor) -> Tensor:
        """Return draws times the shared Cholesky factor."""
        return white @ torch.linalg.cholesky(covariances).mT


class _Vector(Covariance):
    """Abstract: covariances that are diagonal."""

    def scatter(self, deviation: Tensor, responsibility: Tensor) -> Tensor:
        return (responsibility.unsqueeze(1) @ deviation.square()).squeeze(1)  # (K, D)

    def whiten(self, deviation: Tensor, whitener: Tensor) -> Tensor:
        return deviation * whitener.unsqueeze(1)

    def smallest(self, covariances: Tensor) -> float:
        return covariances.min().item()


class Diagonal(_Vector):
    """A variance per component and feature: (K, D)."""

    def shape(self, components: int, features: int) -> tuple[int, ...]:
        """Return the layout's shape."""
        return components, features

    def estimate(self, scatter: Tensor, counts: Tensor, floor: float) -> Tensor:
        """Return each component's diagonal of the scatter over its count, floored."""
        return (scatter / counts.clamp(min=EMPTY)[:, None]).clamp(min=floor)

    def whitener(self, covariances: Tensor) -> tuple[Tensor, Tensor]:
        """Return the inverse standard deviations and log-determinants."""
        return covariances.rsqrt(), covariances.log().sum(-1)

    def colour(self, white: Tensor, labels: Tensor, covariances: Tensor) -> Tensor:
        """Return draws times their component's standard deviations."""
        return white * covariances[labels].sqrt()


class Spherical(_Vector):
    """A variance per component: (K,)."""

    def __init__(self, features: int) -> None:
        self.features = features

    def shape(self, components: int, features: int) -> tuple[int, ...]:
        """Return the layout's shape."""
        return (components,)

    def estimate(self, scatter: Tensor, counts: Tensor, floor: float) -> Tensor:
        """Return each component's mean variance over the features, floored."""
        return (scatter.mean(-1) / counts.clamp(min=EMPTY)).clamp(min=floor)

    def whitener(self, covariances: Tensor) -> tuple[Tensor, Tensor]:
        """Return the inverse standard deviation and log-determinants."""
        return covariances.rsqrt().unsqueeze(1), self.features * covariances.log()

    def colour(self, white: Tensor, labels: Tensor, covariances: Tensor) -> Tensor:
        """Return draws times their component's standard deviation."""
        return white * covariances[labels].sqrt().unsqueeze(1)


COVARIANCE_TYPES = ("full", "tied", "diag", "spherical")


def covariance_of(covariance_type: str, features: int) -> Covariance:
    """Return the layout of a (valid) covariance type."""
    kinds: dict[str, Covariance] = {
        "full": Full(),
        "tied": Tied(),
        "diag": Diagonal(),
        "spherical": Spherical(features),
    }
    return kinds[covariance_type]


def _clamp_eigenvalues(matrices: Tensor, floor: float) -> Tensor:
    """Return symmetric matrices (..., D, D) with eigenvalues below the floor raised to it.

    This is the maximum of −log |Σ| − tr(Σ⁻¹ S) under the constraint, so EM with it stays monotone.
    """
    matrices = 0.5 * (matrices + matrices.mT)
    shifted = matrices - floor * torch.eye(matrices.shape[-1], dtype=matrices.dtype, device=matrices.device)
    below = torch.linalg.cholesky_ex(shifted).info > 0  # a Cholesky factor costs a tenth of the eigenvalues
    if not bool(below.any()):
        return matrices
    values, vectors = torch.linalg.eigh(matrices)
    clamped = (vectors * values.clamp(min=floor).unsqueeze(-2)) @ vectors.mT
    return torch.where(below[..., None, None], clamped, matrices)


def blocks(x: Tensor, means: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Yield slices of the data, and the deviations (K, n, D) of the data in them from each mean."""
    rows = max(1, (_BLOCK if x.device.type == "cpu" else _ACCELERATOR_BLOCK) // means.numel())
    for start in range(0, len(x), rows):
        chosen = slice(start, start + rows)
        yield chosen, x[chosen] - means[:, None]


def squared_distances(x: Tensor, means: Tensor, whitener: Tensor, kind: Covariance) -> Tensor:
    """Return the squared Mahalanobis distances of data from means, shape (K, N)."""
    return torch.cat([_squared_norm(kind.whiten(d, whitener)) for _, d in blocks(x, means)], dim=1)


def _squared_norm(y: Tensor) -> Tensor:
    return torch.linalg.vecdot(y, y)


def log_normal_densities(x: Tensor, means: Tensor, covariances: Tensor, kind: Covariance) -> Tensor:
    """Return log N(x_n; μ_k, Σ_k), shape (K, N)."""
    whitener, log_det = kind.whitener(covariances)
    if not bool(torch.isfinite(log_det).all()):
        component = int((~torch.isfinite(log_det)).nonzero()[0])
        raise ValueError(
            "'covariance_floor' must be above 0 for data that a component fits without spread, got the singular "
            f"covariance of component {component}: set it to the variance of the measurement, or use fewer components."
        )
    return -0.5 * (x.shape[1] * LOG_2PI + log_det[:, None] + squared_distances(x, means, whitener, kind))


def scatter_about(x: Tensor, means: Tensor, responsibility: Tensor, kind: Covariance) -> Tensor:
    """Return Σ_n r_kn (x_n − μ_k)(x_n − μ_k)ᵀ or its diagonal, from responsibilities (K, N)."""
    parts = (kind.scatter(deviation, responsibility[:, rows]) for rows, deviation in blocks(x, means))
    total = next(parts)
    for part in parts:
        total += part
    return total
