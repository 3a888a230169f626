"""The von Mises-Fisher density, the normal's counterpart on a sphere."""

from functools import cache
from math import pi
from typing import Any

import numpy as np
import torch
from pyro.distributions import TorchDistribution, constraints
from torch import Size, Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.distributions import register_kl
from torch.nn.functional import pad

from pyro_lvm.distributions.bessel import bessel_terms
from pyro_lvm.distributions.hyperspherical_uniform import HypersphericalUniform, log_area, uniform_directions

# The range of angles is cut where the density has fallen by e^-36, a rounding error in double precision, and divided
# into panels of a standard deviation or less, within which five nodes leave about 1e-10 of the probability.
_TAIL, _PANELS, _NODES = 36.0, 32, 5
_NEWTON_STEPS = 4  # from a guess that is within some percent of a panel; each doubles the digits


class VonMisesFisher(TorchDistribution):
    r"""$q(z) = C_m(\kappa)\, e^{\kappa \mu^\top z}$ on the sphere $S^{m-1} = \{z \in \mathbb R^m : \|z\| = 1\}$.

    $C_m(\kappa) = \kappa^{m/2-1} / ((2\pi)^{m/2} I_{m/2-1}(\kappa))$. With κ = 0 it is uniform.

    A draw is $z = \mu \cos\theta + v \sin\theta$ with v uniform among the unit vectors orthogonal to μ, and θ the
    quantile of a uniform number, found by quadrature: no rejection, and implicit gradients with respect to κ. Draws
    can be differentiated once.

    Args:
        mean_direction: μ, unit vectors (..., m), m ≥ 2.
        concentration: κ ≥ 0, (...).

    Raises:
        ValueError: where m < 2, and, with validation on, where μ is no unit vector or κ is negative.

    References:
        Fisher (1953), Dispersion on a Sphere. Davidson et al. (2018), Hyperspherical Variational Auto-Encoders.
        Figurnov, Mohamed & Mnih (2018), Implicit Reparameterization Gradients.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> q = VonMisesFisher(torch.tensor([0.0, 0.6, 0.8]), torch.tensor([1.0, 100.0]))
        >>> q.rsample((5,)).shape, q.mean[1]
        (torch.Size([5, 2, 3]), tensor([0.0000, 0.5940, 0.7920]))
        >>> torch.distributions.kl_divergence(q, HypersphericalUniform(3))
        tensor([0.1516, 4.2983])
    """

    arg_constraints = {}  # noqa: RUF012  # checked here, in words
    support = constraints.sphere
    has_rsample = True

    def __init__(self, mean_direction: Tensor, concentration: Tensor, validate_args: bool | None = None) -> None:
        batch = spherical_batch(mean_direction, concentration)
        self._mu, self._kappa = mean_direction, concentration
        super().__init__(batch, mean_direction.shape[-1:], validate_args=validate_args)
        if self._validate_args:
            check_values(mean_direction, concentration)

    def expand(self, batch_shape: Any, _instance: Any = None) -> "VonMisesFisher":
        """The same density with a larger batch."""
        new = self._get_checked_instance(VonMisesFisher, _instance)
        new._mu, new._kappa = self._mu, self._kappa  # as they are: an angle's quadrature is done once for all particles
        super(VonMisesFisher, new).__init__(Size(batch_shape), self.event_shape, validate_args=False)
        new._validate_args = self._validate_args
        return new

    @property
    def mean_direction(self) -> Tensor:
        """μ, (..., m)."""
        return self._mu.expand(self.batch_shape + self.event_shape)

    @property
    def concentration(self) -> Tensor:
        """κ, (...)."""
        return self._kappa.expand(self.batch_shape)

    @property
    def mean(self) -> Tensor:
        """A_m(κ) μ, inside the sphere, (..., m)."""
        return (self._terms.resultant.unsqueeze(-1) * self._mu).expand(self.batch_shape + self.event_shape)

    def rsample(self, sample_shape: Any = Size()) -> Tensor:  # noqa: B008
        """Draws (*sample_shape, ..., m)."""
        shape = self._extended_shape(sample_shape)
        uniform = torch.rand(shape[:-1], dtype=self._kappa.dtype, device=self._kappa.device)
        theta = angle_quantile(uniform, self._kappa, shape[-1])
        direction = uniform_directions(Size((*shape[:-1], shape[-1] - 1)), self._mu)
        return around(self._mu, theta.cos(), theta.sin(), direction)

    def log_prob(self, value: Tensor) -> Tensor:
        """log q(z), (...), nats."""
        if self._validate_args:
            self._validate_sample(value)
        # κ μᵀz = κ − κ ‖z − μ‖² / 2, without the rounding error of a number as large as κ.
        square = (value - self._mu).square().sum(-1)
        log_density = self._terms.log_peak - log_area(self.event_shape[0]) - 0.5 * self._kappa * square
        return log_density.expand(torch.broadcast_shapes(log_density.shape, self.batch_shape))

    def entropy(self) -> Tensor:
        """−E log q(z), (...), nats."""
        return (log_area(self.event_shape[0]) - self._terms.divergence).expand(self.batch_shape)

    @property
    def _terms(self) -> Any:
        return bessel_terms(self._kappa, self.event_shape[0])


@register_kl(VonMisesFisher, HypersphericalUniform)
def _kl_uniform(q: VonMisesFisher, p: HypersphericalUniform) -> Tensor:
    r"""$\kappa A_m(\kappa) + \log C_m(\kappa) + \log(2 \pi^{m/2} / \Gamma(m/2))$."""
    return q._terms.divergence.expand(same_sphere(q, p))


def spherical_batch(mean_direction: Tensor, concentration: Tensor) -> Size:
    """The batch shape of a density on a sphere.

    Raises:
        ValueError: where there are less than two coordinates.
    """
    if mean_direction.dim() == 0 or mean_direction.shape[-1] < 2:
        raise ValueError(
            "'mean_direction' must hold vectors of at least 2 coordinates in its last dimension, but its shape is "
            f"{tuple(mean_direction.shape)}."
        )
    return torch.broadcast_shapes(mean_direction.shape[:-1], concentration.shape)


def check_values(mean_direction: Tensor, concentration: Tensor) -> None:
    """Sees that the parameters are unit vectors and numbers from 0 on.

    Raises:
        ValueError: where they are not.
    """
    if not bool(constraints.sphere.check(mean_direction).all()):
        norms = torch.linalg.vector_norm(mean_direction, dim=-1)
        worst = norms.flatten()[(norms - 1).abs().nan_to_num(torch.inf).argmax()].item()
        raise ValueError(
            f"'mean_direction' must hold unit vectors, but one has the norm {worst:.9g}: divide each by its norm."
        )
    if not bool(((concentration >= 0) & concentration.isfinite()).all()):
        wrong = concentration[~((concentration >= 0) & concentration.isfinite())][0].item()
        raise ValueError(
            f"'concentration' must be finite and at least 0, but one is {wrong:.4g}: a softplus makes it so."
        )


def same_sphere(q: TorchDistribution, p: TorchDistribution) -> Size:
    """The batch shape of a divergence between densities on one sphere.

    Raises:
        ValueError: where the spheres are not the same.
    """
    if q.event_shape != p.event_shape:
        raise ValueError(
            f"the densities lie on different spheres: of {q.event_shape[0]} and of {p.event_shape[0]} coordinates."
        )
    return torch.broadcast_shapes(q.batch_shape, p.batch_shape)


def around(mu: Tensor, cosine: Tensor, sine: Tensor, direction: Tensor) -> Tensor:
    r"""$\mu \cos\theta + v \sin\theta$, v being the tangent at μ that a direction in one coordinate less stands for.

    $v = H (0, d)$ with the Householder reflection H that swaps $e_1$ and μ, or, where $\mu_1 > 0$, $-e_1$ and μ:
    of the two the one whose vector is long, so that none is divided by a small number.

    Args:
        mu: unit vectors, (..., m).
        cosine, sine: (...).
        direction: d, unit vectors (..., m − 1).
    """
    first, others = mu[..., :1], mu[..., 1:]
    along = (others * direction).sum(-1, keepdim=True)
    sign = torch.where(first > 0, 1.0, -1.0).to(mu.dtype)
    head = -sign * along
    tail = direction - others * along / (1 + first.abs())
    tangent = torch.cat((head, tail), dim=-1)
    return cosine.unsqueeze(-1) * mu + sine.unsqueeze(-1) * tangent


def angle_quantile(uniform: Tensor, kappa: Tensor, dim: int) -> Tensor:
    r"""The angle θ between z and μ below which a share of the draws lies.

    $p(\theta) \propto e^{\kappa \cos\theta} \sin^{m-2}\theta$ on [0, π]. Its distribution function F is summed up by
    Gauss-Legendre quadrature over panels, and inverted by Newton's method within the panel; the derivative is
    $d\theta/d\kappa = -\partial_\kappa F / p$. All is a fixed sequence of operations, which can be captured.

    Args:
        uniform: F(θ), in [0, 1], (..., *batch).
        kappa: κ ≥ 0, (*batch).
        dim: m ≥ 2.
    """
    theta: Tensor = _Angle.apply(kappa, uniform, dim)
    return theta


class _Angle(Function):
    @staticmethod
    def forward(ctx: Any, kappa: Tensor, uniform: Tensor, dim: int) -> Tensor:
        theta, slope = _angle(kappa, uniform, dim, ctx.needs_input_grad[0])
        ctx.shape = kappa.shape
        ctx.save_for_backward(slope)
        return theta

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        return (gradient * ctx.saved_tensors[0]).sum_to_size(ctx.shape), None, None


def _angle(kappa: Tensor, uniform: Tensor, dim: int, with_slope: bool) -> tuple[Tensor, Tensor | None]:
    """θ, and its derivative with respect to κ; densities are relative to the mode's."""
    power, tiny = dim - 2, torch.finfo(kappa.dtype).tiny
    nodes, weights = (kappa.new_tensor(values) for values in _gauss_legendre())
    low, high, mode = (bound.unsqueeze(-1) for bound in _range(kappa, power))  # (*batch, 1)
    width = (high - low) / _PANELS

    def log_density(versine: Tensor, extra: int) -> Tensor:
        square = (versine * (2 - versine)).clamp_min(tiny)  # sin² θ
        k, top, top_square = (_unsqueezed(t, extra) for t in (kappa, mode[..., 0], (mode * (2 - mode))[..., 0]))
        return power / 2 * (square / top_square.clamp_min(tiny)).log() - k * (versine - top)

    # The panels' masses.
    panel = torch.arange(_PANELS + 1, dtype=kappa.dtype, device=kappa.device)
    edges = low + width * panel  # (*batch, P + 1)
    v = _versine(edges[..., :-1, None] + width.unsqueeze(-1) * nodes)  # (*batch, P, Q)
    terms = width.unsqueeze(-1) * weights * log_density(v, 2).exp()
    mass = terms.sum(-1)  # (*batch, P)
    below = mass.cumsum(-1)
    total = below[..., -1]

    # The panel that θ lies in.
    target = uniform * total
    index = (target.unsqueeze(-1) >= below[..., :-1]).sum(-1, keepdim=True)  # (..., 1)

    def here(table: Tensor) -> Tensor:
        return table.expand(*uniform.shape, table.shape[-1]).gather(-1, index).squeeze(-1)

    target = target - here(pad(below[..., :-1], (1, 0)))
    left, width = here(edges[..., :-1]), width.squeeze(-1)

    # A guess: within a panel the logarithm of the density is nearly linear, but at a pole it is that of a power.
    mass = here(mass).clamp_min(tiny)
    share = (target / mass).clamp(0, 1)
    rise = log_density(_versine(edges), 1).diff(dim=-1).clamp(-30, 30)
    rise = here(torch.where(rise.abs() < 1e-3, 1e-3, rise))
    y = (share * rise.expm1()).log1p() / rise
    y = torch.where(left <= 0, share ** (1 / (power + 1)), y)
    y = torch.where(here(edges[..., 1:]) >= pi - 1e-6, 1 - (1 - share) ** (1 / (power + 1)), y)

    def density_along(y: Tensor) -> tuple[Tensor, Tensor]:
        """1 − cos θ at the nodes between the panel's left edge and θ, and what the density there contributes."""
        v = _versine(left.unsqueeze(-1) + (width * y).unsqueeze(-1) * nodes)  # (..., Q)
        return v, (width * y).unsqueeze(-1) * weights * log_density(v, 1).exp()

    # At a pole, where the guess is right, the density vanishes, and rounding errors must not be divided by it.
    floor = mass * torch.finfo(kappa.dtype).eps ** 0.5
    for _ in range(_NEWTON_STEPS):
        slope = width * log_density(_versine(left + width * y), 0).exp()
        y = (y + (target - density_along(y)[1].sum(-1)) / slope.maximum(floor)).clamp(0, 1)
    theta = left + width * y
    if not with_slope:
        return theta, None

    # −∂F/∂κ is the integral of (1 − cos θ) − its mean: from the nearer end, as the whole integral is 0.
    average = (terms * v).sum((-2, -1)) / total
    excess = (terms * (v - _unsqueezed(average, 2))).sum(-1)  # (*batch, P)
    before = pad(excess[..., :-1].cumsum(-1), (1, 0))
    after = pad(excess[..., 1:].flip(-1).cumsum(-1).flip(-1), (0, 1))
    v, terms = density_along(y)
    part = (terms * (v - average.unsqueeze(-1))).sum(-1)
    integral = torch.where(uniform < 0.5, here(before) + part, part - here(excess) - here(after))
    return theta, integral / log_density(_versine(theta), 0).exp().clamp_min(tiny)


def _range(kappa: Tensor, power: int) -> tuple[Tensor, Tensor, Tensor]:
    r"""Angles that leave out less than $e^{-36}$ at either end, and 1 − cos θ of the mode; κ and m − 2 are given.

    Left of the mode the curvature of log p is at least the mode's. On the right, z is nearer to μ than with κ = 0,
    where the curvature is at least m − 2; and 2κ sin²(θ/2) is nearly a gamma variable, with its bound by Laurent &
    Massart (2000). Up to the better of the two the curvature has a lower bound again.
    """
    tiny = torch.finfo(kappa.dtype).tiny
    root = (power**2 + 4 * kappa.square()).sqrt()
    mode = (power + power**2 / (root + 2 * kappa).clamp_min(tiny)) / (power + root).clamp_min(tiny)
    angle = 2 * (mode / 2).sqrt().asin()
    curvature = kappa * (1 - mode) + power / (mode * (2 - mode)).clamp_min(tiny)
    low = (angle - (2 * _TAIL / curvature).sqrt()).clamp_min(0)
    shape = (power + 1) / 2
    gamma = shape + (2 * shape * _TAIL) ** 0.5 + _TAIL
    high = 2 * (gamma / (2 * kappa)).clamp_max(1).sqrt().asin()
    if power:
        high = high.clamp_max(pi / 2 + (2 * _TAIL / power) ** 0.5)
    curvature = (kappa * high.cos() + power).clamp_min(tiny)
    return low, torch.minimum(high, angle + (2 * _TAIL / curvature).sqrt()), mode


def _versine(theta: Tensor) -> Tensor:
    """1 − cos θ."""
    return 2 * (theta / 2).sin().square()


def _unsqueezed(values: Tensor, dimensions: int) -> Tensor:
    return values[(...,) + (None,) * dimensions]


@cache
def _gauss_legendre() -> tuple[list[float], list[float]]:
    """Nodes and weights on [0, 1]."""
    nodes, weights = np.polynomial.legendre.leggauss(_NODES)
    return (0.5 + 0.5 * nodes).tolist(), (0.5 * weights).tolist()
