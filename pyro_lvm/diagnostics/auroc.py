"""How well a score tells two groups apart."""

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor


@final
@dataclass(frozen=True)
class AUROC:
    """The area under the receiver operating characteristic, with its standard error over both groups.

    Attributes:
        value: P(s' > s) + P(s' = s) / 2 of a score s' of the second group and s of the first: 1/2 tells nothing, 1
            everything, 0 everything the wrong way round.
        standard_error: over the choice of both groups; 0 where none overlap, when it is not to be trusted.
    """

    value: float
    standard_error: float

    def __str__(self) -> str:
        return f"{self.value:.3f} ± {self.standard_error:.3f}"


def auroc(first: Tensor, second: Tensor) -> AUROC:
    r"""$\hat A = \frac{1}{mn} \sum_{ij} \big([s'_j > s_i] + \tfrac12 [s'_j = s_i]\big)$, with DeLong's standard error.

    With $V'_j$ the share of first scores below $s'_j$ and $V_i$ the share of second ones above $s_i$, ties by half, the
    variance is $\mathrm{Var}(V) / m + \mathrm{Var}(V') / n$.

    Args:
        first: scores that should be low, (m,), m ≥ 2.
        second: scores that should be high, (n,), n ≥ 2.

    Raises:
        ValueError: for fewer than two scores in a group, or a NaN.

    References:
        DeLong, DeLong & Clarke-Pearson (1988), Comparing the Areas under Two or More Correlated Receiver Operating
        Characteristic Curves: A Nonparametric Approach.

    Example:
        >>> print(auroc(torch.tensor([0.0, 1.0, 2.0]), torch.tensor([1.5, 2.5, 3.5])))
        0.889 ± 0.157
    """
    for name, scores in (("first", first), ("second", second)):
        if scores.dim() != 1 or len(scores) < 2:
            raise ValueError(f"'{name}' must hold at least two scores, (n,), but has shape {tuple(scores.shape)}.")
        if bool(scores.isnan().any()):
            raise ValueError(f"'{name}' must hold scores that can be ordered, but {int(scores.isnan().sum())} are NaN.")
    above = 1 - _share_below(first.double(), second.double())  # of the second group, for each of the first
    below = _share_below(second.double(), first.double())
    return AUROC(below.mean().item(), (above.var() / len(above) + below.var() / len(below)).sqrt().item())


def _share_below(scores: Tensor, others: Tensor) -> Tensor:
    """The share of the others that lie below each score, those that are equal to it by half."""
    ordered = others.sort().values
    counts = torch.searchsorted(ordered, scores) + torch.searchsorted(ordered, scores, right=True)
    return counts.double() / (2 * len(others))
