"""An encoder's draws, moved along the model's own gradient by Hamiltonian dynamics."""

from collections.abc import Callable
from math import log
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro.distributions import TorchDistribution
from torch import Size, Tensor, nn
from torch.distributions import constraints

from pyro_lvm.configuration import Part
from pyro_lvm.models.auxiliary_vae import AuxiliaryVAE
from pyro_lvm.programs import data_plate


class Hamiltonian(Part):
    r"""$q(z_T, v_T \mid x) = q(z_0 \mid x)\, \mathcal N(v_0 \mid 0, \mathrm{diag}(s^2))$, T leapfrog steps later.

    A step is $v \leftarrow v + \tfrac12 \epsilon \circ \nabla_z \log p(x, z)$, $z \leftarrow z + \epsilon \circ v$,
    $v \leftarrow v + \tfrac12 \epsilon \circ \nabla_z \log p(x, z)$. Steps preserve volume, so the density at the end
    is that at the start. Step sizes ε and momentum scales s are learned, one for each dimension, and gradients pass
    through the steps, to the model as well. The last momentum $v_T$ is the model's auxiliary variable a.

    As a momentum and a position at the end stem from one draw, they are sampled together at the site `"trajectory"`,
    which the model has not and which holds all of log q; `"z"` and `"a"` are its two halves. A guide's draws cannot be
    taken from dreams for that reason: `objectives.WakeSleep` does not train it.

    Args:
        model: the program whose posterior it approximates; its `reverse` gives a distribution of M values.
        posterior: q(z_0 | x), x (..., *data_shape) to the distribution of z, one of `pyro_lvm.posteriors`.
        steps: T.
        step_size: where every ε starts.

    Sites:
        `"trajectory"` (B, 2M), `"a"` (B, M), `"z"` (B, M).

    Raises:
        ValueError: where `steps` < 1, `step_size` is not positive, the prior is not over vectors, or the posterior's
            draws have no gradient.

    References:
        Salimans, Kingma & Welling (2015), Markov Chain Monte Carlo and Variational Inference: Bridging the Gap.

    Example:
        >>> from pyro_lvm import likelihoods, models, networks, posteriors, priors
        >>> _ = torch.manual_seed(0)
        >>> decoder = likelihoods.Bernoulli(networks.MLP(2, (4, 4), (8,)))
        >>> reverse = posteriors.DiagonalNormal(networks.MLP(16 + 2, 2 * 2, (8,)))
        >>> model = models.AuxiliaryVAE(priors.StandardNormal(2), decoder, reverse)
        >>> encoder = posteriors.DiagonalNormal(networks.MLP((4, 4), 2 * 2, (8,)))
        >>> Hamiltonian(model, encoder, steps=3)(torch.zeros(5, 4, 4)).shape
        torch.Size([5, 2])
    """

    def __init__(self, model: AuxiliaryVAE, posterior: nn.Module, steps: int = 5, step_size: float = 0.05) -> None:
        super().__init__()
        if steps < 1:
            raise ValueError(f"'steps' is the number of leapfrog steps and must be at least 1, not {steps}.")
        if not 0 < step_size < float("inf"):
            raise ValueError(f"'step_size' must be positive and finite, not {step_size}.")
        shape = model.prior().event_shape
        if len(shape) != 1:
            raise ValueError(f"'model' must have a prior over vectors to move them, not over arrays {tuple(shape)}.")
        self.model, self.posterior, self.steps = model, posterior, steps
        self.log_step_size = nn.Parameter(torch.full(shape, log(step_size)))
        self.log_momentum_scale = nn.Parameter(torch.zeros(shape))

    def leapfrog(self, x: Tensor, z: Tensor, v: Tensor, *, backwards: bool = False) -> tuple[Tensor, Tensor]:
        """Position and momentum (..., B, M) after all steps; `backwards`, before them."""
        epsilon = self.log_step_size.exp() * (-1 if backwards else 1)
        force = self._force(x, z)
        for _ in range(self.steps):
            v = v + 0.5 * epsilon * force
            z = z + epsilon * v
            force = self._force(x, z)
            v = v + 0.5 * epsilon * force
        return z, v

    def _force(self, x: Tensor, z: Tensor) -> Tensor:
        """∇ log p(x, z) by z, with a graph of its own where gradients are taken."""
        with_graph = torch.is_grad_enabled()
        with torch.enable_grad():
            shift = torch.zeros_like(z, requires_grad=True)
            log_p = self.model.log_joint(x, z + shift).sum()
            (force,) = torch.autograd.grad(log_p, shift, create_graph=with_graph)
        return force

    def forward(self, x: Tensor, *, size: int | None = None) -> Tensor:
        """Runs the program; see `data_plate` for `size`."""
        pyro.module("guide", self)
        position = self.posterior(x)
        if not position.has_rsample:
            raise ValueError("'posterior' must be reparameterised, for its draws to be moved: give a continuous one.")
        momentum = dist.Normal(torch.zeros_like(self.log_momentum_scale), self.log_momentum_scale.exp()).to_event(1)
        end = _End(
            position,
            momentum.expand(position.batch_shape),
            lambda z, v, backwards: self.leapfrog(x, z, v, backwards=backwards),
        )
        with data_plate(x, size):
            z, v = pyro.sample("trajectory", end, infer={"is_auxiliary": True}).chunk(2, dim=-1)  # (B, M) both
            pyro.sample("a", dist.Delta(v, event_dim=1))
            return pyro.sample("z", dist.Delta(z, event_dim=1))


class _End(TorchDistribution):
    """Position and momentum after a motion that can be undone and preserves volume, as one vector (..., 2M).

    Args:
        position, momentum: distributions of where it begins, event shape (M,).
        move: (z, v, backwards) to (z, v).
    """

    arg_constraints = {}  # noqa: RUF012
    support = constraints.real_vector
    has_rsample = True

    def __init__(
        self,
        position: TorchDistribution,
        momentum: TorchDistribution,
        move: Callable[[Tensor, Tensor, bool], tuple[Tensor, Tensor]],
        validate_args: bool | None = None,
    ) -> None:
        self._position, self._momentum, self._move = position, momentum, move
        self._last: tuple[Tensor, tuple[Tensor, Tensor]] | None = None
        features = position.event_shape.numel() + momentum.event_shape.numel()
        super().__init__(position.batch_shape, Size((features,)), validate_args=validate_args)

    def expand(self, batch_shape: Any, _instance: Any = None) -> "_End":
        position, momentum = self._position.expand(batch_shape), self._momentum.expand(batch_shape)
        return _End(position, momentum, self._move, validate_args=False)

    def rsample(self, sample_shape: Any = Size()) -> Tensor:  # noqa: B008
        z, v = self._position.rsample(sample_shape), self._momentum.rsample(sample_shape)
        value = torch.cat(self._move(z, v, False), dim=-1)
        self._last = value, (z, v)
        return value

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        # A draw's own start is known; any other value is moved back to it.
        if self._last is not None and value is self._last[0]:
            z, v = self._last[1]
        else:
            z, v = value.chunk(2, dim=-1)
            z, v = self._move(z, v, True)
        log_p: Tensor = self._position.log_prob(z)
        return log_p + self._momentum.log_prob(v)
