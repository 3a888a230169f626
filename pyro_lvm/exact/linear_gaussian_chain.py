"""A linear-Gaussian hierarchy: exact evidence, and the exact posterior of every level."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from pyro_lvm.exact.linear_gaussian import log_evidence, posterior


@final
@dataclass(frozen=True)
class LinearGaussianChain:
    r"""A chain of latents, each linear in the one above it, with the data at its lower end.

    $$z_L \sim N(0, I), \quad z_l | z_{l+1} \sim N(A_l z_{l+1} + a_l, s_l^2 I), \quad
    x | z_1 \sim N(W z_1 + b, \sigma^2 I)$$

    Everything is stated by lists from the data upwards, of L maps: the first is W, b, σ², then come A_1, a_1, s_1², ...

    Args:
        weights: W (D, M_1), A_1 (M_1, M_2), ..., A_{L−1}.
        biases: b (D,), a_1 (M_1,), ...
        variances: σ², s_1², ..., numbers above zero.

    Raises:
        ValueError: lists of different lengths, or none of them with an entry.

    References:
        C. M. Bishop (2006). Pattern Recognition and Machine Learning, 2.3.3.

    >>> import torch
    >>> one = torch.ones(1, 1)
    >>> chain = LinearGaussianChain([one, one], [torch.zeros(1), torch.zeros(1)], [1.0, 1.0])
    >>> chain.log_evidence(torch.zeros(1, 1))  # x has variance 3
    tensor([-1.4682])
    """

    weights: Sequence[Tensor]
    biases: Sequence[Tensor]
    variances: Sequence[float]

    def __post_init__(self) -> None:
        if not len(self.weights) == len(self.biases) == len(self.variances) or not self.weights:
            raise ValueError(
                "'weights', 'biases' and 'variances' must have one entry for each level, at least one, got "
                f"{len(self.weights)}, {len(self.biases)} and {len(self.variances)}."
            )

    def log_evidence(self, x: Tensor) -> Tensor:
        """Return log p(x) in nats, shape (...), for x (..., D)."""
        mean, covariance = self._prior(0)
        factor = torch.linalg.cholesky(covariance)
        mean = self.weights[0] @ mean + self.biases[0]
        return log_evidence(x, self.weights[0] @ factor, mean, self.variances[0])

    def conditional(self, level: int, x: Tensor, above: Tensor | None) -> tuple[Tensor, Tensor]:
        r"""Return the mean (..., M_l) and the covariance (M_l, M_l) of p(z_l | z_{l+1}, x).

        Args:
            level: l, from 1.
            x: data (..., D).
            above: z_{l+1}, (..., M_{l+1}); None at the top.
        """
        likelihood_weight, likelihood_bias, noise = self._likelihood(level - 1)
        if above is None:
            mean, scale = torch.zeros_like(self.weights[level - 1][0]), 1.0
        else:
            mean, scale = above @ self.weights[level].mT + self.biases[level], self.variances[level] ** 0.5
        # In units of the prior's scale z = mean + scale e, with e standard normal; the noise is whitened away.
        factor = torch.linalg.cholesky(noise)
        weight = torch.linalg.solve_triangular(factor, likelihood_weight * scale, upper=False)  # (D, M_l)
        deviation = x - mean @ likelihood_weight.mT - likelihood_bias
        white = torch.linalg.solve_triangular(factor, deviation.unsqueeze(-1), upper=False).squeeze(-1)
        loc, covariance = posterior(white, weight, torch.zeros_like(white.flatten(0, -2)[0]), 1.0)
        return mean + scale * loc, scale**2 * covariance

    def _prior(self, index: int) -> tuple[Tensor, Tensor]:
        """The mean and the covariance of z_l, l = index + 1."""
        mean = torch.zeros_like(self.weights[-1][0])
        covariance = torch.eye(len(mean), dtype=mean.dtype, device=mean.device)
        for weight, bias, variance in list(zip(self.weights, self.biases, self.variances, strict=True))[:index:-1]:
            noise = variance * torch.eye(len(bias), dtype=bias.dtype, device=bias.device)
            mean, covariance = weight @ mean + bias, weight @ covariance @ weight.mT + noise
        return mean, covariance

    def _likelihood(self, index: int) -> tuple[Tensor, Tensor, Tensor]:
        """x | z_l as a weight (D, M_l), a bias (D,) and a covariance (D, D), l = index + 1."""
        weight, bias = self.weights[0], self.biases[0]
        noise = self.variances[0] * torch.eye(len(bias), dtype=bias.dtype, device=bias.device)
        for next_weight, next_bias, variance in list(zip(self.weights, self.biases, self.variances, strict=True))[
            1 : index + 1
        ]:
            noise = noise + variance * weight @ weight.mT
            weight, bias = weight @ next_weight, weight @ next_bias + bias
        return weight, bias, noise
