"""The linear-Gaussian model x = W z + b + noise: exact evidence and posterior."""

from __future__ import annotations

import torch
from torch import Tensor

from pyro_lvm.exact._numbers import LOG_2PI, check_real


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
    factor, covariance = posterior_covariance(weight, psi)
    log_det = psi.log().sum() + 2.0 * factor.diagonal().log().sum()
    return x - mean, psi, covariance, log_det


def posterior_covariance(weight: Tensor, psi: Tensor) -> tuple[Tensor, Tensor]:
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
