"""The likelihood of real data."""

from collections.abc import Sequence

import pyro.distributions as dist
from pyro.distributions import TorchDistribution
from torch import Tensor, nn
from torch.nn.functional import softplus

from pyro_lvm.likelihoods.scales import Scaled


class Normal(Scaled):
    r"""$p(x \mid z) = \prod_d \mathcal N(x_d \mid f_d(z), \sigma_d^2)$, for real data.

    Args:
        net: f, from (..., M) to the means, (..., *shape) or flat.
        scale: where σ comes from: a positive number fixes it (σ² = ½ makes the log-likelihood minus the squared error,
            up to (D/2) log π); `"shared"` learns one number; `"per_dimension"` learns one for every value of x
            and needs `shape`; `"predicted"` lets the network give it too, through a softplus, as the second half of its
            last dimension (with `shape`, of its flat output).
        shape: shape of a datum; the network's output's where left out.
        centre, spread: the data's, in their units: the mean is centre + spread · f(z), and a learned or predicted σ is
            in units of `spread`, so that the network works with numbers near 1.
        minimum: added to a learned or predicted σ, in units of `spread`, so that no datum's density can diverge.

    Raises:
        ValueError: where `scale` is neither of these, or `shape` is missing.

    References:
        Kingma & Welling (2014), Auto-Encoding Variational Bayes, appendix C.2.

    Example:
        >>> import torch
        >>> _ = torch.manual_seed(0)
        >>> p = Normal(nn.Linear(2, 12), scale="predicted", shape=(2, 3))(torch.zeros(5, 2))
        >>> p.event_shape
        torch.Size([2, 3])
    """

    def __init__(
        self,
        net: nn.Module,
        scale: float | str = "shared",
        shape: Sequence[int] | None = None,
        centre: float = 0.0,
        spread: float = 1.0,
        minimum: float = 1e-3,
    ) -> None:
        if not spread > 0:
            raise ValueError(f"'spread' is the data's and must be positive, not {spread}.")
        super().__init__(net, scale, shape, start=0.5413)  # softplus gives 1
        self.centre, self.spread, self.minimum = centre, spread, minimum

    def positive(self, raw: Tensor) -> Tensor:
        """σ from a free number."""
        return self.spread * (softplus(raw) + self.minimum)

    def forward(self, z: Tensor) -> TorchDistribution:
        """p(x | z), batch shape z.shape[:-1]."""
        out, scale = self.read(z)
        mean = self.centre + self.spread * out  # (..., *shape)
        return dist.Normal(mean, scale.expand_as(mean)).to_event(mean.dim() - z.dim() + 1)
