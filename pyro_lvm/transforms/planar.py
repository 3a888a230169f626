"""Planar flows."""

import torch
from torch import Size, Tensor
from torch.nn.functional import celu

from pyro_lvm.transforms.bijection import Bijection
from pyro_lvm.transforms.tanh_equation import solve_tanh

# Keeps 1 + h' m away from 0 where m has reached −1 in floating point.
_LARGEST = 0.999


class PlanarTransform(Bijection):
    r"""$z' = z + \hat u \tanh(w^\top z + b)$, with $\hat u = u + (m - w^\top u)\, w / \lVert w \rVert^2$.

    $m = \mathrm{celu}(w^\top u) > -1$ is $w^\top \hat u$, so the map is invertible for every u. It leaves u as it is
    where $w^\top u \geq 0$ and goes to 0 with w, which the usual softplus does not. The log-determinant is
    $\log(1 + h' m)$ with $h' = 1 - \tanh^2$; the inverse solves one scalar equation.

    Args:
        u, w: (..., M).
        b: (...).
        cache_size: 1 remembers the last vector mapped forwards.

    Shapes:
        (..., M) to (..., M).

    References:
        Rezende & Mohamed (2015), Variational Inference with Normalizing Flows.

    Example:
        >>> planar = PlanarTransform(torch.tensor([1.0, 2.0]), torch.tensor([0.0, 1.0]), torch.tensor(0.0))
        >>> z = planar(torch.tensor([3.0, 4.0]))
        >>> planar.inv(z)
        tensor([3., 4.])
    """

    def __init__(self, u: Tensor, w: Tensor, b: Tensor, cache_size: int = 0) -> None:
        super().__init__(cache_size)
        inner = (w * u).sum(-1)
        self._m = celu(inner, alpha=_LARGEST)
        # A w of zeros gets a u-hat of u, and no NaN.
        length = w.square().sum(-1) + torch.finfo(w.dtype).tiny ** 0.5
        self._u, self._w, self._b = u + ((self._m - inner) / length).unsqueeze(-1) * w, w, b

    @property
    def shape(self) -> Size:
        """The parameters' batch shape and M."""
        return torch.broadcast_shapes(self._u.shape, self._w.shape, (*self._b.shape, 1))

    def forward_and_log_det(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """z' (..., M) and log |det ∂z'/∂z| (...)."""
        h = ((self._w * z).sum(-1) + self._b).tanh()
        return z + self._u * h.unsqueeze(-1), torch.log1p(self._m * (1 - h * h))

    def _inverse(self, y: Tensor) -> Tensor:
        s = (self._w * y).sum(-1) + self._b
        root = solve_tanh(self._m, s)
        h = root.tanh()
        # One step of Newton's method from the root has the root's gradient, by the implicit function theorem.
        slope = (1 + self._m * (1 - h * h)).detach()
        a = root - (root + self._m * h - s) / slope
        return y - self._u * a.tanh().unsqueeze(-1)
