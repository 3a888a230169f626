"""A small U-Net that is told the time, for diffusions of pictures."""

from collections.abc import Sequence
from itertools import pairwise
from math import prod
from typing import final

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, scaled_dot_product_attention, silu

from pyro_lvm.configuration import Part
from pyro_lvm.networks.convolutional import Upsampling
from pyro_lvm.networks.fourier import FourierFeatures, TimeEmbedding
from pyro_lvm.networks.inputs import check_spread, checked_condition, checked_input
from pyro_lvm.networks.residual import start_small
from pyro_lvm.sizes import check_sizes, checked_shape


@final
class UNet(Part):
    r"""Residual blocks at falling sizes of the picture and back, each size's maps joined by those on the way down.

    A block is $x + C_2\, h(n(C_1\, h(x)) \odot (1 + a(t, c)) + b(t, c))$ with convolutions C of three by three, h
    the SiLU, n normalising groups of channels, and the scales a and shifts b of every channel linear in an embedding of
    the time. A vector as condition goes into the embedding as well; a picture is enlarged to z's size and read beside
    z.

    Args:
        data_shape: shape of one picture z, (H, W) or (colours, H, W).
        inputs: numbers for each value of z, in a last dimension, such as one-hot vectors of levels; where it is 1 there
            is no such dimension.
        out_shape: shape of one output: `data_shape`, or that with a dimension of further numbers for each value behind
            it, such as logits of levels, or before it; `data_shape` where left out.
        channels: of the maps at each size; each is half as high and wide as the one before.
        blocks: of every size, on either way.
        attention_heads: of the attention between all places of the smallest maps; 0 for none.
        condition_shape: of a condition: a vector, (C,), or a picture, (H / f, W / f) or (C, H / f, W / f) for a whole
            f; without one the network takes none.
        exponents: of `FourierFeatures` of z.
        centre: subtracted from z.
        spread: z is divided by it: where z are data, they go in as they are and are rescaled here.

    Shapes:
        z (..., *data_shape) or (..., *data_shape, inputs), t (...) in [0, 1] and c (..., *condition_shape) to (...,
        *out_shape); leading dimensions broadcast.

    Raises:
        ValueError: where a size is less than 1, the picture does not halve evenly as often as there are sizes, the
            heads do not divide the channels, `out_shape` or `condition_shape` does not fit, `spread` is not positive,
            an input is of another shape, or a condition is given to a network that takes none, or left out.

    References:
        Ronneberger, Fischer & Brox (2015), U-Net: Convolutional Networks for Biomedical Image Segmentation. Ho, Jain &
        Abbeel (2020), Denoising Diffusion Probabilistic Models. Nichol & Dhariwal (2021), Improved Denoising Diffusion
        Probabilistic Models.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> net = UNet((28, 28), channels=(8, 16, 16))
        >>> net(torch.zeros(7, 5, 28, 28), torch.rand(5)).shape
        torch.Size([7, 5, 28, 28])
    """

    def __init__(
        self,
        data_shape: Sequence[int],
        inputs: int = 1,
        out_shape: Sequence[int] | None = None,
        channels: Sequence[int] = (16, 32),
        blocks: int = 1,
        attention_heads: int = 0,
        condition_shape: int | Sequence[int] | None = None,
        exponents: Sequence[int] = (),
        centre: float = 0.0,
        spread: float = 1.0,
    ) -> None:
        super().__init__()
        widths = checked_shape(channels, "channels")
        check_sizes(inputs=inputs, sizes=len(widths), blocks=blocks)
        check_spread(spread)
        self.data_shape, self.inputs = checked_shape(data_shape, "data_shape"), inputs
        self.out_shape = checked_shape(data_shape if out_shape is None else out_shape, "out_shape")
        outputs, self.is_before = _outputs(self.out_shape, self.data_shape)
        self.condition_shape = None if condition_shape is None else checked_shape(condition_shape, "condition_shape")
        self.centre, self.spread = centre, spread
        colours, self.size = _checked_picture(self.data_shape, len(widths) - 1)
        vector, maps = _condition_features(self.condition_shape, self.size)
        self.fourier = FourierFeatures(exponents)
        E = 4 * widths[0]
        self.embedding = TimeEmbedding(E, vector)
        self.first = nn.Conv2d(colours * inputs * self.fourier.features + maps, widths[0], 3, padding=1)
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        before = widths[0]
        for C in widths:  # the first block of a size brings the channels to its own
            self.down.append(nn.ModuleList(_Block(before if i == 0 else C, C, E) for i in range(blocks)))
            before = C
        self.smaller = nn.ModuleList(nn.Conv2d(C, C, 3, stride=2, padding=1) for C in widths[:-1])
        self.middle = nn.ModuleList([_Block(before, before, E), _Block(before, before, E)])
        self.attention = _Attention(before, attention_heads) if attention_heads else None
        for C in reversed(widths):
            self.up.append(nn.ModuleList(_Block((before if i == 0 else C) + C, C, E) for i in range(blocks)))
            before = C
        self.larger = nn.ModuleList(Upsampling(C) for C, _ in pairwise(reversed(widths)))
        self.normalise, self.last = _normalisation(before), nn.Conv2d(before, colours * outputs, 3, padding=1)

    def forward(self, z: Tensor, t: Tensor, c: Tensor | None = None) -> Tensor:
        """Maps (..., *data_shape) or (..., *data_shape, inputs) at times (...) to (..., *out_shape)."""
        shape = (*self.data_shape, *((self.inputs,) if self.inputs > 1 else ()))
        z, c = checked_input(z, shape, "z"), checked_condition(c, self.condition_shape)
        dims = 0 if self.condition_shape is None else len(self.condition_shape)
        leading = torch.broadcast_shapes(
            z.shape[: z.dim() - len(shape)], t.shape, () if c is None else c.shape[: c.dim() - dims]
        )
        z = z.expand(*leading, *shape).reshape(-1, *self.data_shape, self.inputs).to(self.first.weight.dtype)
        h = self.fourier((z - self.centre) / self.spread).flatten(-2)  # (N, *data_shape, inputs · features)
        h = h.movedim(-1, -3).reshape(len(z), -1, *self.size)
        e = silu(self.embedding(t, c if dims == 1 else None))
        # One time for all, as when sampling, is embedded once.
        e = e.reshape(1, -1) if e.dim() == 1 else e.expand(*leading, -1).reshape(len(z), -1)
        if c is not None and dims > 1:
            c = c.expand(*leading, *c.shape[c.dim() - dims :]).reshape(len(z), -1, *c.shape[-2:])
            h = torch.cat([h, interpolate(c.to(h.dtype), self.size)], 1)
        out = self._maps(h.contiguous(), e)
        out = out.reshape(len(z), -1, *self.data_shape)  # (N, outputs, *data_shape)
        out = out if self.is_before else out.movedim(1, -1)
        return out.reshape(*leading, *self.out_shape)

    def _maps(self, h: Tensor, e: Tensor) -> Tensor:
        h = self.first(h)
        kept = []
        for i, blocks in enumerate(self.down):
            h = self.smaller[i - 1](h) if i else h
            for block in blocks:  # type: ignore[attr-defined]  # a ModuleList of them
                h = block(h, e)
                kept.append(h)
        h = self.middle[0](h, e)
        h = h if self.attention is None else self.attention(h)
        h = self.middle[1](h, e)
        for i, blocks in enumerate(self.up):
            h = self.larger[i - 1](h) if i else h
            for block in blocks:  # type: ignore[attr-defined]
                h = block(torch.cat([h, kept.pop()], 1), e)
        out: Tensor = self.last(silu(self.normalise(h)))
        return out


class _Block(nn.Module):
    def __init__(self, channels: int, out_channels: int, features: int) -> None:
        super().__init__()
        self.inner = nn.Conv2d(channels, out_channels, 3, padding=1)
        self.normalise = _normalisation(out_channels, affine=False)  # the time's scale and shift come after it
        self.film = nn.Linear(features, 2 * out_channels)
        self.outer = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        self.shortcut = nn.Identity() if channels == out_channels else nn.Conv2d(channels, out_channels, 1)
        start_small(self.outer)

    def forward(self, x: Tensor, e: Tensor) -> Tensor:
        scale, shift = self.film(e)[..., None, None].chunk(2, 1)
        h = torch.addcmul(shift, self.normalise(self.inner(silu(x))), 1 + scale)
        out: Tensor = self.shortcut(x) + self.outer(silu(h))
        return out


class _Attention(nn.Module):
    """x + what every place reads from all places."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        check_sizes(attention_heads=heads)
        if channels % heads:
            raise ValueError(f"'attention_heads' = {heads} must divide the last of 'channels', {channels}.")
        self.heads, self.normalise = heads, _normalisation(channels)
        self.read = nn.Linear(channels, 3 * channels, bias=False)  # a key's bias would change nothing
        self.write = nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        N, C, H, W = x.shape
        places = self.normalise(x).flatten(2).mT  # (N, HW, C)
        q, k, v = self.read(places).unflatten(-1, (3, self.heads, -1)).movedim(2, 0).transpose(2, 3)
        read = scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(-2)
        written: Tensor = self.write(read)
        return x + written.mT.reshape(N, C, H, W)


def _normalisation(channels: int, affine: bool = True) -> nn.GroupNorm:
    """Of up to eight groups, of two channels or more: a group of one would undo a shift of its channel."""
    groups = next(n for n in range(min(8, max(channels // 2, 1)), 0, -1) if channels % n == 0)
    return nn.GroupNorm(groups, channels, affine=affine)


def _checked_picture(data_shape: tuple[int, ...], halvings: int) -> tuple[int, tuple[int, int]]:
    """Colours, and height and width, if these can be halved so often."""
    if len(data_shape) not in (2, 3):
        raise ValueError(
            f"'data_shape' is the shape of a picture, (height, width) or (colours, height, width), not {data_shape}: "
            "convolutions are for pictures."
        )
    height, width = data_shape[-2:]
    if height % 2**halvings or width % 2**halvings:
        raise ValueError(
            f"pictures of {height} by {width} do not halve evenly {halvings} times, as {halvings + 1} 'channels' ask: "
            "give fewer of them, or pad the pictures."
        )
    return prod(data_shape[:-2]), (height, width)


def _outputs(shape: tuple[int, ...], data_shape: tuple[int, ...]) -> tuple[int, bool]:
    """How many numbers for each value an output of this shape has, and whether their dimension comes first."""
    n = len(data_shape)
    if shape[:n] == data_shape and len(shape) <= n + 1:
        return prod(shape[n:]), False
    if shape[1:] == data_shape:
        return shape[0], True
    raise ValueError(
        f"'out_shape' must be 'data_shape', {data_shape}, or that with one more dimension behind or before it, not "
        f"{shape}."
    )


def _condition_features(shape: tuple[int, ...] | None, size: tuple[int, int]) -> tuple[int, int]:
    """Features of a condition that is a vector, and maps of one that is a picture."""
    if shape is None or len(shape) == 1:
        return 0 if shape is None else shape[0], 0
    if len(shape) not in (2, 3) or size[0] % shape[-2] or size[1] % shape[-1]:
        raise ValueError(
            f"'condition_shape' must be that of a vector, (C,), or of a picture whose size divides {size[0]} by "
            f"{size[1]}, not {shape}."
        )
    return 0, prod(shape[:-2])
