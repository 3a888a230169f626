"""What makes and checks the site: every public name has a description, and each fault of a page is found."""

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

import pyro_lvm


@pytest.fixture(scope="module")
def extension(root: Path):
    def load(name: str) -> ModuleType:
        spec = importlib.util.spec_from_file_location(name, root / "docs" / "extensions" / f"{name}.py")
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module  # dataclasses look their module up
        spec.loader.exec_module(module)
        return module

    return load


def test_every_public_name_is_described_once(extension):
    api = extension("api_pages")
    pages = api.pages()
    text = {page.module.__name__: api.content(page) for page in pages}
    described = re.findall(r"^`{7}\{py:(?:class|function|data)\} (\w+)", "\n".join(text.values()), re.MULTILINE)
    own = [name for page in pages for name in page.own]
    assert sorted(described) == sorted(own)
    modules = {f"pyro_lvm.{name}" for name in pyro_lvm.__all__ if isinstance(getattr(pyro_lvm, name), ModuleType)}
    assert modules <= set(text), "a module that the package offers has no page"
    for module in modules:
        assert set(sys.modules[module].__all__) <= set(re.findall(r"\w+", text[module])), module


def test_modules_kept_from_the_api_are_there(extension):
    for name in extension("api_pages").INTERNAL:
        assert importlib.util.find_spec(f"pyro_lvm.{name}"), name


def test_docstrings_become_markdown(extension):
    api = extension("api_pages")

    def function() -> None:
        """A line.

        Args:
            x, y: data, and
                more of them.
            z: a latent.

        It goes on
        to the end.

        Example:
            >>> 1 + 1
            2

            >>> 2
            2
        """

    assert api.docstring(function) == (
        "A line.\n\n**Arguments**\n\n- `x`, `y`: data, and\n  more of them.\n- `z`: a latent.\n\n"
        "It goes on\nto the end.\n\n**Example**\n\n```pycon\n>>> 1 + 1\n2\n\n>>> 2\n2\n```"
    )


def test_the_navigation_is_the_start_page(extension, root: Path):
    groups = dict(extension("navigation").groups((root / "docs" / "index.md").read_text()))
    listed = {entry.partition("<")[2].rstrip(">") for entries in groups.values() for entry in entries}
    assert listed == {path.stem for path in (root / "docs").glob("*.md")} - {"index"}


SHAPE = re.compile(r"\(([^()$`]*,[^()$`]*)\)")
SIZE = re.compile(r"\*?[\w.']*|\w+ [+·] \w+")


def test_the_glossary_knows_the_letters_of_shapes(extension, root: Path):
    api = extension("api_pages")
    text = "\n".join(api.content(page) for page in api.pages())
    shapes = [[size.strip() for size in found.split(",")] for found in SHAPE.findall(text)]
    sizes = [size for shape in shapes if all(map(SIZE.fullmatch, shape)) for size in shape]
    letters = {letter for size in sizes for letter in re.findall(r"\b[A-Z]\b", size)}
    assert {"B", "K", "M", "D", "N"} <= letters
    rows = re.findall(r"^\| (.+?) \| (.+?) \|", (root / "docs" / "glossary.md").read_text(), re.MULTILINE)
    known = set(re.findall(r"\b[A-Z]\b", " ".join(symbols for symbols, _ in rows)))
    # X and I are data as scikit-learn calls them, and the identity.
    assert letters - known <= {"X", "I"}
    code = "\n".join(
        path.read_text() for folder in ("pyro_lvm", "models", "guides") for path in (root / folder).rglob("*.py")
    )
    for name in re.findall(r"`\"?(\w+)\"?`", " ".join(names for _, names in rows)):
        assert re.search(rf"\b{name}\b", code), name


GOOD = """<html><head><title>A page</title><link rel="stylesheet" href="style.css"></head><body id="top">
<a href="#top">up</a> <a href="other.html#there">there</a> <a href="https://example.org">far</a>
<img src="style.css" alt="a picture"> <code>`$x$`</code></body></html>"""


@pytest.mark.parametrize(
    ("fault", "found"),
    [
        (("", ""), []),
        (("#top", "#nowhere"), ["page.html: no such place: #nowhere"]),
        (("other.html#there", "other.html#here"), ["page.html: no such place: other.html#here"]),
        (("other.html#there", "lost.html"), ["page.html: no such file: lost.html"]),
        (('src="style.css"', 'src="lost.png"'), ["page.html: no such file: lost.png"]),
        ((' alt="a picture"', ""), ["page.html: an image has no text: style.css"]),
        (("A page", " "), ["page.html: no title"]),
        (('href="style.css"', 'href="//far/style.css"'), ["page.html: needs a network: //far/style.css"]),
        (("<code>", ""), ["page.html: markup that was not read: '`$x$`'"]),
    ],
)
def test_a_fault_of_a_page_is_found(extension, tmp_path: Path, fault: tuple[str, str], found: list[str]):
    (tmp_path / "style.css").write_text("")
    (tmp_path / "other.html").write_text("<title>Other</title><p id='there'></p>")
    (tmp_path / "page.html").write_text(GOOD.replace(*fault))
    assert list(extension("site_check").problems(tmp_path)) == found
