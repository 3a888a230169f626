"""Training an autoencoder of MNIST's size, 784-400-20."""

from benchmarks import mnist
from benchmarks.results import Result
from benchmarks.settings import Settings
from benchmarks.training import HAND_WRITTEN, NUMPYRO, PYTHAE, STOCK, Target, all_peers, compare

TARGETS = [
    Target(STOCK, 2.5, speedup=True),
    Target(HAND_WRITTEN, 0.7, speedup=False),
    Target(NUMPYRO, 1.05, speedup=False),
    Target(PYTHAE, 3, speedup=True),
]


def measure(settings: Settings) -> Result:
    """Pythae's turns are epochs of its trainer, so its time a step is an epoch's by the number of steps."""
    x, what = mnist.train()
    problem = mnist.VAE
    result = compare(
        problem, x, all_peers, TARGETS, rounds=settings.rounds(15), peer_steps=problem.steps, compile=settings.compile
    )
    result.notes.append(f"Data: {what}.")
    return result
