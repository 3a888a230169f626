"""What all contenders are given: the sizes of a variational autoencoder, its data and its first weights.

Nothing of the project is imported here, so that a peer's memory can be measured without it.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

# Keeps a posterior's scale away from 0; the same as in `pyro_lvm.posteriors`, which the tests hold it against.
MINIMUM_SCALE = 1e-4
LEARNING_RATE = 1e-3

Weights = dict[str, Tensor]  # "encoder.0.weight" (H, D), "encoder.2.weight" (2M, H), "decoder.0.weight" (H, M) ...


@dataclass(frozen=True)
class Problem:
    """A variational autoencoder D-H-M of zeros and ones, one hidden layer of H units each way, and how it is trained.

    Args:
        features: D, values of a datum.
        hidden: H, units of the encoder's and of the decoder's hidden layer.
        latent_dim: M.
        batch: B, data a step.
        steps: steps an epoch: the data set has exactly `steps` full batches.
        particles: K, draws for each datum; more than one trains the importance-weighted bound.
    """

    features: int
    hidden: int
    latent_dim: int
    batch: int
    steps: int
    particles: int = 1

    def __str__(self) -> str:
        particles = "" if self.particles == 1 else f", K = {self.particles}"
        return f"{self.features}-{self.hidden}-{self.latent_dim}, batch {self.batch}{particles}"

    def with_(self, **changes: int) -> "Problem":
        """The same problem with some sizes changed."""
        return replace(self, **changes)

    def weights(self, seed: int = 0) -> Weights:
        """Weights to start from, by the rule of `nn.Linear`."""
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            encoder = mlp(self.features, self.hidden, 2 * self.latent_dim)
            decoder = mlp(self.latent_dim, self.hidden, self.features)
        state = nn.ModuleDict({"encoder": encoder, "decoder": decoder}).state_dict()
        return {name: weight.clone() for name, weight in state.items()}

    def synthetic(self, seed: int = 0) -> Tensor:
        """Data of the right shape, (N, D): ten patterns of zeros and ones, each value flipped with probability 0.1."""
        generator = torch.Generator().manual_seed(seed)
        patterns = torch.rand(10, self.features, generator=generator) < 0.2
        N = self.steps * self.batch
        which = torch.randint(10, (N,), generator=generator)
        flips = torch.rand(N, self.features, generator=generator) < 0.1
        return (patterns[which] ^ flips).to(torch.get_default_dtype())

    def products(self) -> list[tuple[int, int, int]]:
        """Sizes (m, k, n) of the matrix products (m, k) @ (k, n) of one step, forward and backward."""
        D, H, M, B, rows = self.features, self.hidden, self.latent_dim, self.batch, self.batch * self.particles
        layers = [(B, D, H), (B, H, 2 * M), (rows, M, H), (rows, H, D)]  # rows, in, out
        weight_gradients = [(out, m, k) for m, k, out in layers]
        input_gradients = [(m, out, k) for m, k, out in layers[1:]]  # nobody asks for the data's
        return layers + weight_gradients + input_gradients

    def flops(self) -> int:
        """Floating-point operations of one step's matrix products, a multiplication and an addition being two."""
        return sum(2 * m * k * n for m, k, n in self.products())


def mlp(features: int, hidden: int, out: int) -> nn.Sequential:
    """The one network everybody has: affine, ReLU, affine."""
    return nn.Sequential(nn.Linear(features, hidden), nn.ReLU(), nn.Linear(hidden, out))


def load(network: nn.Module, name: str, weights: Weights) -> None:
    """Gives an affine-ReLU-affine network the weights of the encoder or of the decoder."""
    own = {key.removeprefix(f"{name}."): value for key, value in weights.items() if key.startswith(f"{name}.")}
    network.load_state_dict(own)
