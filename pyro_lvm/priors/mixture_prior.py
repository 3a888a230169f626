"""What the priors that are mixtures share."""

from abc import abstractmethod

from torch import Tensor

from pyro_lvm.distributions.mixture import Mixture
from pyro_lvm.priors.prior import Prior, check_latents

__all__ = ["MixturePrior"]


class MixturePrior(Prior):
    """A prior with components, abstract."""

    @abstractmethod
    def forward(self) -> Mixture:
        """The distribution of z, event shape (M,)."""

    def component(self, z: Tensor) -> Tensor:
        r"""$p(k \mid z)$, the responsibilities of the components for latents (..., M), (..., K).

        Raises:
            ValueError: for latents of another dimension.
        """
        prior = self()
        check_latents(z, prior)
        return prior.log_joint(z).softmax(-1).to(z.dtype)
