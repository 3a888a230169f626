"""How the time of a step grows with particles, batch and data size."""

from collections.abc import Iterator
from statistics import median

from torch import Tensor

from benchmarks.contenders import ours
from benchmarks.contenders.contender import Contender
from benchmarks.interleaving import against_fit
from benchmarks.problem import Problem, Weights
from benchmarks.results import Result, ratios
from benchmarks.settings import Settings
from benchmarks.training import HAND_WRITTEN, NUMPYRO, fast_peers, fastest_of_family
from benchmarks.vae_small import PROBLEM

PEER_STEPS = 20
ROUNDS = 5
WITH_PARTICLES = PROBLEM.with_(steps=30)


def points() -> Iterator[tuple[str, int, Problem]]:
    """What is varied, its value, and the problem."""
    for particles in (1, 5, 20, 50):
        yield "particles K", particles, WITH_PARTICLES.with_(particles=particles)
    for batch in (16, 64, 256, 1024):
        yield "batch", batch, PROBLEM.with_(batch=batch, steps=50)
    for steps in (20, 200, 1000):
        yield "data", steps * PROBLEM.batch, PROBLEM.with_(steps=steps)


def measure(settings: Settings) -> Result:
    """One problem, 64-256-16 with 64 data a step, and one of its sizes varied at a time."""
    rounds = settings.rounds(ROUNDS)
    result = Result(f"Scaling, from {PROBLEM}: median ms a step")
    for axis, value, problem in points():
        print(f"  {axis} = {value:,}")
        x, weights = problem.synthetic(), problem.weights()
        contenders = peers(problem, weights, x)
        times, _ = against_fit(problem, weights, x, contenders, rounds, PEER_STEPS, settings.compile)
        best = fastest_of_family(times, contenders)
        row = {"varied": axis, "value": f"{value:,}", ours.NAME: 1e3 * median(times[ours.NAME])}
        row |= {family: 1e3 * median(times[name]) for family, name in best.items()}
        row |= {f"ours / {family}": ratios(times[ours.NAME], times[name]) for family, name in best.items()}
        result.rows.append(row)
    result.notes.append(
        "K = 1 is the ELBO, more the importance-weighted bound. Data: the size of the data set, whose epochs are timed."
    )
    return result


def peers(problem: Problem, weights: Weights, x: Tensor) -> list[Contender]:
    """Those that are run step by step."""
    return [peer for peer in fast_peers(problem, weights, x) if peer.family in (HAND_WRITTEN, NUMPYRO)]
