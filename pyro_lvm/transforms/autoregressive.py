"""Inverse autoregressive flows."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Size, Tensor, nn

from pyro_lvm.transforms.bijection import Bijection

__all__ = ["AutoregressiveTransform", "autoregressive"]

# What a masked network's last weights are multiplied by, so that the bijection starts near the identity.
_SMALL = 0.1


class AutoregressiveTransform(Bijection):
    r"""$z'_i = s_i z_i + m_i$, with $m_i$ and $s_i > 0$ a function of $z_{<i}$ and a context; all i at once.

    The inverse goes from coordinate to coordinate, M passes of the masked network.

    Args:
        network: made by `autoregressive`.
        context: (..., C).
        features: M.
        cache_size: 1 remembers the last vector mapped forwards.

    Shapes:
        (..., M) to (..., M).

    References:
        Kingma et al. (2016), Improving Variational Inference with Inverse Autoregressive Flow.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> network = autoregressive(2, 3, hidden_features=(8,))
        >>> bijection = AutoregressiveTransform(network, torch.ones(3), features=2)
        >>> bijection.inv(bijection(torch.tensor([3.0, 4.0]))).detach()
        tensor([3., 4.])
    """

    def __init__(self, network: nn.Module, context: Tensor, features: int, cache_size: int = 0) -> None:
        super().__init__(cache_size)
        self._shape, self._transform = Size((*context.shape[:-1], features)), network(context)

    @property
    def shape(self) -> Size:
        """The context's batch shape and M."""
        return self._shape

    def forward_and_log_det(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """z' (..., M) and log |det ∂z'/∂z| (...)."""
        y, log_det = self._transform.call_and_ladj(z)
        return y, log_det

    def _inverse(self, y: Tensor) -> Tensor:
        z: Tensor = self._transform.inv(y)
        return z


def autoregressive(features: int, context: int, hidden_features: Sequence[int], *, reverse: bool = False) -> Any:
    """zuko's masked network of an autoregressive transformation, near the identity.

    Args:
        features: M.
        context: C.
        hidden_features: widths of its hidden layers.
        reverse: go through the coordinates from the last to the first.

    Example:
        >>> autoregressive(2, 3, hidden_features=(8,))(torch.zeros(3))(torch.zeros(5, 2)).shape
        torch.Size([5, 2])
    """
    from pyro_lvm.transforms.zuko_transforms import MaskedAutoregressiveTransform  # late: see there

    order = torch.arange(features)
    network = MaskedAutoregressiveTransform(
        features, context, order=order.flip(0) if reverse else order, hidden_features=hidden_features
    )
    with torch.no_grad():
        for parameter in network.hyper[-1].parameters():
            parameter *= _SMALL
    return network
