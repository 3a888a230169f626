"""Peaks of memory, each contender in a process of its own."""

import json
import subprocess
import sys

from benchmarks.contenders.contender import installed
from benchmarks.interleaving import show_progress
from benchmarks.memory_probe import CONTENDERS, PARTICLES, PROBLEMS
from benchmarks.results import Result
from benchmarks.settings import Settings

NEEDS = {"NumPyro": ("jax", "numpyro"), "Pythae": ("pythae",)}


def measure(settings: Settings) -> Result:
    """Of steps, of steps of the importance-weighted bound, and of the evidence."""
    evidence = PROBLEMS["evidence"]
    titles = {
        "steps": f"training, {PROBLEMS['steps']}",
        "iwae": f"training, {PROBLEMS['iwae']}",
        "evidence": f"log p(x) with {PARTICLES} draws, {evidence.batch} data",
    }
    result = Result("Peak memory of a whole process, MB")
    cells = [(task, name) for task, names in CONTENDERS.items() for name in names if installed(*NEEDS.get(name, ()))]
    for done, (task, name) in enumerate(cells):
        used = probe(task, name, settings.compile)
        result.rows.append({
            "task": titles[task],
            "contender": name,
            "peak, MB": used["peak"] / 1e6,
            "before the work, MB": used["before"] / 1e6,
            "the work, MB": (used["peak"] - used["before"]) / 1e6,
        })  # fmt: skip
        show_progress(done + 1, len(cells))
    result.notes.append("Before the work: the interpreter, everything imported, weights and data.")
    return result


def probe(task: str, contender: str, compile: bool) -> dict[str, int]:
    """Bytes before the work and at the peak."""
    command = [sys.executable, "-m", "benchmarks.memory_probe", task, contender, *([] if compile else ["--eager"])]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])
