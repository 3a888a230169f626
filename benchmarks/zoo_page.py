"""Writes what was measured of the zoo's entries into docs/zoo.md and README.md.

    python -m benchmarks.zoo_page

From docs/zoo_table.json and docs/zoo_compiled.json, which benchmarks/zoo_table.py and benchmarks/zoo_compiled.py write.
"""

import inspect
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from torch import nn

from benchmarks.marks import fill
from pyro_lvm import data, zoo
from pyro_lvm.objectives import Objective

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"

# The parts that an entry is described by, where they are defined.
FAMILIES = ("models", "levels", "priors", "likelihoods", "guides", "posteriors")
# What a description begins with: formulas, with commas between them.
FORMULAS = re.compile(r"\$[^$]+\$(,\s+\$[^$]+\$)*")
RELATIONS = ("=", r"\sim", r"\propto")


@dataclass(frozen=True)
class Entry:
    """What there is to say of an entry of the zoo.

    Attributes:
        recipe: the entry.
        model, guide: its pair, made for the digits.
        runs: what was measured of it; nothing where it was not yet.
        compiled: the same of its compiled step.
    """

    recipe: zoo.Recipe
    model: nn.Module
    guide: nn.Module
    runs: list[dict[str, float]]
    compiled: dict[str, Any]

    @property
    def name(self) -> str:
        """What `zoo.build` calls it."""
        return self.recipe.name

    @property
    def picture(self) -> str | None:
        """A picture of samples, relative to the page; None where none was drawn yet."""
        return f"pictures/{self.name}.png" if (DOCS / "pictures" / f"{self.name}.png").exists() else None


def main() -> None:
    """Renders both pages."""
    runs: dict[str, Any] = json.loads((DOCS / "zoo_table.json").read_text())["runs"]
    compiled: dict[str, Any] = json.loads((DOCS / "zoo_compiled.json").read_text())
    entries = []
    for name in zoo.names():
        model, guide, recipe = zoo.build(name, data.load("digits-static" if name == "vae-bernoulli" else "digits"))
        entries.append(Entry(recipe, model, guide, runs.get(name, []), compiled.get(name, {})))
    measured = [entry for entry in entries if entry.runs]
    fill(DOCS / "zoo.md", "zoo", "\n".join(overview(entries)))
    fill(DOCS / "zoo.md", "table", "\n".join(numbers(measured)))
    fill(DOCS / "zoo.md", "entries", "\n\n".join(section(entry) for entry in entries))
    fill(ROOT / "README.md", "zoo", "\n".join(summary(measured)))


def overview(entries: list[Entry]) -> Iterator[str]:
    """The table of what the entries are."""
    yield "| entry | model, guide, objective | reference | log-likelihood | compiled |"
    yield "|---|---|---|---|---|"
    for entry in entries:
        samples = f'<br><img src="{entry.picture}" alt="Samples of {entry.name}" width="96">' if entry.picture else ""
        formulas = "<br>".join(in_a_cell(formula) for formula in brief(entry))
        value = f"{likelihood(entry)} ± {spread(entry.runs)}".replace(" ", "\u00a0") if entry.runs else "not yet"
        name = f"[`{entry.name}`](#{entry.name})"
        yield f"| {name}{samples} | {formulas} | {entry.recipe.reference} | {value} | {faster(entry)} |"


def numbers(entries: list[Entry]) -> Iterator[str]:
    """The table of all numbers."""
    yield "| entry | ELBO | log-likelihood | spread over seeds | Monte Carlo error | worst k-hat | seconds |"
    yield "|---|---|---|---|---|---|---|"
    for entry in entries:
        of = entry.runs
        worst = max(run["worst_khat"] for run in of)
        yield (
            f"| `{entry.name}` | {mean(run['elbo'] for run in of):.2f} | {likelihood(entry)} | {spread(of)} "
            f"| {max(run['standard_error'] for run in of):.3f} | {f'{worst:.2f}' if worst > -1e9 else 'none'} "
            f"| {mean(run['seconds'] for run in of):.0f} |"
        )


def summary(entries: list[Entry]) -> Iterator[str]:
    """The README's table."""
    yield "| entry | prior | posterior | likelihood | objective | test log-likelihood |"
    yield "|---|---|---|---|---|---|"
    for entry in entries:
        of, value = entry.recipe, f"{likelihood(entry)} ± {spread(entry.runs)}".replace("-", "−")
        yield f"| `{of.name}` | {of.prior} | {of.posterior} | {of.likelihood} | {of.bound} | {value} |"


def section(entry: Entry) -> str:
    """An entry in words, with its picture and what its parts say of themselves."""
    of = entry.recipe
    settings = ", ".join(f"`{setting}={value!r}`" for setting, value in of.settings.items())
    lines = [f"## `{of.name}`", ""]
    if entry.picture:
        lines += [f"![Samples of {of.name}]({entry.picture})", ""]
    lines += [
        of.summary,
        "",
        *(f"- `{where(part)}`: {formula}" for part in parts(entry.model, entry.guide) if (formula := formulas(part))),
        f"- prior: {of.prior}",
        f"- posterior: {of.posterior}",
        f"- likelihood: {of.likelihood}",
        f"- objective: {of.bound}",
        f"- reference: {of.reference}",
        f"- settings: {settings}",
    ]
    row = entry.compiled
    if row and row["failure"]:
        lines.append(f"- not compiled: {row['failure']}")
    elif row:
        lines.append(
            f"- compiled: loss and gradient of {row['batch']} data {row['ratio']:.1f} times faster, "
            f"{row['programs']:.2f} against {row['replayed']:.2f} ms"
        )
    return "\n".join(lines)


def parts(*programs: nn.Module) -> list[type[nn.Module]]:
    """The kinds of parts that programs are made of, each once, by families."""
    kinds = dict.fromkeys(type(module) for program in programs for module in program.modules())
    return sorted((kind for kind in kinds if family(kind)), key=lambda kind: FAMILIES.index(family(kind)))


def family(kind: type[nn.Module]) -> str:
    """Which of the families a class belongs to; nothing for another."""
    package = (*kind.__module__.split("."), "")[1]
    return package if kind.__module__.startswith("pyro_lvm.") and package in FAMILIES else ""


def where(kind: type[nn.Module]) -> str:
    """The public name of a part."""
    return f"{family(kind)}.{kind.__name__}"


def formulas(kind: type[nn.Module]) -> str:
    """The formulas that the class's own description, or a paragraph of it, begins with.

    A first paragraph that holds some elsewhere, or half of what they say in words, comes as a whole.
    """
    first, *others = (inspect.getdoc(kind) or "").partition("\nArgs:")[0].split("\n\n")
    leading = FORMULAS.match(first)
    if leading and any(relation in leading[0] for relation in RELATIONS):
        return " ".join(leading[0].split())
    if "$" in first:
        return " ".join(first.split()).removesuffix(".")
    return next((" ".join(found[0].split()) for other in others if (found := FORMULAS.match(other))), "")


def brief(entry: Entry) -> list[str]:
    """The formulas of model, prior, guide and objective; of the guide's density where it is all there is to a guide."""
    priors = [kind for kind in parts(entry.model) if family(kind) == "priors"]
    guides = [kind for kind in parts(entry.guide) if family(kind) == "guides"]
    if not any("=" in formulas(kind) for kind in guides):
        guides = [kind for kind in parts(entry.guide) if family(kind) == "posteriors"] or guides
    objective = [type(entry.recipe.objective)] if isinstance(entry.recipe.objective, Objective) else []
    return [formula for kind in (type(entry.model), *priors, *guides, *objective) if (formula := formulas(kind))]


def in_a_cell(formula: str) -> str:
    """A formula in a table, whose cells a bar would end."""
    return formula.replace(r"\|", r"\Vert ").replace("|", r"\vert ")


def faster(entry: Entry) -> str:
    """Whether a step is compiled, and how much faster it is then."""
    row = entry.compiled
    return "not measured" if not row else "no" if row["failure"] else f"yes, {row['ratio']:.1f} times"


def likelihood(entry: Entry) -> str:
    """The mean over seeds; of the bound, and said to be one, where there is no more."""
    at_least = "≥ " if entry.recipe.evidence == "bound" else ""
    return f"{at_least}{mean(run['log_likelihood'] for run in entry.runs):.2f}"


def spread(of: list[dict[str, float]]) -> str:
    """The standard deviation over seeds."""
    return f"{stdev(run['log_likelihood'] for run in of):.2f}" if len(of) > 1 else "–"


if __name__ == "__main__":
    main()
