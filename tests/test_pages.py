"""The code on every page runs, a page's blocks in order, as a reader would run them: in single precision."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("examples/*.md"), *ROOT.glob("docs/*.md")])
FENCE = re.compile(r"^( *)```(\S*)\n(.*?)^\1```$", re.DOTALL | re.MULTILINE)

# What a fence may say of its block: Python runs, what else there is is for a shell, or what something printed.
RUN, SHOWN = "python", ("", "bash", "text")

# What is said in full on a page, and how much of it is done here.
SMALLER = {
    "README.md": {
        "epochs=100": "epochs=2",
        "num_particles=1000": "num_particles=20",
        "draws=500": "draws=5",
        "(256, 256)": "(8,)",
    }
}


def blocks(page: Path) -> list[tuple[str, str]]:
    """What each fence of a page says, and what is in it."""
    return [(language, code) for _, language, code in FENCE.findall(page.read_text())]


def code(page: Path) -> str:
    """A page's blocks as one script, on the lines that they have on the page."""
    text = page.read_text()
    lines = [""] * (text.count("\n") + 1)
    for found in FENCE.finditer(text):
        if found[2] == RUN:
            first = text.count("\n", 0, found.start(3))
            for i, line in enumerate(found[3].splitlines()):
                lines[first + i] = line.removeprefix(found[1])
    return "\n".join(lines)


@pytest.fixture(autouse=True)
def as_a_reader_runs_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_compiler: None) -> Iterator[None]:
    # Without a compiler graphs run as they are, which takes seconds in place of minutes; see test_compile.py.
    monkeypatch.chdir(tmp_path)
    torch.set_default_dtype(torch.float32)
    yield
    assert torch.get_default_dtype() == torch.float32, "the page left the default dtype changed"
    torch.set_default_dtype(torch.float64)


# The gallery trains for minutes: test_gallery.py runs it with less of that.
RUNNING = [page for page in PAGES if page.name != "gallery.md" and code(page).strip()]


@pytest.mark.parametrize("page", RUNNING, ids=lambda page: page.stem)
def test_blocks_run_in_order(page: Path) -> None:
    script = code(page)
    for much, little in SMALLER.get(page.name, {}).items():
        assert much in script
        script = script.replace(much, little)
    names: dict[str, Any] = {"__name__": page.stem}
    exec(compile(script, str(page), "exec"), names)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_no_block_is_left_out_unseen(page: Path) -> None:
    assert {language for language, _ in blocks(page)} <= {RUN, *SHOWN}
    # An opening and a closing fence for each block, so that none was missed.
    assert len(re.findall(r"^ *```", page.read_text(), re.MULTILINE)) == 2 * len(blocks(page))


def test_there_are_pages() -> None:
    assert {"README.md", "start.md", "write_a_model.md"} <= {page.name for page in PAGES if code(page).strip()}


def test_a_block_that_fails_is_noticed(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# Page\n\n```python\nx = 1\n```\n\n- an item\n\n  ```python\n  assert x == 2\n  ```\n")
    with pytest.raises(AssertionError):
        test_blocks_run_in_order(page)
