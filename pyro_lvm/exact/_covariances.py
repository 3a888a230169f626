"""The four shapes of a mixture's covariances: how each is estimated, floored, and divided by.

Throughout, deviations have shape (K, D, n): n data less each of K means, as columns, since sums over D and products
over n then run along contiguous memory. Data come in blocks small enough for the processor's cache, all of a pass's in
one buffer, and no scatter is taken of raw second moments, so that no digits cancel in clusters that are narrow and far
apart.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from pyro_lvm.exact._numbers import LOG_2PI

# Numbers in one block of deviations: 4 MiB, to stay in a processor's cache; an accelerator wants more work at a time.
_BLOCK, _ACCELERATOR_BLOCK = 2**19, 2**24

EMPTY = 10 * torch.finfo(torch.float64).eps  # a component with no more data than this has none


class Columns(NamedTuple):
    """Data as columns about a centre, over a row of ones: one product then shifts by a mean or counts as well."""

    centre: Tensor  # (D,)
    points: Tensor  # (D + 1, N)


def columns(x: Tensor, centre: Tensor) -> Columns:
    """Return data (N, D) as columns; a centre amid the data keeps the digits of data far from the origin."""
    return Columns(centre, torch.cat([(x - centre).mT, x.new_ones(1, len(x))]))


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
    def scatter(self, data: Columns, means: Tensor, responsibility: Tensor) -> Tensor:
        """Return Σ_n r_kn (x_n − μ_k)(x_n − μ_k)ᵀ or its diagonal, from responsibilities (K, N)."""

    @abstractmethod
    def estimate(self, scatter: Tensor, counts: Tensor, floor: float) -> Tensor:
        """Return the covariances of largest likelihood with no eigenvalue under the floor; finite for empty ones."""

    @abstractmethod
    def whitener(self, covariances: Tensor) -> tuple[Tensor, Tensor]:
        """Return what `squared_distances` takes, and log |Σ_k| (K or 1,); NaN or infinity where singular."""

    @abstractmethod
    def squared_distances(self, data: Columns, means: Tensor, whitener: Tensor) -> Tensor:
        """Return the squared Mahalanobis distances of data from means, shape (K, N)."""

    @abstractmethod
    def colour(self, white: Tensor, labels: Tensor, covariances: Tensor) -> Tensor:
        """Return standard normal draws (n, D) with the covariances of their components."""


class _Matrix(Covariance):
    """Abstract: covariances that are matrices."""

    def scatter(self, data: Columns, means: Tensor, responsibility: Tensor) -> Tensor:
        points, shifts = data.points[:-1], _shifts(data, means)
        total = means.new_zeros(*means.shape, means.shape[1])  # (K, D, D)
        for rows, buffer in _blocks(points, shifts):
            deviation = torch.sub(points[:, rows], shifts, out=buffer)  # (K, D, n)
            deviation *= responsibility[:, None, rows].sqrt()
            total.baddbmm_(deviation, deviation.mT)  # a Gram matrix: no rounding makes it indefinite
        return total

    def whitener(self, covariances: Tensor) -> tuple[Tensor, Tensor]:
        factor, info = torch.linalg.cholesky_ex(covariances.reshape(-1, *covariances.shape[-2:]))  # (K or 1, D, D)
        identity = torch.eye(factor.shape[-1], dtype=factor.dtype, device=factor.device)
        inverse = torch.linalg.solve_triangular(factor, identity.expand_as(factor), upper=False)
        log_det = 2.0 * factor.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        return inverse, log_det.where(info == 0, torch.nan)

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

    def squared_distances(self, data: Columns, means: Tensor, whitener: Tensor) -> Tensor:
        """Return the squared norms of L⁻¹ (x − μ), where L Lᵀ = Σ."""
        # All components in one product, [L⁻¹, −L⁻¹ μ] [x; 1]. Its rounding is that of moving x by its last digit: the
        # square is taken after the subtraction, so no more cancels than in x − μ itself.
        shifts = _shifts(data, means)
        whiten = torch.cat([whitener, -(whitener @ shifts)], -1).flatten(0, 1)  # (K D, D + 1)
        distances = means.new_empty(len(means), data.points.shape[1])
        for rows, buffer in _blocks(data.points, shifts):
            out = None if buffer is None else buffer.flatten(0, 1)
            white = torch.mm(whiten, data.points[:, rows], out=out).unflatten(0, means.shape)  # (K, D, n)
            distances[:, rows] = white.square_().sum(1)
        return distances

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

    def squared_distances(self, data: Columns, means: Tensor, whitener: Tensor) -> Tensor:
        """Return the squared distances between L⁻¹ x and L⁻¹ μ, where L Lᵀ = Σ."""
        distances = means.new_empty(len(means), data.points.shape[1])
        for rows, square in _squares(whitener[0] @ data.points[:-1], whitener[0] @ _shifts(data, means)):
            distances[:, rows] = square.sum(1)
        return distances

    def colour(self, white: Tensor, labels: Tensor, covariances: Tensor) -> Tensor:
        """Return draws times the shared Cholesky factor."""
        return white @ torch.linalg.cholesky(covariances).mT


class _Vector(Covariance):
    """Abstract: covariances that are diagonal."""

    def scatter(self, data: Columns, means: Tensor, responsibility: Tensor) -> Tensor:
        total = torch.zeros_like(means)  # (K, D)
        for rows, square in _squares(data.points[:-1], _shifts(data, means)):
            total += square.mul_(responsibility[:, None, rows]).sum(-1)
        return total

    def squared_distances(self, data: Columns, means: Tensor, whitener: Tensor) -> Tensor:
        precision = whitener.expand_as(means).unsqueeze(1)  # (K, 1, D)
        distances = means.new_empty(len(means), data.points.shape[1])
        for rows, square in _squares(data.points[:-1], _shifts(data, means)):
            distances[:, rows] = (precision @ square).squeeze(1)
        return distances

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
        """Return the precisions and log-determinants."""
        return covariances.reciprocal(), covariances.log().sum(-1)

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
        """Return the precision and log-determinants."""
        return covariances.reciprocal().unsqueeze(1), self.features * covariances.log()

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


def _shifts(data: Columns, means: Tensor) -> Tensor:
    """Return the means about the data's centre, as columns (K, D, 1)."""
    return (means - data.centre).unsqueeze(-1)


def _blocks(points: Tensor, shifts: Tensor) -> Iterator[tuple[slice, Tensor | None]]:
    """Yield slices of points (D, N), and a buffer (K, D, n) for their deviations from shifts (K, D, 1).

    One buffer serves all blocks: fresh memory costs more than the sums that fill it. Where a gradient is asked for,
    there is none, since autograd keeps what a buffer would overwrite.
    """
    count = points.shape[1]
    size = _BLOCK if points.device.type == "cpu" else _ACCELERATOR_BLOCK
    width = min(count, max(1, size // shifts.numel()))
    recorded = torch.is_grad_enabled() and (points.requires_grad or shifts.requires_grad)
    memory = None if recorded else points.new_empty(shifts.numel() * width)
    for start in range(0, count, width):
        n = min(width, count - start)
        buffer = None if memory is None else memory[: shifts.numel() * n].view(*shifts.shape[:2], n)
        yield slice(start, start + n), buffer


def _squares(points: Tensor, shifts: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Yield slices of points (D, N) and their squared deviations (K, D, n) from shifts, which the next overwrite."""
    for rows, buffer in _blocks(points, shifts):
        yield rows, torch.sub(points[:, rows], shifts, out=buffer).square_()


def log_normal_densities(data: Columns, means: Tensor, covariances: Tensor, kind: Covariance) -> Tensor:
    """Return log N(x_n; μ_k, Σ_k), shape (K, N)."""
    whitener, log_det = kind.whitener(covariances)
    if not bool(torch.isfinite(log_det).all()):
        component = int((~torch.isfinite(log_det)).nonzero()[0])
        raise ValueError(
            "'covariance_floor' must be above 0 for data that a component fits without spread, got the singular "
            f"covariance of component {component}: set it to the variance of the measurement, or use fewer components."
        )
    constant = -0.5 * (means.shape[1] * LOG_2PI + log_det)
    return kind.squared_distances(data, means, whitener).mul_(-0.5).add_(constant[:, None])
