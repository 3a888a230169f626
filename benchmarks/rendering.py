"""Writes the recorded results into docs/benchmarks.md.

    python -m benchmarks.rendering

between its two marks; all else in the page is written by hand.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.marks import fill
from benchmarks.results import Bar, Result, Row, number

RESULTS = Path(__file__).with_name("results.json")
PAGE = Path(__file__).parents[1] / "docs" / "benchmarks.md"
MARK = "results"

Records = dict[str, dict[str, Any]]  # benchmark -> machine, seconds, result


def read(path: Path = RESULTS) -> Records:
    """The recorded results; none where there is no file."""
    return json.loads(path.read_text()) if path.exists() else {}


def results(records: Records) -> str:
    """All results as Markdown: the machine, the bars, then a table a benchmark."""
    measured = {name: Result.from_json(record["result"]) for name, record in records.items()}
    parts = [machines(records), "### Bars\n", bars(bar for result in measured.values() for bar in result.bars)]
    for name, result in measured.items():
        parts += [f"### `{name}`\n", report(result)]
    return "\n".join(parts)


def report(result: Result) -> str:
    """One result: title, table, notes."""
    notes = "".join(f"\n{note}\n" for note in result.notes)
    return f"{result.title}.\n\n{table(result.rows)}\n{notes}"


def bars(all_bars: Any) -> str:
    """Every bar with what was measured."""
    rows = [_bar_row(bar) for bar in all_bars]
    return f"{table(rows)}\n" if rows else "None measured.\n"


def table(rows: Sequence[Row]) -> str:
    """Rows as a Markdown table, with a column for everything that any of them has."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    lines = [columns, ["---"] * len(columns)]
    lines += [[_cell(row[name]) if name in row else "" for name in columns] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def machines(records: Records) -> str:
    """What was measured on what."""
    described: dict[str, list[str]] = {}
    for name, record in records.items():
        described.setdefault(_in_words(record["machine"]), []).append(f"`{name}`")
    return "\n".join(f"{', '.join(names)}: {words}.\n" for words, names in described.items())


def _in_words(machine: Mapping[str, Any]) -> str:
    libraries = ", ".join(f"{name} {machine[name]}" for name in list(machine)[list(machine).index("python") : -1])
    return (
        f"{machine['processor']} ({machine['instructions']}), {machine['cores']} cores, {machine['threads']} threads, "
        f"{machine['system']}; {libraries}; {machine['date']}"
    )


def _bar_row(bar: Bar) -> Row:
    limit = f"{'≥' if bar.at_least else '≤'} {bar.limit:g}"
    return {"bar": bar.what, "wanted": limit, "measured": bar.ratio, "": "met" if bar.met else "**not met**"}


def _cell(value: Any) -> str:
    return number(value) if isinstance(value, (int, float)) else str(value)


def main() -> None:
    fill(PAGE, MARK, results(read()))


if __name__ == "__main__":
    main()
