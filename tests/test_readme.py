"""The README's code runs, in small settings, and its commands exist."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch

from pyro_lvm.cli import main

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def test_python_blocks_run_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.set_default_dtype(torch.float32)
    blocks = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len(blocks) == 2
    code = "import pyro\n" + "\n".join(blocks)
    small = {
        "epochs=100": "epochs=2",
        "num_particles=1000": "num_particles=20",
        "draws=500": "draws=5",
        "(256, 256)": "(8,)",
    }
    for big, little in small.items():
        assert big in code
        code = code.replace(big, little)
    names: dict[str, Any] = {}
    try:
        exec(compile(code, "README.md", "exec"), names)
    finally:
        torch.set_default_dtype(torch.float64)
    assert names["ll"].shape == (447,)
    assert (tmp_path / "vae.safetensors").is_file()


@pytest.mark.parametrize(
    "page",
    # The gallery trains for minutes: test_gallery.py runs it with less of that.
    [p for p in sorted((ROOT / "docs").glob("*.md")) if "```python" in p.read_text() and p.name != "gallery.md"],
    ids=lambda p: p.name,
)
def test_python_blocks_of_the_docs_run_in_order(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    code = "\n".join(re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL))
    exec(compile(code, page.name, "exec"), {"__name__": page.stem})


@pytest.mark.parametrize(
    "command", ["list", "train", "resume", "evaluate", "sample", "report", "compare", "verify", "demo"]
)
def test_commands_of_the_readme_exist(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert f"pyro-lvm {command}" in README or f"make {command}" in README
    try:
        status: Any = main([command, "--help"])
    except SystemExit as stop:  # an argument parser's way to say that help was given
        status = stop.code
    assert not status
    assert command in capsys.readouterr().out


def test_files_it_points_to_are_there() -> None:
    for link in re.findall(r"\]\(([^)h][^)]*)\)", README):
        assert (ROOT / link).exists(), link
    targets = re.findall(r"^make ([a-z-]+)", README, re.MULTILINE)
    makefile = (ROOT / "Makefile").read_text()
    assert all(f"\n{target}:" in makefile for target in targets)
