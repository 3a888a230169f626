"""The autoencoder as a good engineer writes it in PyTorch: eager, fused Adam, no probabilistic library."""

from math import log

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, softplus

from benchmarks.contenders.contender import Contender, in_words
from benchmarks.problem import LEARNING_RATE, MINIMUM_SCALE, Problem, Weights, mlp
from pyro_lvm.threads import threads


class HandWritten(nn.Module):
    """Encoder and decoder with the losses of the ELBO and of the importance-weighted bound.

    Args:
        problem: the sizes.
        weights: to start from.
    """

    def __init__(self, problem: Problem, weights: Weights) -> None:
        super().__init__()
        self.particles, self.latent_dim = problem.particles, problem.latent_dim
        self.encoder = mlp(problem.features, problem.hidden, 2 * problem.latent_dim)
        self.decoder = mlp(problem.latent_dim, problem.hidden, problem.features)
        self.load_state_dict(weights)

    def loss(self, x: Tensor) -> Tensor:
        """Minus the bound, nats per datum."""
        mu, sigma = self.encode(x)  # (B, M)
        if self.particles == 1:
            eps = torch.randn_like(mu)
            z = mu + sigma * eps
            # log p(z) − log q(z | x); the constants of the two normals cancel.
            divergence = (0.5 * (eps.square() - z.square()) + sigma.log()).sum()
            reconstruction = -binary_cross_entropy_with_logits(self.decoder(z), x, reduction="sum")
            return -(reconstruction + divergence) / len(x)
        eps = torch.randn(self.particles, *mu.shape, dtype=mu.dtype)  # (K, B, M)
        z = mu + sigma * eps
        log_w = self.log_likelihood(x, z) + (0.5 * (eps.square() - z.square()) + sigma.log()).sum(-1)  # (K, B)
        return -(log_w.logsumexp(0) - log(self.particles)).mean()

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Means and scales of q(z | x), (B, M)."""
        mu, raw = self.encoder(x).chunk(2, dim=-1)
        return mu, softplus(raw) + MINIMUM_SCALE

    def log_likelihood(self, x: Tensor, z: Tensor) -> Tensor:
        """log p(x | z), of x (B, D) and z (..., B, M), (..., B)."""
        logits = self.decoder(z)  # (..., B, D)
        return -binary_cross_entropy_with_logits(logits, x.expand_as(logits), reduction="none").sum(-1)


class HandWrittenTraining(Contender):
    """Training it.

    Args:
        problem, weights: the task.
        x: all data, (N, D).
        num_threads: PyTorch's.
    """

    family = "hand-written PyTorch"

    def __init__(self, problem: Problem, weights: Weights, x: Tensor, num_threads: int) -> None:
        self.variant, self._num_threads = in_words(num_threads), num_threads
        self._x, self._batch = x, problem.batch
        self.module = HandWritten(problem, weights)
        self._optimizer = torch.optim.Adam(self.module.parameters(), lr=LEARNING_RATE, fused=True)

    def run(self, steps: int) -> None:
        """Takes optimiser steps."""
        with threads(self._num_threads):
            total = torch.zeros(())
            for rows in torch.randperm(len(self._x))[: steps * self._batch].split(self._batch):
                loss = self.module.loss(self._x[rows])
                self._optimizer.zero_grad()
                loss.backward()
                self._optimizer.step()
                total += loss.detach()

    def log_weight(self, x: Tensor, z: Tensor) -> Tensor:
        """log p(x, z) − log q(z | x), (B,)."""
        with torch.no_grad():
            mu, sigma = self.module.encode(x)
            divergence = (0.5 * ((z - mu) / sigma).square() - 0.5 * z.square() + sigma.log()).sum(-1)
            return self.module.log_likelihood(x, z) + divergence
