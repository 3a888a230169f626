"""What the draws of a diffusion are conditioned on, and how strongly."""

from abc import abstractmethod
from collections.abc import Sequence
from math import isfinite, prod
from typing import final

import torch
from torch import Tensor, nn

from pyro_lvm.configuration import Part
from pyro_lvm.diffusion.reverse import Reverse
from pyro_lvm.sizes import check_sizes, checked_shape

__all__ = ["Condition", "Label", "conditioned", "guided"]


class Condition(Part):
    """A condition c of data, abstract: where it is found in what a program is given, and what it is where nothing is.

    A model with one is of data given c, and so are its bound and its likelihood: log p(x | c). Its networks take c as a
    further argument.

    Attributes:
        shape: of c.
    """

    shape: tuple[int, ...]

    @abstractmethod
    def split(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The data, (..., *data_shape), and their conditions, (..., *shape), of what a program is given."""

    @abstractmethod
    def draw(self, n: int, like: Tensor) -> Tensor:
        """Conditions to draw n data by, (n, *shape), in the precision and on the device of `like`."""


@final
class Label(Condition):
    r"""The class of a datum, a label from 0 to C − 1 that stands beside its values; c is one-hot.

    Programs take vectors of D + 1 numbers, the values and the label, as `pyro_lvm.data.with_labels` makes them. The
    label C is of data whose class is unknown, and then c = 0: training with some of those teaches a network what to say
    without a class, which `guided` asks for. Classes to draw data by are all alike.

    Args:
        data_shape: shape of a datum (an int D is the shape (D,)).
        classes: C.

    Raises:
        ValueError: where a size is less than 1, and, when it is used, for data of another size.

    References:
        Ho & Salimans (2022), Classifier-Free Diffusion Guidance.

    Example:
        >>> x, c = Label((1, 2), classes=3).split(torch.tensor([[5.0, 6.0, 1.0], [7.0, 8.0, 3.0]]))
        >>> x.shape, c
        (torch.Size([2, 1, 2]), tensor([[0., 1., 0.],
                [0., 0., 0.]]))
    """

    def __init__(self, data_shape: int | Sequence[int], classes: int) -> None:
        super().__init__()
        check_sizes(classes=classes)
        self.data_shape, self.classes, self.shape = checked_shape(data_shape, "data_shape"), classes, (classes,)

    def split(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Data (..., *data_shape) and one-hot classes (..., C) of vectors (..., D + 1)."""
        D = prod(self.data_shape)
        if x.shape[-1:] != (D + 1,):
            raise ValueError(
                f"'x' must hold the {D} values of a datum and its label in one dimension, (..., {D + 1}), but has "
                f"shape {tuple(x.shape)}: make it with pyro_lvm.data.with_labels."
            )
        return x[..., :-1].unflatten(-1, self.data_shape), self.of(x[..., -1])

    def of(self, labels: Tensor) -> Tensor:
        """c (..., C) of labels (...)."""
        like = labels if labels.is_floating_point() else labels.to(torch.get_default_dtype())
        return (like.unsqueeze(-1) == torch.arange(self.classes, device=labels.device)).to(like.dtype)

    def draw(self, n: int, like: Tensor) -> Tensor:
        """Classes that are all alike, (n, C)."""
        return self.of(torch.randint(self.classes, (n,), device=like.device)).to(like.dtype)


def conditioned(
    condition: Condition | None, x: Tensor | None, size: int | None, like: Tensor
) -> tuple[Tensor | None, tuple[Tensor, ...]]:
    """The data, and the conditions as the further arguments of networks: none without a condition.

    Args:
        condition: or None.
        x, size: what a program was given.
        like: a tensor with the precision and device of what is drawn.
    """
    if condition is None or (x is None and size is None):
        return x, ()
    if x is None:
        assert size is not None
        return None, (condition.draw(size, like),)
    data, c = condition.split(x)
    return data, (c.to(like.dtype),)


def guided(reverse: Reverse, weight: float) -> Reverse:
    r"""A reverse process drawn towards its condition: $\hat\varepsilon = (1 + w)\, \varepsilon_\theta(z_t, t, c) - w\,
    \varepsilon_\theta(z_t, t, 0)$.

    It has the same weights. x̂ and v are combined alike, whichever the network gives; a learned variance is that of the
    condition. Its steps lead to no density: use it to draw.

    Args:
        reverse: its network takes a condition, and was trained with some of them 0.
        weight: w ≥ −1; 0 is the process itself, −1 asks for no condition, and the larger, the more typical of their
            condition are the draws and the less do they differ.

    Raises:
        ValueError: for a weight below −1, or not finite.

    References:
        Ho & Salimans (2022), Classifier-Free Diffusion Guidance.

    Example:
        >>> from pyro_lvm import networks
        >>> from pyro_lvm.diffusion import LinearSchedule, SmallVariance, Velocity
        >>> _ = torch.manual_seed(0)
        >>> net = networks.TimeMLP(4, hidden_features=8, condition_shape=10)
        >>> reverse = Reverse(net, 4, LinearSchedule(100), Velocity(), SmallVariance())
        >>> guided(reverse, 2.0).start(torch.zeros(5, 4), torch.tensor(0.5), torch.eye(10)[:5]).shape
        torch.Size([5, 4])
    """
    if not (isfinite(weight) and weight >= -1):
        raise ValueError(f"'weight' must be finite and at least -1, which is no condition at all, not {weight}.")
    net = _Guided(reverse.net, weight, len(reverse.data_shape), reverse.variance.outputs)
    return Reverse(net, reverse.data_shape, reverse.schedule, reverse.parameterisation, reverse.variance)


class _Guided(Part):
    """The network's output at c, and w times what c makes of it."""

    def __init__(self, net: nn.Module, weight: float, event_dim: int, learns_variance: int) -> None:
        super().__init__()
        self.net, self.weight, self.event_dim, self.learns_variance = net, weight, event_dim, learns_variance

    def forward(self, z: Tensor, t: Tensor, c: Tensor) -> Tensor:
        own: Tensor = self.net(z, t, c)
        out = own + self.weight * (own - self.net(z, t, torch.zeros_like(c)))
        if not self.learns_variance:
            return out
        dim = -1 - self.event_dim
        return torch.cat([out.narrow(dim, 0, 1), own.narrow(dim, 1, 1)], dim)
