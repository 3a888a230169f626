"""Probabilistic PCA in closed form, against scikit-learn's PCA."""

import numpy as np
from sklearn.decomposition import PCA

from benchmarks.interleaving import in_turns
from benchmarks.results import Bar, Result, Spread, ratios
from benchmarks.settings import Settings
from pyro_lvm import exact

SHAPES = [(100_000, 64), (20_000, 784)]
COMPONENTS = 10
OURS, PEER = "`exact.ProbabilisticPCA`", "scikit-learn's `PCA`"


def measure(settings: Settings) -> Result:
    """Fits of float64 data, the peer's solver left to itself; both have to find the same noise variance."""
    rounds = settings.rounds(10)
    result = Result(f"Probabilistic PCA, {COMPONENTS} components: ms a fit")
    for N, D in SHAPES:
        x = task(N, D)
        ours, peer = exact.ProbabilisticPCA(COMPONENTS), PCA(COMPONENTS)
        times = in_turns({OURS: lambda m=ours, x=x: m.fit(x), PEER: lambda m=peer, x=x: m.fit(x)}, rounds)
        np.testing.assert_allclose(float(ours.noise_variance_) * N / (N - 1), peer.noise_variance_, rtol=1e-6)
        ratio = ratios(times[OURS], times[PEER])
        for name, seconds in times.items():
            row = {"data": f"{N:,} × {D}", "contender": name, "ms a fit": Spread.of(1e3 * t for t in seconds)}
            result.rows.append(row if name == OURS else row | {"ours / its time": ratio})
        result.bars.append(Bar(f"pPCA of {N:,} × {D}: our time / scikit-learn's", ratio, 1.0, at_least=False))
    return result


def task(N: int, D: int) -> np.ndarray:
    """Data (N, D) with ten directions of large variance."""
    random = np.random.default_rng(0)
    return random.normal(size=(N, COMPONENTS)) @ random.normal(size=(COMPONENTS, D)) + 0.5 * random.normal(size=(N, D))
