"""The autoencoder in Pythae, trained by its `BaseTrainer`, data loading included."""

import logging
import shutil
import tempfile
import weakref
from typing import Any

import torch
from pythae.data.datasets import BaseDataset
from pythae.models import VAE, VAEConfig
from pythae.models.base.base_utils import ModelOutput
from pythae.models.nn import BaseDecoder, BaseEncoder
from pythae.trainers import BaseTrainer, BaseTrainerConfig
from pythae.trainers.training_callbacks import CallbackHandler, TrainingCallback
from torch import Tensor
from torch.nn.functional import binary_cross_entropy, softplus

from benchmarks.contenders.contender import Contender, in_words
from benchmarks.problem import LEARNING_RATE, MINIMUM_SCALE, Problem, Weights, load, mlp
from pyro_lvm.threads import threads

for _name in [name for name in logging.root.manager.loggerDict if name.startswith("pythae")]:
    logging.getLogger(_name).setLevel(logging.ERROR)  # each has a level and a handler of its own


class Encoder(BaseEncoder):
    """Means and log-variances of q(z | x); Pythae wants the latter, the model has a softplus."""

    def __init__(self, problem: Problem, weights: Weights) -> None:
        super().__init__()
        self.layers = mlp(problem.features, problem.hidden, 2 * problem.latent_dim)
        load(self.layers, "encoder", weights)

    def forward(self, x: Tensor) -> Any:
        """Pythae's record of the two, (B, M) each."""
        mu, raw = self.layers(x).chunk(2, dim=-1)
        return ModelOutput(embedding=mu, log_covariance=2 * (softplus(raw) + MINIMUM_SCALE).log())


class Decoder(BaseDecoder):
    """Probabilities of x given z, which is what Pythae's cross entropy takes."""

    def __init__(self, problem: Problem, weights: Weights) -> None:
        super().__init__()
        self.layers = mlp(problem.latent_dim, problem.hidden, problem.features)
        load(self.layers, "decoder", weights)

    def forward(self, z: Tensor) -> Any:
        """Pythae's record of them, (B, D)."""
        return ModelOutput(reconstruction=self.layers(z).sigmoid())


def pythae_vae(problem: Problem, weights: Weights) -> VAE:
    """Pythae's autoencoder with these weights."""
    config = VAEConfig(input_dim=(problem.features,), latent_dim=problem.latent_dim, reconstruction_loss="bce")
    return VAE(config, encoder=Encoder(problem, weights), decoder=Decoder(problem, weights))


class Pythae(Contender):
    """Training it, epoch by epoch; its divergence is in closed form, which costs it less than sampling would.

    Args:
        problem, weights: the task.
        x: all data, (N, D).
        num_threads: PyTorch's.
    """

    family = "Pythae"

    def __init__(self, problem: Problem, weights: Weights, x: Tensor, num_threads: int) -> None:
        self.variant, self._num_threads, self._steps = in_words(num_threads), num_threads, problem.steps
        self._vae, self._epoch = pythae_vae(problem, weights), 0
        folder = tempfile.mkdtemp()  # it wants one
        weakref.finalize(self, shutil.rmtree, folder)
        config = BaseTrainerConfig(
            output_dir=folder,
            per_device_train_batch_size=problem.batch,
            learning_rate=LEARNING_RATE,
            keep_best_on_train=True,
            no_cuda=True,
        )
        self._trainer = BaseTrainer(self._vae, BaseDataset(x, torch.zeros(len(x))), training_config=config)
        with torch.random.fork_rng():  # it seeds the process
            self._trainer.prepare_training()
        # Without its progress bar, which would break up ours and takes time.
        self._trainer.callback_handler = CallbackHandler([TrainingCallback()], self._vae)

    def run(self, steps: int) -> None:
        """One epoch, the only thing it does."""
        if steps != self._steps:
            raise ValueError(f"Pythae's trainer runs epochs, here of {self._steps} steps, not {steps} steps.")
        self._epoch += 1
        with threads(self._num_threads):
            self._trainer.train_step(self._epoch)

    def log_weight(self, x: Tensor, z: Tensor) -> Tensor:
        """log p(x, z) − log q(z | x), (B,)."""
        with torch.no_grad():
            encoded = self._vae.encoder(x)
            mu, log_variance = encoded.embedding, encoded.log_covariance
            divergence = 0.5 * ((z - mu).square() / log_variance.exp() + log_variance - z.square()).sum(-1)
            return divergence - binary_cross_entropy(self._vae.decoder(z).reconstruction, x, reduction="none").sum(-1)
