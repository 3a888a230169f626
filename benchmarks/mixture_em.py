"""A mixture of Gaussians by EM, against scikit-learn's from the same start."""

import warnings

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture

from benchmarks.interleaving import in_turns
from benchmarks.results import Bar, Result, Spread, ratios
from benchmarks.settings import Settings
from pyro_lvm import exact

N, D, K, ITERATIONS = 100_000, 16, 10, 10
OURS, PEER = "`exact.GaussianMixture`", "scikit-learn"


def measure(settings: Settings) -> Result:
    """Ten iterations each, float64, full covariances; they have to end with the same parameters."""
    rounds = settings.rounds(8)
    x, weights, means, covariances = task()
    limits = {"max_iter": ITERATIONS, "tol": 0.0}
    ours = exact.GaussianMixture(
        K, covariance_floor=1e-6, weights_init=weights, means_init=means, covariances_init=covariances, **limits
    )
    peer = GaussianMixture(
        K, reg_covar=0.0, weights_init=weights, means_init=means, precisions_init=np.linalg.inv(covariances), **limits
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # they are stopped, on purpose
        times = in_turns({OURS: lambda: ours.fit(x), PEER: lambda: peer.fit(x)}, rounds)
    np.testing.assert_allclose(np.asarray(ours.means_), peer.means_, rtol=1e-6, atol=1e-6)
    if not ours.n_iter_ == peer.n_iter_ == ITERATIONS:
        raise RuntimeError(f"{ours.n_iter_} and {peer.n_iter_} iterations are not the same work.")
    result = Result(f"EM for a mixture, N = {N:,}, D = {D}, K = {K}, full covariances, {ITERATIONS} iterations: s")
    result.rows = [{"contender": name, "seconds": Spread.of(seconds)} for name, seconds in times.items()]
    ratio = ratios(times[OURS], times[PEER])
    result.rows[1]["ours / its time"] = ratio
    result.bars = [Bar("EM: our time / scikit-learn's", ratio, 1.0, at_least=False)]
    return result


def task() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Data (N, D) of K overlapping clusters, and the weights, means and covariances to start from."""
    random = np.random.default_rng(0)
    centres = 2.0 * random.normal(size=(K, D))
    shapes = random.normal(size=(K, D, D)) / D**0.5 + np.eye(D)
    which = random.integers(K, size=N)
    noise = random.normal(size=(N, D))
    x = centres[which]
    for k in range(K):
        x[which == k] += noise[which == k] @ shapes[k]
    return x, np.full(K, 1 / K), x[random.choice(N, K, replace=False)], np.tile(np.cov(x.T), (K, 1, 1))
