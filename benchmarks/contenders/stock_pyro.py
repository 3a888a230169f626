"""The zoo's pair under stock Pyro: `SVI` with `Trace_ELBO` and Pyro's Adam."""

import pyro
import torch
from pyro.infer import SVI, Trace_ELBO
from torch import Tensor

from benchmarks.contenders import ours
from benchmarks.contenders.contender import Contender, in_words
from benchmarks.problem import LEARNING_RATE, Problem, Weights
from pyro_lvm.threads import threads


class StockPyro(Contender):
    """Training it.

    Args:
        problem, weights: the task, of one particle.
        x: all data, (N, D).
        num_threads: PyTorch's.
        validation: Pyro's checks of every distribution and sample, on unless switched off.
    """

    family = "stock Pyro SVI"

    def __init__(
        self, problem: Problem, weights: Weights, x: Tensor, num_threads: int, validation: bool = True
    ) -> None:
        if not validation:
            self.family = "stock Pyro SVI without validation"
        self.variant, self._num_threads, self._validation = in_words(num_threads), num_threads, validation
        self._batch, self._x = problem.batch, x
        self._pair = ours.zoo_pair(problem, weights)
        self._svi = SVI(*self._pair, pyro.optim.Adam({"lr": LEARNING_RATE}), Trace_ELBO())
        self._parameters = None  # what Pyro's store holds of this pair

    def run(self, steps: int) -> None:
        """Takes optimiser steps."""
        scope, B = pyro.get_param_store().scope(self._parameters), self._batch
        with threads(self._num_threads), pyro.validation_enabled(self._validation), scope as self._parameters:
            for rows in torch.randperm(len(self._x))[: steps * B].split(B):
                self._svi.step(self._x[rows])

    def log_weight(self, x: Tensor, z: Tensor) -> Tensor:
        """log p(x, z) − log q(z | x), (B,)."""
        return ours.log_weight(*self._pair, x, z)
