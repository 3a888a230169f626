"""What continuous priors share."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import cast

from pyro.distributions import TorchDistribution
from torch import Tensor

from pyro_lvm.configuration import Part

__all__ = ["Prior"]


class Prior(Part):
    """A density p(z), abstract: `forward` takes nothing and returns the distribution, without a batch."""

    @abstractmethod
    def forward(self) -> TorchDistribution:
        """The distribution of z, event shape (M,)."""

    def log_prob(self, z: Tensor) -> Tensor:
        """log p(z) of latents (..., M), (...), nats.

        Raises:
            ValueError: for latents of another dimension.
        """
        prior = self()
        check_latents(z, prior)
        return cast(Tensor, prior.log_prob(z))

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Draws, (*sample_shape, M), without gradients."""
        return cast(Tensor, self().sample(tuple(sample_shape)))


def check_latents(z: Tensor, prior: TorchDistribution) -> None:
    """Refuses latents that are not of the prior's shape."""
    expected = tuple(prior.event_shape)
    if z.dim() < len(expected) or tuple(z.shape[z.dim() - len(expected) :]) != expected:
        raise ValueError(
            f"'z' must have shape (..., {', '.join(map(str, expected))}), as the prior's latents have, not "
            f"{tuple(z.shape)}."
        )
