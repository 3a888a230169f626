"""Normal densities rounded to levels."""

from typing import final

import torch
from torch import Size, Tensor

from pyro_lvm.distributions.discretized import Discretized


@final
class DiscretizedNormal(Discretized):
    r"""$p(k) = \Phi((k + \tfrac12 - \mu)/\sigma) - \Phi((k - \tfrac12 - \mu)/\sigma)$ for levels k = 0, …, L − 1.

    A normal variable rounded to the nearest level; the first bin is open to the left and the last to the right, so that
    the probabilities sum to 1. The difference is taken between logarithms, in the tail that is the smaller one: a level
    σ·100 away costs some 5000 nats, in any precision, and none is impossible. Scales below 10⁻⁶ count as that.

    Args:
        loc: μ, in levels, (...).
        scale: σ > 0, in levels, (...).
        levels: L.

    Raises:
        ValueError: where `levels` < 2.

    References:
        Ho, Jain & Abbeel (2020), Denoising Diffusion Probabilistic Models, section 3.3.

    Example:
        >>> p = DiscretizedNormal(torch.tensor(2.0), torch.tensor(0.5), levels=5)
        >>> p.log_prob(torch.arange(5.0)).exp()
        tensor([0.0013, 0.1573, 0.6827, 0.1573, 0.0013])
    """

    def noise(self, shape: Size) -> Tensor:
        """Normal draws."""
        return torch.randn(shape, dtype=self.loc.dtype, device=self.loc.device)

    def log_mass(self, value: Tensor, scale: Tensor) -> Tensor:
        """log p(k), (...), nats."""
        above, below = (value + 0.5 - self.loc) / scale, (value - 0.5 - self.loc) / scale  # the bin's edges
        first, last = value == 0, value == self.levels - 1
        # Bins right of the location are seen in the mirror, where their edges lie in the lower tail too.
        mirrored = last | ((above + below > 0) & ~first)
        wide = torch.special.log_ndtr(torch.where(mirrored, -below, above))
        narrow = torch.special.log_ndtr(torch.where(mirrored, -above, below))
        less = (narrow - wide).clamp_max(-torch.finfo(wide.dtype).tiny)
        return wide + torch.where(first | last, torch.zeros_like(wide), torch.log(-torch.expm1(less)))
