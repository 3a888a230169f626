"""Convolutional networks of residual blocks, between maps that come and go as vectors."""

from collections.abc import Callable, Sequence
from math import prod
from typing import final

from torch import Tensor, nn

from pyro_lvm.configuration import Part
from pyro_lvm.networks.inputs import check_spread
from pyro_lvm.networks.residual import start_small
from pyro_lvm.sizes import check_sizes, checked_shape

__all__ = [
    "ConvolutionalBlock",
    "ConvolutionalDecoder",
    "ConvolutionalEncoder",
    "ConvolutionalNet",
    "Upsampling",
    "doublings",
    "of_maps",
    "on_maps",
]


def on_maps(net: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """What a network of torch's convolutions gives for maps with any number of leading dimensions, or none.

    Particles add a dimension on the left, and a convolution takes one leading dimension only.

    Args:
        net: from (N, C, H, W) to (N, *out).
        x: (..., C, H, W).

    Returns:
        (..., *out).

    Example:
        >>> import torch
        >>> on_maps(nn.Conv2d(3, 2, 3), torch.zeros(7, 5, 3, 8, 8)).shape
        torch.Size([7, 5, 2, 6, 6])
    """
    leading = x.shape[:-3]
    out = net(x.reshape(-1, *x.shape[-3:]))
    return out.reshape(*leading, *out.shape[1:])


@final
class ConvolutionalBlock(Part):
    r"""$x + C_2\, h(C_1\, h(x))$ with convolutions C of three by three; it starts near the identity.

    Args:
        channels: of the maps, C.
        hidden_channels: of the maps between the two convolutions; `channels` where left out.

    Shapes:
        (..., C, H, W) to the same.

    Raises:
        ValueError: where a size is less than 1.

    References:
        He et al. (2016), Identity Mappings in Deep Residual Networks.

    Example:
        >>> import torch
        >>> _ = torch.manual_seed(0)
        >>> ConvolutionalBlock(4)(torch.zeros(7, 5, 4, 8, 8)).shape
        torch.Size([7, 5, 4, 8, 8])
    """

    def __init__(self, channels: int, hidden_channels: int | None = None) -> None:
        super().__init__()
        hidden = channels if hidden_channels is None else hidden_channels
        check_sizes(channels=channels, hidden_channels=hidden)
        last = nn.Conv2d(hidden, channels, 3, padding=1)
        start_small(last)
        self.layers = nn.Sequential(nn.SiLU(), nn.Conv2d(channels, hidden, 3, padding=1), nn.SiLU(), last)

    def forward(self, x: Tensor) -> Tensor:
        """The maps, and what the block adds to them."""
        return x + on_maps(self.layers, x)


@final
class Upsampling(Part):
    """Maps of twice the height and width: every value four times, then a convolution of three by three.

    A transposed convolution would put more of its weights on some places than on others, which shows as a chequerboard.

    Args:
        channels: of the maps, C.

    Shapes:
        (..., C, H, W) to (..., C, 2H, 2W).

    Raises:
        ValueError: where `channels` < 1.

    References:
        Odena, Dumoulin & Olah (2016), Deconvolution and Checkerboard Artifacts.

    Example:
        >>> import torch
        >>> _ = torch.manual_seed(0)
        >>> Upsampling(4)(torch.zeros(5, 4, 7, 7)).shape
        torch.Size([5, 4, 14, 14])
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        check_sizes(channels=channels)
        self.layers = nn.Sequential(nn.Upsample(scale_factor=2), nn.Conv2d(channels, channels, 3, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        """The larger maps."""
        return on_maps(self.layers, x)


@final
class ConvolutionalNet(Part):
    """From maps to maps of the same size, or of a size that is halved or doubled some times; both come as vectors.

    A convolution, for every halving one with a stride of 2, residual blocks, for every doubling an `Upsampling`, and a
    last convolution. Maps laid out as vectors can be put side by side, as the channels of one array, with `torch.cat`.

    Args:
        in_shape: of the maps that are read, (C, H, W).
        out_shape: of those that are given, (C', H', W').
        channels: of the maps within.
        blocks: number of residual blocks, 0 or more.

    Shapes:
        (..., C·H·W) to (..., C'·H'·W').

    Raises:
        ValueError: where a shape is not one of maps, or halving or doubling does not lead from one size to the other
            (28 → 14 → 7 is as far as 28 goes), or the input is of another size.

    Example:
        >>> import torch
        >>> _ = torch.manual_seed(0)
        >>> ConvolutionalNet((3, 28, 28), (4, 7, 7), channels=8)(torch.zeros(7, 5, 3 * 28 * 28)).shape
        torch.Size([7, 5, 196])
    """

    def __init__(self, in_shape: Sequence[int], out_shape: Sequence[int], channels: int = 32, blocks: int = 1) -> None:
        super().__init__()
        self.in_shape, self.out_shape = of_maps(in_shape, "in_shape"), of_maps(out_shape, "out_shape")
        check_sizes(channels=channels)
        if not isinstance(blocks, int) or blocks < 0:
            raise ValueError(f"'blocks' is a number of residual blocks and must be 0 or more, not {blocks!r}.")
        times = doublings(self.in_shape, self.out_shape)
        layers: list[nn.Module] = [nn.Conv2d(self.in_shape[0], channels, 3, padding=1)]
        for _ in range(-times):
            layers += [nn.SiLU(), nn.Conv2d(channels, channels, 3, stride=2, padding=1)]
        layers += [ConvolutionalBlock(channels) for _ in range(blocks)]
        layers += [Upsampling(channels) for _ in range(times)]
        self.layers = nn.Sequential(*layers, nn.SiLU(), nn.Conv2d(channels, self.out_shape[0], 3, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        """Maps (..., C·H·W) to (..., C'·H'·W')."""
        if x.shape[-1] != prod(self.in_shape):
            raise ValueError(
                f"the network reads maps of shape {self.in_shape} as vectors of {prod(self.in_shape)} numbers, but was "
                f"given {x.shape[-1]}: build it with the 'in_shape' of what it is to read."
            )
        return on_maps(self.layers, x.unflatten(-1, self.in_shape)).flatten(-3)


@final
class ConvolutionalEncoder(Part):
    """From pictures to maps of a size that is halved some times, as a vector.

    Args:
        data_shape: of a picture, (H, W) or (C, H, W).
        out_shape: of the maps, (C', H', W').
        channels, blocks: see `ConvolutionalNet`.
        centre: subtracted from the data.
        spread: the data are divided by it: they go in as they are and are rescaled here.

    Shapes:
        (..., *data_shape) to (..., C'·H'·W').

    Raises:
        ValueError: where `data_shape` is not that of a picture, halving does not lead from one size to the other,
            `spread` is not positive, or the input is of another shape.

    Example:
        >>> import torch
        >>> _ = torch.manual_seed(0)
        >>> ConvolutionalEncoder((28, 28), (4, 7, 7), channels=8, spread=255.0)(torch.zeros(5, 28, 28)).shape
        torch.Size([5, 196])
    """

    def __init__(
        self,
        data_shape: Sequence[int],
        out_shape: Sequence[int],
        channels: int = 32,
        blocks: int = 1,
        centre: float = 0.0,
        spread: float = 1.0,
    ) -> None:
        super().__init__()
        check_spread(spread)
        self.data_shape, self.centre, self.spread = checked_shape(data_shape, "data_shape"), centre, spread
        self.net = ConvolutionalNet(_of_pictures(self.data_shape), out_shape, channels, blocks)

    def forward(self, x: Tensor) -> Tensor:
        """Maps (..., *data_shape) to (..., C'·H'·W')."""
        n = len(self.data_shape)
        if x.dim() < n or tuple(x.shape[x.dim() - n :]) != self.data_shape:
            raise ValueError(
                f"the network takes pictures of shape (..., {', '.join(map(str, self.data_shape))}), but was given "
                f"{tuple(x.shape)}: build it with data_shape={tuple(x.shape[1:])}, or reshape the data."
            )
        flat = x.flatten(x.dim() - n).to(next(self.net.parameters()).dtype)
        out: Tensor = self.net((flat - self.centre) / self.spread)
        return out


@final
class ConvolutionalDecoder(Part):
    """From maps as a vector to numbers for every value of a picture, whose size is that of the maps doubled some times.

    Args:
        in_shape: of the maps, (C, H, W).
        data_shape: of a picture, (H', W') or (C', H', W').
        outputs: numbers given for each value, in a last dimension: as many logits as levels, for instance; where it is
            1 there is no such dimension.
        channels, blocks: see `ConvolutionalNet`.

    Shapes:
        (..., C·H·W) to (..., *data_shape, outputs), or (..., *data_shape).

    Raises:
        ValueError: where `data_shape` is not that of a picture, `outputs` < 1, or doubling does not lead from one size
            to the other.

    Example:
        >>> import torch
        >>> _ = torch.manual_seed(0)
        >>> ConvolutionalDecoder((4, 2, 2), (8, 8), outputs=17, channels=8)(torch.zeros(5, 16)).shape
        torch.Size([5, 8, 8, 17])
    """

    def __init__(
        self, in_shape: Sequence[int], data_shape: Sequence[int], outputs: int = 1, channels: int = 32, blocks: int = 1
    ) -> None:
        super().__init__()
        check_sizes(outputs=outputs)
        self.data_shape, self.outputs = checked_shape(data_shape, "data_shape"), outputs
        colours, height, width = _of_pictures(self.data_shape)
        self.net = ConvolutionalNet(in_shape, (colours * outputs, height, width), channels, blocks)

    def forward(self, h: Tensor) -> Tensor:
        """Maps (..., C·H·W) to (..., *data_shape, outputs)."""
        *_, height, width = self.data_shape
        out = self.net(h).unflatten(-1, (-1, self.outputs, height, width)).movedim(-3, -1)  # (..., C', H', W', outputs)
        out = out.reshape(*h.shape[:-1], *self.data_shape, self.outputs)
        return out.squeeze(-1) if self.outputs == 1 else out


def of_maps(shape: Sequence[int], name: str) -> tuple[int, int, int]:
    """The shape, if it is one of maps."""
    sizes = checked_shape(shape, name)
    if len(sizes) != 3:
        raise ValueError(f"'{name}' is the shape of maps, (channels, height, width), not {sizes}.")
    return sizes[0], sizes[1], sizes[2]


def _of_pictures(shape: tuple[int, ...]) -> tuple[int, int, int]:
    if len(shape) not in (2, 3):
        raise ValueError(
            f"'data_shape' is the shape of a picture, (height, width) or (channels, height, width), not "
            f"{shape}: convolutions are for pictures."
        )
    return of_maps((1, *shape)[-3:], "data_shape")


def doublings(in_shape: tuple[int, int, int], out_shape: tuple[int, int, int]) -> int:
    """How often the first size is doubled to give the second; negative, how often it is halved."""
    small, large = sorted([in_shape[1:], out_shape[1:]])
    times = max(large[0] // small[0], 1).bit_length() - 1
    if large != (small[0] * 2**times, small[1] * 2**times):
        raise ValueError(
            f"'in_shape' has maps of {in_shape[1]} by {in_shape[2]}, which cannot be brought to {out_shape[1]} by "
            f"{out_shape[2]}, those of 'out_shape': sizes must halve or double evenly, as 28 → 14 → 7, which is as "
            "far as 28 goes."
        )
    return times if out_shape[1:] == large else -times
