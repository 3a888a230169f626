"""Posteriors q(z | x): encoders, modules that take x (..., *data_shape) and return a distribution over z (..., M)."""

from math import isqrt

import pyro.distributions as dist
import torch
from pyro.distributions import TorchDistribution
from torch import Tensor, nn
from torch.nn.functional import softplus

from pyro_lvm.configuration import Part
from pyro_lvm.distributions import OneHotCategorical, StraightThrough

__all__ = ["DiagonalNormal", "FullNormal", "GumbelSoftmax", "OneHot"]

# Keeps a scale away from 0, where log q has no gradient left, in units of the latent space (whose prior has scale 1).
_MINIMUM_SCALE = 1e-4


class DiagonalNormal(Part):
    r"""$q(z \mid x) = \prod_m \mathcal N(z_m \mid \mu_m(x), \sigma_m(x)^2)$, σ by a softplus.

    Args:
        net: from (..., *data_shape) to (..., 2M): μ, then the raw σ.

    Raises:
        ValueError: where the network gives an odd number of values.

    References:
        Kingma & Welling (2014), Auto-Encoding Variational Bayes.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> DiagonalNormal(nn.Linear(5, 4))(torch.zeros(7, 5)).event_shape
        torch.Size([2])
    """

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> TorchDistribution:
        """q(z | x), event shape (M,)."""
        out = self.net(x)  # (..., 2M)
        if out.shape[-1] % 2:
            raise ValueError(
                f"a diagonal normal needs 2M values from its network, M means and M scales; it gives {out.shape[-1]}."
            )
        mu, raw = out.chunk(2, dim=-1)
        return dist.Normal(mu, softplus(raw) + _MINIMUM_SCALE).to_event(1)


class FullNormal(Part):
    r"""$q(z \mid x) = \mathcal N(z \mid \mu(x), L(x) L(x)^\top)$, L lower triangular with a positive diagonal.

    Args:
        net: from (..., *data_shape) to (..., M + M(M+1)/2): μ, then L row by row.

    Raises:
        ValueError: where the network gives a number of values that no M fits.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> FullNormal(nn.Linear(5, 2 + 3))(torch.zeros(7, 5)).event_shape
        torch.Size([2])
    """

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> TorchDistribution:
        """q(z | x), event shape (M,)."""
        out = self.net(x)
        latent_dim = _latent_dim(out.shape[-1])
        mu, raw = out.split((latent_dim, out.shape[-1] - latent_dim), dim=-1)
        return dist.MultivariateNormal(mu, scale_tril=lower_triangular(raw, latent_dim))


class OneHot(Part):
    r"""$q(z \mid x) = \prod_v \prod_c \pi_{vc}(x)^{z_{vc}}$ over V one-hot vectors of C categories.

    Its draws carry no gradient: objectives give it the score function's.

    Args:
        net: from (..., *data_shape) to (..., V · C): log π up to a constant, variable by variable.
        categories: C.

    Raises:
        ValueError: where the network gives no multiple of C.

    References:
        Mnih & Gregor (2014), Neural Variational Inference and Learning in Belief Networks.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> OneHot(nn.Linear(5, 6), categories=3)(torch.zeros(7, 5)).event_shape
        torch.Size([2, 3])
    """

    def __init__(self, net: nn.Module, categories: int) -> None:
        super().__init__()
        self.net, self.categories = net, categories

    def forward(self, x: Tensor) -> TorchDistribution:
        """q(z | x), event shape (V, C)."""
        return OneHotCategorical(logits=_by_category(self.net(x), self.categories)).to_event(1)


class GumbelSoftmax(Part):
    r"""The posterior `OneHot` with draws that carry the gradient of their Gumbel-softmax relaxation.

    The draws are exact one-hot vectors, so bounds stay bounds; the gradient is biased, see
    `pyro_lvm.distributions.StraightThrough`.

    Args:
        net: from (..., *data_shape) to (..., V · C): log π up to a constant, variable by variable.
        categories: C.
        temperature: τ of the relaxation.

    Raises:
        ValueError: where the network gives no multiple of C, or the temperature is not positive.

    References:
        Jang, Gu & Poole (2017), Categorical Reparameterization with Gumbel-Softmax.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> GumbelSoftmax(nn.Linear(5, 6), categories=3)(torch.zeros(7, 5)).rsample().shape
        torch.Size([7, 2, 3])
    """

    def __init__(self, net: nn.Module, categories: int, temperature: float = 1.0) -> None:
        super().__init__()
        if not temperature > 0:
            raise ValueError(f"'temperature' must be positive, not {temperature!r}.")
        self.net, self.categories, self.temperature = net, categories, temperature

    def forward(self, x: Tensor) -> TorchDistribution:
        """q(z | x), event shape (V, C)."""
        return StraightThrough(self.temperature, _by_category(self.net(x), self.categories)).to_event(1)


def _by_category(out: Tensor, categories: int) -> Tensor:
    if out.shape[-1] % categories:
        raise ValueError(
            f"a code of variables with {categories} categories each needs a multiple of that from its network; it "
            f"gives {out.shape[-1]}."
        )
    return out.unflatten(-1, (-1, categories))


def lower_triangular(raw: Tensor, size: int) -> Tensor:
    """A Cholesky factor (..., M, M) from its free numbers (..., M(M+1)/2), row by row, the diagonal by a softplus."""
    rows, columns = torch.tril_indices(size, size, device=raw.device)
    lower = raw.new_zeros(*raw.shape[:-1], size, size)
    lower[..., rows, columns] = raw
    diagonal = softplus(lower.diagonal(dim1=-2, dim2=-1)) + _MINIMUM_SCALE
    return lower.tril(-1) + torch.diag_embed(diagonal)


def _latent_dim(features: int) -> int:
    latent_dim = (isqrt(9 + 8 * features) - 3) // 2  # the root of M + M(M+1)/2 = features
    if latent_dim < 1 or latent_dim + latent_dim * (latent_dim + 1) // 2 != features:
        raise ValueError(
            f"a full normal needs M + M(M+1)/2 values from its network (5 for M = 2, 9 for M = 3); it gives {features}."
        )
    return latent_dim
