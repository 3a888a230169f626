"""Factor analysis: probabilistic PCA with a noise variance per feature, by EM."""

from __future__ import annotations

from torch import Tensor

from pyro_lvm.exact._linear_gaussian_estimator import LinearGaussianEM


class FactorAnalysis(LinearGaussianEM):
    r"""Factor analysis by expectation-maximisation.

    $$z \sim N(0, I_M), \quad x | z \sim N(W z + b, \Psi), \quad \Psi = \mathrm{diag}(\psi_1 .. \psi_D), \quad
    \log p(x) = \log N(x; b, W W^T + \Psi)$$

    Each iteration costs O(min(N, D) D M). Parameter expansion speeds it up and keeps the log-likelihood from falling. W
    is found up to a rotation of z. Unlike probabilistic PCA, the fit follows any rescaling of single features.

    Args:
        n_components: M, the dimension of z, 1 ≤ M < D and M < N.
        max_iter: the most iterations.
        tol: the change of the mean log-likelihood, in nats per datum, below which the fit has converged.
        noise_floor: the smallest ψ_d allowed, in the data's units squared. It binds at constant features and where
            the factors explain a feature wholly (Heywood cases). EM creeps towards it there, as 1 / iterations, and
            stops `tol` short: raise the floor to the variance of the measurement.
        random_state: seed of the starting W and of `sample`.

    Attributes:
        weight_: W, shape (D, M), the data's units.
        mean_: b, shape (D,).
        noise_variance_: the diagonal of Ψ, shape (D,), the data's units squared.
        log_likelihoods_: mean log p(x) in nats per datum, shape (n_iter_ + 1,), from the start to the fit.
        n_iter_: the number of iterations.
        converged_: whether `tol` was reached; where not, a ConvergenceWarning is given.

    Raises:
        ValueError: data that are empty, not finite, too few or of one feature; n_components outside 1..D−1; a noise
            variance that reaches zero with noise_floor=0.
        TypeError: arguments or data that are not numbers.

    References:
        D. B. Rubin and D. T. Thayer (1982). EM algorithms for ML factor analysis.
        C. Liu, D. B. Rubin and Y. N. Wu (1998). Parameter expansion to accelerate EM: the PX-EM algorithm.

    >>> import torch
    >>> own = torch.Generator().manual_seed(0)
    >>> z, noise = torch.randn(20000, 1, generator=own), torch.randn(20000, 3, generator=own)
    >>> x = z + noise * torch.tensor([0.5, 1.0, 2.0])
    >>> fa = FactorAnalysis(n_components=1).fit(x)
    >>> fa.noise_variance_.sqrt().round(decimals=1).tolist()
    [0.5, 1.0, 2.0]
    """

    def __init__(
        self,
        n_components: int,
        *,
        max_iter: int = 5000,
        tol: float = 1e-6,
        noise_floor: float = 1e-6,
        random_state: int = 0,
    ) -> None:
        self.n_components = n_components
        self.max_iter = max_iter
        self.tol = tol
        self.noise_floor = noise_floor
        self.random_state = random_state

    def _noise(self, residual: Tensor) -> Tensor:
        return residual
