"""What has an exact answer, held against it: what `pyro-lvm verify` prints."""

from rich.console import Console
from rich.table import Table as RichTable

from pyro_lvm import data
from pyro_lvm.verify.comparison import Comparison
from pyro_lvm.verify.diffusions import diffusions
from pyro_lvm.verify.hierarchies import hierarchies
from pyro_lvm.verify.linear_gaussian import linear_gaussian
from pyro_lvm.verify.mixtures import mixtures
from pyro_lvm.verify.spheres import spheres

__all__ = ["Comparison", "print_table", "verify"]


def verify(seed: int = 0, progress: bool = True) -> list[Comparison]:
    """Compares all that has an exact answer with it, in float64. About two minutes.

    `ppca`, `gmm` and `gmm-bayes` are trained on the digits by their recipes. On the trained `ppca`, whose evidence and
    posteriors are known, what judges models is judged: estimates of the evidence, the no-U-turn sampler, comparisons
    with it, and calibration. Hierarchies, diffusions and densities on spheres have closed forms of their own.

    Args:
        seed: of the trainings and of everything drawn.
        progress: show bars on a terminal.
    """
    digits = data.load("digits")
    return [
        *linear_gaussian(digits, seed, progress),
        *mixtures(digits, seed, progress),
        *hierarchies(seed),
        *diffusions(seed),
        *spheres(seed),
    ]


def print_table(comparisons: list[Comparison], console: Console | None = None) -> None:
    """Prints the comparisons as a table, why each gate is what it is, and how many passed."""
    table = RichTable(title="Against exact answers")
    table.add_column("comparison")
    for heading in ("measured", "exact", "difference", "gate"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("unit")
    table.add_column("")
    for c in comparisons:
        gate = (
            f"≥ {_shown(c.at_least)}" if c.at_most == float("inf") else f"{_shown(c.at_least)} to {_shown(c.at_most)}"
        )
        row = (c.name, _shown(c.measured), _shown(c.exact), f"{c.difference:+.4f}", gate, c.unit)
        table.add_row(*row, "[green]passed[/green]" if c.passed else "[red]FAILED[/red]")
    console = console or Console()
    console.print(table)
    for c in comparisons:
        console.print(f"{c.name}: gate {c.why}", highlight=False)
    console.print(f"{sum(c.passed for c in comparisons)} of {len(comparisons)} passed")


def _shown(number: float) -> str:
    return f"{number:.4f}" if number == 0 or abs(number) >= 1e-3 else f"{number:.0e}"
