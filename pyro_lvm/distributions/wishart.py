"""The Wishart distribution by Bartlett's decomposition."""

from math import log
from typing import Any

import torch
from pyro.distributions import TorchDistribution
from torch import Size, Tensor
from torch.distributions import Chi2, constraints, register_kl


class Wishart(TorchDistribution):
    r"""$p(\Lambda) \propto |\Lambda|^{(\nu - D - 1)/2} \exp(-\tfrac12 \mathrm{tr}\, V^{-1} \Lambda)$.

    $V = L L^\top$, and the mean is $\nu V$.

    `torch.distributions.Wishart` (2.13) calls every regular draw singular, warns, and draws again in place; here a draw
    is $L A A^\top L^\top$ with A triangular, $A_{ii}^2 \sim \chi^2_{\nu - i + 1}$, $A_{ij} \sim \mathcal N(0, 1)$,
    with gradients to both parameters.

    Args:
        df: ν > D − 1, (...).
        scale_tril: L, lower triangular with a positive diagonal, (..., D, D).

    References:
        Bartlett (1933), On the Theory of Statistical Regression. Bishop (2006), Pattern Recognition and Machine
        Learning, appendix B.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> Wishart(torch.tensor([5.0, 6.0]), torch.eye(3)).sample().shape
        torch.Size([2, 3, 3])
    """

    arg_constraints = {"df": constraints.positive, "scale_tril": constraints.lower_cholesky}  # noqa: RUF012
    support = constraints.positive_definite
    has_rsample = True

    def __init__(self, df: Tensor, scale_tril: Tensor, validate_args: bool | None = None) -> None:
        D = scale_tril.shape[-1]
        batch = torch.broadcast_shapes(df.shape, scale_tril.shape[:-2])
        self.df, self.scale_tril = df.expand(batch), scale_tril.expand(*batch, D, D)
        super().__init__(batch, Size((D, D)), validate_args=validate_args)
        if self._validate_args and bool((df <= D - 1).any()):
            raise ValueError(f"'df' must be larger than D - 1 = {D - 1}, but one of them is {df.min().item():.4g}.")

    def expand(self, batch_shape: Any, _instance: Any = None) -> "Wishart":
        """The same density with a larger batch."""
        D = self.event_shape[-1]
        return Wishart(self.df.expand(batch_shape), self.scale_tril.expand(*batch_shape, D, D), validate_args=False)

    @property
    def mean(self) -> Tensor:
        """ν V, (..., D, D)."""
        return self.df[..., None, None] * self.scale_tril @ self.scale_tril.mT

    def rsample(self, sample_shape: Any = Size()) -> Tensor:  # noqa: B008
        """Draws (*sample_shape, ..., D, D)."""
        shape, D = self._extended_shape(sample_shape), self.event_shape[-1]
        freedom = self.df.unsqueeze(-1) - torch.arange(D, dtype=self.df.dtype, device=self.df.device)  # (..., D)
        diagonal = Chi2(freedom, validate_args=False).rsample(sample_shape).sqrt()
        below = torch.randn(shape, dtype=diagonal.dtype, device=diagonal.device).tril(-1)
        factor = self.scale_tril @ (below + torch.diag_embed(diagonal))
        return factor @ factor.mT

    def log_prob(self, value: Tensor) -> Tensor:
        """log p(Λ), (...), nats."""
        if self._validate_args:
            self._validate_sample(value)
        D, df = self.event_shape[-1], self.df
        log_det = _log_det(torch.linalg.cholesky(value))
        inverse = torch.linalg.solve_triangular(self.scale_tril, torch.linalg.cholesky(value), upper=False)
        normaliser = 0.5 * df * (D * log(2) + _log_det(self.scale_tril)) + torch.mvlgamma(0.5 * df, D)
        return 0.5 * (df - D - 1) * log_det - 0.5 * inverse.square().sum((-2, -1)) - normaliser


@register_kl(Wishart, Wishart)
def _kl_wishart(q: Wishart, p: Wishart) -> Tensor:
    D = q.event_shape[-1]
    log_det_q, log_det_p = _log_det(q.scale_tril), _log_det(p.scale_tril)
    trace = torch.linalg.solve_triangular(p.scale_tril, q.scale_tril, upper=False).square().sum((-2, -1))
    steps = torch.arange(D, dtype=q.df.dtype, device=q.df.device)
    digamma = torch.digamma(0.5 * (q.df.unsqueeze(-1) - steps)).sum(-1)  # E log|Λ| less D log 2 and log|V_q|
    return (
        0.5 * p.df * (log_det_p - log_det_q)
        + 0.5 * q.df * (trace - D)
        + torch.mvlgamma(0.5 * p.df, D)
        - torch.mvlgamma(0.5 * q.df, D)
        + 0.5 * (q.df - p.df) * digamma
    )


def _log_det(lower: Tensor) -> Tensor:
    """log |L Lᵀ|."""
    return 2 * lower.diagonal(dim1=-2, dim2=-1).log().sum(-1)
