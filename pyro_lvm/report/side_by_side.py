"""The page that sets runs side by side."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from math import ceil
from pathlib import Path
from typing import final

from torch import Tensor

from pyro_lvm.diagnostics.figures import axes, is_image
from pyro_lvm.diagnostics.galleries import plot_samples
from pyro_lvm.diagnostics.side_by_side import plot_evidence, plot_runs
from pyro_lvm.report.diagnosis import Verdict
from pyro_lvm.report.findings import answer
from pyro_lvm.report.number import Number, shown
from pyro_lvm.report.page import Picture, Section, guarded, measured, page, paragraph, plain_style, replacing
from pyro_lvm.report.sortable import Cell, sortable_table

__all__ = ["Column", "write_comparison"]


@final
@dataclass(frozen=True)
class Column:
    """What is said of a run.

    Attributes:
        title: the run's.
        numbers: what was measured, by the heading it stands under.
        words: what is no number, by heading; where a heading has both, the words are shown and sorted by.
        history: a row per epoch; may be empty.
        verdicts: what the run is worth, as its diagnosis has it.
        samples: data drawn from the model, (N, *shape); None where there are none.
        link: to the run's own page, where it has one.
    """

    title: str
    numbers: Mapping[str, Number] = field(default_factory=dict)
    words: Mapping[str, str] = field(default_factory=dict)
    history: Sequence[Mapping[str, float]] = ()
    verdicts: Sequence[Verdict] = ()
    samples: Tensor | None = None
    link: str | None = None


def write_comparison(
    path: str | os.PathLike[str],
    *,
    title: str,
    subtitle: str,
    headings: Sequence[str],
    runs: Sequence[Column],
    evidence: str,
    notes: Sequence[str] = (),
    levels: int | None = None,
) -> Path:
    """Writes one HTML page about several runs: a table that is sorted by any heading, and pictures.

    Nothing is loaded; the only script is the table's own, which the page's policy knows by its hash.

    Args:
        path: of the file; an older one is replaced once the new one is whole.
        title, subtitle: of the page.
        headings: of the table, after the run's name, in order.
        runs: a row each.
        evidence: the heading of the number that is drawn as the evidence, in nats per datum.
        notes: a sentence each, below the table.
        levels: number of grey or colour levels of the data; None for real values.

    Returns:
        The path.

    Raises:
        OSError: where the file cannot be written.

    Example:
        >>> import tempfile
        >>> number = Number("evidence", -93.1, "nats per datum", "Higher is better.", 0.1)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = write_comparison(
        ...         f"{folder}/comparison.html",
        ...         title="Two runs",
        ...         subtitle="digits",
        ...         headings=["evidence"],
        ...         runs=[Column("vae", {"evidence": number}), Column("iwae")],
        ...         evidence="evidence",
        ...     )
        ...     file.read_text(encoding="utf-8").count("<tr>")
        3
    """
    with replacing(Path(path)) as temporary, plain_style():
        sections = [
            Section("verdicts", "Verdicts", _verdicts(runs)),
            Section("numbers", "Numbers", _numbers(headings, runs, notes)),
            Section("evidence", "Evidence", guarded(lambda: _evidence(runs, evidence))),
            Section("learning", "Learning curves", guarded(lambda: _learning(runs))),
            Section("samples", "Samples", guarded(lambda: _samples(runs, levels))),
        ]
        text = page(title, subtitle, [section for section in sections if section.body])
        temporary.write_text(text, encoding="utf-8")
    return Path(path)


def _verdicts(runs: Sequence[Column]) -> str:
    questions = list(dict.fromkeys(verdict.question for run in runs for verdict in run.verdicts))
    if not questions:
        return ""
    given = [{verdict.question: verdict for verdict in run.verdicts} for run in runs]
    rows = [[_name(run), *(_answer(of.get(q)) for q in questions)] for run, of in zip(runs, given, strict=True)]
    meanings = {q: v.number.meaning for of in given for q, v in of.items() if v.answer != "unknown"}
    words = "".join(f"<dt>{escape(q)}</dt><dd>{escape(meanings[q])}</dd>" for q in questions if q in meanings)
    reasons: dict[str, list[str]] = {}
    for run in runs:
        for verdict in run.verdicts:
            if verdict.answer == "unknown":
                reasons.setdefault(f"{run.title}: {verdict.number.meaning}", []).append(verdict.question)
    table = sortable_table("verdicts", "What each run is worth.", ["run", *questions], rows)
    unknown = "".join(paragraph(f"– {' '.join(asked)} Unknown of {reason}") for reason, asked in reasons.items())
    explained = f"<details><summary>What the answers rest on</summary><dl>{words}</dl></details>" if words else ""
    return table + unknown + explained


def _answer(verdict: Verdict | None) -> Cell:
    if verdict is None:
        return Cell("–", None)
    if verdict.answer == "unknown":
        return Cell(answer(verdict), None)
    number = verdict.number
    return Cell(f"{answer(verdict)} {measured(number.text, number.unit)}", float(number.value))


def _numbers(headings: Sequence[str], runs: Sequence[Column], notes: Sequence[str]) -> str:
    units = {
        heading: next((n.unit for run in runs if (n := run.numbers.get(heading)) is not None and n.unit), "")
        for heading in headings
    }
    titled = [h if not units[h] or units[h] in h else f"{h}, {units[h]}" for h in headings]
    rows = [[_name(run), *(_cell(run, heading) for heading in headings)] for run in runs]
    meanings = {
        heading: next((n.meaning for run in runs if (n := run.numbers.get(heading)) is not None), "")
        for heading in headings
    }
    words = "".join(f"<dt>{escape(h)}</dt><dd>{escape(m)}</dd>" for h, m in meanings.items() if m)
    table = sortable_table("runs", "Runs side by side.", ["run", *titled], rows)
    explained = f"<details><summary>What the numbers mean</summary><dl>{words}</dl></details>" if words else ""
    return table + "".join(paragraph(note) for note in notes) + explained


def _name(run: Column) -> Cell:
    name = escape(run.title)
    return Cell(name if run.link is None else f'<a href="{escape(run.link)}">{name}</a>', run.title)


def _cell(run: Column, heading: str) -> Cell:
    if heading in run.words:
        return Cell(escape(run.words[heading]), run.words[heading])
    number = run.numbers.get(heading)
    return Cell("–", None) if number is None else Cell(measured(number.text, ""), float(number.value))


def _evidence(runs: Sequence[Column], evidence: str) -> list[Picture]:
    known = {run.title: run.numbers[evidence] for run in runs if evidence in run.numbers}
    if not known:
        return []
    words = "; ".join(f"{title} {number.text}" for title, number in known.items())
    return [
        Picture(
            plot_evidence({title: (number.value, number.standard_error) for title, number in known.items()}),
            f"Points of each run's evidence in nats per datum: {words}.",
            "Higher is better. The error is that of the random draws behind an estimate, not of another test set.",
        )
    ]


def _learning(runs: Sequence[Column]) -> list[Picture]:
    histories = {run.title: run.history for run in runs if run.history}
    if not histories:
        return []
    ends = "; ".join(f"{title}, {len(history)} epochs" for title, history in histories.items())
    return [
        Picture(
            plot_runs(histories),
            f"Line chart of each run's bound by epoch, in nats per datum: {ends}.",
            "Of validation data where a run has them, as its own objective judges them. Higher is better.",
        )
    ]


def _samples(runs: Sequence[Column], levels: int | None) -> list[Picture]:
    drawn = []
    for run in runs:
        if run.samples is None:
            continue
        x, shape = run.samples, tuple(run.samples.shape[1:])
        columns = ceil(len(x) ** 0.5)
        if is_image(shape):
            height = 2.8 * ceil(len(x) / columns) * shape[-2] / (columns * shape[-1])
            ax = plot_samples(x, levels=levels, columns=columns, ax=axes(None, 2.8, height))
        else:
            ax = plot_samples(x, ax=axes(None, 3.6, 2.8))
        spread = f"mean {shown(x.double().mean().item())}, standard deviation {shown(x.double().std().item())}"
        drawn.append(Picture(ax, f"{len(x)} samples of {run.title}; {spread}.", run.title))
    return drawn
