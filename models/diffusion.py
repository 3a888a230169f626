"""Diffusions with many steps, or in continuous time, of which training looks at one moment at a time."""

import pyro
import pyro.distributions as dist
import torch
from pyro.distributions import TorchDistribution
from torch import Tensor, nn
from torch.distributions import kl_divergence

from pyro_lvm.diffusion import ForwardProcess, Reverse
from pyro_lvm.diffusion.conditions import Condition, conditioned
from pyro_lvm.diffusion.densities import Denoising, ReverseChain, standard_normal
from pyro_lvm.diffusion.moments import time_plate
from pyro_lvm.distributions import StratifiedUniform
from pyro_lvm.programs import Model, data_plate
from pyro_lvm.sizes import check_sizes


class Diffusion(Model):
    r"""$p(x \mid z_1)\, p(z_T) \prod_{t=2}^T p_\theta(z_{t-1} \mid z_t)$ with T as large as you like.

    Its bound is $E_q[\log p(x \mid z_1)] - \mathrm{KL}(q(z_T \mid x) \,\|\, p(z_T)) - \sum_{t=2}^T E_q\,
    \mathrm{KL}(q(z_{t-1} \mid z_t, x) \,\|\, p_\theta(z_{t-1} \mid z_t))$, and its sum over steps is estimated from one
    step of each datum: time is a plate of T − 1 elements that is subsampled, its scale that of any other. Memory and
    the time of a training step do not grow with T. The estimate has no bias, so every objective that is a sum over
    sites is what it says; importance weights there are none, and what needs them refuses the pair.

    Its guide is `guides.SubsampledDiffusion`. Divergences have a closed form: use `ELBO(analytic_kl=True)`.

    Args:
        process: the forward process with T steps, the guide's too.
        reverse: p_θ, one network for all steps.
        decoder: z_1 as one vector (..., D) to the distribution of x, one of `pyro_lvm.likelihoods`.
        condition: c, which makes it a model of p(x | c), one of `pyro_lvm.diffusion`'s; networks and decoder take it as
            a further argument.

    Sites:
        `"z_1"` (B, *data_shape), what the decoder reads, without a density in either program; `"z_T"`; inside the plate
        `"time"` at dim −2: `"moment"` in [0, 1), which stands for a step from 2 to T, `"z_t"` without a density, and
        `"z_s"`, the step before it; `"x"` (B, *data_shape). Records `"noise_error"`, ‖ε − ε̂‖² at `"z_t"`, and with a
        learned variance `"variance_divergence"`, that of `"z_s"` with a gradient for the variance alone.

    Raises:
        ValueError: for a process in continuous time: `ContinuousDiffusion` has it.

    References:
        Ho, Jain & Abbeel (2020), Denoising Diffusion Probabilistic Models. Nichol & Dhariwal (2021), Improved Denoising
        Diffusion Probabilistic Models.

    Example:
        >>> from pyro_lvm import likelihoods
        >>> from pyro_lvm.configuration import Part
        >>> from pyro_lvm.diffusion import LinearSchedule, SmallVariance, Velocity
        >>> class Net(Part):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.layer = nn.Linear(16, 16)
        ...     def forward(self, z, t):
        ...         return self.layer(z)
        >>> _ = torch.manual_seed(0)
        >>> schedule = LinearSchedule(100)
        >>> process = ForwardProcess(16, schedule, steps=100, centre=2.0, spread=2.0)
        >>> reverse = Reverse(Net(), 16, schedule, Velocity(), SmallVariance())
        >>> model = Diffusion(process, reverse, likelihoods.NoisedLevels(process, levels=5))
        >>> model.sample(3).shape
        torch.Size([3, 16])
    """

    def __init__(
        self, process: ForwardProcess, reverse: Reverse, decoder: nn.Module, condition: Condition | None = None
    ) -> None:
        super().__init__()
        if process.steps is None:
            raise ValueError("'process' is in continuous time, but this model has steps: use ContinuousDiffusion.")
        self.process, self.reverse, self.decoder, self.steps = process, reverse, decoder, process.steps
        self.condition = condition

    def forward(self, x: Tensor | None = None, *, size: int | None = None) -> Tensor:
        """Runs the program; see `data_plate` for `size`."""
        pyro.module("model", self)
        x, c = conditioned(self.condition, x, size, _like(self))
        with data_plate(x, size):
            return self.of_each(x, *c)

    def of_each(self, x: Tensor | None, *condition: Tensor) -> Tensor:
        """The program within the data plate, given every datum's condition: for programs with more in that plate."""
        like, times = _like(self), [step / self.steps for step in range(self.steps, 0, -1)]
        # Without data it is drawn, step by step; with data the guide has drawn it, and "z_s" scores the steps.
        z_1 = pyro.sample("z_1", ReverseChain(self.reverse, times, like, condition).mask(False))  # (B, *data_shape)
        if x is not None:
            self._score_steps(self.process.scaled(x), standard_normal(self.process.data_shape, like), condition)
        likelihood = self.decoder(z_1.flatten(-self.process.event_dim), *condition)
        return pyro.sample("x", likelihood, obs=x)  # (B, *data_shape)

    def _score_steps(self, x: Tensor, standard: TorchDistribution, c: tuple[Tensor, ...]) -> None:
        pyro.sample("z_T", standard)
        if self.steps == 1:
            return
        with time_plate(self.process.steps):
            s, t = self.process.step_times(pyro.sample("moment", StratifiedUniform(x)))  # (1, B)
            z_t = pyro.sample("z_t", standard.mask(False))  # (1, B, *data_shape)
            prediction = self.reverse.predict(z_t, t, *c)
            p = self.reverse.step(z_t, s, t, prediction)
            pyro.sample("z_s", p)
            error = self.process.noise_error(x, z_t, t, prediction.noise)
            pyro.deterministic("noise_error", error, event_dim=0)
            if prediction.raw is not None:
                normal, event_dim = p.base_dist, self.process.event_dim
                p_variance = dist.Normal(normal.loc.detach(), normal.scale).to_event(event_dim)
                divergence = kl_divergence(self.process.bridge(x, z_t, s, t), p_variance)
                pyro.deterministic("variance_divergence", divergence, event_dim=0)


class ContinuousDiffusion(Model):
    r"""$p(x \mid z_1)\, p(z_T)$ and $p_\theta(z_s \mid z_t)$ at every moment: a diffusion of infinitely many steps.

    $\log p(x) \ge E_q[\log p(x \mid z_1)] - \mathrm{KL}(q(z_T \mid x) \,\|\, p(z_T)) - \tfrac12 \int_0^1 (-\ell'(t))\,
    E_q \|\varepsilon - \hat\varepsilon_\theta(z_t, t)\|^2\, dt$.

    ℓ is the schedule's log signal-to-noise ratio; z_1 is at time 0 and z_T at time 1, next to the data and farthest
    from them. The integral is estimated at one moment of each datum. Of the schedule only the ends matter to the bound,
    which a learned one finds; the way between them matters to the estimate's variance. Its guide is
    `guides.SubsampledDiffusion`.

    Args:
        process: the forward process, its `steps` None, the guide's too.
        reverse: with the parameterisation of your choice; the variance of its steps is read in sampling alone.
        decoder: z_1 as one vector (..., D) to the distribution of x, one of `pyro_lvm.likelihoods`.
        sampling_steps: of how many steps a draw from the prior predictive is made.
        condition: c, see `Diffusion`.

    Sites:
        `"z_1"` (B, *data_shape), without a density in either program; `"z_T"`; inside the plate `"time"` at dim −2:
        `"moment"`, t, and `"z_t"`, of which the model's log-density is minus the integral's estimate and the guide's 0;
        `"x"` (B, *data_shape).

    Raises:
        ValueError: for a process with steps, and for `sampling_steps` < 1.

    References:
        Kingma, Salimans, Poole & Ho (2021), Variational Diffusion Models.

    Example:
        >>> from pyro_lvm import likelihoods
        >>> from pyro_lvm.configuration import Part
        >>> from pyro_lvm.diffusion import Epsilon, LearnedSchedule, SmallVariance
        >>> class Net(Part):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.layer = nn.Linear(16, 16)
        ...     def forward(self, z, t):
        ...         return self.layer(z)
        >>> _ = torch.manual_seed(0)
        >>> schedule = LearnedSchedule()
        >>> process = ForwardProcess(16, schedule, steps=None, centre=2.0, spread=2.0)
        >>> reverse = Reverse(Net(), 16, schedule, Epsilon(), SmallVariance())
        >>> model = ContinuousDiffusion(process, reverse, likelihoods.NoisedLevels(process, levels=5))
        >>> model.sample(3).shape
        torch.Size([3, 16])
    """

    def __init__(
        self,
        process: ForwardProcess,
        reverse: Reverse,
        decoder: nn.Module,
        sampling_steps: int = 250,
        condition: Condition | None = None,
    ) -> None:
        super().__init__()
        if process.steps is not None:
            raise ValueError(f"'process' has {process.steps} steps, but this model has none: use Diffusion.")
        check_sizes(sampling_steps=sampling_steps)
        self.process, self.reverse, self.decoder, self.sampling_steps = process, reverse, decoder, sampling_steps
        self.condition = condition

    def forward(self, x: Tensor | None = None, *, size: int | None = None) -> Tensor:
        """Runs the program; see `data_plate` for `size`."""
        pyro.module("model", self)
        like, times = _like(self), [step / self.sampling_steps for step in range(self.sampling_steps, -1, -1)]
        x, c = conditioned(self.condition, x, size, like)
        with data_plate(x, size):
            z_1 = pyro.sample("z_1", ReverseChain(self.reverse, times, like, c).mask(False))  # (B, *data_shape)
            if x is not None:
                scaled = self.process.scaled(x)
                pyro.sample("z_T", standard_normal(self.process.data_shape, like))
                with time_plate(self.process.steps):
                    t = pyro.sample("moment", StratifiedUniform(scaled))  # (1, B)
                    pyro.sample("z_t", Denoising(self.process, self.reverse, scaled, t, c))  # (1, B, *data_shape)
            return pyro.sample("x", self.decoder(z_1.flatten(-self.process.event_dim), *c), obs=x)  # (B, *data_shape)


def _like(model: nn.Module) -> Tensor:
    return next(model.parameters(), torch.empty(()))
