"""The normal of the component that an index picks."""

from math import log, pi
from typing import Any

import torch
from pyro.distributions import TorchDistribution
from pyro.ops.indexing import Vindex
from torch import Size, Tensor
from torch.distributions import constraints


class IndexedNormal(TorchDistribution):
    r"""$p(x) = \mathcal N(x \mid \mu_z, L_z L_z^\top)$ for an index z into C components.

    Picking $\mu_z$ and $L_z$ for every datum first, as `MultivariateNormal(means[z], scale_tril=scale_trils[z])` does,
    copies a D×D matrix per datum and solves with each; here every component meets all data at once and the index picks
    among the densities.

    Args:
        index: z, integers (...), the batch; an enumerated one has its own dimension on the left.
        means: μ, (C, D), or (..., 1, C, D) with the batch's dimensions left of the data's.
        scale_tril: L, (C, D, D), or (..., 1, C, D, D).

    Example:
        >>> means, scale_tril = torch.tensor([[0.0], [5.0]]), torch.ones(2, 1, 1)
        >>> IndexedNormal(torch.tensor([1, 0]), means, scale_tril).log_prob(torch.tensor([[5.0], [5.0]]))
        tensor([ -0.9189, -13.4189])
    """

    arg_constraints = {}  # noqa: RUF012
    support = constraints.real_vector
    has_rsample = True

    def __init__(self, index: Tensor, means: Tensor, scale_tril: Tensor, validate_args: bool | None = None) -> None:
        self.index, self.means, self.scale_tril = index, means, scale_tril
        batch = torch.broadcast_shapes(index.shape, means.shape[:-2])
        super().__init__(batch, means.shape[-1:], validate_args=validate_args)

    def expand(self, batch_shape: Any, _instance: Any = None) -> "IndexedNormal":
        """The same density with a larger batch."""
        return IndexedNormal(self.index.expand(batch_shape), self.means, self.scale_tril, validate_args=False)

    @property
    def mean(self) -> Tensor:
        """μ_z, (..., D)."""
        return Vindex(self.means)[..., self.index, :]

    def rsample(self, sample_shape: Any = Size()) -> Tensor:  # noqa: B008
        """Draws (*sample_shape, ..., D)."""
        mean = self.mean
        scale_tril = Vindex(self.scale_tril)[..., self.index, :, :]
        shape = self._extended_shape(sample_shape)
        noise = torch.randn(shape, dtype=mean.dtype, device=mean.device)
        return mean + (scale_tril @ noise.unsqueeze(-1)).squeeze(-1)

    def log_prob(self, value: Tensor) -> Tensor:
        """log p(x), (...), nats."""
        if self._validate_args:
            self._validate_sample(value)
        return Vindex(component_log_prob(value, self.means, self.scale_tril))[..., self.index]


def component_log_prob(x: Tensor, means: Tensor, scale_tril: Tensor) -> Tensor:
    """The log density of every datum under every component, (..., B, C), nats.

    Args:
        x: (..., B, D) or (D,).
        means: (C, D), or (..., 1, C, D) where the 1 stands for the B data.
        scale_tril: (C, D, D), or (..., 1, C, D, D).

    Example:
        >>> component_log_prob(torch.zeros(5, 2), torch.zeros(3, 2), torch.eye(2).expand(3, 2, 2)).shape
        torch.Size([5, 3])
    """
    if x.dim() == 1:
        return component_log_prob(x.unsqueeze(0), means, scale_tril).squeeze(-2)
    if means.dim() > 2:
        means, scale_tril = means.squeeze(-3), scale_tril.squeeze(-4)  # (..., C, D), (..., C, D, D)
    centred = x.unsqueeze(-3) - means.unsqueeze(-2)  # (..., C, B, D)
    white = torch.linalg.solve_triangular(scale_tril, centred.mT, upper=False)  # (..., C, D, B)
    log_det = scale_tril.diagonal(dim1=-2, dim2=-1).log().sum(-1)  # (..., C)
    log_density = -0.5 * white.square().sum(-2) - log_det.unsqueeze(-1) - 0.5 * x.shape[-1] * log(2 * pi)
    return log_density.mT  # (..., B, C)
