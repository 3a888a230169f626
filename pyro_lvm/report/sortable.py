"""A table whose rows its reader puts in order, by a small script that is part of the page."""

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from math import isfinite
from typing import final

__all__ = ["SCRIPT", "SCRIPT_HASH", "Cell", "sortable_table"]

# Rows without a value stay last in either direction. The order is part of the address, to be sent to others.
SCRIPT = """
'use strict';
for (const table of document.querySelectorAll('table.sortable')) {
  const heads = [...table.tHead.rows[0].cells], body = table.tBodies[0];
  const by = (column, falling) => {
    const key = row => row.cells[column].dataset.key;
    const numeric = heads[column].dataset.numeric === 'yes';
    const compare = (a, b) => numeric ? a - b : a.localeCompare(b);
    const rows = [...body.rows].sort((one, other) => {
      const a = key(one), b = key(other);
      if (a === '' || b === '') return (a === '') - (b === '');
      return falling ? compare(b, a) : compare(a, b);
    });
    body.append(...rows);
    heads.forEach((head, i) => {
      if (i === column) head.setAttribute('aria-sort', falling ? 'descending' : 'ascending');
      else head.removeAttribute('aria-sort');
    });
  };
  heads.forEach((head, i) => {
    head.querySelector('button').addEventListener('click', () => {
      const falling = head.getAttribute('aria-sort') === 'ascending';
      by(i, falling);
      history.replaceState(null, '', '#' + table.id + '=' + i + (falling ? '-falling' : ''));
    });
  });
  const asked = location.hash.match(new RegExp('^#' + table.id + '=(\\\\d+)(-falling)?$'));
  if (asked && Number(asked[1]) < heads.length) by(Number(asked[1]), asked[2] !== undefined);
}
"""

#: By which a page's policy lets this script run and no other.
SCRIPT_HASH = "sha256-" + base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode()


@final
@dataclass(frozen=True)
class Cell:
    """What stands in a cell, as HTML, and what it is put in order by: a number, a text, or None, which comes last."""

    html: str
    key: float | str | None

    @property
    def key_text(self) -> str:
        """The key as an attribute; empty where there is none."""
        if self.key is None or (isinstance(self.key, float) and not isfinite(self.key)):
            return ""
        return str(self.key)


def sortable_table(name: str, caption: str, header: Sequence[str], rows: Sequence[Sequence[Cell]]) -> str:
    """A table of rows that a press on a heading puts in order, a second press in the opposite one.

    Args:
        name: of the table within its page's address.
        caption: text.
        header: text; buttons, which a keyboard reaches.
        rows: a cell for every heading; the first names the row.
    """
    numeric = [all(isinstance(row[i].key, (int, float, type(None))) for row in rows) for i in range(len(header))]
    head = "".join(
        f'<th scope="col" data-numeric="{"yes" if of else "no"}"><button type="button">{escape(text)}</button></th>'
        for text, of in zip(header, numeric, strict=True)
    )
    body = []
    for first, *rest in rows:
        cells = "".join(f'<td data-key="{escape(cell.key_text)}">{cell.html}</td>' for cell in rest)
        body.append(f'<tr><th scope="row" data-key="{escape(first.key_text)}">{first.html}</th>{cells}</tr>')
    return (
        f'<div class="wide" role="region" tabindex="0" aria-label="{escape(caption)}">'
        f'<table class="sortable" id="{escape(name)}">'
        f"<caption>{escape(caption)} Press a heading to sort by it.</caption>"
        f"<thead><tr>{head}</tr></thead><tbody>{''.join(body)}</tbody></table></div>"
    )
