"""From free numbers to scales."""

import torch
from torch import Tensor
from torch.nn.functional import softplus

# Keeps a scale away from 0, where log q has no gradient left, in units of the latent space (whose prior has scale 1).
_MINIMUM_SCALE = 1e-4


def positive(raw: Tensor) -> Tensor:
    """Scales from free numbers, by a softplus."""
    return softplus(raw) + _MINIMUM_SCALE


def lower_triangular(raw: Tensor, size: int) -> Tensor:
    """A Cholesky factor (..., M, M) from its free numbers (..., M(M+1)/2), row by row, the diagonal by a softplus."""
    rows, columns = torch.tril_indices(size, size, device=raw.device)
    lower = raw.new_zeros(*raw.shape[:-1], size, size)
    lower[..., rows, columns] = raw
    diagonal = positive(lower.diagonal(dim1=-2, dim2=-1))
    return lower.tril(-1) + torch.diag_embed(diagonal)
