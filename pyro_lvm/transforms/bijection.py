"""What the bijections of this folder share: a cache that keeps gradients right."""

from abc import ABC, abstractmethod
from copy import copy
from typing import Any

import torch
from torch import Size, Tensor
from torch.distributions import Transform, constraints


class Bijection(Transform, ABC):
    """A bijection z → z' of vectors with parameters of any batch shape, abstract.

    With `cache_size=1` the last vector mapped forwards is remembered, with what it became and its log-determinant:
    scoring a draw then takes no inversion. PyTorch's own cache also answers for a draw made under `torch.no_grad()`,
    as a constant, so that log q of it loses what passes through the inverse; here such a draw is inverted where
    gradients are wanted. Inverses are not remembered.

    Args:
        cache_size: 0 or 1.

    Shapes:
        (..., M) to (..., M); leading dimensions and the parameters' batch broadcast against each other.
    """

    domain = constraints.real_vector
    codomain = constraints.real_vector
    bijective = True

    def __init__(self, cache_size: int = 0) -> None:
        super().__init__(cache_size)
        self._last: tuple[Tensor, Tensor, Tensor, bool] | None = None  # z, z', log-determinant, made with gradients

    @property
    @abstractmethod
    def shape(self) -> Size:
        """The parameters' batch shape and M."""

    @abstractmethod
    def forward_and_log_det(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """z' (..., M) and log |det ∂z'/∂z| (...)."""

    def with_cache(self, cache_size: int = 1) -> "Bijection":
        """The same bijection, with or without a cache."""
        other = copy(self)
        Bijection.__init__(other, cache_size)
        return other

    def __call__(self, z: Tensor) -> Tensor:
        """z'."""
        last = self._remembered(z, 0)
        return self._map(z)[0] if last is None else last[1]

    def _inv_call(self, y: Tensor) -> Tensor:
        last = self._remembered(y, 1)
        return self._inverse(y) if last is None else last[0]

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        """log |det ∂z'/∂z| at z = x, (...)."""
        last = self._remembered(x, 0)
        return self.forward_and_log_det(x)[1] if last is None else last[2]

    def forward_shape(self, shape: Any) -> Size:
        """The shape of z' for one of z."""
        return torch.broadcast_shapes(shape, self.shape)

    def inverse_shape(self, shape: Any) -> Size:
        """The shape of z for one of z'."""
        return torch.broadcast_shapes(shape, self.shape)

    def _map(self, z: Tensor) -> tuple[Tensor, Tensor]:
        y, log_det = self.forward_and_log_det(z)
        if self._cache_size:
            self._last = z, y, log_det, torch.is_grad_enabled()
        return y, log_det

    def _remembered(self, value: Tensor, place: int) -> tuple[Tensor, Tensor, Tensor] | None:
        if self._last is None or self._last[place] is not value:
            return None
        *last, with_gradients = self._last
        return None if torch.is_grad_enabled() and not with_gradients else (last[0], last[1], last[2])
