"""The multilayer perceptron."""

from collections.abc import Sequence
from itertools import pairwise
from math import prod
from typing import cast

import torch
from torch import Tensor, nn

from pyro_lvm.configuration import Part
from pyro_lvm.networks.inputs import check_spread
from pyro_lvm.sizes import checked_shape


class MLP(Part):
    r"""A multilayer perceptron between arrays: $f(x) = W_L h(\dots h(W_1 (x - c)/s + b_1) \dots) + b_L$.

    Args:
        in_shape: shape of one input (an int M is the shape (M,)).
        out_shape: shape of one output.
        hidden_features: widths of the hidden layers; empty makes the network affine.
        activation: class of the nonlinearity h, from `torch.nn`; `nn.GLU` makes gated layers,
            $h \mapsto (A h + a) \odot \sigma(B h + b)$, of the stated widths.
        centre: c, subtracted from the input.
        spread: s, the input is divided by it: data go in as they are and are rescaled here.
        rescaled: how many of an input's values, the first ones, are meant by centre and spread; all where left out.

    Shapes:
        (..., *in_shape) to (..., *out_shape), any number of leading dimensions.

    References:
        Dauphin et al. (2017), Language Modeling with Gated Convolutional Networks.

    Raises:
        ValueError: where a size is less than 1, `spread` is not positive, `rescaled` is negative or more than there are
            values, or the input is of another shape.

    Example:
        >>> import torch
        >>> _ = torch.manual_seed(0)
        >>> net = MLP((8, 8), 32, (100,), centre=8.0, spread=8.0)
        >>> net(torch.zeros(5, 3, 8, 8)).shape
        torch.Size([5, 3, 32])
    """

    def __init__(
        self,
        in_shape: int | Sequence[int],
        out_shape: int | Sequence[int],
        hidden_features: Sequence[int] = (256, 256),
        activation: type[nn.Module] = nn.ReLU,
        centre: float = 0.0,
        spread: float = 1.0,
        rescaled: int | None = None,
    ) -> None:
        super().__init__()
        self.in_shape, self.out_shape = checked_shape(in_shape, "in_shape"), checked_shape(out_shape, "out_shape")
        check_spread(spread)
        features = prod(self.in_shape)
        if rescaled is not None and rescaled not in range(features + 1):
            raise ValueError(f"'rescaled' counts values of an input, which has {features}, and cannot be {rescaled}.")
        self.centre, self.spread, self.rescaled = centre, spread, rescaled
        widths = [features, *checked_shape(hidden_features, "hidden_features"), prod(self.out_shape)]
        layers: list[nn.Module] = []
        gates = 2 if activation is nn.GLU else 1  # it halves its input: one half is what the other lets through
        for wide, narrow in pairwise(widths[:-1]):
            layers += [nn.Linear(wide, gates * narrow), activation()]
        self.layers = nn.Sequential(*layers, nn.Linear(widths[-2], widths[-1]))

    def forward(self, x: Tensor) -> Tensor:
        """Maps (..., *in_shape) to (..., *out_shape)."""
        n = len(self.in_shape)
        if tuple(x.shape[x.dim() - n :]) != self.in_shape or x.dim() < n:
            raise ValueError(
                f"the network takes inputs of shape (..., {', '.join(map(str, self.in_shape))}), but was given "
                f"{tuple(x.shape)}: build it with in_shape={tuple(x.shape[1:])}, or reshape the data."
            )
        dtype = cast(nn.Linear, self.layers[0]).weight.dtype
        h = x.reshape(*x.shape[: x.dim() - n], -1)  # (..., D)
        if h.dtype != dtype and not torch.is_autocast_enabled(h.device.type):
            h = h.to(dtype)
        if (self.centre, self.spread) != (0.0, 1.0):
            h = self._rescaled(h)
        h = self.layers(h)
        return h.reshape(*h.shape[:-1], *self.out_shape)

    def _rescaled(self, h: Tensor) -> Tensor:
        if self.rescaled is None:
            return (h - self.centre) / self.spread
        first, rest = h.tensor_split((self.rescaled,), dim=-1)
        return torch.cat([(first - self.centre) / self.spread, rest], dim=-1)
