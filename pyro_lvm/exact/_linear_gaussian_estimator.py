"""What the estimators of linear-Gaussian models share."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import numpy as np
import torch
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from pyro_lvm.exact._estimator import (
    Array,
    Density,
    as_data,
    check_count,
    generator,
    in_kind,
    warn_not_converged,
)
from pyro_lvm.exact._numbers import LOG_2PI, check_integer, check_real
from pyro_lvm.exact.linear_gaussian import log_evidence, posterior, posterior_covariance

BLOCK = 2**19  # numbers of data worked on at a time: 4 MiB, to stay in a processor's cache


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
    factor, covariance = posterior_covariance(weight, psi)
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
