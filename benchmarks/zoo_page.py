"""Writes what was measured of the zoo's entries into docs/zoo.md and README.md.

    python -m benchmarks.zoo_page

From docs/zoo_table.json and docs/zoo_compiled.json, which benchmarks/zoo_table.py and benchmarks/zoo_compiled.py write.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from benchmarks.marks import fill
from pyro_lvm import zoo

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"


def main() -> None:
    """Renders both pages."""
    runs: dict[str, Any] = json.loads((DOCS / "zoo_table.json").read_text())["runs"]
    compiled: dict[str, Any] = json.loads((DOCS / "zoo_compiled.json").read_text())
    names = [name for name in zoo.names() if name in runs]
    fill(DOCS / "zoo.md", "table", "\n".join(measured(names, runs, compiled)))
    fill(DOCS / "zoo.md", "entries", "\n\n".join(section(name, compiled) for name in names))
    fill(ROOT / "README.md", "zoo", "\n".join(overview(names, runs)))


def measured(names: list[str], runs: dict[str, Any], compiled: dict[str, Any]) -> Iterator[str]:
    """The table of all numbers."""
    yield "| entry | ELBO | log-likelihood | spread over seeds | Monte Carlo error | worst k-hat | seconds | compiled |"
    yield "|---|---|---|---|---|---|---|---|"
    for name in names:
        of = runs[name]
        worst = max(run["worst_khat"] for run in of)
        faster = compiled.get(name, {})
        factor = "–" if not faster else "no" if faster["failure"] else f"{faster['ratio']:.1f} times"
        yield (
            f"| `{name}` | {mean(run['elbo'] for run in of):.2f} | {likelihood(name, of)} | {spread(of)} "
            f"| {max(run['standard_error'] for run in of):.3f} | {f'{worst:.2f}' if worst > -1e9 else 'none'} "
            f"| {mean(run['seconds'] for run in of):.0f} | {factor} |"
        )


def overview(names: list[str], runs: dict[str, Any]) -> Iterator[str]:
    """The table of what the entries are."""
    yield "| entry | prior | posterior | likelihood | objective | test log-likelihood |"
    yield "|---|---|---|---|---|---|"
    for name in names:
        of, numbers = zoo.recipe(name), f"{likelihood(name, runs[name])} ± {spread(runs[name])}".replace("-", "−")
        yield f"| `{name}` | {of.prior} | {of.posterior} | {of.likelihood} | {of.bound} | {numbers} |"


def section(name: str, compiled: dict[str, Any]) -> str:
    """An entry in words, with its picture."""
    of = zoo.recipe(name)
    settings = ", ".join(f"`{setting}={value!r}`" for setting, value in of.settings.items())
    lines = [
        f"## `{name}`",
        "",
        f"![Samples of {name}](pictures/{name}.png)",
        "",
        of.summary,
        "",
        f"- prior: {of.prior}",
        f"- posterior: {of.posterior}",
        f"- likelihood: {of.likelihood}",
        f"- objective: {of.bound}",
        f"- reference: {of.reference}",
        f"- settings: {settings}",
    ]
    row = compiled.get(name)
    if row and row["failure"]:
        lines.append(f"- not compiled: {row['failure']}")
    elif row:
        lines.append(
            f"- compiled: loss and gradient of {row['batch']} data {row['ratio']:.1f} times faster, "
            f"{row['programs']:.2f} against {row['replayed']:.2f} ms"
        )
    return "\n".join(lines)


def likelihood(name: str, of: list[dict[str, float]]) -> str:
    """The mean over seeds; of the bound, and said to be one, where there is no more."""
    at_least = "≥ " if zoo.recipe(name).evidence == "bound" else ""
    return f"{at_least}{mean(run['log_likelihood'] for run in of):.2f}"


def spread(of: list[dict[str, float]]) -> str:
    """The standard deviation over seeds."""
    return f"{stdev(run['log_likelihood'] for run in of):.2f}" if len(of) > 1 else "–"


if __name__ == "__main__":
    main()
