"""Finite mixtures over whole vectors."""

from abc import abstractmethod
from collections.abc import Callable
from math import log, pi
from typing import Any, final

import torch
from pyro.distributions import Categorical, Independent, Normal, TorchDistribution
from torch import Size, Tensor
from torch.distributions import constraints

__all__ = ["Mixture", "NormalMixture", "PickedMixture", "mixture"]


class Mixture(TorchDistribution):
    r"""$p(z) = \sum_k w_k\, p_k(z)$, abstract.

    Args:
        log_weights: log w, normalised, (K,).
        batch_shape, event_shape: of the distribution; the mixture is the same for the whole batch.
    """

    arg_constraints = {}  # noqa: RUF012

    def __init__(
        self, log_weights: Tensor, batch_shape: Size, event_shape: Size, validate_args: bool | None = None
    ) -> None:
        self.log_weights = log_weights
        super().__init__(batch_shape, event_shape, validate_args=validate_args)

    @abstractmethod
    def log_joint(self, value: Tensor) -> Tensor:
        """log w_k + log p_k(z), (..., K), nats."""

    @abstractmethod
    def draw_from(self, index: Tensor) -> Tensor:
        """A draw from the component that each index picks, (*index.shape, *event_shape)."""

    def log_prob(self, value: Tensor) -> Tensor:
        """log p(z), (...), nats."""
        if self._validate_args:
            self._validate_sample(value)
        log_prob = self.log_joint(value).logsumexp(-1).to(value.dtype)
        return log_prob.expand(torch.broadcast_shapes(log_prob.shape, self.batch_shape))

    def sample(self, sample_shape: Any = Size()) -> Tensor:  # noqa: B008
        """Draws a component and then from it, (*sample_shape, *batch_shape, *event_shape)."""
        with torch.no_grad():
            picked = Categorical(logits=self.log_weights).sample(Size(sample_shape) + self.batch_shape)
            return self.draw_from(picked)


@final
class NormalMixture(Mixture):
    r"""$p(z) = \sum_k w_k \prod_m \mathcal N(z_m \mid \mu_{km}, \sigma_{km}^2)$: the mixture is over whole vectors.

    All densities of a batch come from one product of matrices, of $(z^2, z)$ by $(-1/2\sigma^2, \mu/\sigma^2)$. It
    subtracts numbers of the size of $(\mu/\sigma)^2$, and therefore is in double precision whatever that of its
    arguments; so it is even quicker than K·M differences for every z in single precision.

    Args:
        mu, sigma: (K, M).
        log_weights: log w, normalised, (K,).

    Example:
        >>> halves = torch.full((2,), 0.5).log()
        >>> NormalMixture(torch.tensor([[0.0], [4.0]]), torch.ones(2, 1), halves).log_prob(torch.tensor([2.0]))
        tensor(-2.9189)
    """

    support = constraints.real_vector

    def __init__(
        self,
        mu: Tensor,
        sigma: Tensor,
        log_weights: Tensor,
        batch_shape: Size = Size(),  # noqa: B008
        validate_args: bool | None = None,
    ) -> None:
        self.mu, self.sigma = mu, sigma
        super().__init__(log_weights, batch_shape, mu.shape[-1:], validate_args=validate_args)

    def expand(self, batch_shape: Any, _instance: Any = None) -> "NormalMixture":
        """The same density for a larger batch."""
        return NormalMixture(self.mu, self.sigma, self.log_weights, Size(batch_shape), validate_args=False)

    def log_joint(self, value: Tensor) -> Tensor:
        """log w_k + log p_k(z), (..., K), nats, in double precision where the device has it."""
        if value.device.type == "mps":
            return self.log_weights + Normal(self.mu, self.sigma).to_event(1).log_prob(value.unsqueeze(-2))
        z, mu, sigma = value.double(), self.mu.double(), self.sigma.double()
        precision = sigma.square().reciprocal()
        squares = (0.5 * mu.square() * precision + sigma.log()).sum(-1) + 0.5 * mu.shape[-1] * log(2 * pi)
        factors = torch.cat((-0.5 * precision, mu * precision), -1)  # (K, 2M)
        return torch.cat((z.square(), z), -1) @ factors.mT + (self.log_weights.double() - squares)

    def draw_from(self, index: Tensor) -> Tensor:
        """A draw from the component that each index picks, (*index.shape, M)."""
        mu = self.mu[index]
        return mu + self.sigma[index] * torch.randn_like(mu)


@final
class PickedMixture(Mixture):
    """A mixture of densities of any family.

    Args:
        components: p_k, batch shape (K,).
        pick: from indices of components (...) to their densities, batch shape (...): what is drawn needs one
            component each, not all K.
        log_weights: log w, normalised, (K,).
    """

    def __init__(
        self,
        components: TorchDistribution,
        pick: Callable[[Tensor], TorchDistribution],
        log_weights: Tensor,
        batch_shape: Size = Size(),  # noqa: B008
        validate_args: bool | None = None,
    ) -> None:
        self.components, self.pick = components, pick
        super().__init__(log_weights, batch_shape, components.event_shape, validate_args=validate_args)

    def expand(self, batch_shape: Any, _instance: Any = None) -> "PickedMixture":
        """The same density for a larger batch."""
        return PickedMixture(self.components, self.pick, self.log_weights, Size(batch_shape), validate_args=False)

    @property
    def support(self) -> Any:
        """What its components have."""
        return self.components.support

    def log_joint(self, value: Tensor) -> Tensor:
        """log w_k + log p_k(z), (..., K), nats."""
        dims = len(self.event_shape)
        # Whole, because not every density takes a value whose 1 stands for its batch.
        shape = (*value.shape[: value.dim() - dims], len(self.log_weights), *self.event_shape)
        return self.log_weights + self.components.log_prob(value.unsqueeze(-1 - dims).expand(shape))

    def draw_from(self, index: Tensor) -> Tensor:
        """A draw from the component that each index picks, (*index.shape, *event_shape)."""
        draws: Tensor = self.pick(index).sample()
        return draws


def mixture(components: TorchDistribution, pick: Callable[[Tensor], TorchDistribution], log_weights: Tensor) -> Mixture:
    """The mixture of some densities, the quick one where they are diagonal normals; see `PickedMixture`."""
    if isinstance(components, Independent) and components.reinterpreted_batch_ndims == 1:
        base = components.base_dist
        if isinstance(base, Normal):
            return NormalMixture(base.loc, base.scale, log_weights)
    return PickedMixture(components, pick, log_weights)
