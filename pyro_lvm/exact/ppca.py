"""Probabilistic principal component analysis: maximum likelihood in closed form, and by EM."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import cache

import numpy as np
import scipy.linalg
import torch
from threadpoolctl import ThreadpoolController
from torch import Tensor

from pyro_lvm.exact._linear_gaussian_estimator import LinearGaussian, LinearGaussianEM

_SHARE = 2**21  # the fewest numbers that repay another thread
_BLOCK = 2**12  # rows multiplied at a time


class ProbabilisticPCA(LinearGaussian):
    r"""Probabilistic PCA by maximum likelihood, in closed form.

    $$z \sim N(0, I_M), \quad x | z \sim N(W z + b, \sigma^2 I_D), \quad
    \log p(x) = \log N(x; b, W W^T + \sigma^2 I)$$

    b is the mean, σ² the mean of the D − M smallest eigenvalues of the sample covariance (divided by N), and
    W = U_M (Λ_M − σ² I)^{1/2}, each column signed so that its largest entry is positive. Where N < D no D × D matrix is
    formed: the N × N Gram matrix has the same eigenvalues.

    Args:
        n_components: M, the dimension of z, 1 ≤ M < D and M < N.
        noise_floor: the smallest σ² allowed, in the data's units squared. Where it binds (data of rank M or less), the
            fit is the maximum under this constraint. With 0 such data raise, as their likelihood is unbounded.
        random_state: seed of `sample`.

    Attributes:
        weight_: W, shape (D, M), the data's units.
        mean_: b, shape (D,).
        noise_variance_: σ², a scalar tensor, the data's units squared.

    `fit` takes (N, D) or (N, *trailing) arrays or tensors. `score_samples` gives log p(x) in nats, `posterior` the mean
    (N, M) and covariance σ² (Wᵀ W + σ² I)⁻¹ of p(z | x), `transform` the former, `sample` draws of x.

    Raises:
        ValueError: data that are empty, not finite, too few or of one feature; n_components outside 1..D−1; rank
            deficient data with noise_floor=0.
        TypeError: arguments or data that are not numbers.

    References:
        M. E. Tipping and C. M. Bishop (1999). Probabilistic principal component analysis.

    >>> import torch
    >>> x = torch.randn(500, 3, generator=torch.Generator().manual_seed(0)) * torch.tensor([3.0, 1.0, 1.0])
    >>> pca = ProbabilisticPCA(n_components=1).fit(x)
    >>> pca.weight_.shape, pca.transform(x).shape, round(pca.noise_variance_.item(), 2)
    (torch.Size([3, 1]), torch.Size([500, 1]), 1.07)
    """

    def __init__(self, n_components: int, *, noise_floor: float = 1e-6, random_state: int = 0) -> None:
        self.n_components = n_components
        self.noise_floor = noise_floor
        self.random_state = random_state

    @torch.no_grad()
    def fit(self, X: np.ndarray | Tensor, y: None = None) -> ProbabilisticPCA:
        """Fit in closed form to data of shape (N, D) or (N, *trailing), and return self."""
        x, components, floor = self._read_training(X)
        features = x.shape[1]
        # A thread of ours for a share of the data is faster than the threads of BLAS, which would spin in its way.
        with _threadpools().limit(limits=1, user_api="blas"):
            self.mean_, total, values, directions = _principal(x, components)
        noise = ((total - values.sum()) / (features - components)).clamp(min=floor)
        self._check_noise(noise, values)
        weight = directions * (values - noise).clamp(min=0.0).sqrt()  # (D, M)
        largest = weight.abs().argmax(0, keepdim=True)
        self.weight_ = weight * weight.gather(0, largest).sign()
        self.noise_variance_ = noise
        return self


def _principal(x: Tensor, components: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the mean, the trace of the sample covariance, its M largest eigenvalues, and their eigenvectors (D, M).

    They are those of the smaller Gram matrix, of features or of data. Its eigenvalues are known to the rounding of the
    largest, and so is the noise, a difference of traces, by any route.
    """
    tall = len(x) > x.shape[1]
    mean, gram = _scatter(x) if tall else (x.mean(0), _sums((x - x.mean(0)).mT)[1])  # (n', n'), n' = min(N, D)
    # Of the eigenvectors only M: most of the time of a whole decomposition goes into the others.
    wanted = (len(gram) - components, len(gram) - 1)
    pairs = scipy.linalg.eigh(gram.cpu().numpy(), subset_by_index=wanted, driver="evr")
    values, vectors = (torch.from_numpy(np.flip(part, -1).copy()).to(x.device) for part in pairs)
    values = values.clamp(min=0.0)
    if not tall:
        # Directions without variance are never used: their weight is zero. The clamp only keeps them finite.
        vectors = (x - mean).mT @ (vectors / values.clamp(min=torch.finfo(torch.float64).tiny).sqrt())
    return mean, gram.trace() / len(x), values / len(x), vectors


def _scatter(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean b and Σ_n (x_n − b)(x_n − b)ᵀ.

    Where ‖b‖² is no more than ten times the variance, Σ x xᵀ − N b bᵀ loses one digit at most and needs no copy of the
    data; elsewhere, as for data far from the origin, the data are centred first, which refines the mean as well.
    """
    mean, scatter = _moments(x)
    if bool(len(x) * mean.square().sum() <= 10.0 * scatter.trace()):
        return mean, scatter
    shift, scatter = _moments(x - mean)
    return mean + shift, scatter


def _moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean b and Σ x xᵀ − N b bᵀ."""
    total, gram = _sums(x)
    mean = total / len(x)
    return mean, gram - len(x) * torch.outer(mean, mean)


def _sums(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return Σ x_n and Σ x_n x_nᵀ; numpy sees that a product is symmetric and halves the work, torch does not."""
    if x.device.type != "cpu":
        return x.sum(0), x.mT @ x
    data = x.detach().numpy()
    workers = max(1, min(torch.get_num_threads(), data.size // _SHARE))
    with ThreadPoolExecutor(workers) as pool:
        totals, grams = zip(*pool.map(_share_of_sums, np.array_split(data, workers)), strict=True)
    return torch.from_numpy(sum(totals)), torch.from_numpy(sum(grams))


def _share_of_sums(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    blocks = [rows[start : start + _BLOCK] for start in range(0, len(rows), _BLOCK)]
    parts = [(block.T @ block, block.sum(0)) for block in blocks]  # summed while they are in the cache
    grams, totals = zip(*parts, strict=True)
    return sum(totals), sum(grams)


@cache
def _threadpools() -> ThreadpoolController:
    return ThreadpoolController()  # finding the libraries takes longer than a small fit


class ProbabilisticPCAEM(LinearGaussianEM):
    r"""Probabilistic PCA by expectation-maximisation, for data too wide or too many for an eigendecomposition.

    $$z \sim N(0, I_M), \quad x | z \sim N(W z + b, \sigma^2 I_D), \quad
    \log p(x) = \log N(x; b, W W^T + \sigma^2 I)$$

    Each iteration costs O(min(N, D) D M) and forms no D × D matrix unless N > D, when it is smaller than the data.
    Parameter expansion speeds it up and keeps the log-likelihood from falling. W is found up to a rotation of z.

    Args:
        n_components: M, the dimension of z, 1 ≤ M < D and M < N.
        max_iter: the most iterations.
        tol: the change of the mean log-likelihood, in nats per datum, below which the fit has converged.
        noise_floor: the smallest σ² allowed, in the data's units squared; where it binds, the fit is the maximum under
            this constraint.
        random_state: seed of the starting W and of `sample`.

    Attributes:
        weight_: W, shape (D, M), the data's units.
        mean_: b, shape (D,).
        noise_variance_: σ², a scalar tensor, the data's units squared.
        log_likelihoods_: mean log p(x) in nats per datum, shape (n_iter_ + 1,), from the start to the fit.
        n_iter_: the number of iterations.
        converged_: whether `tol` was reached; where not, a ConvergenceWarning is given.

    Raises:
        ValueError: data that are empty, not finite, too few or of one feature; n_components outside 1..D−1; rank
            deficient data with noise_floor=0.
        TypeError: arguments or data that are not numbers.

    References:
        M. E. Tipping and C. M. Bishop (1999). Probabilistic principal component analysis.
        C. Liu, D. B. Rubin and Y. N. Wu (1998). Parameter expansion to accelerate EM: the PX-EM algorithm.

    >>> import torch
    >>> x = torch.randn(500, 3, generator=torch.Generator().manual_seed(0)) * torch.tensor([3.0, 1.0, 1.0])
    >>> em, closed = ProbabilisticPCAEM(n_components=1).fit(x), ProbabilisticPCA(n_components=1).fit(x)
    >>> abs(em.score(x) - closed.score(x)) < 1e-6
    True
    """

    def __init__(
        self,
        n_components: int,
        *,
        max_iter: int = 1000,
        tol: float = 1e-8,
        noise_floor: float = 1e-6,
        random_state: int = 0,
    ) -> None:
        self.n_components = n_components
        self.max_iter = max_iter
        self.tol = tol
        self.noise_floor = noise_floor
        self.random_state = random_state

    def _noise(self, residual: Tensor) -> Tensor:
        return residual.mean(0, keepdim=True)
