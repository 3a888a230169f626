"""The VampPrior whose pseudo-inputs come from a grid."""

from collections.abc import Sequence
from typing import final

import torch
from torch import Tensor, nn

from pyro_lvm.distributions.mixture import Mixture, mixture
from pyro_lvm.networks import MLP
from pyro_lvm.priors.gtm import grid
from pyro_lvm.priors.mixture_prior import MixturePrior
from pyro_lvm.priors.vamp import check_range
from pyro_lvm.sizes import checked_shape


@final
class GTMVamp(MixturePrior):
    r"""$p(z) = \sum_k w_k\, q(z \mid g(c_k))$: a network maps the points $c_k$ of a grid to pseudo-inputs.

    See `VampPrior` for the posterior that model and guide share, and `GTM` for the grid.

    Args:
        posterior: x (..., *data_shape) to the distribution of z, the guide's own.
        data_shape: shape of a datum.
        grid_dim: C, dimension of the grid.
        points: on each of its axes, evenly from −1 to 1; the components are K = points^C.
        hidden_features: widths of the network's hidden layers.
        minimum, maximum: the data's range, in their units; the network ends in a sigmoid between them.

    Shapes:
        () to a distribution with the posterior's event shape, (M,).

    Raises:
        ValueError: where a size is less than 1, `points` less than 2, or the range is empty or infinite.

    References:
        Tomczak & Welling (2018), VAE with a VampPrior. Bishop, Svensén & Williams (1998), GTM: The Generative
        Topographic Mapping.

    Example:
        >>> from pyro_lvm import networks, posteriors
        >>> _ = torch.manual_seed(0)
        >>> posterior = posteriors.DiagonalNormal(networks.MLP((4, 4), 2 * 3, (8,)))
        >>> prior = GTMVamp(posterior, (4, 4), points=5)
        >>> prior.pseudo_inputs.shape, prior.sample((7,)).shape
        (torch.Size([25, 4, 4]), torch.Size([7, 3]))
    """

    grid: Tensor

    def __init__(
        self,
        posterior: nn.Module,
        data_shape: int | Sequence[int],
        grid_dim: int = 2,
        points: int = 10,
        hidden_features: Sequence[int] = (64, 64),
        minimum: float = 0.0,
        maximum: float = 1.0,
    ) -> None:
        super().__init__()
        shape = checked_shape(data_shape, "data_shape")
        check_range(minimum, maximum)
        self.register_buffer("grid", grid(grid_dim, points))
        self.posterior, self.minimum, self.maximum = posterior, minimum, maximum
        self.net = MLP(grid_dim, shape, hidden_features, nn.Tanh)
        self.logits = nn.Parameter(torch.zeros(len(self.grid)))

    @property
    def pseudo_inputs(self) -> Tensor:
        """g(c), (K, *data_shape), in the data's units."""
        u: Tensor = self.minimum + (self.maximum - self.minimum) * self.net(self.grid).sigmoid()
        return u

    def forward(self) -> Mixture:
        """The distribution of z, event shape (M,)."""
        u = self.pseudo_inputs
        return mixture(self.posterior(u), lambda k: self.posterior(u[k]), self.logits.log_softmax(-1))
