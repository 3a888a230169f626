"""Where the time of a compiled step of training goes, by kind: for the bars of docs/benchmarks.md that are not met.

    python -m benchmarks.step_profile [--particles 1]

Half a minute on 2 cores for 784-400-20 with 128 data; profiling itself adds a few per cent to what is not arithmetic.
"""

import argparse
import cProfile
import pstats

from benchmarks.contenders import ours
from benchmarks.problem import Problem

WARM_UP, EPOCHS = 3, 8  # epochs

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
    options = parser.parse_args()
    problem = Problem(features=784, hidden=400, latent_dim=20, batch=128, steps=100, particles=options.particles)
    x, profile = problem.synthetic(), cProfile.Profile()

    def after(row: dict[str, float]) -> None:
        if row["epoch"] == WARM_UP:
            profile.enable()

    ours.train(problem, problem.weights(), x, WARM_UP + EPOCHS, compile=True, on_epoch=after)
    profile.disable()
    own = {where[2]: times[2] for where, times in pstats.Stats(profile).stats.items()}  # type: ignore[attr-defined]
    steps, total, left = EPOCHS * problem.steps, sum(own.values()), dict(own)
    print("| of a step | ms | share |\n|---|---|---|")
    for kind, words in KINDS.items():
        found = [name for name in left if any(word in name for word in words)]
        seconds = sum(left.pop(name) for name in found)
        print(f"| {kind} | {1e3 * seconds / steps:.3f} | {100 * seconds / total:.0f} % |")
    rest = sum(left.values())
    print(f"| Python, and the evaluation after each epoch | {1e3 * rest / steps:.3f} | {100 * rest / total:.0f} % |")
    print(f"| all | {1e3 * total / steps:.3f} | 100 % |")


if __name__ == "__main__":
    main()
