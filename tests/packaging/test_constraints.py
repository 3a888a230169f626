"""constraints.txt pins everything that is installed, at the version that is installed."""

import re
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

LINE = re.compile(r"[a-z0-9][a-z0-9.-]*==[0-9][0-9a-z.]*( ; .+)?")


@pytest.fixture(scope="module")
def lines(root: Path) -> list[str]:
    text = (root / "constraints.txt").read_text()
    return [line for line in text.splitlines() if line and not line.startswith("#")]


def installed_dependencies(name: str, extras: frozenset[str]) -> dict[str, str]:
    """Versions of what a project requires, directly or not, as far as it is installed."""
    found: dict[str, str] = {}
    todo, seen = [(name, extras)], set()
    while todo:
        name, extras = todo.pop()
        if (name, extras) in seen:
            continue
        seen.add((name, extras))
        try:
            this = distribution(name)
        except PackageNotFoundError:  # GPU libraries, which PyTorch's builds for the CPU ask for and do without
            continue
        found[canonicalize_name(name)] = this.version
        for text in this.requires or []:
            required = Requirement(text)
            if required.marker is None or any(required.marker.evaluate({"extra": e}) for e in {"", *extras}):
                todo.append((required.name, frozenset(required.extras)))
    return found


def test_every_line_is_an_exact_version(lines: list[str]):
    assert [line for line in lines if not LINE.fullmatch(line)] == []
    names = [Requirement(line).name for line in lines]
    assert names == sorted(names)


def test_pytorch_is_pinned_without_a_local_label_or_marker(lines: list[str]):
    # With one pip could not take the build for the CPU where that is offered, and the ordinary one elsewhere.
    assert [line for line in lines if Requirement(line).name == "torch"] == ["torch==2.13.0"]


def test_what_is_installed_is_what_is_pinned(lines: list[str]):
    required = [Requirement(line) for line in lines]
    pins: dict[str, list[str]] = {}
    for requirement in required:
        if requirement.marker is None or requirement.marker.evaluate():
            (specifier,) = requirement.specifier
            pins.setdefault(canonicalize_name(requirement.name), []).append(specifier.version)
    assert {name: versions for name, versions in pins.items() if len(versions) > 1} == {}
    installed = installed_dependencies("pyro-lvm", frozenset({"dev", "docs"}))
    del installed["pyro-lvm"]
    assert {"torch", "pyro-ppl", "numpy", "jsonargparse", "typeshed-client", "pytest"} <= set(installed)
    wrong = {
        name: (version, pins.get(name))
        for name, version in installed.items()
        if [Version(version).public] != [Version(pin).public for pin in pins.get(name, [])]
    }
    assert wrong == {}, "installed, and pinned"


def test_what_builds_the_package_is_installed_and_pinned(root: Path, lines: list[str]):
    # The tests build it without isolation, so its build backend must be in the environment that `make` makes.
    text = (root / "pyproject.toml").read_text()
    (backend,) = re.findall(r'^requires = \["(.+)"\]$', text, re.M)
    requirement = Requirement(backend)
    assert distribution(requirement.name).version in requirement.specifier
    assert requirement.name in {Requirement(line).name for line in lines}
    assert requirement.name in installed_dependencies("pyro-lvm", frozenset({"dev", "docs"})), (
        "nothing requires it: add to 'dev'"
    )
