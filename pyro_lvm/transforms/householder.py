"""Householder reflections: orthogonal maps whose volume does not change."""

import torch
from torch import Size, Tensor

from pyro_lvm.transforms.bijection import Bijection
from pyro_lvm.transforms.product import times

__all__ = ["HouseholderTransform", "orthogonal_matrix"]


class HouseholderTransform(Bijection):
    r"""T reflections, one after another: $z \leftarrow z - 2 v_t (v_t^\top z) / \lVert v_t \rVert^2$, t = 1 ... T.

    T of them are $I - U^\top S^{-1} U$, with the unit vectors as rows of U and S the lower triangle of $U U^\top$, its
    diagonal halved, so that a vector costs 2TM and no step waits for another. M reflections reach any orthogonal matrix
    of determinant $(-1)^M$. The log-determinant is 0.

    Args:
        v: (..., T, M); one reflection has T = 1. Vectors shorter than 1e-9 (1e-77 in double precision) reflect less
            and less, a vector of zeros not at all.
        cache_size: 1 remembers the last vector mapped forwards.

    Shapes:
        (..., M) to (..., M).

    Raises:
        ValueError: where v has no dimension of reflections.

    References:
        Tomczak & Welling (2016), Improving Variational Auto-Encoders using Householder Flow. Joffrain et al. (2006),
        Accumulating Householder Transformations, Revisited.

    Example:
        >>> flip = HouseholderTransform(torch.tensor([[2.0, 0.0]]))
        >>> flip(torch.tensor([3.0, 4.0]))
        tensor([-3.,  4.])
    """

    def __init__(self, v: Tensor, cache_size: int = 0) -> None:
        super().__init__(cache_size)
        self._u, self._w = _compact(v)
        self._shape = Size((*v.shape[:-2], v.shape[-1]))

    @property
    def shape(self) -> Size:
        """The parameters' batch shape and M."""
        return self._shape

    def forward_and_log_det(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """z' (..., M) and 0 (...)."""
        y = z - times(self._u.mT, times(self._w, z))
        return y, torch.zeros_like(y[..., 0])

    def _inverse(self, y: Tensor) -> Tensor:
        return y - times(self._w.mT, times(self._u, y))  # the transposed matrix


def orthogonal_matrix(v: Tensor) -> Tensor:
    """The product H_T ... H_1 of the reflections v (..., T, M), an orthogonal matrix (..., M, M).

    Example:
        >>> orthogonal_matrix(torch.tensor([[1.0, 0.0, 0.0]]))
        tensor([[-1.,  0.,  0.],
                [ 0.,  1.,  0.],
                [ 0.,  0.,  1.]])
    """
    u, w = _compact(v)
    return torch.eye(v.shape[-1], dtype=v.dtype, device=v.device) - u.mT @ w


def _compact(v: Tensor) -> tuple[Tensor, Tensor]:
    """U and S⁻¹ U, both (..., T, M)."""
    if v.dim() < 2:
        raise ValueError(f"'v' must have shape (..., T, M), a row for each reflection, not {tuple(v.shape)}.")
    # Far below any length whose square has all its digits, so that vectors of zeros are all that it changes.
    zero = torch.finfo(v.dtype).tiny ** 0.5
    u = v * (v.square().sum(-1, keepdim=True) + zero).rsqrt()
    half = 0.5 * torch.eye(v.shape[-2], dtype=v.dtype, device=v.device)
    return u, torch.linalg.solve_triangular((u @ u.mT).tril(-1) + half, u, upper=False)
