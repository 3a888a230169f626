"""The navigation is what the start page lists: a group for each heading, a page for each item that begins with a link.

So the page reads as a list of links wherever Markdown is shown, and a page that is not in it fails the build.
"""

import re
from collections.abc import Iterator
from typing import Any

from sphinx.application import Sphinx

HEADING = re.compile(r"^## (.+)$")
PAGE = re.compile(r"^- \[(.+?)\]\(([\w/]+)\.md\)")


def groups(text: str) -> Iterator[tuple[str, list[str]]]:
    """Each heading of the page with the entries of its table of contents."""
    heading, entries = "", list[str]()
    for line in text.splitlines():
        if found := HEADING.match(line):
            if entries:
                yield heading, entries
            heading, entries = found[1], []
        elif found := PAGE.match(line):
            entries.append(f"{found[1]} <{found[2]}>")
    if entries:
        yield heading, entries


def append(app: Sphinx, docname: str, source: list[str]) -> None:
    """Gives the start page its table of contents."""
    if docname == app.config.root_doc:
        for heading, entries in groups(source[0]):
            source[0] += "\n\n```{toctree}\n:hidden:\n:caption: " + "\n".join((heading, "", *entries, "```\n"))


def setup(app: Sphinx) -> dict[str, Any]:
    """Listens to pages being read."""
    app.connect("source-read", append)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
