"""Training a small autoencoder, where what surrounds the arithmetic decides."""

import torch

from benchmarks.problem import Problem
from benchmarks.results import Result
from benchmarks.settings import Settings
from benchmarks.training import HAND_WRITTEN, NUMPYRO, STOCK, Target, all_peers, compare
from pyro_lvm import data

PROBLEM = Problem(features=64, hidden=256, latent_dim=16, batch=64, steps=400)
TARGETS = [Target(STOCK, 8, speedup=True), Target(HAND_WRITTEN, 0.8, speedup=False), Target(NUMPYRO, 1.05, False)]


def measure(settings: Settings) -> Result:
    """On the binarised digits, again and again until there are enough."""
    digits = data.load("digits-static").train.flatten(1)  # (1000, 64)
    x = digits[torch.arange(PROBLEM.steps * PROBLEM.batch) % len(digits)]
    return compare(
        PROBLEM, x, all_peers, TARGETS, rounds=settings.rounds(30), peer_steps=PROBLEM.steps, compile=settings.compile
    )
