"""The linear-Gaussian model x = W z + b + noise: exact evidence and posterior, and what its estimators share."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import numpy as np
import torch
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from pyro_lvm.exact._estimator import (
    LOG_2PI,
    Array,
    Density,
    as_data,
    check_count,
    check_integer,
    check_real,
    generator,
    in_kind,
    warn_not_converged,
)

BLOCK = 2**19  # numbers of data worked on at a time: 4 MiB, to stay in a processor's cache


def log_evidence(x: Tensor, weight: Tensor, mean: Tensor, noise_variance: Tensor | float) -> Tensor:
    r"""Log evidence of the linear-Gaussian model, without ever forming its D x D covariance.

    $$\log p(x) = \log N(x; b, W W^T + \Psi), \qquad \Psi = \sigma^2 I \text{ or a diagonal}$$

    With P = I + Wᵀ Ψ⁻¹ W and the posterior mean m = P⁻¹ Wᵀ Ψ⁻¹ (x − b), Woodbury's identity in its residual form reads
    (x − b)ᵀ C⁻¹ (x − b) = ‖Ψ^{-1/2} (x − b − W m)‖² + ‖m‖²: a sum of squares, so no digits cancel at small noise. The
    determinant lemma gives log |C| = log |Ψ| + log |P|. Cost O(D M) per datum. Differentiable in every argument.

    Args:
        x: data (..., D), in any units.
        weight: W, shape (D, M), the data's units.
        mean: b, shape (D,), the data's units.
        noise_variance: σ² > 0 (a number or scalar tensor: probabilistic PCA) or the diagonal of Ψ, shape (D,) (factor
            analysis), in the data's units squared.

    Returns:
        log p(x) in nats, shape (...), in the dtype of x.

    Raises:
        ValueError: shapes that do not fit one another, or a number `noise_variance` that is not above zero.

    References:
        M. E. Tipping and C. M. Bishop (1999). Probabilistic principal component analysis.

    >>> import torch
    >>> x, weight = torch.tensor([[1.0, 0.0], [0.0, 2.0]]), torch.tensor([[1.0], [1.0]])
    >>> log_evidence(x, weight, torch.zeros(2), noise_variance=1.0)
    tensor([-2.7205, -3.7205])
    """
    deviation, psi, covariance, log_det = _evidence_parts(x, weight, mean, noise_variance)
    z = deviation @ (weight / psi[:, None] @ covariance)  # (..., M)
    residual = deviation - z @ weight.mT  # (..., D)
    distance = residual.square() @ psi.reciprocal() + z.square().sum(-1)
    return -0.5 * (x.shape[-1] * LOG_2PI + log_det + distance)


def posterior(x: Tensor, weight: Tensor, mean: Tensor, noise_variance: Tensor | float) -> tuple[Tensor, Tensor]:
    r"""Exact posterior of the linear-Gaussian model.

    $$p(z | x) = N(P^{-1} W^T \Psi^{-1} (x - b), P^{-1}), \qquad P = I + W^T \Psi^{-1} W$$

    With Ψ = σ² I the covariance is σ² (Wᵀ W + σ² I)⁻¹; it is the same for every datum.

    Args:
        x: data (..., D).
        weight: W, shape (D, M).
        mean: b, shape (D,).
        noise_variance: σ² > 0, a number or scalar tensor, or the diagonal of Ψ, shape (D,).

    Returns:
        The mean, shape (..., M), and the covariance, shape (M, M), in units of z (the prior's standard deviations).

    Raises:
        ValueError: shapes that do not fit one another, or a number `noise_variance` that is not above zero.

    References:
        M. E. Tipping and C. M. Bishop (1999). Probabilistic principal component analysis.

    >>> import torch
    >>> loc, covariance = posterior(torch.ones(1, 2), torch.ones(2, 1), torch.zeros(2), noise_variance=1.0)
    >>> loc, covariance
    (tensor([[0.6667]]), tensor([[0.3333]]))
    """
    deviation, psi, covariance, _ = _evidence_parts(x, weight, mean, noise_variance)
    return deviation @ (weight / psi[:, None] @ covariance), covariance


def _evidence_parts(
    x: Tensor, weight: Tensor, mean: Tensor, noise_variance: Tensor | float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return x − b (..., D), the diagonal of Ψ (D,), P⁻¹ (M, M) and log |C|."""
    if weight.ndim != 2 or x.ndim == 0 or x.shape[-1] != weight.shape[0] or mean.shape != weight.shape[:1]:
        raise ValueError(
            "'weight' must have shape (D, M) for 'x' of shape (..., D) and 'mean' of shape (D,), got "
            f"{tuple(weight.shape)}, {tuple(x.shape)} and {tuple(mean.shape)}: transpose or flatten one of them."
        )
    psi = torch.as_tensor(noise_variance, dtype=weight.dtype, device=weight.device)
    if psi.shape not in (torch.Size([]), mean.shape):
        raise ValueError(
            f"'noise_variance' must be a number or have shape {tuple(mean.shape)}, got {tuple(psi.shape)}: "
            "pass one variance, or one per feature."
        )
    if not isinstance(noise_variance, Tensor):  # the values of tensors are left alone, for compilers and devices
        check_real("noise_variance", noise_variance, 0.0, strict=True)
    psi = psi.expand_as(mean)
    factor, covariance = _posterior_covariance(weight, psi)
    log_det = psi.log().sum() + 2.0 * factor.diagonal().log().sum()
    return x - mean, psi, covariance, log_det


def _posterior_covariance(weight: Tensor, psi: Tensor) -> tuple[Tensor, Tensor]:
    """Return the Cholesky factor of P = I + Wᵀ Ψ⁻¹ W, and P⁻¹."""
    identity = torch.eye(weight.shape[1], dtype=weight.dtype, device=weight.device)
    factor = torch.linalg.cholesky(identity + weight.mT @ (weight / psi[:, None]))  # (M, M)
    return factor, torch.cholesky_inverse(factor)


def kl_normal(loc_q: Tensor, cov_q: Tensor, loc_p: Tensor, cov_p: Tensor) -> Tensor:
    r"""Kullback-Leibler divergence between multivariate normals, the gap of a normal guide where p is the posterior.

    $$KL(q \| p) = \tfrac12 \left[ \mathrm{tr}(S_p^{-1} S_q) + (m_p - m_q)^T S_p^{-1} (m_p - m_q) - M
    + \log |S_p| - \log |S_q| \right]$$

    Args:
        loc_q: means of q, shape (..., M).
        cov_q: covariances of q, shape (..., M, M).
        loc_p: means of p, shape (..., M).
        cov_p: covariances of p, shape (..., M, M). Leading shapes broadcast.

    Returns:
        KL(q ‖ p) in nats, of the broadcast leading shape. Differentiable in every argument.

    Raises:
        torch.linalg.LinAlgError: a covariance that is not positive definite.

    References:
        S. Kullback and R. A. Leibler (1951). On information and sufficiency.

    >>> import torch
    >>> kl_normal(torch.zeros(2), torch.eye(2), torch.ones(2), torch.eye(2))
    tensor(1.)
    """
    factor_q, factor_p = torch.linalg.cholesky(cov_q), torch.linalg.cholesky(cov_p)
    ratio = torch.linalg.solve_triangular(factor_p, factor_q, upper=False)  # (..., M, M)
    shift = torch.linalg.solve_triangular(factor_p, (loc_p - loc_q).unsqueeze(-1), upper=False).squeeze(-1)  # (..., M)
    log_det = 2.0 * ratio.diagonal(dim1=-2, dim2=-1).log().sum(-1)
    return 0.5 * (ratio.square().sum((-2, -1)) + shift.square().sum(-1) - loc_q.shape[-1] - log_det)


def centred_root(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean (D,) and a matrix R of min(N, D) rows with Rᵀ R = Σ (x − mean)(x − mean)ᵀ.

    A linear-Gaussian likelihood sees the data through this matrix only, and R is never larger than the data.
    """
    mean = x.mean(0)
    deviation = x - mean
    root = torch.linalg.qr(deviation, mode="r").R if len(x) > x.shape[1] else deviation
    return mean, root


class LinearGaussian(Density):
    """Abstract: a fitted x = W z + b + noise with `weight_` (D, M), `mean_` (D,) and `noise_variance_` (() or (D,))."""

    n_components: int
    noise_floor: float
    weight_: Tensor
    noise_variance_: Tensor

    def posterior(self, X: Array) -> tuple[Array, Array]:
        """Return the mean (N, M) and the covariance (M, M) of p(z | x), the latter shared by all data."""
        loc, covariance = posterior(self._read(X), self.weight_, self.mean_, self.noise_variance_)
        return in_kind(X, loc), in_kind(X, covariance)

    def transform(self, X: Array) -> Array:
        """Return the posterior means of z, shape (N, M)."""
        return self.posterior(X)[0]

    def score_samples(self, X: Array) -> Array:
        """Return log p(x) in nats, one per datum, shape (N,)."""
        blocks = self._read(X).split(max(1, BLOCK // self._features()))
        parts = [log_evidence(x, self.weight_, self.mean_, self.noise_variance_) for x in blocks]
        return in_kind(X, torch.cat(parts))

    def sample(self, n_samples: int = 1) -> Any:
        """Return draws of x, shape (n_samples, D), of the kind of array that fit was given; the same at every call."""
        check_is_fitted(self)
        check_integer("n_samples", n_samples, 1)
        own = generator(self.random_state)
        features, latents = self.weight_.shape
        z = torch.randn(n_samples, latents, generator=own, dtype=torch.float64).to(self._device())
        noise = torch.randn(n_samples, features, generator=own, dtype=torch.float64).to(self._device())
        return self._handed_out(z @ self.weight_.mT + self.mean_ + noise * self.noise_variance_.sqrt())

    def _features(self) -> int:
        return len(self.weight_)

    def _device(self) -> torch.device:
        return self.weight_.device

    def _read_training(self, X: np.ndarray | Tensor) -> tuple[Tensor, int, float]:
        """Return valid training data, the number of components and the floor of the noise variance."""
        x = as_data(X)
        if x.shape[1] < 2:
            raise ValueError("'X' must have at least 2 features, got 1: a latent needs fewer dimensions than the data.")
        components = check_integer(
            "n_components", self.n_components, 1, x.shape[1] - 1, fix="a latent needs fewer dimensions than the data"
        )
        check_count(x, components + 1)
        generator(self.random_state)
        self._tensors = isinstance(X, Tensor)
        return x, components, check_real("noise_floor", self.noise_floor, 0.0)

    def _check_noise(self, noise: Tensor, variance: Tensor) -> None:
        """Raise where the likelihood has no maximum; only a floor of zero lets this happen."""
        if bool((noise <= 10 * torch.finfo(torch.float64).eps * variance.max()).any()):
            raise ValueError(
                "'noise_floor' must be above 0 for data that the components explain without noise, got "
                f"{self.noise_floor}: the likelihood is unbounded; set noise_floor to the variance of the measurement."
            )


class LinearGaussianEM(LinearGaussian):
    """Abstract: the expectation-maximisation loop of both noise models, which differ in `_noise` alone."""

    max_iter: int
    tol: float
    log_likelihoods_: Tensor
    n_iter_: int
    converged_: bool

    @torch.no_grad()
    def fit(self, X: np.ndarray | Tensor, y: None = None) -> Any:
        """Fit by expectation-maximisation to data of shape (N, D) or (N, *trailing), and return self."""
        x, components, floor = self._read_training(X)
        max_iter, tol = check_integer("max_iter", self.max_iter, 1), check_real("tol", self.tol, 0.0)
        self.mean_, root = centred_root(x)
        variance = root.square().sum(0) / len(x)  # (D,)
        psi = self._noise(variance).clamp(min=floor)
        self._check_noise(psi, variance)
        draws = torch.randn(x.shape[1], components, generator=generator(self.random_state), dtype=torch.float64)
        weight = draws.to(x.device) * (variance.mean() / components).sqrt()  # (D, M)
        trace: list[float] = []
        for _ in range(max_iter + 1):
            log_likelihood, new_weight, residual = _em_step(root, len(x), variance, weight, psi)
            trace.append(log_likelihood)
            self.converged_ = len(trace) > 1 and abs(trace[-1] - trace[-2]) < tol
            if self.converged_ or len(trace) > max_iter:
                break
            weight, psi = new_weight, self._noise(residual).clamp(min=floor)
            self._check_noise(psi, variance)
        self.weight_, self.noise_variance_ = weight, psi if psi.numel() > 1 else psi.squeeze()
        self.log_likelihoods_, self.n_iter_ = torch.tensor(trace, dtype=torch.float64), len(trace) - 1
        if not self.converged_:
            warn_not_converged(self)
        return self

    @abstractmethod
    def _noise(self, residual: Tensor) -> Tensor:
        """Return the noise variance that maximises the expected log-likelihood, from the residual's, shape (D,)."""


def _em_step(root: Tensor, n: int, variance: Tensor, weight: Tensor, psi: Tensor) -> tuple[float, Tensor, Tensor]:
    """Return the mean log-likelihood of (weight, psi), the next weight and the residual variances (D,)."""
    psi = psi.expand_as(variance)
    factor, covariance = _posterior_covariance(weight, psi)
    z = root @ (weight / psi[:, None]) @ covariance  # (n', M), the posterior means
    distance = ((root - z @ weight.mT).square() / psi).sum() + z.square().sum()
    log_det = psi.log().sum() + 2.0 * factor.diagonal().log().sum()
    log_likelihood = -0.5 * (len(variance) * LOG_2PI + log_det + distance / n)
    moment = covariance + z.mT @ z / n  # (M, M), the mean of E[z zᵀ]
    cross = root.mT @ z / n  # (D, M), the mean of (x − b) E[z]ᵀ
    moment_factor = torch.linalg.cholesky(moment)
    next_weight = torch.cholesky_solve(cross.mT, moment_factor).mT  # (D, M)
    residual = variance - (next_weight * cross).sum(1)
    # Parameter expansion (Liu, Rubin and Wu 1998): let the prior of z have a covariance of its own in the M-step, then
    # absorb it into the weight. As monotone as plain EM, at the same cost, and much faster.
    return log_likelihood.item(), next_weight @ moment_factor, residual
