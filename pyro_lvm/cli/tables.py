"""Tables on the terminal, and as plain text where there is none."""

import sys
from collections.abc import Mapping, Sequence
from math import isnan
from typing import Literal

from rich.console import Console
from rich.table import Table
from rich.text import Text

from pyro_lvm.report import Number

_WIDE = 1000  # plain text is not wrapped: a line is a row for whatever reads it


def print_table(title: str, columns: Mapping[str, bool], rows: Sequence[Sequence[str]], right: str = "") -> None:
    """Prints rows of text.

    Args:
        title: above them.
        columns: their names, and whether a narrow terminal may wrap them.
        rows: a text per column.
        right: the column that is aligned to the right.
    """
    terminal = sys.stdout.isatty()
    console = Console(file=sys.stdout, highlight=False, width=None if terminal else _WIDE, soft_wrap=not terminal)
    if terminal:
        table = Table(title=title, title_justify="left", title_style="bold", show_lines=True)
    else:
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
        print(title)
    for column, wraps in columns.items():
        justify: Literal["left", "right"] = "right" if column == right else "left"
        table.add_column(column, justify=justify, no_wrap=not (terminal and wraps), overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))  # as it is: brackets are no markup
    with console.capture() as captured:
        console.print(table)
    text = captured.get()
    print(text if terminal else "\n".join(line.rstrip() for line in text.splitlines()))


def print_markdown(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Prints rows of text as a table of Markdown."""
    for cells in (columns, ["---"] * len(columns), *rows):
        print(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")


def print_numbers(title: str, numbers: Sequence[Number]) -> None:
    """Prints numbers with their units and meaning."""
    rows = [(n.name, "n/a" if isnan(n.value) else n.text, n.unit, n.meaning) for n in numbers]
    print_table(title, {"number": True, "value": False, "unit": False, "meaning": True}, rows, right="value")
