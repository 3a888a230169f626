"""The product of a matrix and a vector, a batch of each."""

import torch
from torch import Tensor


def times(matrix: Tensor, vector: Tensor) -> Tensor:
    """(..., M), of matrices (..., M, N) and vectors (..., N): a datum's matrix meets all its particles at once.

    `matrix @ vector` would copy the matrix for every particle.

    Example:
        >>> times(torch.ones(7, 2, 3), torch.ones(5, 7, 3)).shape
        torch.Size([5, 7, 2])
    """
    if 1 in matrix.shape[-2:]:  # cheap, and PyTorch's compiler has other strides for these than einsum expects
        return (matrix * vector.unsqueeze(-2)).sum(-1)
    return torch.einsum("...mn,...n->...m", matrix, vector)
