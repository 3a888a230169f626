"""Normal densities rounded to levels."""

from typing import Any

import torch
from pyro.distributions import TorchDistribution
from torch import Size, Tensor
from torch.distributions import constraints

# In levels; see `DiscretizedLogistic`.
_MINIMUM_SCALE = 1e-6


class DiscretizedNormal(TorchDistribution):
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

    arg_constraints = {"loc": constraints.real, "scale": constraints.positive}  # noqa: RUF012

    def __init__(self, loc: Tensor, scale: Tensor, levels: int, validate_args: bool | None = None) -> None:
        if levels < 2:
            raise ValueError(f"'levels' is the number of values and must be at least 2: {levels}.")
        self.loc, self.scale = torch.broadcast_tensors(loc, scale)
        self.levels = levels
        super().__init__(self.loc.shape, validate_args=validate_args)

    @constraints.dependent_property(is_discrete=True, event_dim=0)
    def support(self) -> Any:
        """The levels."""
        return constraints.integer_interval(0, self.levels - 1)

    def expand(self, batch_shape: Any, _instance: Any = None) -> "DiscretizedNormal":
        """The same distribution for a larger batch."""
        loc, scale = self.loc.expand(batch_shape), self.scale.expand(batch_shape)
        return DiscretizedNormal(loc, scale, self.levels, validate_args=False)

    def sample(self, sample_shape: Any = Size()) -> Tensor:  # noqa: B008  # PyTorch's own signature
        """Levels (*sample_shape, ...): a normal draw, rounded, and what lies outside in the outer bins."""
        with torch.no_grad():
            shape = self._extended_shape(sample_shape)
            noise = torch.randn(shape, dtype=self.loc.dtype, device=self.loc.device)
            y = self.loc + self.scale.clamp_min(_MINIMUM_SCALE) * noise
            return y.round().clamp(0, self.levels - 1)

    def log_prob(self, value: Tensor) -> Tensor:
        """log p(k), (...), nats."""
        if self._validate_args:
            self._validate_sample(value)
        scale = self.scale.clamp_min(_MINIMUM_SCALE)
        above, below = (value + 0.5 - self.loc) / scale, (value - 0.5 - self.loc) / scale  # the bin's edges
        first, last = value == 0, value == self.levels - 1
        # Bins right of the location are seen in the mirror, where their edges lie in the lower tail too.
        mirrored = last | ((above + below > 0) & ~first)
        wide = torch.special.log_ndtr(torch.where(mirrored, -below, above))
        narrow = torch.special.log_ndtr(torch.where(mirrored, -above, below))
        less = (narrow - wide).clamp_max(-torch.finfo(wide.dtype).tiny)
        return wide + torch.where(first | last, torch.zeros_like(wide), torch.log(-torch.expm1(less)))
