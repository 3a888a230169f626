"""Trains small pairs on the digits and writes docs/gallery.md: every plot, the code that makes it and its picture.

    python -m benchmarks.gallery

About three minutes on 2 cores. What is run is what the page shows, from `benchmarks.gallery_snippets`.
"""

import contextlib
import io
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from PIL import Image

from benchmarks.gallery_snippets import SETUP, SNIPPETS, Snippet
from benchmarks.marks import fill

DOCS = Path(__file__).parent.parent / "docs"
_DPI, _COLOURS = 80, 128


def main() -> None:
    """Draws every picture and fills the page."""
    names: dict[str, Any] = {}
    exec(compile(SETUP, "gallery", "exec"), names)
    printed = {}
    for snippet in SNIPPETS:
        figure, printed[snippet.name] = run(snippet, names)
        save(figure, DOCS / "pictures" / picture(snippet))
    fill(DOCS / "gallery.md", "setup", f"```python\n{SETUP}```")
    fill(DOCS / "gallery.md", "plots", page(printed))


def run(snippet: Snippet, names: dict[str, Any]) -> tuple[Figure, str]:
    """The figure that a snippet makes and what it prints; always from the same random state, whatever came before."""
    torch.manual_seed(0)
    told = io.StringIO()
    with contextlib.redirect_stdout(told):
        exec(compile(snippet.code, snippet.name, "exec"), names)
    ax = names.pop("ax")
    while not hasattr(ax, "figure"):  # a tuple or an array of axes
        ax = ax[0]
    return ax.figure, told.getvalue()


def save(figure: Figure, path: Path) -> None:
    """Writes a picture of few colours, which is a third of the size of one of all."""
    drawn = io.BytesIO()
    figure.savefig(drawn, dpi=_DPI)
    Image.open(drawn).convert("RGB").quantize(_COLOURS, dither=Image.Dither.NONE).save(path, optimize=True)


def page(printed: dict[str, str]) -> str:
    """The plots' sections, group by group."""
    parts = []
    for group in dict.fromkeys(snippet.group for snippet in SNIPPETS):
        parts.append(f"## {group}")
        for snippet in SNIPPETS:
            if snippet.group == group:
                parts.append(section(snippet, printed.get(snippet.name, "")))
    return "\n\n".join(parts)


def section(snippet: Snippet, printed: str) -> str:
    """A plot's heading, sentence, code, output and picture."""
    lines = [f"### `{snippet.name}`", "", snippet.text, "", "```python", snippet.code, "```", ""]
    if printed:
        lines += ["```text", printed.strip(), "```", ""]
    return "\n".join([*lines, f"![{snippet.text}](pictures/{picture(snippet)})"])


def picture(snippet: Snippet) -> str:
    """The name of its file."""
    return f"gallery-{snippet.name.removeprefix('plot_').replace('_', '-')}.png"


if __name__ == "__main__":
    main()
