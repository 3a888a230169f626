"""What a level of a hierarchy is."""

from abc import ABC, abstractmethod
from typing import cast

import pyro.distributions as dist
from pyro.distributions import TorchDistribution
from torch import Tensor, nn

from pyro_lvm.configuration import Part
from pyro_lvm.posteriors.scales import positive


class Level(Part, ABC):
    r"""One level of a hierarchy, abstract: two answers, of which a program over any number of levels is made.

    The state $h_l$ is what the levels below and the data read of $z_l, \dots, z_L$: one vector (..., H). Above the top
    there is none, and h is None.
    """

    @abstractmethod
    def conditional(self, h: Tensor | None) -> TorchDistribution:
        """p(z_l | z_{>l}), event shape (M,), given the state above, (..., H)."""

    @abstractmethod
    def state(self, h: Tensor | None, z: Tensor) -> Tensor:
        """The state (..., H') of z_{≥l}, given the state above and z_l, (..., M)."""


def downwards(levels: nn.ModuleList) -> list[tuple[int, Level]]:
    """The levels with their numbers, from the top down; they are kept from the data upwards, and counted from 1."""
    return cast(list[tuple[int, Level]], list(enumerate(levels, 1))[::-1])


def state_above(h: Tensor | None) -> Tensor:
    """The state, for levels that need one.

    Raises:
        ValueError: where there is none.
    """
    if h is None:
        raise ValueError("this level reads a state of the levels above and cannot be the top: put a `TopLevel` there.")
    return h


def normal(out: Tensor) -> TorchDistribution:
    """The normal distribution of a network's 2M numbers, M means and M raw scales.

    Raises:
        ValueError: where their number is odd.
    """
    if out.shape[-1] % 2:
        raise ValueError(
            f"a level needs 2M values from its network, M means and M scales; it gives {out.shape[-1]}, an odd number."
        )
    mu, raw = out.chunk(2, dim=-1)
    return dist.Normal(mu, positive(raw)).to_event(1)
