"""The resampled prior: a normal whose draws a network accepts or rejects."""

from collections.abc import Callable, Sequence
from math import log, pi
from typing import Any, final

import torch
from pyro.distributions import TorchDistribution
from torch import Size, Tensor, nn
from torch.distributions import constraints
from torch.nn.functional import logsigmoid
from torch.quasirandom import SobolEngine

from pyro_lvm.networks import MLP
from pyro_lvm.priors.prior import Prior
from pyro_lvm.sizes import check_sizes

_FRESH = 4096  # draws for Z in training
_POINTS = 2**14  # fixed points for Z in evaluation
_CANDIDATES = 2**17  # met by the network at once


@final
class Resampled(Prior):
    r"""$p(z) = \mathcal N(z)\,[(1 - \alpha)\, a(z)/Z + \alpha]$: a normal with learned accept/reject sampling.

    A draw from the normal is accepted with probability a(z), a network's sigmoid, and the T-th is taken in any case:
    $Z = E_{\mathcal N}[a(z)]$ and $\alpha = (1 - Z)^{T-1}$.

    Z is a mean over points:

    - In training (module in training mode and gradients followed) over 4096 draws, fresh in every call, so that a
      network cannot learn the points. There is no moving average, whose state could not be compiled; the price is a
      bias of log p. To first order it is too large by $\mathrm{Var}[a] / (8192\, Z^2) < 1 / (8192\, Z)$ where α is
      negligible, 0.01 nats if one draw in a hundred is accepted, and too small by $(T - 1)\, \mathrm{Var}[a] / (8192\,
      (1 - Z)^2)$ where a(z) is.
    - Else over 2^14 quasi-random points (scrambled Sobol, a fixed seed), which are a buffer: no random number is drawn
      and the same weights give the same density. For M ≤ 2, log p is off by less than 1e-3; for many latents by as much
      as from so many random draws, $\sqrt{\mathrm{Var}[a] / 2^{14}}\, / Z$, in either direction, the same for all z.

    Args:
        latent_dim: M.
        hidden_features: widths of the network's hidden layers.
        truncation: T, the largest number of tries; 1 is the standard normal itself.

    Shapes:
        () to a distribution with event shape (M,).

    Raises:
        ValueError: where a size is less than 1.

    References:
        Bauer & Mnih (2019), Resampled Priors for Variational Autoencoders.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> prior = Resampled(2).eval()
        >>> prior.log_prob(prior.sample((7,))).shape
        torch.Size([7])
    """

    points: Tensor

    def __init__(self, latent_dim: int, hidden_features: Sequence[int] = (64, 64), truncation: int = 100) -> None:
        super().__init__()
        check_sizes(latent_dim=latent_dim, truncation=truncation)
        self.truncation = truncation
        self.net = MLP(latent_dim, 1, hidden_features, nn.Tanh)
        uniform = SobolEngine(latent_dim, scramble=True, seed=0).draw(_POINTS, dtype=torch.float64)
        half = 0.5 / _POINTS  # the first points can round to 0 and 1
        points = torch.special.ndtri(uniform.clamp(half, 1 - half)).to(torch.get_default_dtype())
        self.register_buffer("points", points)

    def forward(self) -> TorchDistribution:
        """The distribution of z, event shape (M,)."""
        with_fresh_draws = self.training and torch.is_grad_enabled()
        return _Accepted(self._log_acceptance, self.points, self.truncation, with_fresh_draws)

    def _log_acceptance(self, z: Tensor) -> Tensor:
        """log a(z) of latents (..., M), (...)."""
        return logsigmoid(self.net(z).squeeze(-1))


@final
class _Accepted(TorchDistribution):
    """Draws of a standard normal that were accepted, within so many tries."""

    arg_constraints = {}  # noqa: RUF012
    support = constraints.real_vector

    def __init__(
        self,
        log_acceptance: Callable[[Tensor], Tensor],
        points: Tensor,
        truncation: int,
        with_fresh_draws: bool,
        batch_shape: Size = Size(),  # noqa: B008
        validate_args: bool | None = None,
    ) -> None:
        self.log_acceptance, self.points = log_acceptance, points
        self.truncation, self.with_fresh_draws = truncation, with_fresh_draws
        super().__init__(batch_shape, points.shape[-1:], validate_args=validate_args)

    def expand(self, batch_shape: Any, _instance: Any = None) -> "_Accepted":
        return _Accepted(
            self.log_acceptance,
            self.points,
            self.truncation,
            self.with_fresh_draws,
            Size(batch_shape),
            validate_args=False,
        )

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        log_prob = -0.5 * (value.square() + log(2 * pi)).sum(-1)
        if self.truncation > 1:
            log_a, Z = self.log_acceptance(value), self._normaliser()
            log_alpha = (self.truncation - 1) * torch.log1p(-Z)
            log_prob = log_prob + torch.logaddexp((-log_alpha.expm1() / Z).log() + log_a, log_alpha)
        return log_prob.expand(torch.broadcast_shapes(log_prob.shape, self.batch_shape))

    def sample(self, sample_shape: Any = Size()) -> Tensor:  # noqa: B008
        with torch.no_grad():
            shape = self._extended_shape(sample_shape)
            rows = shape[:-1].numel()
            most = max(1, _CANDIDATES // self.truncation)
            drawn = [self._draw(min(most, rows - start)) for start in range(0, rows, most)]
            return torch.cat(drawn).reshape(shape) if drawn else self.points.new_empty(shape)

    def _draw(self, rows: int) -> Tensor:
        """All tries of some draws at once, and of each the first that is accepted, or the last."""
        candidates = torch.randn(
            rows, self.truncation, *self.event_shape, dtype=self.points.dtype, device=self.points.device
        )
        log_a = self.log_acceptance(candidates)
        accepted = torch.rand_like(log_a).log() < log_a
        accepted[:, -1] = True
        first = accepted.to(torch.uint8).argmax(-1)
        return candidates[torch.arange(rows, device=first.device), first]

    def _normaliser(self) -> Tensor:
        """Z, away from 0 and 1, where a logarithm in log p has no value."""
        points = self.points
        if self.with_fresh_draws:
            points = torch.randn(_FRESH, *self.event_shape, dtype=points.dtype, device=points.device)
        a = self.log_acceptance(points).exp()
        eps = torch.finfo(a.dtype).eps
        return a.mean(0).clamp(eps, 1 - eps)
