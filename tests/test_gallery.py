"""Every plot is in the gallery, and what stands there runs."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from matplotlib.figure import Figure

from benchmarks.gallery import picture, run
from benchmarks.gallery_snippets import SETUP, SNIPPETS
from pyro_lvm import diagnostics

DOCS = Path(__file__).parents[1] / "docs"


def test_every_plot_is_in_it_once() -> None:
    assert sorted(s.name for s in SNIPPETS) == sorted(n for n in diagnostics.__all__ if n.startswith("plot_"))
    for snippet in SNIPPETS:
        assert f"diagnostics.{snippet.name}(" in snippet.code


def test_the_page_is_what_is_run() -> None:
    page = (DOCS / "gallery.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    by_group = [s for group in dict.fromkeys(s.group for s in SNIPPETS) for s in SNIPPETS if s.group == group]
    assert blocks == [SETUP, *(f"{snippet.code}\n" for snippet in by_group)], "run python -m benchmarks.gallery"
    for snippet in SNIPPETS:
        assert f"### `{snippet.name}`\n\n{snippet.text}\n" in page
        assert f"](pictures/{picture(snippet)})" in page


def test_pictures_are_there_and_small() -> None:
    for snippet in SNIPPETS:
        content = (DOCS / "pictures" / picture(snippet)).read_bytes()
        assert content.startswith(b"\x89PNG")
        assert len(content) < 60 * 1024, snippet.name
    gone = {path.name for path in (DOCS / "pictures").glob("gallery-*")} - {picture(snippet) for snippet in SNIPPETS}
    assert not gone, "pictures of no plot"


@pytest.mark.slow
# Posteriors of a pair that was hardly trained may take longer than the few draws that are made here.
@pytest.mark.filterwarnings("ignore:the chains disagree")
def test_snippets_run_on_pairs_that_know_little() -> None:
    assert SETUP.count("epochs = 60\n") == 1
    names: dict[str, Any] = {}
    torch.set_default_dtype(torch.float32)
    try:
        exec(compile(SETUP.replace("epochs = 60\n", "epochs = 1\n"), "gallery", "exec"), names)
        for snippet in SNIPPETS:
            figure, _ = run(snippet, names)
            assert isinstance(figure, Figure)
            figure.draw_without_rendering()
    finally:
        torch.set_default_dtype(torch.float64)
