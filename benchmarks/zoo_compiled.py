"""Which entries of the zoo compile, and how much faster their loss and gradient are then: a column of docs/zoo.md.

    OMP_NUM_THREADS=1 python benchmarks/zoo_compiled.py [--output docs/zoo_compiled.json] [names ...]

About four minutes on 2 cores. Both ways take turns; times are medians over the turns.
"""

import argparse
import json
import logging
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import pyro

import pyro_lvm as lvm
from pyro_lvm import data, zoo
from pyro_lvm.programs import pair

TURNS, CALLS, WARM_UP = 9, 20, 5


def milliseconds(function: Callable[[], object]) -> float:
    """Of a call, the mean over some."""
    start = time.perf_counter()
    for _ in range(CALLS):
        function()
    return 1e3 * (time.perf_counter() - start) / CALLS


def measure(name: str) -> dict[str, float | str | None]:
    """Times one entry's loss and gradient, as the programs are and replayed."""
    dataset = data.load("digits-static" if name == "vae-bernoulli" else "digits")
    model, guide, recipe = zoo.build(name, dataset)
    programs, N = pair(model, guide), len(dataset.train)
    x = dataset.train[: recipe.training["batch_size"]].to(programs[0].reference().dtype)
    compiled = lvm.compile(recipe.objective, model, guide)
    turns: dict[str, list[float]] = {"programs": [], "replayed": []}
    with pyro.validation_enabled(False):
        for _ in range(WARM_UP):
            compiled.loss_and_grads(x, size=N)
        for _ in range(TURNS):
            turns["programs"].append(milliseconds(lambda: recipe.objective.loss_and_grads(*programs, x, size=N)))
            turns["replayed"].append(milliseconds(lambda: compiled.loss_and_grads(x, size=N)))
    times = {way: median(values) for way, values in turns.items()}
    ratios = [a / b for a, b in zip(*turns.values(), strict=True)]
    return {"batch": len(x), "failure": compiled.failure, "ratio": median(ratios)} | times


def main() -> None:
    """Prints the table as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="entries; all where left out")
    parser.add_argument("--output", type=Path, help="JSON file, an entry at a time; entries not named here are kept")
    options = parser.parse_args()
    logging.getLogger("pyro_lvm").setLevel(logging.ERROR)
    print("| entry | batch | programs, ms | replayed, ms | times faster |\n|---|---|---|---|---|", flush=True)
    for name in options.names or zoo.names():
        row = measure(name)
        faster = f"not compiled: {row['failure']}" if row["failure"] else f"{row['ratio']:.1f}"
        print(f"| `{name}` | {row['batch']} | {row['programs']:.2f} | {row['replayed']:.2f} | {faster} |", flush=True)
        if options.output is not None:
            record(options.output, name, row)


def record(path: Path, name: str, row: dict[str, float | str | None]) -> None:
    """Writes an entry's measurement beside those that the file holds."""
    known = json.loads(path.read_text()) if path.exists() else {}
    known[name] = row
    path.write_text(json.dumps({entry: known[entry] for entry in zoo.names() if entry in known}, indent=1) + "\n")


if __name__ == "__main__":
    main()
