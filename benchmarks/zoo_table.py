"""Trains every entry of the zoo on the digits with its own recipe and prints the table of docs/zoo.md.

    python benchmarks/zoo_table.py [--seeds 3] [--pictures docs/pictures] [--output docs/zoo_table.json] [names ...]

An hour on 2 cores for all entries and three seeds. What the output file holds of other entries stays.
"""

import argparse
import json
import math
import platform
import time
from pathlib import Path
from statistics import mean, stdev

import torch

import pyro_lvm as lvm
from pyro_lvm import data, objectives, zoo
from pyro_lvm.diagnostics import plot_samples, sample_predictive
from pyro_lvm.evidence.estimates import Estimates


def measure(name: str, seed: int, particles: int, pictures: Path | None) -> dict[str, float]:
    """Trains one entry and judges it on the test digits; draws samples of the first seed's."""
    dataset = data.load("digits-static" if name == "vae-bernoulli" else "digits")
    start = time.perf_counter()
    model, guide, recipe = zoo.build(name, dataset, seed=seed)
    lvm.fit(
        model,
        guide,
        dataset.train,
        validation=dataset.validation,
        objective=recipe.objective,
        seed=seed,
        **recipe.training,
    )
    seconds = time.perf_counter() - start
    if recipe.evidence == "bound":
        ll: Estimates = lvm.evidence.lower_bound(model, guide, dataset.test, particles, seed=0)
        khat = -math.inf
    else:
        ll = weighted = lvm.log_likelihood(model, guide, dataset.test, particles, seed=0)
        khat = float(weighted.khat.max())
    with torch.random.fork_rng():
        torch.manual_seed(0)
        # global latents count as they do in training: once for all training data
        elbo = -objectives.ELBO(20).loss(model, guide, dataset.test, size=len(dataset.train)) / len(dataset.train)
        if pictures is not None and seed == 0:
            axes = plot_samples(sample_predictive(model, guide, dataset.train, 64), levels=dataset.levels)
            axes.set_title(f"{name}: samples")
            pictures.mkdir(parents=True, exist_ok=True)
            axes.figure.savefig(pictures / f"{name}.png", dpi=80)
    return {
        "seed": seed,
        "log_likelihood": float(ll.mean),
        "standard_error": float(ll.mean_standard_error),
        "worst_khat": khat,
        "elbo": elbo,
        "seconds": seconds,
    }


def main() -> None:
    """Prints the table as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="entries; all where left out")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--particles", type=int, default=1000)
    parser.add_argument("--pictures", type=Path, help="folder for a picture of samples of each")
    parser.add_argument("--output", type=Path, help="JSON file for every measurement, an entry at a time")
    options = parser.parse_args()
    print(
        "| entry | ELBO | log-likelihood | spread over seeds | Monte Carlo error | worst k-hat | seconds |", flush=True
    )
    print("|---|---|---|---|---|---|---|", flush=True)
    for name in options.names or zoo.names():
        runs = [measure(name, seed, options.particles, options.pictures) for seed in range(options.seeds)]
        values = [run["log_likelihood"] for run in runs]
        spread = f"{stdev(values):.2f}" if len(values) > 1 else "–"
        print(
            f"| `{name}` | {mean(run['elbo'] for run in runs):.2f} | {mean(values):.2f} | {spread} "
            f"| {max(run['standard_error'] for run in runs):.3f} | {max(run['worst_khat'] for run in runs):.2f} "
            f"| {mean(run['seconds'] for run in runs):.0f} |",
            flush=True,
        )
        if options.output:
            record(options.output, name, runs)


def record(path: Path, name: str, runs: list[dict[str, float]]) -> None:
    """Writes an entry's measurements beside those that the file holds."""
    known = json.loads(path.read_text())["runs"] if path.exists() else {}
    known[name] = runs
    machine = {"machine": platform.machine(), "threads": torch.get_num_threads(), "torch": torch.__version__}
    ordered = {entry: known[entry] for entry in zoo.names() if entry in known}
    path.write_text(json.dumps({"machine": machine, "runs": ordered}, indent=1) + "\n")


if __name__ == "__main__":
    main()
