"""The checkout these tests are about."""

import subprocess
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def root() -> Path:
    return Path(__file__).parents[2]


@pytest.fixture(scope="session")
def tree(root: Path) -> list[str]:
    """Every file that is or would be committed, relative to the root; a link to a folder counts as a file."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    if not (root / ".git").exists():
        pytest.skip("this is no git checkout, so that what belongs to it is not known")
    listed = subprocess.run(command, cwd=root, check=True, capture_output=True, text=True).stdout.split("\0")
    return sorted({name for name in listed if name and (root / name).exists()})
