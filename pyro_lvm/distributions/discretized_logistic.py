"""Logistic densities rounded to levels, and mixtures of them."""

from typing import Any, final

import torch
from pyro.distributions import TorchDistribution
from torch import Size, Tensor
from torch.distributions import constraints
from torch.nn.functional import logsigmoid

from pyro_lvm.distributions.discretized import Discretized


@final
class DiscretizedLogistic(Discretized):
    r"""$p(k) = \sigma((k + \tfrac12 - \mu)/s) - \sigma((k - \tfrac12 - \mu)/s)$ for levels k = 0, …, L − 1.

    A logistic variable rounded to the nearest level; the first bin is open to the left and the last to the right, so
    that the probabilities sum to 1. With $b = (k + \tfrac12 - \mu)/s$ and $a = (k - \tfrac12 - \mu)/s$ it is computed
    as $\log p = \log\sigma(b) + \log\sigma(-a) + \log(1 - e^{-1/s})$, where nothing cancels: a level s·100 away costs
    some 100 nats, in any precision, and none is impossible. Scales below 10⁻⁶ count as that.

    Args:
        loc: μ, in levels, (...).
        scale: s > 0, in levels, (...).
        levels: L.

    Raises:
        ValueError: where `levels` < 2.

    References:
        Kingma et al. (2016), Improved Variational Inference with Inverse Autoregressive Flow. Salimans et al. (2017),
        PixelCNN++.

    Example:
        >>> p = DiscretizedLogistic(torch.tensor(2.0), torch.tensor(0.5), levels=5)
        >>> p.log_prob(torch.arange(5.0)).exp()
        tensor([0.0474, 0.2215, 0.4621, 0.2215, 0.0474])
    """

    def noise(self, shape: Size) -> Tensor:
        """Logistic draws."""
        u = torch.rand(shape, dtype=self.loc.dtype, device=self.loc.device)
        return u.log() - torch.log1p(-u)

    def log_mass(self, value: Tensor, scale: Tensor) -> Tensor:
        """log p(k), (...), nats."""
        below = logsigmoid((value + 0.5 - self.loc) / scale)
        above = logsigmoid((self.loc - value + 0.5) / scale)
        bin_width = (-torch.expm1(-1 / scale)).log()
        first, last = value == 0, value == self.levels - 1
        return (
            torch.where(last, 0.0, below) + torch.where(first, 0.0, above) + torch.where(first | last, 0.0, bin_width)
        )


@final
class DiscretizedLogisticMixture(TorchDistribution):
    r"""$p(k) = \sum_c \pi_c\, p(k \mid \mu_c, s_c)$ over discretised logistics; see `DiscretizedLogistic`.

    Args:
        logits: log π up to a constant, (..., C).
        loc, scale: μ and s > 0, in levels, (..., C).
        levels: L.

    Raises:
        ValueError: where `levels` < 2.

    References:
        Salimans et al. (2017), PixelCNN++.

    Example:
        >>> loc, scale = torch.tensor([0.0, 4.0]), torch.tensor([0.2, 0.2])
        >>> p = DiscretizedLogisticMixture(torch.zeros(2), loc, scale, levels=5)
        >>> p.log_prob(torch.arange(5.0)).exp()
        tensor([0.4621, 0.0377, 0.0005, 0.0377, 0.4621])
    """

    arg_constraints = {  # noqa: RUF012
        "logits": constraints.real_vector,
        "loc": constraints.real_vector,
        "scale": constraints.independent(constraints.positive, 1),
    }

    def __init__(
        self, logits: Tensor, loc: Tensor, scale: Tensor, levels: int, validate_args: bool | None = None
    ) -> None:
        self.logits, self.loc, self.scale = torch.broadcast_tensors(logits, loc, scale)
        self.levels = levels
        self._components = DiscretizedLogistic(self.loc, self.scale, levels, validate_args=False)
        super().__init__(self.loc.shape[:-1], validate_args=validate_args)

    @constraints.dependent_property(is_discrete=True, event_dim=0)
    def support(self) -> Any:
        """The levels."""
        return constraints.integer_interval(0, self.levels - 1)

    def expand(self, batch_shape: Any, _instance: Any = None) -> "DiscretizedLogisticMixture":
        """The same distribution for a larger batch."""
        shape = Size(batch_shape) + self.loc.shape[-1:]
        logits, loc, scale = (p.expand(shape) for p in (self.logits, self.loc, self.scale))
        return DiscretizedLogisticMixture(logits, loc, scale, self.levels, validate_args=False)

    def sample(self, sample_shape: Any = Size()) -> Tensor:  # noqa: B008  # PyTorch's own signature
        """Levels (*sample_shape, ...), each from a component that is drawn first."""
        with torch.no_grad():
            of_each = self._components.sample(sample_shape)  # (*sample_shape, ..., C)
            noise = -torch.empty_like(of_each).exponential_().log()  # Gumbel: its largest sum is a categorical draw
            component = (self.logits + noise).argmax(-1, keepdim=True)
            return of_each.gather(-1, component).squeeze(-1)

    def log_prob(self, value: Tensor) -> Tensor:
        """log p(k), (...), nats."""
        if self._validate_args:
            self._validate_sample(value)
        log_joint = self.logits.log_softmax(-1) + self._components.log_prob(value.unsqueeze(-1))  # (..., C)
        return log_joint.logsumexp(-1)
