"""Inverse autoregressive flows as a posterior."""

from collections.abc import Sequence

from pyro.distributions import TorchDistribution
from torch import Tensor, nn

from pyro_lvm.posteriors.heads import Headed, flow
from pyro_lvm.sizes import check_sizes
from pyro_lvm.transforms import AutoregressiveTransform, autoregressive


class InverseAutoregressive(Headed):
    r"""A diagonal normal after inverse autoregressive flows: $z_i \leftarrow s_i z_i + m_i$, parallel in i to draw.

    $m_i$ and $s_i > 0$ are a masked network's, of $z_{<i}$ and a context that the encoder gives; the order of the
    coordinates turns round from flow to flow. Its own draws are scored without an inversion; any other z takes one,
    sequential over M.

    Args:
        net: from (..., *data_shape) to features (..., features).
        features: how many features the network gives.
        latent_dim: M.
        flows: F.
        hidden_features: widths of the hidden layers of each flow's masked network.
        context: how many numbers the encoder gives it.

    Raises:
        ValueError: where a size is below 1, or the network gives another number of features.

    References:
        Kingma et al. (2016), Improving Variational Inference with Inverse Autoregressive Flow.

    Example:
        >>> import torch
        >>> _ = torch.manual_seed(0)
        >>> posterior = InverseAutoregressive(
        ...     nn.Linear(5, 8), features=8, latent_dim=3, flows=2, hidden_features=(16,), context=4
        ... )
        >>> posterior(torch.zeros(7, 5)).event_shape
        torch.Size([3])
    """

    def __init__(
        self,
        net: nn.Module,
        features: int,
        latent_dim: int,
        flows: int = 4,
        hidden_features: Sequence[int] = (64, 64),
        context: int = 16,
    ) -> None:
        check_sizes(flows=flows, context=context, hidden_features=min(hidden_features, default=1))
        super().__init__(net, features, latent_dim, 0)
        self.context = nn.Linear(features, context)
        self.flows = nn.ModuleList(
            autoregressive(latent_dim, context, hidden_features, reverse=bool(f % 2)) for f in range(flows)
        )

    def forward(self, x: Tensor) -> TorchDistribution:
        """q(z | x), event shape (M,)."""
        h = self.encoded(x)
        mu, sigma, _ = self.read(h)
        context, M = self.context(h), self.latent_dim
        return flow(mu, sigma, [AutoregressiveTransform(made, context, M, cache_size=1) for made in self.flows])
