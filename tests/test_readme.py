"""The README's commands exist, and the files that it points to; its code is run by test_pages.py."""

import re
from pathlib import Path
from typing import Any

import pytest

from pyro_lvm.cli import main

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


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
