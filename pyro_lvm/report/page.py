"""The pieces of a page: HTML in one file that asks nothing of the network."""

import base64
import io
import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, final

from pyro_lvm.report.sortable import SCRIPT, SCRIPT_HASH

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Drawings are shown at 96 dots an inch, as browsers count, and hold more of them for screens that have more.
_DOTS_PER_INCH = 168
_SHOWN_PER_INCH = 96

_STYLE = """
:root { color-scheme: light; }
body { color: #1a1a1a; background: #fff; font: 1rem/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 62rem;
  padding: 1rem; overflow-wrap: anywhere; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0.5rem 0; }
h2 { font-size: 1.25rem; margin: 2.5rem 0 0.5rem; border-bottom: 1px solid #999; }
nav ul { display: flex; flex-wrap: wrap; gap: 0.25rem 1.25rem; list-style: none; padding: 0; }
a { color: #0b4a8f; }
a:focus-visible, summary:focus-visible, .wide:focus-visible { outline: 3px solid #0b4a8f; outline-offset: 2px; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; overflow-wrap: break-word; }
caption { text-align: left; padding: 0.5rem 0; }
th, td { text-align: left; vertical-align: top; padding: 0.4rem 1rem 0.4rem 0; border-bottom: 1px solid #ccc; }
.number { font-variant-numeric: tabular-nums; white-space: nowrap; }
.figures { display: flex; flex-wrap: wrap; gap: 1rem 2rem; align-items: flex-start; }
figure { margin: 0.5rem 0; flex: 0 1 auto; max-width: 100%; }
img { max-width: 100%; height: auto; display: block; }
figcaption { font-size: 0.95rem; max-width: 29rem; padding-top: 0.4rem; }
.verdict { font-weight: 700; padding: 0 0.4rem; border: 2px solid; border-radius: 0.3rem; white-space: nowrap; }
.good { color: #0b5d3b; } .bad { color: #8a2a1f; } .unknown { color: #555; }
.failed { border-left: 4px solid #a33; padding-left: 0.75rem; }
th button { font: inherit; font-weight: 600; color: #0b4a8f; background: none; border: 0; padding: 0; cursor: pointer;
  text-align: left; }
th button:focus-visible { outline: 3px solid #0b4a8f; outline-offset: 2px; }
th[aria-sort=ascending] button::after { content: " ▲"; }
th[aria-sort=descending] button::after { content: " ▼"; }
dt { font-weight: 600; margin-top: 0.75rem; }
dd { margin: 0; }
"""


@final
@dataclass(frozen=True)
class Picture:
    """A drawing, a text that stands for it where it is not seen, and its caption."""

    ax: "Axes"
    alt: str
    caption: str

    def html(self) -> str:
        """The drawing inside a `figure` element, as a PNG in a data address."""
        buffer = io.BytesIO()
        figure = self.ax.get_figure(root=True)
        assert figure is not None
        figure.savefig(buffer, format="png", dpi=_DOTS_PER_INCH, facecolor="white", metadata={"Software": None})
        png = buffer.getvalue()
        # The size stands in bytes 16 to 24 of the format's header; given to the page, text does not jump as it loads.
        width, height = (
            round(int.from_bytes(png[at : at + 4], "big") * _SHOWN_PER_INCH / _DOTS_PER_INCH) for at in (16, 20)
        )
        source = base64.b64encode(png).decode("ascii")
        return (
            f'<figure><img src="data:image/png;base64,{source}" width="{width}" height="{height}" '
            f'alt="{escape(self.alt)}"><figcaption>{escape(self.caption)}</figcaption></figure>'
        )


@final
@dataclass(frozen=True)
class Section:
    """A part of the page with a heading; the body is HTML, the heading is text."""

    name: str
    heading: str
    body: str


def paragraph(text: str) -> str:
    """Text as a paragraph."""
    return f"<p>{escape(text)}</p>"


def pictures(drawn: Sequence[Picture]) -> str:
    """Pictures beside one another, below one another where the page is narrow."""
    return f'<div class="figures">{"".join(picture.html() for picture in drawn)}</div>'


def measured(number: str, unit: str) -> str:
    """A number, not to be broken into lines, with its unit, as HTML."""
    return f'<span class="number">{escape(number)}</span> {escape(unit)}'.strip()


def table(caption: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table whose first column names the rows; caption and header are text, cells are HTML."""
    head = "".join(f'<th scope="col">{escape(text)}</th>' for text in header)
    body = []
    for first, *rest in rows:
        cells = "".join(f"<td>{cell}</td>" for cell in rest)
        body.append(f'<tr><th scope="row">{first}</th>{cells}</tr>')
    # Wide tables scroll by themselves, so they must be reachable by keyboard and have a name.
    return (
        f'<div class="wide" role="region" tabindex="0" aria-label="{escape(caption)}"><table>'
        f"<caption>{escape(caption)}</caption><thead><tr>{head}</tr></thead><tbody>{''.join(body)}</tbody></table></div>"
    )


def page(title: str, subtitle: str, sections: Sequence[Section]) -> str:
    """The whole page; its policy forbids it to load anything, and any script but that of sortable tables."""
    scripted = any('class="sortable"' in section.body for section in sections)
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    policy += f"; script-src '{SCRIPT_HASH}'" if scripted else ""
    links = "".join(f'<li><a href="#{s.name}">{escape(s.heading)}</a></li>' for s in sections)
    bodies = "".join(
        f'<section id="{s.name}" aria-labelledby="{s.name}-heading">'
        f'<h2 id="{s.name}-heading">{escape(s.heading)}</h2>{s.body}</section>'
        for s in sections
    )
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head>"
        f"<body><header><h1>{escape(title)}</h1>{paragraph(subtitle)}"
        f'<nav aria-label="Contents"><ul>{links}</ul></nav></header><main>{bodies}</main>'
        f"{f'<script>{SCRIPT}</script>' if scripted else ''}</body></html>\n"
    )


def guarded(draw: Callable[[], list[Picture]]) -> str:
    """The pictures; in their place the reason where they cannot be drawn, as for parameters that are not finite."""
    try:
        drawn = draw()
        return pictures(drawn) if drawn else ""
    except (ValueError, RuntimeError, NotImplementedError, FloatingPointError) as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        return f'<div class="failed">{paragraph(f"This could not be drawn: {reason}")}</div>'


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A new file beside `path` that takes its place at the end: readers see the old page or the new, never a part."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.touch(exist_ok=False)
        if path.is_dir():
            raise IsADirectoryError(f"{path} is a folder")
    except OSError as error:
        if path.parent.is_dir():
            temporary.unlink(missing_ok=True)
        raise OSError(
            f"'path' must be a file that can be written, but {path} cannot ({error}): choose another folder, or make "
            "this one writable."
        ) from error
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def plain_style() -> Iterator[None]:
    """Matplotlib's own defaults, whatever the caller has chosen: the page is dark on white."""
    from matplotlib import style

    with style.context("default"):
        yield
