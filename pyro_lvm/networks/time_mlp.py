"""A residual multilayer perceptron that is told the time, for diffusions of data of any shape."""

from collections.abc import Sequence
from math import prod
from typing import final

from torch import Tensor, nn
from torch.nn.functional import layer_norm, silu

from pyro_lvm.configuration import Part
from pyro_lvm.networks.fourier import FourierFeatures, TimeEmbedding
from pyro_lvm.networks.inputs import check_spread, checked_condition, checked_input
from pyro_lvm.networks.residual import start_small
from pyro_lvm.sizes import check_sizes, checked_shape


@final
class TimeMLP(Part):
    r"""$h_0 = W z$, $h_{l+1} = h_l + V_l\, g(U_l\, g(n(h_l) \odot (1 + a_l(t, c)) + b_l(t, c)))$, and f = W′ g(n(h_L)).

    n brings the mean of a vector to 0 and its variance to 1, g is the SiLU, and the scales a and shifts b of each block
    are linear in an embedding of the time and, where there is one, of the condition.

    Args:
        in_shape: shape of one z (an int M is the shape (M,)).
        out_shape: shape of one output; `in_shape` where left out.
        hidden_features: width of h.
        blocks: L.
        condition_shape: shape of one condition c; without one the network takes none.
        exponents: of `FourierFeatures` of z.
        centre: subtracted from z.
        spread: z is divided by it: where z are data, they go in as they are and are rescaled here.

    Shapes:
        z (..., *in_shape), t (...) in [0, 1] and c (..., *condition_shape) to (..., *out_shape); leading dimensions
        broadcast.

    Raises:
        ValueError: where a size is less than 1, `spread` is not positive, an input is of another shape, or a condition
            is given to a network that takes none, or left out.

    References:
        He et al. (2016), Identity Mappings in Deep Residual Networks. Perez et al. (2018), FiLM: Visual Reasoning with
        a General Conditioning Layer.

    Example:
        >>> import torch
        >>> _ = torch.manual_seed(0)
        >>> net = TimeMLP((8, 8), hidden_features=32)
        >>> net(torch.zeros(7, 5, 8, 8), torch.rand(5)).shape
        torch.Size([7, 5, 8, 8])
    """

    def __init__(
        self,
        in_shape: int | Sequence[int],
        out_shape: int | Sequence[int] | None = None,
        hidden_features: int = 256,
        blocks: int = 3,
        condition_shape: int | Sequence[int] | None = None,
        exponents: Sequence[int] = (),
        centre: float = 0.0,
        spread: float = 1.0,
    ) -> None:
        super().__init__()
        check_sizes(hidden_features=hidden_features, blocks=blocks)
        check_spread(spread)
        self.in_shape = checked_shape(in_shape, "in_shape")
        self.out_shape = checked_shape(in_shape if out_shape is None else out_shape, "out_shape")
        self.condition_shape = None if condition_shape is None else checked_shape(condition_shape, "condition_shape")
        self.centre, self.spread = centre, spread
        self.fourier = FourierFeatures(exponents)
        conditions = 0 if self.condition_shape is None else prod(self.condition_shape)
        self.embedding = TimeEmbedding(hidden_features, conditions)
        self.first = nn.Linear(prod(self.in_shape) * self.fourier.features, hidden_features)
        self.blocks = nn.ModuleList(_Block(hidden_features) for _ in range(blocks))
        self.last = nn.Linear(hidden_features, prod(self.out_shape))

    def forward(self, z: Tensor, t: Tensor, c: Tensor | None = None) -> Tensor:
        """Maps (..., *in_shape) at times (...) to (..., *out_shape)."""
        z, leading = checked_input(z, self.in_shape, "z"), z.dim() - len(self.in_shape)
        c = checked_condition(c, self.condition_shape)
        if c is not None and self.condition_shape is not None:
            c = c.flatten(c.dim() - len(self.condition_shape)).to(self.first.weight.dtype)
        z = (z.flatten(leading).to(self.first.weight.dtype) - self.centre) / self.spread  # (..., D)
        e = silu(self.embedding(t, c))
        h = self.first(self.fourier(z).flatten(-2))
        for block in self.blocks:
            h = block(h, e)
        out: Tensor = self.last(silu(layer_norm(h, h.shape[-1:])))
        return out.unflatten(-1, self.out_shape)


class _Block(nn.Module):
    def __init__(self, features: int) -> None:
        super().__init__()
        self.film = nn.Linear(features, 2 * features)
        self.inner, self.outer = nn.Linear(features, features), nn.Linear(features, features)
        start_small(self.outer)

    def forward(self, h: Tensor, e: Tensor) -> Tensor:
        scale, shift = self.film(e).chunk(2, -1)
        modulated = layer_norm(h, h.shape[-1:]) * (1 + scale) + shift
        out: Tensor = h + self.outer(silu(self.inner(silu(modulated))))
        return out
