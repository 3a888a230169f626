"""The power spherical density, whose draws need neither rejection nor quadrature."""

from math import ceil
from typing import Any

import torch
from pyro.distributions import TorchDistribution, constraints
from torch import Size, Tensor
from torch.distributions import Gamma, register_kl

from pyro_lvm.distributions.hyperspherical_uniform import HypersphericalUniform, log_area, uniform_directions
from pyro_lvm.distributions.von_mises_fisher import around, check_values, same_sphere, spherical_batch

_STIRLING = 10.0  # from here on four terms of Stirling's series leave about 1e-12


class PowerSpherical(TorchDistribution):
    r"""$q(z) \propto (1 + \mu^\top z)^\kappa$ on the sphere $S^{m-1} = \{z \in \mathbb R^m : \|z\| = 1\}$.

    $(1 + \mu^\top z)/2$ has a beta distribution with parameters $(m-1)/2 + \kappa$ and $(m-1)/2$. Next to the von
    Mises-Fisher density of the same κ it is wider: near μ it falls like that of κ/2. With κ = 0 it is uniform.

    Args:
        mean_direction: μ, unit vectors (..., m), m ≥ 2.
        concentration: κ ≥ 0, (...).

    Raises:
        ValueError: where m < 2, and, with validation on, where μ is no unit vector or κ is negative.

    References:
        De Cao & Aziz (2020), The Power Spherical Distribution.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> q = PowerSpherical(torch.tensor([0.0, 0.6, 0.8]), torch.tensor([1.0, 100.0]))
        >>> q.rsample((5,)).shape, q.mean[1]
        (torch.Size([5, 2, 3]), tensor([0.0000, 0.5882, 0.7843]))
        >>> torch.distributions.kl_divergence(q, HypersphericalUniform(3))
        tensor([0.1931, 3.6250])
    """

    arg_constraints = {}  # noqa: RUF012  # checked here, in words
    support = constraints.sphere
    has_rsample = True

    def __init__(self, mean_direction: Tensor, concentration: Tensor, validate_args: bool | None = None) -> None:
        batch = spherical_batch(mean_direction, concentration)
        self.mean_direction = mean_direction.expand(batch + mean_direction.shape[-1:])
        self.concentration = concentration.expand(batch)
        super().__init__(batch, mean_direction.shape[-1:], validate_args=validate_args)
        if self._validate_args:
            check_values(mean_direction, concentration)

    def expand(self, batch_shape: Any, _instance: Any = None) -> "PowerSpherical":
        """The same density with a larger batch."""
        new = self._get_checked_instance(PowerSpherical, _instance)
        batch = Size(batch_shape)
        new.mean_direction = self.mean_direction.expand(batch + self.event_shape)
        new.concentration = self.concentration.expand(batch)
        super(PowerSpherical, new).__init__(batch, self.event_shape, validate_args=False)
        new._validate_args = self._validate_args
        return new

    @property
    def mean(self) -> Tensor:
        """κ / (κ + m − 1) μ, inside the sphere, (..., m)."""
        kappa = self.concentration.unsqueeze(-1)
        return kappa / (kappa + 2 * self._beta) * self.mean_direction

    def rsample(self, sample_shape: Any = Size()) -> Tensor:  # noqa: B008
        """Draws (*sample_shape, ..., m)."""
        shape, mu = self._extended_shape(sample_shape), self.mean_direction
        alpha = (self.concentration + self._beta).expand(shape[:-1])
        # The two parts of the beta variable, so that neither it nor what it lacks to 1 is rounded.
        near = Gamma(alpha, torch.ones_like(alpha), validate_args=False).rsample()
        far = Gamma(torch.full_like(alpha, self._beta), torch.ones_like(alpha), validate_args=False).sample()
        cosine, sine = (near - far) / (near + far), 2 * (near.sqrt() * far.sqrt()) / (near + far)
        return around(mu, cosine, sine, uniform_directions(Size((*shape[:-1], shape[-1] - 1)), mu))

    def log_prob(self, value: Tensor) -> Tensor:
        """log q(z), (...), nats."""
        if self._validate_args:
            self._validate_sample(value)
        # log((1 + μᵀz) / 2), from the distance to μ or to −μ, whichever is short.
        mu, tiny = self.mean_direction, torch.finfo(value.dtype).tiny
        near, far = (value - mu).square().sum(-1) / 4, (value + mu).square().sum(-1) / 4
        closer = near < far
        log_half = torch.where(closer, (-near.clamp_max(0.75)).log1p(), far.clamp_min(tiny).log())
        return self.concentration * log_half - self._log_partition - log_area(self.event_shape[0])

    def entropy(self) -> Tensor:
        """−E log q(z), (...), nats."""
        return log_area(self.event_shape[0]) - self._divergence

    @property
    def _beta(self) -> float:
        return (self.event_shape[0] - 1) / 2

    @property
    def _log_partition(self) -> Tensor:
        return _log_partition(self.concentration, self._beta)[0]

    @property
    def _divergence(self) -> Tensor:
        log_partition, slope = _log_partition(self.concentration, self._beta)
        return self.concentration * slope - log_partition


@register_kl(PowerSpherical, HypersphericalUniform)
def _kl_uniform(q: PowerSpherical, p: HypersphericalUniform) -> Tensor:
    r"""$\kappa\, (\psi(\alpha) - \psi(\alpha + \beta)) - \log \mathbb E\, t^\kappa$ with t as in `_log_partition`."""
    return q._divergence.expand(same_sphere(q, p))


def _log_partition(kappa: Tensor, beta: float) -> tuple[Tensor, Tensor]:
    r"""$g = \log \mathbb E\, t^\kappa$, $t = (1 + \mu^\top z)/2$ with uniform z, and its derivative.

    $e^g = \Gamma(\beta + \kappa) \Gamma(2\beta) / (\Gamma(\beta) \Gamma(2\beta + \kappa))$. The logarithms of these
    gamma functions cancel to the last digit where κ is small or large; their Stirling series are subtracted on paper.
    """
    steps = max(0, ceil(_STIRLING - beta))
    x, y = beta + steps, 2 * beta + steps
    near, far = x + kappa, y + kappa
    value = (x - 0.5) * (kappa / x).log1p() - (y - 0.5) * (kappa / y).log1p() - kappa * (beta / near).log1p()
    value = value + _stirling(near) - _stirling(far) - (_stirling(x) - _stirling(y))
    slope = -(beta / near).log1p() - beta / (2 * near * far) + _stirling_slope(near) - _stirling_slope(far)
    for j in range(steps):  # Γ(x) = (x − 1) Γ(x − 1)
        near, far = beta + j + kappa, 2 * beta + j + kappa
        value = value + (-kappa * beta / ((2 * beta + j) * near)).log1p()
        slope = slope - beta / (near * far)
    return value, slope


def _stirling(x: Any) -> Any:
    """log Γ(x) less (x − ½) log x − x + ½ log 2π."""
    square = 1 / (x * x)
    return (1 / 12 - square * (1 / 360 - square * (1 / 1260 - square / 1680))) / x


def _stirling_slope(x: Any) -> Any:
    square = 1 / (x * x)
    return -square * (1 / 12 - square * (1 / 120 - square * (1 / 252 - square / 240)))
