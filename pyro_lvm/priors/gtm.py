"""The generative topographic map as a prior."""

from collections.abc import Sequence
from typing import final

import torch
from torch import Tensor, nn

from pyro_lvm.distributions.mixture import Mixture, NormalMixture
from pyro_lvm.networks import MLP
from pyro_lvm.priors.mixture_prior import MixturePrior
from pyro_lvm.sizes import check_sizes


@final
class GTM(MixturePrior):
    r"""$p(z) = \sum_k w_k \prod_m \mathcal N(z_m \mid \mu_m(c_k), \sigma_m(c_k)^2)$ over the points $c_k$ of a grid.

    One network gives μ and log σ² at every point, so that neighbours on the grid are neighbours among the latents.

    Args:
        latent_dim: M.
        grid_dim: C, dimension of the grid.
        points: on each of its axes, evenly from −1 to 1; the components are K = points^C.
        hidden_features: widths of the network's hidden layers.

    Shapes:
        () to a distribution with event shape (M,).

    Raises:
        ValueError: where a size is less than 1, or `points` less than 2.

    References:
        Bishop, Svensén & Williams (1998), GTM: The Generative Topographic Mapping.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> prior = GTM(2, points=4)
        >>> prior.grid[:2]
        tensor([[-1.0000, -1.0000],
                [-1.0000, -0.3333]])
        >>> prior.component(torch.zeros(7, 2)).shape
        torch.Size([7, 16])
    """

    grid: Tensor

    def __init__(
        self, latent_dim: int, grid_dim: int = 2, points: int = 10, hidden_features: Sequence[int] = (64, 64)
    ) -> None:
        super().__init__()
        check_sizes(latent_dim=latent_dim)
        self.register_buffer("grid", grid(grid_dim, points))
        self.net = MLP(grid_dim, 2 * latent_dim, hidden_features, nn.Tanh)
        self.logits = nn.Parameter(torch.zeros(len(self.grid)))

    def forward(self) -> Mixture:
        """The distribution of z, event shape (M,)."""
        mu, log_variance = self.net(self.grid).chunk(2, dim=-1)  # (K, M)
        return NormalMixture(mu, (0.5 * log_variance).exp(), self.logits.log_softmax(-1))


def grid(grid_dim: int, points: int) -> Tensor:
    """The Cartesian product of `points` numbers from −1 to 1 on C axes, (points^C, C), the last axis fastest."""
    check_sizes(grid_dim=grid_dim)
    if not isinstance(points, int) or points < 2:
        raise ValueError(f"'points' span an axis of the grid and must be at least 2, not {points!r}.")
    return torch.cartesian_prod(*[torch.linspace(-1, 1, points)] * grid_dim).reshape(-1, grid_dim)
