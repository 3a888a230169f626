"""The diffusion prior: latents that a chain of small steps makes of noise."""

from math import log
from typing import Any, final

import pyro.distributions as dist
import torch
from torch import Size, Tensor
from torch.distributions import constraints, kl_divergence

from pyro_lvm.diffusion import ForwardProcess, Reverse
from pyro_lvm.diffusion.densities import standard_normal
from pyro_lvm.distributions import BoundedDensity, StratifiedUniform
from pyro_lvm.priors.prior import Prior

__all__ = ["Diffusion"]


@final
class Diffusion(Prior):
    r"""$p(z) = \int p(w_T) \prod_{t=2}^T p_\theta(w_{t-1} \mid w_t)\, p_\theta(z \mid w_1)\, dw$, known by its bound.

    $\log p(z) \ge E_q[\log p_\theta(z \mid w_1)] - \mathrm{KL}(q(w_T \mid z) \| \mathcal N(0, I)) - \sum_{t=2}^T E_q\,
    \mathrm{KL}(q(w_{t-1} \mid w_t, z) \| p_\theta(w_{t-1} \mid w_t))$, with $p_\theta(z \mid w_1) = \mathcal N(\hat
    x_\theta(w_1), 1 - \bar\alpha_1)$ in the units of the process. Every `log_prob` is an unbiased estimate of it, from
    one step of each latent, drawn anew: its gradient reaches the latents, hence an encoder that learns beside it. A
    pair with it has a lower bound, but no importance weights. Draws are those of the whole chain, T passes of the
    network.

    With `Velocity()` and `LargeVariance()` a network that gives 0 is the standard normal itself, its bound exact: what
    is learned is how the latents differ from that.

    It is trained beside the encoder by `models.VAE`'s own bound, or after it: put it into a `models.VAE` with the
    trained decoder, call `requires_grad_(False)` on that and on the guide, and `fit` as ever.

    Args:
        process: the forward process of latents (M,), with T steps. Its centre and spread are of z.
        reverse: $p_\theta(w_s \mid w_t)$, of the same schedule.

    Shapes:
        () to a distribution with event shape (M,).

    Raises:
        ValueError: for a process in continuous time, or of other arrays than vectors.

    References:
        Vahdat, Kreis & Kautz (2021), Score-based Generative Modeling in Latent Space. Wehenkel & Louppe (2021),
        Diffusion Priors in Variational Autoencoders.

    Example:
        >>> from pyro_lvm.diffusion import LargeVariance, LinearSchedule, Velocity
        >>> from pyro_lvm.networks import TimeMLP
        >>> _ = torch.manual_seed(0)
        >>> schedule = LinearSchedule(100)
        >>> reverse = Reverse(TimeMLP(2, hidden_features=8), 2, schedule, Velocity(), LargeVariance())
        >>> prior = Diffusion(ForwardProcess(2, schedule, steps=100), reverse)
        >>> prior.log_prob(prior.sample((7,))).shape
        torch.Size([7])
    """

    def __init__(self, process: ForwardProcess, reverse: Reverse) -> None:
        super().__init__()
        if process.steps is None:
            raise ValueError("'process' is in continuous time, but the prior is a chain: give its 'steps'.")
        if len(process.data_shape) != 1:
            raise ValueError(f"'process' must be of latent vectors, (M,), not of arrays of shape {process.data_shape}.")
        self.process, self.reverse = process, reverse

    def forward(self) -> BoundedDensity:
        """The distribution of z, event shape (M,)."""
        return _Chain(self.process, self.reverse)


@final
class _Chain(BoundedDensity):
    """Where the chain leads, its density by the bound."""

    arg_constraints = {}  # noqa: RUF012  # as in every distribution
    support = constraints.real_vector

    def __init__(
        self,
        process: ForwardProcess,
        reverse: Reverse,
        batch_shape: Size = Size(),  # noqa: B008
        validate_args: bool | None = None,
    ) -> None:
        assert process.steps is not None
        self.process, self.reverse, self.steps = process, reverse, process.steps
        super().__init__(batch_shape, Size(process.data_shape), validate_args=validate_args)

    def expand(self, batch_shape: Any, _instance: Any = None) -> "_Chain":
        return _Chain(self.process, self.reverse, Size(batch_shape), validate_args=False)

    def sample(self, sample_shape: Any = Size()) -> Tensor:  # noqa: B008  # PyTorch's own signature
        with torch.no_grad():
            like = next(self.reverse.parameters(), torch.empty(()))
            w = torch.randn(self._extended_shape(sample_shape), dtype=like.dtype, device=like.device)
            w = self.reverse.draw(w, [step / self.steps for step in range(self.steps, 0, -1)])
            return self.process.centre + self.process.spread * self._end(w).sample()

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        process, T = self.process, self.steps
        x = process.scaled(value)
        first, last = (x.new_full((), time) for time in (process.first_time, 1.0))
        bound = self._end(process.marginal(x, first).rsample()).log_prob(x)
        bound = bound - kl_divergence(process.marginal(x, last), standard_normal(process.data_shape, x))
        if T > 1:
            # One step for each latent, all of them equally often, stands for all T − 1.
            s, t = process.step_times(StratifiedUniform(x).sample(x.shape[:-1]))
            w_t = process.marginal(x, t).rsample()
            bound = bound - (T - 1) * kl_divergence(process.bridge(x, w_t, s, t), self.reverse(w_t, s, t))
        return bound - x.shape[-1] * log(process.spread)

    def _end(self, w_1: Tensor) -> Any:
        """p(z | w_1), of scaled z."""
        first = w_1.new_full((), self.process.first_time)
        mean = self.reverse.start(w_1, first)
        scale = (-self.process.schedule.log_snr(first)).sigmoid().sqrt()
        return dist.Normal(mean, scale.expand_as(mean)).to_event(1)
