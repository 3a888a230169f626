"""The examples in docstrings run and print what they say, as users would run them: in single precision."""

import doctest
import importlib
import io
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[1]
FOLDERS = ("pyro_lvm", "models", "guides")
PROMPT = ">>> "


def files() -> list[Path]:
    """The modules that hold examples; the links to the two folders of programs are not followed."""
    found = [path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py"))]
    own = [
        path
        for path in found
        if path.relative_to(ROOT).parts[:2] not in (("pyro_lvm", "models"), ("pyro_lvm", "guides"))
    ]
    return [path for path in own if PROMPT in path.read_text()]


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    parts = parts if parts[0] == "pyro_lvm" else ("pyro_lvm", *parts)
    return ".".join(parts).removesuffix(".__init__")


@pytest.fixture(autouse=True)
def as_a_user_runs_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    torch.set_default_dtype(torch.float32)
    yield
    assert torch.get_default_dtype() == torch.float32, "an example left the default dtype changed"
    torch.set_default_dtype(torch.float64)


@pytest.mark.parametrize("path", files(), ids=module_name)
def test_examples_of(path: Path, tmp_path: Path):
    module = importlib.import_module(module_name(path))
    tests = doctest.DocTestFinder(exclude_empty=True).find(module)
    # An example that the finder does not see, in a module's private corner, say, would be skipped without a word.
    written = sum(line.lstrip().startswith(PROMPT) for line in path.read_text().splitlines())
    assert sum(len(test.examples) for test in tests) == written
    for test in tests:
        torch.manual_seed(0)
        told = io.StringIO()
        failed, _ = doctest.DocTestRunner(verbose=False).run(test, out=told.write)
        assert failed == 0, told.getvalue()
    assert list(tmp_path.iterdir()) == [], "an example left files behind"


def test_a_wrong_example_is_noticed():
    test = doctest.DocTestParser().get_doctest(">>> 1 + 1\n3\n", {}, "wrong", None, None)
    failed, _ = doctest.DocTestRunner(verbose=False).run(test, out=lambda _: None)
    assert failed == 1
