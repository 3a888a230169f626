"""The autoencoder in NumPyro: `svi.update` under `jax.jit`, data on the device."""

import os
from typing import Any

os.environ.setdefault("JAX_PLATFORMS", "cpu")  # JAX reads it when it is imported

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import torch
from numpyro.infer import SVI, RenyiELBO, Trace_ELBO
from numpyro.infer.util import log_density
from torch import Tensor

from benchmarks.contenders.contender import Contender
from benchmarks.problem import LEARNING_RATE, MINIMUM_SCALE, Problem, Weights


class NumPyroPrograms:
    """Model and guide, the same as the zoo's.

    Args:
        problem: the sizes.
        weights: to start from.
    """

    def __init__(self, problem: Problem, weights: Weights) -> None:
        self._latent_dim = problem.latent_dim
        self._weights = {name: jnp.asarray(weight.numpy(), dtype=jnp.float32) for name, weight in weights.items()}

    def model(self, x: jax.Array) -> None:
        """p(x, z)."""
        with numpyro.plate("data", len(x)):
            z = numpyro.sample("z", dist.Normal(0.0, 1.0).expand([self._latent_dim]).to_event(1))  # (B, M)
            numpyro.sample("x", dist.Bernoulli(logits=self._mlp("decoder", z)).to_event(1), obs=x)  # (B, D)

    def guide(self, x: jax.Array) -> None:
        """q(z | x)."""
        with numpyro.plate("data", len(x)):
            mu, raw = jnp.split(self._mlp("encoder", x), 2, axis=-1)
            numpyro.sample("z", dist.Normal(mu, jax.nn.softplus(raw) + MINIMUM_SCALE).to_event(1))

    def _mlp(self, name: str, x: jax.Array) -> jax.Array:
        return self._affine(f"{name}.2", jax.nn.relu(self._affine(f"{name}.0", x)))

    def _affine(self, name: str, x: jax.Array) -> jax.Array:
        weight, bias = (numpyro.param(f"{name}.{part}", self._weights[f"{name}.{part}"]) for part in ("weight", "bias"))
        return x @ weight.T + bias


class NumPyro(Contender):
    """Training it.

    Args:
        problem, weights: the task.
        x: all data, (N, D).
        whole_epochs: one compiled call for all steps of `run` in place of one for each step: the fastest way there is.
    """

    family = "NumPyro"

    def __init__(self, problem: Problem, weights: Weights, x: Tensor, whole_epochs: bool) -> None:
        if whole_epochs:
            self.family = "NumPyro, an epoch a call"
        self._programs = NumPyroPrograms(problem, weights)
        self._x, self._batch, self._whole_epochs = jnp.asarray(x.numpy()), problem.batch, whole_epochs
        K = problem.particles
        loss = Trace_ELBO() if K == 1 else RenyiELBO(alpha=0, num_particles=K)
        programs = self._programs
        self._svi = SVI(programs.model, programs.guide, numpyro.optim.Adam(LEARNING_RATE), loss)
        self._state = self._svi.init(jax.random.PRNGKey(0), self._x[: self._batch])
        self._order = np.random.default_rng(0)
        self._step, self._steps = jax.jit(self._update), jax.jit(self._scan)

    def run(self, steps: int) -> None:
        """Takes optimiser steps."""
        order = self._order.permutation(len(self._x))[: steps * self._batch].reshape(steps, self._batch)
        if self._whole_epochs:
            self._state, losses = self._steps(self._state, self._x, order)
        else:
            for rows in order:
                self._state, losses = self._step(self._state, self._x, rows)
        jax.block_until_ready((self._state, losses))

    def log_weight(self, x: Tensor, z: Tensor) -> Tensor:
        """log p(x, z) − log q(z | x), (B,)."""
        scores, weights = [], self._svi.get_params(self._state)
        for x_n, z_n in zip(jnp.asarray(x.numpy()), jnp.asarray(z.numpy()), strict=True):
            data, latent = (x_n[None],), weights | {"z": z_n[None]}
            log_p, _ = log_density(self._programs.model, data, {}, latent)
            log_q, _ = log_density(self._programs.guide, data, {}, latent)
            scores.append(float(log_p - log_q))
        return torch.tensor(scores)

    def _update(self, state: Any, x: jax.Array, rows: jax.Array) -> tuple[Any, jax.Array]:
        return self._svi.update(state, x[rows])

    def _scan(self, state: Any, x: jax.Array, order: jax.Array) -> tuple[Any, jax.Array]:
        return jax.lax.scan(lambda state, rows: self._update(state, x, rows), state, order)
