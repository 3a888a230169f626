"""Writes the table of `pyro-lvm verify` into docs/checks.md.

    OMP_NUM_THREADS=1 python -m benchmarks.checks_page

About two and a half minutes on 2 cores.
"""

from collections.abc import Iterator
from math import inf
from pathlib import Path

from benchmarks.marks import fill
from pyro_lvm.verify import Comparison, verify

PAGE = Path(__file__).parent.parent / "docs" / "checks.md"


def main() -> None:
    """Trains, compares and renders."""
    fill(PAGE, "verify", "\n".join(table(verify())))


def table(comparisons: list[Comparison]) -> Iterator[str]:
    """A row for each comparison, and why its gate is what it is."""
    yield "| comparison | measured | exact | difference | gate | why | |"
    yield "|---|---|---|---|---|---|---|"
    for c in comparisons:
        gate = f"≥ {c.at_least:.4f}" if c.at_most == inf else f"{c.at_least:.4f} to {c.at_most:.4f}"
        row = (c.name, f"{c.measured:.4f}", f"{c.exact:.4f}", f"{c.difference:+.4f}", gate, c.why)
        cells = [cell.replace("|", r"\|") for cell in row]  # a bar would end the cell
        yield f"| {' | '.join(cells)} | {'passed' if c.passed else '**failed**'} |"


if __name__ == "__main__":
    main()
