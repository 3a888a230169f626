"""Draws from von Mises-Fisher densities, each with parameters of its own, against SciPy's."""

import numpy as np
import torch
from scipy import stats

from benchmarks.interleaving import in_turns
from benchmarks.results import Bar, Result, Spread, ratios
from benchmarks.settings import Settings
from pyro_lvm.distributions import VonMisesFisher

BATCH = 256
DIMENSIONS = (3, 10, 100)
OURS, PEER = "`distributions.VonMisesFisher`", "SciPy"


def measure(settings: Settings) -> Result:
    """One draw from each of a batch of densities, as a posterior needs it, float64; SciPy takes one density at a time.

    Ours is timed with the gradient's preparation, which SciPy has no counterpart of.
    """
    rounds = settings.rounds(15)
    result = Result(f"One draw from each of {BATCH} von Mises-Fisher densities on the sphere in m dimensions: ms")
    for m in DIMENSIONS:
        mu, kappa = task(m)
        pairs = list(zip(mu.numpy(), kappa.tolist(), strict=True))
        mu.requires_grad_()
        kappa.requires_grad_()
        random = np.random.default_rng(0)

        def ours(mu: torch.Tensor = mu, kappa: torch.Tensor = kappa) -> torch.Tensor:
            return VonMisesFisher(mu, kappa, validate_args=False).rsample()

        def peer(pairs: list[tuple[np.ndarray, float]] = pairs, random: np.random.Generator = random) -> np.ndarray:
            return np.stack([stats.vonmises_fisher.rvs(a, b, 1, random_state=random) for a, b in pairs])

        times = in_turns({OURS: ours, PEER: peer}, rounds)
        speedup = ratios(times[PEER], times[OURS])
        for name, seconds in times.items():
            result.rows.append({"m": str(m), "contender": name, "ms": Spread.of(1e3 * s for s in seconds)})
        result.rows[-1]["its time / ours"] = speedup
        result.bars.append(Bar(f"von Mises-Fisher draws, m = {m}: SciPy's time / ours", speedup, 2.0, at_least=True))
    return result


def task(m: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean directions (B, m), and concentrations (B,) from 1 to 1000."""
    generator = torch.Generator().manual_seed(0)
    mu = torch.randn(BATCH, m, dtype=torch.float64, generator=generator)
    kappa = 10 ** (3 * torch.rand(BATCH, dtype=torch.float64, generator=generator))
    return mu / mu.norm(dim=-1, keepdim=True), kappa
