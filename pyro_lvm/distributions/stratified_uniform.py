"""Uniform draws that spread evenly over a batch."""

from typing import Any

import torch
from pyro.distributions import TorchDistribution
from torch import Size, Tensor
from torch.distributions import constraints

__all__ = ["StratifiedUniform"]


class StratifiedUniform(TorchDistribution):
    r"""$u_n = (u + n/N) \bmod 1$ with one draw $u \sim U(0, 1)$ for the N along the last dimension of a sample.

    Each of them is uniform on [0, 1), which is the density of a single one that `log_prob` gives, 0 everywhere;
    together they cover the interval evenly, so that the mean of a function over them varies less than over independent
    draws. Rows of a sample, such as particles, are independent.

    Args:
        like: a tensor with the precision and device of the draws.

    References:
        Kingma, Salimans, Poole & Ho (2021), Variational Diffusion Models, appendix I.1.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> u = StratifiedUniform(torch.zeros(())).sample((4,))
        >>> (u.sort().values.diff() - 0.25).abs().max() < 1e-6
        tensor(True)
    """

    arg_constraints = {}  # noqa: RUF012
    has_rsample = True  # of no parameters: nothing has a gradient through log q either
    support = constraints.interval(0.0, 1.0)

    def __init__(self, like: Tensor, batch_shape: Size = Size(), validate_args: bool | None = None) -> None:  # noqa: B008
        self._like = like.detach()
        super().__init__(batch_shape, validate_args=validate_args)

    def expand(self, batch_shape: Any, _instance: Any = None) -> "StratifiedUniform":
        """The same distribution for a larger batch."""
        return StratifiedUniform(self._like, Size(batch_shape), validate_args=False)

    def rsample(self, sample_shape: Any = Size()) -> Tensor:  # noqa: B008  # PyTorch's own signature
        """Draws (*sample_shape, ...), stratified over the last dimension."""
        shape = self._extended_shape(sample_shape)
        rows, columns = (shape[:-1], shape[-1]) if shape else (Size(), 1)
        u = torch.rand((*rows, 1), dtype=self._like.dtype, device=self._like.device)
        places = torch.arange(columns, dtype=u.dtype, device=u.device) / max(1, columns)
        return ((u + places) % 1).reshape(shape)

    def log_prob(self, value: Tensor) -> Tensor:
        """0, (...)."""
        if self._validate_args:
            self._validate_sample(value)
        return torch.zeros_like(value)
