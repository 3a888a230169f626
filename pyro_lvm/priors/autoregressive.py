"""The autoregressive prior."""

from collections.abc import Sequence
from math import log, pi
from typing import Any, final

import torch
from pyro.distributions import Categorical, TorchDistribution
from torch import Size, Tensor, nn
from torch.distributions import constraints

from pyro_lvm.networks.made import MADE
from pyro_lvm.priors.prior import Prior
from pyro_lvm.sizes import check_sizes


@final
class Autoregressive(Prior):
    r"""$p(z) = \prod_m \sum_c \pi_{mc}\, \mathcal N(z_m \mid \mu_{mc}, \sigma_{mc}^2)$, given $z_1 \dots z_{m-1}$.

    One masked network gives π, μ and log σ of every latent from those before it, in their natural order. A density
    takes one pass of the network, a draw M of them.

    Args:
        latent_dim: M.
        components: of each conditional; one makes them normal.
        hidden_features: widths of the network's hidden layers.

    Shapes:
        () to a distribution with event shape (M,).

    Raises:
        ValueError: where a size is less than 1.

    References:
        Germain et al. (2015), MADE: Masked Autoencoder for Distribution Estimation. Papamakarios, Pavlakou & Murray
        (2017), Masked Autoregressive Flow for Density Estimation.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> prior = Autoregressive(3, components=2)
        >>> prior.log_prob(prior.sample((7,))).shape
        torch.Size([7])
    """

    def __init__(self, latent_dim: int, components: int = 1, hidden_features: Sequence[int] = (64, 64)) -> None:
        super().__init__()
        check_sizes(latent_dim=latent_dim, components=components, hidden_features=min(hidden_features, default=1))
        self.latent_dim = latent_dim
        self.net = MADE(latent_dim, 3 * components, hidden_features, nn.Tanh)

    def forward(self) -> TorchDistribution:
        """The distribution of z, event shape (M,)."""
        return _Chain(self.net, self.latent_dim)


@final
class _Chain(TorchDistribution):
    """Normal or mixture conditionals, one after another."""

    arg_constraints = {}  # noqa: RUF012
    support = constraints.real_vector

    def __init__(
        self,
        net: MADE,
        latent_dim: int,
        batch_shape: Size = Size(),  # noqa: B008
        validate_args: bool | None = None,
    ) -> None:
        self.net = net
        super().__init__(batch_shape, Size((latent_dim,)), validate_args=validate_args)

    def expand(self, batch_shape: Any, _instance: Any = None) -> "_Chain":
        return _Chain(self.net, self.event_shape[0], Size(batch_shape), validate_args=False)

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        logits, mu, log_sigma = self._conditionals(value)
        residual = (value.unsqueeze(-1) - mu) * (-log_sigma).exp()
        log_joint = logits.log_softmax(-1) - 0.5 * residual.square() - log_sigma - 0.5 * log(2 * pi)  # (..., M, C)
        log_prob = log_joint.logsumexp(-1).sum(-1)
        return log_prob.expand(torch.broadcast_shapes(log_prob.shape, self.batch_shape))

    def sample(self, sample_shape: Any = Size()) -> Tensor:  # noqa: B008
        with torch.no_grad():
            reference = next(self.net.parameters())
            z = reference.new_zeros(self._extended_shape(sample_shape))
            for m in range(z.shape[-1]):
                logits, mu, log_sigma = (numbers[..., m, :] for numbers in self._conditionals(z))  # (..., C)
                picked = Categorical(logits=logits).sample().unsqueeze(-1)
                mu, log_sigma = mu.gather(-1, picked), log_sigma.gather(-1, picked)  # (..., 1)
                drawn = mu + log_sigma.exp() * torch.randn_like(mu)
                z = torch.cat((z[..., :m], drawn, z[..., m + 1 :]), -1)
            return z

    def _conditionals(self, z: Tensor) -> tuple[Tensor, ...]:
        return self.net(z).chunk(3, dim=-1)  # (..., M, C) each
