"""Formulas as MathML, made while the site is built: they show without a network and without a script."""

import unicodedata
from itertools import pairwise
from typing import Any
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

from docutils import nodes
from latex2mathml.converter import convert
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.writers.html5 import HTML5Translator

logger = logging.getLogger(__name__)

NAMESPACE = "http://www.w3.org/1998/Math/MathML"
ROW, IDENTIFIER, OPERATOR, SPACE = (f"{{{NAMESPACE}}}{tag}" for tag in ("mrow", "mi", "mo", "mspace"))
SCRIPTED = tuple(f"{{{NAMESPACE}}}{tag}" for tag in ("msub", "msup", "msubsup"))
RELATIONS = {"~": "\u223c", ":": ":"}  # which the converter takes for letters, without space around them
ALPHABETS = {"script": "SCRIPT", "double-struck": "DOUBLE-STRUCK", "fraktur": "FRAKTUR"}
ElementTree.register_namespace("", NAMESPACE)


def markup(node: nodes.Element, display: bool) -> str:
    """The formula of a node; a warning, which fails the build, where it is not understood."""
    tex = " ".join(node.astext().split())
    try:
        tree = ElementTree.fromstring(convert(tex, display="block" if display else "inline"))
    except Exception as error:  # the converter has many of its own
        logger.warning("formula not understood: %s: %r", tex, error, location=node)
        return ""
    if "\\" in "".join(tree.itertext()):
        logger.warning("formula with a command that is not understood: %s", tex, location=node)
    for element in list(tree.iter()):
        set_letters(element)
    for element in list(tree.iter()):
        set_spaces(element)
    return ElementTree.tostring(tree, encoding="unicode")


def set_letters(element: Element) -> None:
    """What a sign is, and letters of other alphabets by their code points: browsers read no `mathvariant` any more."""
    alphabet = ALPHABETS.get(element.get("mathvariant", ""))
    if alphabet and element.text:
        del element.attrib["mathvariant"]
        element.text = "".join(letter(alphabet, of) for of in element.text)
    if element.tag == OPERATOR and (element.text or "").isalpha():  # max and det, which are functions
        element.tag = IDENTIFIER
    if element.tag == IDENTIFIER and element.text in RELATIONS:
        element.tag, element.text = OPERATOR, RELATIONS[element.text]


def letter(alphabet: str, of: str) -> str:
    """The letter of an alphabet."""
    name = f"{alphabet} {'CAPITAL' if of.isupper() else 'SMALL'} {of.upper()}"
    try:
        return unicodedata.lookup(f"MATHEMATICAL {name}")
    except KeyError:  # a few are older than the block of the others
        return unicodedata.lookup(name)


def set_spaces(element: Element) -> None:
    """Thin spaces around a function's name, unless an operator or a bracket is there."""
    children = list(element)
    for before, after in pairwise(children):
        functions = is_function(before) or is_function(after)
        if element.tag == ROW and functions and {before.tag, after.tag}.isdisjoint((OPERATOR, SPACE)):
            element.insert(list(element).index(after), Element(SPACE, width="0.167em"))


def is_function(element: Element) -> bool:
    """Whether it is a name such as log, with a subscript perhaps."""
    base = element[0] if element.tag in SCRIPTED else element
    return base.tag == IDENTIFIER and len(base.text or "") > 1


def inline(self: HTML5Translator, node: nodes.Element) -> None:
    """Writes a formula in a line."""
    self.body.append(markup(node, display=False))
    raise nodes.SkipNode


def displayed(self: HTML5Translator, node: nodes.Element) -> None:
    """Writes a formula of its own, which scrolls where it is wider than the page."""
    self.body.append(f'<div class="formula">{markup(node, display=True)}</div>')
    raise nodes.SkipNode


def setup(app: Sphinx) -> dict[str, Any]:
    """Enters the renderer."""
    app.add_html_math_renderer("mathml", (inline, None), (displayed, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
