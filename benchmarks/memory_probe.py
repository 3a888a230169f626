"""The peak memory of one contender at one task, in a process of its own.

    python -m benchmarks.memory_probe {steps,iwae,evidence} CONTENDER [--eager]

Prints bytes as JSON: `before`, when everything is imported and the data are there, and `peak`, at the end.
"""

import argparse
import json
import resource
import sys
from collections.abc import Callable
from pathlib import Path

import torch

from benchmarks.problem import Problem

STEPS = Problem(features=784, hidden=400, latent_dim=20, batch=128, steps=20)
PROBLEMS = {"steps": STEPS, "iwae": STEPS.with_(particles=50, steps=5), "evidence": STEPS.with_(batch=20, steps=1)}
PARTICLES = 5000  # of the evidence
CONTENDERS = {
    "steps": ("ours", "stock Pyro SVI", "hand-written PyTorch", "NumPyro", "Pythae"),
    "iwae": ("ours", "hand-written PyTorch", "NumPyro"),
    "evidence": ("ours", "Pythae"),
}


def peak_bytes() -> int:
    """The most memory this process has held so far."""
    status = Path("/proc/self/status")
    if status.exists():  # `ru_maxrss` begins with what the parent held when it started this process
        (line,) = (line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def prepare(task: str, contender: str, compile: bool) -> Callable[[], object]:
    """What to run; imports what it needs, and no other contender."""
    problem = PROBLEMS[task]
    weights, x, threads = problem.weights(), problem.synthetic(), torch.get_num_threads()
    if contender == "ours":
        from benchmarks.contenders import ours

        if task == "evidence":
            import pyro_lvm as lvm

            pair = ours.zoo_pair(problem, weights)
            return lambda: lvm.log_likelihood(*pair, x, PARTICLES, progress=False)
        return lambda: ours.train(problem, weights, x, epochs=2, compile=compile)
    if contender == "hand-written PyTorch":
        from benchmarks.contenders.hand_written import HandWrittenTraining

        training = HandWrittenTraining(problem, weights, x, threads)
    elif contender == "stock Pyro SVI":
        from benchmarks.contenders.stock_pyro import StockPyro

        training = StockPyro(problem, weights, x, threads)
    elif contender == "NumPyro":
        from benchmarks.contenders.numpyro_svi import NumPyro

        training = NumPyro(problem, weights, x, whole_epochs=False)
    else:
        from benchmarks.contenders.pythae_vae import Pythae, pythae_vae

        if task == "evidence":
            vae = pythae_vae(problem, weights).eval()
            return torch.no_grad()(lambda: vae.get_nll(x, n_samples=PARTICLES))
        training = Pythae(problem, weights, x, threads)
    return lambda: [training.run(problem.steps) for _ in range(2)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("task", choices=PROBLEMS)
    parser.add_argument("contender")
    parser.add_argument("--eager", action="store_true", help="ours with compile=False")
    options = parser.parse_args()
    run = prepare(options.task, options.contender, not options.eager)
    before = peak_bytes()
    run()
    print(json.dumps({"before": before, "peak": peak_bytes()}))


if __name__ == "__main__":
    main()
