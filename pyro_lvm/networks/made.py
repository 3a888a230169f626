"""The masked autoencoder: a network whose outputs for a value see only the values before it."""

from collections.abc import Sequence
from itertools import pairwise
from typing import cast, final

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from pyro_lvm.configuration import Part
from pyro_lvm.sizes import check_sizes


@final
class MADE(Part):
    r"""$f_m(x) = f_m(x_1, \dots, x_{m-1})$ for M values in their natural order, all m in one pass.

    Every hidden unit has a degree d and sees the first d values only; the outputs for $x_m$ see units of degrees below
    m. Those for $x_1$ are constants, and for M = 1 that is all there is.

    Args:
        features: M.
        outputs: numbers given for each value, P.
        hidden_features: widths of the hidden layers.
        activation: class of the nonlinearity, from `torch.nn`.

    Shapes:
        (..., M) to (..., M, P).

    Raises:
        ValueError: where a size is less than 1.

    References:
        Germain et al. (2015), MADE: Masked Autoencoder for Distribution Estimation.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> net = MADE(3, outputs=2)
        >>> a, b = net(torch.tensor([[1.0, 2.0, 3.0], [1.0, 5.0, 6.0]]))
        >>> (a == b).all(-1)
        tensor([ True,  True, False])
    """

    def __init__(
        self,
        features: int,
        outputs: int = 1,
        hidden_features: Sequence[int] = (64, 64),
        activation: type[nn.Module] = nn.ReLU,
    ) -> None:
        super().__init__()
        check_sizes(features=features, outputs=outputs, hidden_features=min(hidden_features, default=1))
        self.features = features
        degrees = [torch.arange(1, features + 1)]
        # In turn, so that every width has units of every degree, as evenly as can be.
        degrees += [torch.arange(width) % max(features - 1, 1) + 1 for width in hidden_features]
        layers: list[nn.Module] = []
        for before, after in pairwise(degrees):
            layers += [_Masked(after[:, None] >= before), activation()]
        last = degrees[0].repeat_interleave(outputs)
        self.layers = nn.Sequential(*layers, _Masked(last[:, None] > degrees[-1]))

    def forward(self, x: Tensor) -> Tensor:
        """Maps (..., M) to (..., M, P)."""
        out: Tensor = self.layers(x.to(cast(_Masked, self.layers[0]).weight.dtype))
        return out.unflatten(-1, (self.features, -1))


class _Masked(nn.Linear):
    """x (W ∘ mask)ᵀ + b."""

    mask: Tensor

    def __init__(self, mask: Tensor) -> None:
        super().__init__(mask.shape[1], mask.shape[0])
        self.register_buffer("mask", mask, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self.mask * self.weight, self.bias)
