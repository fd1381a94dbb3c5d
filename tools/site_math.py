"""An extension of the site's builder: formulas as MathML, which browsers draw without a script and without a
network."""
import html
import re
from xml.etree import ElementTree

from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml

SPACE = "{http://www.w3.org/1998/Math/MathML}"


def mathml(text: str, **how) -> str:  # MathML
    "A formula; typewriter text becomes plain text, and what stands at a brace stands below it."
    markup = tex2mathml(text.replace(r"\texttt{", r"\text{").replace(r"\_", "_"), **how)
    tree = ElementTree.fromstring(
        re.sub(r"&(?!(?:lt|gt|amp|quot|apos|#\w+);)\w+;", lambda m: html.unescape(m[0]), markup)
    )
    for node in tree.iter(f"{SPACE}msub"):
        brace = node[0][-1] if node[0].tag == f"{SPACE}munder" else None
        if brace is not None and brace.text == "⏟":
            node.tag = f"{SPACE}munder"
            brace.set("stretchy", "true")
    ElementTree.register_namespace("", SPACE[1:-1])
    return ElementTree.tostring(tree, encoding="unicode")


def inline(self, node) -> None:
    "A formula within a sentence."
    self.body.append(mathml(node.astext()))
    raise nodes.SkipNode


def display(self, node) -> None:
    "A formula of its own."
    self.body.append(f'<div class="math">{mathml(node.astext(), as_block=True)}</div>')
    raise nodes.SkipNode


def setup(app) -> dict:  # what the builder wants to know of an extension
    "Called by the builder."
    app.add_html_math_renderer("mathml", (inline, None), (display, None))
    return {"parallel_read_safe": True}
