"""Sylvester flows."""

import torch
from torch import Size, Tensor

from pyro_lvm.transforms.bijection import Bijection
from pyro_lvm.transforms.product import times
from pyro_lvm.transforms.tanh_equation import solve_tanh


class SylvesterTransform(Bijection):
    r"""$z' = z + Q R \tanh(\tilde R Q^\top z + b)$, with $Q^\top Q = I$ and R, R̃ upper triangular.

    The log-determinant is $\sum_i \log(1 + h'_i r_{ii} \tilde r_{ii})$ with $h' = 1 - \tanh^2$. Seen from
    $y = Q^\top z$ the map is triangular: the inverse goes from its last coordinate to its first, each the root of a
    scalar equation.

    Args:
        q: Q, orthonormal columns, (..., M, M'), see `orthonormal` and `orthogonal_matrix`.
        r, r_tilde: R and R̃, (..., M', M'), zero below the diagonal, with $r_{ii} \tilde r_{ii} > -1$.
        bias: b, (..., M').
        cache_size: 1 remembers the last vector mapped forwards.

    Shapes:
        (..., M) to (..., M).

    Raises:
        ValueError: where M' > M, or R, R̃ and b are not of Q's M' columns.

    References:
        van den Berg et al. (2018), Sylvester Normalizing Flows for Variational Inference.

    Example:
        >>> r = torch.tensor([[0.5, 1.0], [0.0, -0.5]])
        >>> sylvester = SylvesterTransform(torch.eye(3)[:, :2], r, r, torch.zeros(2))
        >>> sylvester.inv(sylvester(torch.ones(3)))
        tensor([1., 1., 1.])
    """

    def __init__(self, q: Tensor, r: Tensor, r_tilde: Tensor, bias: Tensor, cache_size: int = 0) -> None:
        super().__init__(cache_size)
        if q.dim() < 2:
            raise ValueError(f"'q' must have shape (..., M, M'), not {tuple(q.shape)}.")
        M, width = q.shape[-2:]
        if width > M:
            raise ValueError(f"'q' must have no more columns than rows to be orthonormal, not {width} of {M} values.")
        square = (width, width)
        for name, value, sizes in (("r", r, square), ("r_tilde", r_tilde, square), ("bias", bias, (width,))):
            if tuple(value.shape[-len(sizes) :]) != sizes:
                wanted = f"(..., {', '.join(map(str, sizes))})"
                raise ValueError(f"'{name}' must be {wanted}, as 'q' has {width} columns, not {tuple(value.shape)}.")
        self._q, self._r, self._r_tilde, self._bias = q, r, r_tilde, bias
        self._product = r.diagonal(dim1=-2, dim2=-1) * r_tilde.diagonal(dim1=-2, dim2=-1)  # (..., M')
        batch = torch.broadcast_shapes(q.shape[:-2], r.shape[:-2], r_tilde.shape[:-2], bias.shape[:-1])
        self._shape = Size((*batch, M))

    @property
    def shape(self) -> Size:
        """The parameters' batch shape and M."""
        return self._shape

    def forward_and_log_det(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """z' (..., M) and log |det ∂z'/∂z| (...)."""
        h = (times(self._r_tilde, self._inside(z)) + self._bias).tanh()
        return z + self._outside(h), torch.log1p(self._product * (1 - h * h)).sum(-1)

    def _inverse(self, y: Tensor) -> Tensor:
        inside = self._inside(y)
        root = self._root(inside)
        h = (times(self._r_tilde, root) + self._bias).tanh()
        # One step of Newton's method from the root has the root's gradient, by the implicit function theorem.
        slope = 1 - h * h
        eye = torch.eye(root.shape[-1], dtype=root.dtype, device=root.device)
        jacobian = (eye + (self._r * slope.unsqueeze(-2)) @ self._r_tilde).detach()
        residual = (root + times(self._r, h) - inside).unsqueeze(-1)
        root = root - torch.linalg.solve_triangular(jacobian, residual, upper=True).squeeze(-1)
        return y - self._outside((times(self._r_tilde, root) + self._bias).tanh())

    @torch.no_grad()
    def _root(self, inside: Tensor) -> Tensor:
        """Qᵀz, given Qᵀz' (..., M')."""
        left, right = torch.broadcast_tensors(inside, self._bias)  # less what is known of R h; b and what is of R̃ Qᵀz
        root = []
        for i in reversed(range(inside.shape[-1])):
            s = self._r_tilde[..., i, i] * left[..., i] + right[..., i]
            h = solve_tanh(self._product[..., i], s).tanh().unsqueeze(-1)
            root.append(left[..., i : i + 1] - self._r[..., i, i].unsqueeze(-1) * h)
            left, right = left - self._r[..., i] * h, right + self._r_tilde[..., i] * root[-1]
        return torch.cat(root[::-1], dim=-1)

    def _inside(self, z: Tensor) -> Tensor:
        """Qᵀz, (..., M')."""
        return times(self._q.mT, z)

    def _outside(self, h: Tensor) -> Tensor:
        """Q R h, (..., M)."""
        return times(self._q, times(self._r, h))
