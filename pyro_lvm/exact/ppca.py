"""Probabilistic principal component analysis: maximum likelihood in closed form, and by EM."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from pyro_lvm.exact.linear_gaussian import LinearGaussian, LinearGaussianEM, centred_root


class ProbabilisticPCA(LinearGaussian):
    r"""Probabilistic PCA by maximum likelihood, in closed form.

    .. math:: z \sim N(0, I_M), \quad x | z \sim N(W z + b, \sigma^2 I_D), \quad
              \log p(x) = \log N(x; b, W W^T + \sigma^2 I)

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
        self.mean_, root = centred_root(x)
        values, directions = _principal(root, len(x))
        total = root.square().sum() / len(x)  # the trace of the covariance, zero eigenvalues included
        noise = ((total - values[:components].sum()) / (features - components)).clamp(min=floor)
        self._check_noise(noise, values)
        scale = (values[:components] - noise).clamp(min=0.0).sqrt()
        weight = directions[:, :components] * scale  # (D, M)
        largest = weight.abs().argmax(0, keepdim=True)
        self.weight_ = weight * weight.gather(0, largest).sign()
        self.noise_variance_ = noise
        return self


def _principal(root: Tensor, n: int) -> tuple[Tensor, Tensor]:
    """Return eigenvalues of the sample covariance, largest first, and eigenvectors (D, n') as columns."""
    rows, features = root.shape
    if rows == features:
        _, singular, directions = torch.linalg.svd(root, full_matrices=False)
        return singular.square() / n, directions.mT
    values, vectors = torch.linalg.eigh(root @ root.mT)  # (n', n'): fewer data than features
    values, vectors = values.flip(0).clamp(min=0.0), vectors.flip(1)
    # Directions without variance are never used: their weight is zero. The clamp only keeps them finite.
    directions = root.mT @ (vectors / values.clamp(min=torch.finfo(torch.float64).tiny).sqrt())
    return values / n, directions


class ProbabilisticPCAEM(LinearGaussianEM):
    r"""Probabilistic PCA by expectation-maximisation, for data too wide or too many for an eigendecomposition.

    .. math:: z \sim N(0, I_M), \quad x | z \sim N(W z + b, \sigma^2 I_D), \quad
              \log p(x) = \log N(x; b, W W^T + \sigma^2 I)

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
