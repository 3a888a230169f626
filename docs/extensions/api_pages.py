"""The pages of the API: one for each public package, made of its docstrings, which are Markdown with Google's sections.

Public is what a package's `__all__` lists, in every package and module of `pyro_lvm` but those named here.
"""

import importlib
import inspect
import pkgutil
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from sphinx.application import Sphinx
from sphinx.util.inspect import signature, stringify_signature

import pyro_lvm

# What the library is made of inside, and its command line.
INTERNAL = {
    "capture",
    "checkpoint",
    "cli",
    "comparison",
    "launching",
    "preflight",
    "processes",
    "run_folder",
    "sizes",
    "threads",
    "workflow",
}
FOLDER = "api"

# The sections of a docstring, and what a page calls them; "items" have a name, a colon and a text.
SECTIONS = {
    "Args": "Arguments",
    "Attributes": "Attributes",
    "Sites": "Sites",
    "Shapes": "Shapes",
    "Returns": "Returns",
    "Yields": "Yields",
    "Raises": "Raises",
    "References": "References",
    "Example": "Example",
}
ITEMS = ("Args", "Attributes", "Raises")
SECTION = re.compile(rf"({'|'.join(SECTIONS)}):$")


@dataclass(frozen=True)
class Page:
    """A module, and those of its public names that are described on its page and not on another."""

    module: ModuleType
    own: dict[str, Any]
    elsewhere: dict[str, str]  # name -> where it is described

    @property
    def file(self) -> str:
        """The page's name without its ending."""
        return f"{FOLDER}/{self.module.__name__}"


def pages() -> list[Page]:
    """Every public module; what the package itself offers by a short name is described there."""
    found, described = list[Page](), dict[int, str]()
    for module in (pyro_lvm, *submodules()):
        own, elsewhere = dict[str, Any](), dict[str, str]()
        for name in sorted(module.__all__):
            value = getattr(module, name)
            if inspect.ismodule(value):
                continue
            if id(value) in described:
                elsewhere[name] = described[id(value)]
            else:
                own[name] = value
                described[id(value)] = f"{module.__name__}.{name}"
        if own:
            found.append(Page(module, own, elsewhere))
    return found


def submodules() -> Iterator[ModuleType]:
    """Those that say what is public in them."""
    for info in pkgutil.iter_modules(pyro_lvm.__path__):
        if info.name not in INTERNAL:
            module = importlib.import_module(f"pyro_lvm.{info.name}")
            if hasattr(module, "__all__"):
                yield module


def content(page: Page) -> str:
    """The page in Markdown."""
    name = page.module.__name__
    parts = [f"# {name}", f"```{{py:module}} {name}\n```", inspect.getdoc(page.module) or ""]
    rows = [f"| [`{n}`](#{name}.{n}) | {cell(summary(v))} |" for n, v in page.own.items()]
    rows += [f"| `{where}` | as `{name}.{n}` |" for n, where in page.elsewhere.items()]
    parts.append("\n".join(("| name | |", "|---|---|", *rows)))
    parts += [described(n, v) for n, v in page.own.items()]
    return "\n\n".join(parts) + "\n"


def described(name: str, value: Any) -> str:
    """A public name: a class with its methods, a function, or another value."""
    if inspect.isclass(value):
        body = [bases(value), docstring(value), *methods(value)]
        return directive("class", name, value, "\n\n".join(filter(None, body)))
    if callable(value) and hasattr(value, "__module__") and inspect.isroutine(value):
        return directive("function", name, value, docstring(value))
    return f"```````{{py:data}} {name}\n:value: {value!r}\n```````"


def directive(kind: str, name: str, value: Any, body: str, fence: str = "```````", options: str = "") -> str:
    """One object of Sphinx's Python domain."""
    written = ""
    with suppress(ValueError):  # a tensor's constructor says nothing of its arguments
        if kind != "property":
            of = signature(value)
            written = stringify_signature(of, show_return_annotation=kind != "class", unqualified_typehints=True)
    if kind in ("class", "function") and value.__qualname__ == name:
        options += f":canonical: {value.__module__}.{name}\n"
    return f"{fence}{{py:{kind}}} {name}{written}\n{options}\n{body}\n{fence}"


def bases(cls: type) -> str:
    """What a class derives from, as far as it is not Python's own."""
    names = [b.__name__ for b in cls.__bases__ if b.__module__ != "builtins" or issubclass(cls, BaseException)]
    return f"Derives from {', '.join(f'`{name}`' for name in names)}." if names else ""


def methods(cls: type) -> Iterator[str]:
    """Public methods and properties with a description: its own, and those of bases that have no page."""
    public = {id(value) for page in pages_of_classes() for value in page}
    seen = set[str]()
    for owner in cls.__mro__:
        if owner.__module__.split(".")[0] != "pyro_lvm" or (owner is not cls and id(owner) in public):
            continue
        for name, member in vars(owner).items():
            if name.startswith("_") or name in seen:
                continue
            seen.add(name)
            function = member.__func__ if isinstance(member, (classmethod, staticmethod)) else member
            if isinstance(member, property) and member.__doc__:
                yield directive("property", name, member, docstring(member), "``````")
            elif inspect.isfunction(function) and function.__doc__:
                how = {classmethod: ":classmethod:\n", staticmethod: ":staticmethod:\n"}.get(type(member), "")
                # Bound, so that `self` is not an argument.
                bound = function if isinstance(member, staticmethod) else function.__get__(object())
                yield directive("method", name, bound, docstring(function), "``````", how)


def pages_of_classes() -> Iterator[list[type]]:
    """The classes of every page."""
    for page in pages():
        yield [value for value in page.own.values() if inspect.isclass(value)]


def summary(value: Any) -> str:
    """The first paragraph of a description, in one line."""
    return " ".join((inspect.getdoc(value) or "").split("\n\n")[0].split()) if described_by_itself(value) else ""


def described_by_itself(value: Any) -> bool:
    """Whether a docstring is the value's own, not that of its type."""
    return inspect.isclass(value) or inspect.isroutine(value)


def cell(text: str) -> str:
    """Text that a table can hold: a bar would end the cell."""
    return re.sub(r"\\\|", r"\\Vert ", text).replace("|", r"\vert ")


def docstring(value: Any) -> str:
    """A description with its sections as Markdown; a section is what is indented below its title."""
    parts, title, lines = list[str](), "", list[str]()

    def close() -> None:
        body = inspect.cleandoc("\n".join(("", *lines))).strip("\n")
        if title:
            parts.append(f"**{SECTIONS[title]}**")
        parts.append(items(body) if title in ITEMS else text(body))
        lines.clear()

    for line in (inspect.getdoc(value) or "").splitlines():
        if found := SECTION.match(line):
            close()
            title = found[1]
            continue
        if title and line and not line.startswith(" "):
            close()
            title = ""
        lines.append(line)
    close()
    return "\n\n".join(filter(None, parts))


def items(body: str) -> str:
    """`name: text` and its further lines, each an item of a list."""
    lines = []
    for line in body.splitlines():
        name, colon, text = line.partition(": ")
        if not line.startswith(" ") and colon:
            line = f"- {', '.join(f'`{part}`' for part in name.split(', '))}: {text}"
        elif line.startswith("    "):
            line = line[2:]
        lines.append(line)
    return "\n".join(lines)


def text(body: str) -> str:
    """Paragraphs, with doctests as code."""
    parts = list[str]()
    for paragraph in body.split("\n\n"):
        if not paragraph.startswith(">>> "):
            parts.append(paragraph)
        elif parts and parts[-1].endswith("\n```"):
            parts[-1] = f"{parts[-1].removesuffix('```')}\n{paragraph}\n```"
        else:
            parts.append(f"```pycon\n{paragraph}\n```")
    return "\n\n".join(parts)


def write(app: Sphinx) -> None:
    """Writes the pages, and takes away those of modules that are gone."""
    folder = Path(app.srcdir) / FOLDER
    folder.mkdir(exist_ok=True)
    made = {Path(app.srcdir) / f"{page.file}.md": content(page) for page in pages()}
    for path, text in made.items():
        path.write_text(text)
    for path in set(folder.iterdir()) - set(made):
        path.unlink()


def list_pages(app: Sphinx, docname: str, source: list[str]) -> None:
    """Ends the page of the API with what there is."""
    if docname == FOLDER:
        of = pages()
        rows = [f"| [`{p.module.__name__}`]({p.file}.md) | {cell(summary_of_module(p.module))} |" for p in of]
        source[0] += "\n".join(("\n| module | |", "|---|---|", *rows))
        source[0] += "\n\n```{toctree}\n:hidden:\n" + "\n".join(p.file for p in of) + "\n```\n"


def summary_of_module(module: ModuleType) -> str:
    """The first paragraph of a module's description, in one line."""
    return " ".join((module.__doc__ or "").strip().split("\n\n")[0].split())


def setup(app: Sphinx) -> dict[str, Any]:
    """Writes the pages before anything is read."""
    app.connect("builder-inited", write)
    app.connect("source-read", list_pages)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
