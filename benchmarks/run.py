"""Measures speed and memory against peers, prints tables and records them.

    python -m benchmarks.run [names ...] [--render] [--eager] [--quick]

Records go to benchmarks/results.json, a benchmark at a time; `--render` writes them into docs/benchmarks.md as well.
A new benchmark is a file with a function `measure(settings) -> Result`, and a line in `BENCHMARKS`.
"""

import argparse
import json
import sys
import traceback
from collections.abc import Callable
from time import perf_counter

from benchmarks import (
    diffusion,
    evidence_time,
    iwae,
    memory,
    mixture_em,
    part_costs,
    ppca,
    rendering,
    sampling,
    scaling,
    vae_mnist,
    vae_small,
    von_mises_fisher,
)
from benchmarks.machine import description
from benchmarks.results import Result
from benchmarks.settings import Settings

BENCHMARKS: dict[str, Callable[[Settings], Result]] = {
    "vae-small": vae_small.measure,
    "vae-mnist": vae_mnist.measure,
    "iwae": iwae.measure,
    "evidence": evidence_time.measure,
    "em": mixture_em.measure,
    "ppca": ppca.measure,
    "vmf": von_mises_fisher.measure,
    "parts": part_costs.measure,
    "diffusion": diffusion.measure,
    "sampling": sampling.measure,
    "memory": memory.measure,
    "scaling": scaling.measure,
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help=f"of {', '.join(BENCHMARKS)}; all where left out", metavar="names")
    parser.add_argument("--render", action="store_true", help="write the tables into docs/benchmarks.md")
    parser.add_argument("--eager", action="store_true", help="ours with compile=False")
    parser.add_argument("--quick", action="store_true", help="two rounds of each, to see that it works; not recorded")
    options = parser.parse_args()
    if unknown := set(options.names) - set(BENCHMARKS):
        parser.error(f"no such benchmark: {', '.join(sorted(unknown))}; there are {', '.join(BENCHMARKS)}")
    settings = Settings(compile=not options.eager, quick=options.quick)
    records, failed = rendering.read(), []
    for name in options.names or BENCHMARKS:
        print(f"{name} ...", flush=True)
        start = perf_counter()
        try:
            result = BENCHMARKS[name](settings)
        except Exception:  # what the others measured is not to be lost
            traceback.print_exc()
            failed.append(name)
            continue
        seconds = perf_counter() - start
        print(f"\n{rendering.report(result)}\n{rendering.bars(result.bars)}({seconds:.0f} s)\n", flush=True)
        records[name] = {"machine": description(), "seconds": round(seconds), "result": result.as_json()}
        if not settings.quick:
            ordered = {known: records[known] for known in BENCHMARKS if known in records}
            rendering.RESULTS.write_text(json.dumps(ordered, indent=1, ensure_ascii=False) + "\n")
    if options.render:
        rendering.main()
    if failed:
        print(f"failed: {', '.join(failed)}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
