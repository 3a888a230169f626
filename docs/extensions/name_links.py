"""Names of the library in code spans, such as `models.VAE` or `evidence.gaps(...)`, link to their descriptions.

A name that begins with a public module and is not in it fails the build.
"""

import re
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util import logging

logger = logging.getLogger(__name__)

NAME = re.compile(r"([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*)(\(.*\))?", re.DOTALL)

FILES = (".py", ".html", ".nc")  # `report.html` is no name of `report`


def link(app: Sphinx, doctree: nodes.document, docname: str) -> None:
    """Puts a link around every such span that is not in one."""
    known = app.env.domaindata["py"]["objects"]
    endings = dict[str, set[str]]()
    for name in known:
        endings.setdefault(name.rpartition(".")[2], set()).add(name)
    for node in list(doctree.findall(nodes.literal)):
        found = NAME.fullmatch(node.astext())
        if found is None or within(node, (nodes.reference, nodes.title)):
            continue
        target = full_name(found[1], bool(found[2]), known, endings)
        if target is not None:
            entry = known[target]
            uri = app.builder.get_relative_uri(docname, entry.docname) + f"#{entry.node_id}"
            node.replace_self(nodes.reference("", "", node.deepcopy(), refuri=uri, internal=True, reftitle=target))
        elif "." in found[1] and not found[1].endswith(FILES) and f"pyro_lvm.{found[1].split('.')[0]}" in known:
            logger.warning("no public name: %s", found[1], location=node)


def full_name(name: str, called: bool, known: Any, endings: dict[str, set[str]]) -> str | None:
    """The only object that is meant; a lower-case word alone is more often an argument than a function."""
    for candidate in (name, f"pyro_lvm.{name}", f"pyro_lvm.{name.removeprefix('lvm.')}"):
        if candidate in known and ("." in name or called or name[0].isupper()) and not known[candidate].aliased:
            return candidate
    if "." in name or not name[0].isupper():
        return None
    meant = {full for full in endings.get(name, ()) if not known[full].aliased}
    return meant.pop() if len(meant) == 1 else None


def within(node: nodes.Node, kinds: tuple[type[nodes.Node], ...]) -> bool:
    """Whether a node lies in one of these kinds."""
    while node.parent is not None:
        node = node.parent
        if isinstance(node, kinds):
            return True
    return False


def setup(app: Sphinx) -> dict[str, Any]:
    """Listens to pages being finished."""
    app.connect("doctree-resolved", link)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
