"""What is held against the finished pages: links, anchors, titles, images, formulas, and that none needs a network."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from sphinx.application import Sphinx
from sphinx.util import logging

logger = logging.getLogger(__name__)

SILENT = ("script", "style", "code", "pre", "math")  # where a dollar or a backtick is no markup that was not read
MARKUP = re.compile(r"[$`]|:(class|func|meth|mod|math|ref):|\.\. \w+::")


@dataclass
class Page(HTMLParser):
    """What one page holds."""

    ids: set[str] = field(default_factory=set)
    links: list[str] = field(default_factory=list)  # where a reader can go
    resources: list[str] = field(default_factory=list)  # what the browser fetches
    wrong: list[str] = field(default_factory=list)
    title: str = ""
    open: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        HTMLParser.__init__(self)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        """Takes down ids, links, resources and images."""
        of = {name: value or "" for name, value in attributes}
        self.ids |= {of[name] for name in ("id", "name") if of.get(name) and tag != "meta"}
        if tag == "a" and "href" in of:
            self.links.append(of["href"])
        elif tag == "link" and of.get("rel") in ("stylesheet", "icon", "shortcut icon"):
            self.resources.append(of["href"])
        elif tag in ("script", "img", "iframe", "source") and "src" in of:
            self.resources.append(of["src"])
        if tag == "img" and not of.get("alt", "").strip():
            self.wrong.append(f"an image has no text: {of.get('src')}")
        if tag in (*SILENT, "title"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        """Leaves an element."""
        if tag in self.open:
            self.open.remove(tag)

    def handle_data(self, data: str) -> None:
        """Takes down the title, and markup that was not read."""
        if "title" in self.open:
            self.title += data
        elif not self.open and MARKUP.search(data):
            self.wrong.append(f"markup that was not read: {data.strip()[:80]!r}")


def problems(folder: Path) -> Iterator[str]:
    """What is wrong with the site in a folder, a sentence each."""
    pages = {path.resolve(): read(path) for path in sorted(folder.rglob("*.html"))}
    for path, page in pages.items():
        where = path.relative_to(folder.resolve())
        if not page.title.strip():
            yield f"{where}: no title"
        yield from (f"{where}: {text}" for text in page.wrong)
        for link in page.links:
            if not urlsplit(link).scheme and (fault := broken(path, link, pages)):
                yield f"{where}: {fault}: {link}"
        for link in page.resources:
            if urlsplit(link).scheme not in ("", "data") or link.startswith("//"):
                yield f"{where}: needs a network: {link}"
            elif not link.startswith("data:") and (fault := broken(path, link, pages)):
                yield f"{where}: {fault}: {link}"


def broken(path: Path, link: str, pages: dict[Path, Page]) -> str:
    """Why a link from a page leads nowhere; nothing where it does not."""
    parts = urlsplit(link)
    target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
    if not target.is_file():
        return "no such file"
    if parts.fragment and target in pages and unquote(parts.fragment) not in pages[target].ids:
        return "no such place"
    return ""


def read(path: Path) -> Page:
    """The page of a file."""
    page = Page()
    page.feed(path.read_text())
    return page


def check(app: Sphinx, exception: Exception | None) -> None:
    """A warning for each problem of a finished site."""
    if exception is None and app.builder.format == "html":
        for problem in problems(Path(app.outdir)):
            logger.warning(problem)


def setup(app: Sphinx) -> dict[str, Any]:
    """Listens to the end of the build."""
    app.connect("build-finished", check)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
