"""How nbdev's own site shows a function: comments beside its parameters, not once more as sections below."""
import inspect
import re

from nbdev.showdoc import BasicMarkdownRenderer


class Renderer(BasicMarkdownRenderer):
    "nbdev's renderer; of a function it leaves out the sections that the signature shows already."

    def __init__(self, sym, *args, **kwargs):
        super().__init__(sym, *args, **kwargs)
        if not inspect.isclass(self.sym):
            self.docs = re.sub(r"(?ms)^(Parameters|Returns)\n-{3,}\n.*?(?=^\w+\n-{3,}|\Z)", "", self.docs).strip()
