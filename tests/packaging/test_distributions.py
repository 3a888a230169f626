"""What is built from the checkout holds every module once, and nothing else."""

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest


@pytest.fixture
def checkout(root: Path, tree: list[str], tmp_path: Path) -> Path:
    """A copy to build in: building leaves folders behind, from which a second build would take old files."""
    copy = tmp_path / "checkout"
    for name in tree:
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(root / name, copy / name, follow_symlinks=False)
    return copy


def build(checkout: Path, out: Path, *options: str) -> Path:
    """The only file that the build leaves in its output folder, `out`."""
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), *options, str(checkout)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (built,) = out.iterdir()
    return built


def modules_of(tree: list[str]) -> list[str]:
    """Where each module of the tree has to be in a wheel."""
    own = [name for name in tree if name.startswith("pyro_lvm/")]
    outside = [f"pyro_lvm/{name}" for name in tree if name.startswith(("models/", "guides/"))]
    return sorted(name for name in own + outside if name.endswith((".py", "py.typed")))


def contents(wheel: Path) -> list[str]:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names)
    return sorted(name for name in names if ".dist-info/" not in name)


def test_wheel_holds_the_tree_and_imports_from_elsewhere(checkout: Path, tree: list[str], tmp_path: Path):
    wheel = build(checkout, tmp_path / "wheel", "--wheel")
    # Lists, so that a module packed twice (through its link as well) is seen; modules only, so no tests and no data.
    assert contents(wheel) == modules_of(tree)
    unpacked = tmp_path / "unpacked"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(unpacked)
    code = """
import importlib.metadata, pathlib, sys
import pyro_lvm
from pyro_lvm import guides, models
(distribution,) = importlib.metadata.distributions(name="pyro-lvm", path=sys.path[1:2])
(command,) = distribution.entry_points
assert command.name == "pyro-lvm" and callable(command.load()), command
for module in (pyro_lvm, guides, models, sys.modules[command.module]):
    print(pathlib.Path(module.__file__).resolve())
"""
    environment = os.environ | {"PYTHONPATH": str(unpacked), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert all(line.startswith(str(unpacked.resolve())) for line in done.stdout.splitlines()), done.stdout


def test_source_distribution_builds_the_same_wheel(checkout: Path, tree: list[str], tmp_path: Path):
    source = build(checkout, tmp_path / "source", "--sdist")
    with tarfile.open(source) as archive:
        archive.extractall(tmp_path / "unpacked", filter="data")
    (unpacked,) = (tmp_path / "unpacked").iterdir()
    assert contents(build(unpacked, tmp_path / "wheel", "--wheel")) == modules_of(tree)
