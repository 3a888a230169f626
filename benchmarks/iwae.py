"""Training by the importance-weighted bound, K = 50, 784-400-20."""

from benchmarks import mnist
from benchmarks.results import Result
from benchmarks.settings import Settings
from benchmarks.training import HAND_WRITTEN, NUMPYRO, Target, compare, fast_peers

PROBLEM = mnist.VAE.with_(particles=50, steps=60)
TARGETS = [Target(HAND_WRITTEN, 0.6, speedup=False), Target(NUMPYRO, 1.05, speedup=False)]
PEER_STEPS = 6  # of a tenth of a second each and more: whole epochs of everybody would take minutes a round


def measure(settings: Settings) -> Result:
    """A peer's turn is a part of an epoch; ours is a whole one, as its row of the history is a part of the cost."""
    x, what = mnist.train(PROBLEM)
    result = compare(
        PROBLEM, x, fast_peers, TARGETS, rounds=settings.rounds(5), peer_steps=PEER_STEPS, compile=settings.compile
    )
    result.notes.append(f"Data: {what}.")
    return result
