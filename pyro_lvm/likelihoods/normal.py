"""The likelihood of real data."""

from collections.abc import Sequence

import pyro.distributions as dist
import torch
from pyro.distributions import TorchDistribution
from torch import Tensor, nn
from torch.nn.functional import softplus

from pyro_lvm.configuration import Part
from pyro_lvm.likelihoods.shapes import checked, shaped


class Normal(Part):
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
        super().__init__()
        if not spread > 0:
            raise ValueError(f"'spread' is the data's and must be positive, not {spread}.")
        self.net, self.scale, self.shape = net, scale, checked(shape)
        self.centre, self.spread, self.minimum = centre, spread, minimum
        if isinstance(scale, (int, float)):
            if not (scale > 0 and scale < float("inf")):
                raise ValueError(f"'scale' is a standard deviation and must be positive and finite, not {scale}.")
        elif scale == "per_dimension" and shape is None:
            raise ValueError("'scale' = 'per_dimension' learns a scale for every value: give the data's 'shape' too.")
        elif scale not in ("shared", "per_dimension", "predicted"):
            raise ValueError(f"'scale' must be a number, 'shared', 'per_dimension' or 'predicted', not {scale!r}.")
        if scale in ("shared", "per_dimension"):
            sizes = () if scale == "shared" or self.shape is None else self.shape
            self.raw_scale = nn.Parameter(torch.full(sizes, 0.5413))  # softplus gives 1

    def forward(self, z: Tensor) -> TorchDistribution:
        """p(x | z), batch shape z.shape[:-1]."""
        out = self.net(z)
        if self.scale == "predicted":
            if out.shape[-1] % 2:
                raise ValueError(
                    f"'scale' = 'predicted' needs a network that gives twice as many numbers as a datum has, for means "
                    f"and scales; the last dimension of its output is {out.shape[-1]}, an odd number."
                )
            out, raw_scale = out.chunk(2, dim=-1)
            scale = self.spread * (softplus(shaped(raw_scale, z, self.shape, ())) + self.minimum)
        elif isinstance(self.scale, (int, float)):
            scale = out.new_tensor(float(self.scale))
        else:
            scale = self.spread * (softplus(self.raw_scale) + self.minimum)
        mean = self.centre + self.spread * shaped(out, z, self.shape, ())  # (..., *shape)
        return dist.Normal(mean, scale.expand_as(mean)).to_event(mean.dim() - z.dim() + 1)
