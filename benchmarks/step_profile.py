"""Where the time of compiled work goes, by kind: for the bars of docs/benchmarks.md that are not met.

    python -m benchmarks.step_profile [--particles 1]
    python -m benchmarks.step_profile --evidence

Half a minute on 2 cores for a step of 784-400-20 with 128 data, or the evidence of 500 data with K = 5000 draws each;
profiling itself adds a few per cent to what is not arithmetic.
"""

import argparse
import cProfile
import pstats
from typing import Any
from unittest.mock import patch

import pyro_lvm as lvm
from benchmarks.contenders import ours
from benchmarks.evidence_time import K
from benchmarks.problem import Problem
from pyro_lvm.capture import Replayer

WARM_UP, EPOCHS = 3, 8  # epochs
DATA = 500

KINDS = {
    "matrix products": ("torch.mm", "torch.addmm", "mkldnn"),
    "the optimiser": ("_fused_adam",),
    "kernels of the graph": ("kernel",),
    "random numbers": ("torch._ops.aten",),
    "the batch": ("index_select",),
    "memory": ("_empty_strided_cpu", "_reinterpret_tensor"),
}


def main() -> None:
    """Prints the table as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--particles", type=int, default=1)
    parser.add_argument("--evidence", action="store_true", help="of a datum's evidence, and not of a step")
    options = parser.parse_args()
    problem = Problem(features=784, hidden=400, latent_dim=20, batch=128, steps=100, particles=options.particles)
    if options.evidence:
        of_evidence(problem)
    else:
        of_training(problem)


def of_training(problem: Problem) -> None:
    """The table of a step, from after the capture."""
    x, profile = problem.synthetic(), cProfile.Profile()

    def after(row: dict[str, float]) -> None:
        if row["epoch"] == WARM_UP:
            profile.enable()

    ours.train(problem, problem.weights(), x, WARM_UP + EPOCHS, compile=True, on_epoch=after)
    profile.disable()
    print_table(profile, "of a step", EPOCHS * problem.steps, "Python, and the evaluation after each epoch")


def of_evidence(problem: Problem) -> None:
    """The table of a datum, from after the capture: what more data take."""
    model, guide = ours.zoo_pair(problem, problem.weights())
    x, profile = problem.synthetic(), cProfile.Profile()
    captured = Replayer._capture

    def start(*arguments: Any) -> bool:
        done = captured(*arguments)
        profile.enable()
        return done

    with patch.object(Replayer, "_capture", start):
        lvm.log_likelihood(model, guide, x[:DATA], K, compile=True, progress=False)
    profile.disable()
    print_table(profile, "of a datum's evidence", DATA, "Python, k-hat and the checks")


def print_table(profile: cProfile.Profile, what: str, number: int, others: str) -> None:
    """Milliseconds and shares by kind, as Markdown."""
    own = {where[2]: times[2] for where, times in pstats.Stats(profile).stats.items()}  # type: ignore[attr-defined]
    total, left = sum(own.values()), dict(own)
    print(f"| {what} | ms | share |\n|---|---|---|")
    for kind, words in KINDS.items():
        found = [name for name in left if any(word in name for word in words)]
        seconds = sum(left.pop(name) for name in found)
        if not found:
            continue
        print(f"| {kind} | {1e3 * seconds / number:.3f} | {100 * seconds / total:.0f} % |")
    rest = sum(left.values())
    print(f"| {others} | {1e3 * rest / number:.3f} | {100 * rest / total:.0f} % |")
    print(f"| all | {1e3 * total / number:.3f} | 100 % |")


if __name__ == "__main__":
    main()
