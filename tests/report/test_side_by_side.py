"""The page about several runs."""

import base64
import hashlib
import math
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from chromium import needs_chromium, opened

from pyro_lvm.report import Column, Number, Verdict, write_comparison

VALUES = {"one": -93.1, "two": -5.25, "three": -240.0, "four": math.nan, "five": None}


def written(folder: Path, **changes: Any) -> Path:
    """Five runs, of which one has no evidence and one an evidence that is no number."""
    runs = [
        Column(
            name,
            {}
            if value is None
            else {"evidence": Number("evidence", value, "nats per datum", "Higher is better.", 0.1)},
            {"kind": name[::-1]},
            [{"epoch": 1.0, "train": -300.0, "validation": -310.0}, {"epoch": 2.0, "train": -100.0}],
            [
                Verdict("Collapsed?", "yes" if value > -100 else "no", Number("KL", value, "nats", "KL of z."))
                if value is not None and math.isfinite(value)
                else Verdict("Collapsed?", "unknown", Number("–", math.nan, "", "There is no latent."))
            ],
            torch.rand(9, 4, 4) if value else None,
            f"runs/{name}/report.html" if name == "one" else None,
        )
        for name, value in VALUES.items()
    ]
    given: dict[str, Any] = {"title": "Runs <on> digits", "subtitle": "of 5", "headings": ["evidence", "kind"]}
    given |= {"runs": runs, "evidence": "evidence", "notes": ["– of five: it has none."]} | changes
    return write_comparison(folder / "comparison.html", **given)


def order(text: str, table: str = "runs") -> list[str]:
    """The runs as the rows of a table name them."""
    (text,) = re.findall(rf'<table class="sortable" id="{table}">(.*?)</table>', text, flags=re.DOTALL)
    return [re.sub("<.*?>", "", name) for name in re.findall(r'<th scope="row"[^>]*>(.*?)</th>', text)]


def test_everything_is_on_the_page_and_nothing_else_is_let_in(tmp_path: Path) -> None:
    text = written(tmp_path).read_text(encoding="utf-8")
    assert "Runs &lt;on&gt; digits" in text
    assert order(text) == list(VALUES)
    assert '<a href="runs/one/report.html">one</a>' in text
    assert order(text, "verdicts") == list(VALUES)
    assert text.count('<span class="verdict bad">yes</span> <span class="number">') == 2
    assert text.count("Collapsed? Unknown of ") == 2
    assert "<dt>Collapsed?</dt><dd>KL of z.</dd>" in text
    assert "−93.10 ± 0.10" in text
    assert "– of five: it has none." in text
    assert text.count("<img ") == 2 + 4
    assert all(len(alt) > 15 for alt in re.findall(r'<img [^>]*alt="([^"]*)"', text))
    assert "could not be drawn" not in text
    (script,) = re.findall("<script>(.*?)</script>", text, flags=re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in text
    assert "default-src 'none'" in text
    assert "http" not in text.replace("http-equiv", "")


def test_a_page_of_numbers_alone(tmp_path: Path) -> None:
    """No evidence, no history and no samples: their sections are not there."""
    text = written(tmp_path, runs=[Column("one"), Column("two")]).read_text(encoding="utf-8")
    assert order(text) == ["one", "two"]
    assert re.findall(r'<section id="(\w+)"', text) == ["numbers"]


@needs_chromium
@pytest.mark.parametrize(
    ("fragment", "expected"),
    [
        ("", ["one", "two", "three", "four", "five"]),
        ("#runs=1", ["three", "one", "two", "four", "five"]),
        ("#runs=1-falling", ["two", "one", "three", "four", "five"]),
        ("#runs=0", ["five", "four", "one", "three", "two"]),
        ("#runs=2-falling", ["four", "two", "five", "one", "three"]),  # ruof, owt, evif, eno, eerht
        ("#verdicts=1", ["three", "one", "two", "four", "five"]),
    ],
)
def test_a_browser_sorts_it_and_has_nothing_to_complain_of(fragment: str, expected: list[str], tmp_path: Path) -> None:
    document, console = opened(written(tmp_path), fragment, tmp_path / "profile")
    assert console == []
    table = fragment[1:].split("=")[0] or "runs"
    assert order(document, table) == expected
    assert ('aria-sort="' in document) == bool(fragment)
