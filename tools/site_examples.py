"""One example for a public name, cut out of the lesson that shows it: the lines that use the name, and those they
need."""
import ast
import builtins
import re
from dataclasses import dataclass, field

MOST = 22  # lines; an example that needs more is a lesson
CHECKS = re.compile(r"assert\b|(?:test_|expect_)\w+\(|with expect_")
WRITES = re.compile(r"\.(?:to_\w+|write_\w+|mkdir|save|touch)\(|write_\w+\(")
GROWS = {"append", "extend", "update", "insert", "add", "setdefault"}


@dataclass
class Statement:
    "A top-level statement of an example cell."

    text: str
    cell: int  # number of the cell in the notebook
    node: ast.stmt
    uses: set = field(default_factory=set)  # names that it reads and does not bind itself
    binds: set = field(default_factory=set)  # names that it binds or changes


def root_name(node):  # of `x`, `x[0]`, `x.y.z`; None for anything else
    "The name at the root of an expression."
    while isinstance(node, (ast.Attribute, ast.Subscript, ast.Starred)):
        node = node.value
    return node.id if isinstance(node, ast.Name) else None


def local_names(node) -> set:
    "Names that a function, a lambda or a comprehension binds for itself."
    names = set()
    for inner in ast.walk(node):
        if isinstance(inner, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            a = inner.args
            names |= {x.arg for x in [*a.posonlyargs, *a.args, *a.kwonlyargs, a.vararg, a.kwarg] if x}
        if isinstance(inner, (ast.FunctionDef, ast.AsyncFunctionDef)):
            names |= {x.id for x in ast.walk(inner) if isinstance(x, ast.Name) and isinstance(x.ctx, ast.Store)}
            names |= {(a.asname or a.name).split(".")[0] for x in ast.walk(inner)
                      if isinstance(x, (ast.Import, ast.ImportFrom)) for a in x.names}
        if isinstance(inner, ast.comprehension):
            names |= {x.id for x in ast.walk(inner.target) if isinstance(x, ast.Name)}
        if isinstance(inner, ast.ExceptHandler) and inner.name:
            names.add(inner.name)
    return names


def read(node: ast.stmt, text: str, cell: int) -> Statement:
    "What a statement reads and binds."
    made = Statement(text, cell, node)
    own = local_names(node)
    for inner in ast.walk(node):
        if isinstance(inner, ast.Name):
            (made.uses if isinstance(inner.ctx, ast.Load) else made.binds).add(inner.id)
        elif isinstance(inner, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            made.binds.add(inner.name)
        elif isinstance(inner, (ast.Import, ast.ImportFrom)):
            made.binds |= {(a.asname or a.name).split(".")[0] for a in inner.names}
        elif isinstance(inner, (ast.Assign, ast.AugAssign, ast.AnnAssign)):
            targets = inner.targets if isinstance(inner, ast.Assign) else [inner.target]
            made.binds |= {name for t in targets for part in ast.walk(t) if (name := root_name(part))}
        elif isinstance(inner, ast.Call) and isinstance(inner.func, ast.Attribute) and inner.func.attr in GROWS:
            made.binds |= {root_name(inner.func)} - {None}
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        methods = {n.name for n in ast.walk(node) if isinstance(n, (ast.FunctionDef, ast.AsyncFunctionDef))}
        own |= methods - {node.name}
        made.binds = {node.name}
    else:
        made.binds -= own
    made.uses -= own
    return made


def statements(source: str, cell: int) -> list:
    "The top-level statements of a cell; none where it is not plain Python."
    try:
        tree = ast.parse(source)
    except SyntaxError:
        return []
    lines, found = source.splitlines(), []
    for node in tree.body:
        first = min([node.lineno, *(d.lineno for d in getattr(node, "decorator_list", []))])
        found.append(read(node, "\n".join(lines[first - 1:node.end_lineno]), cell))
    return found


class Lesson:
    "The examples of one notebook, ready to be cut."

    def __init__(self, module: str, public: list, cells: list):
        # `cells`: (number, source, "export" | "example") in the order of the notebook; sources without directives
        self.module, self.public, self.examples, self.imports = module, set(public), [], {}
        self.defined, self.inner = {}, set()
        for number, source, kind in cells:
            for statement in statements(source, number):
                if isinstance(statement.node, (ast.Import, ast.ImportFrom)):
                    self._import(statement.node)
                elif kind == "export":
                    for name in statement.binds:
                        self.defined.setdefault(name, number)
                else:
                    self.examples.append(statement)
        self.inner = set(self.defined) - self.public  # what the library keeps to itself

    def _import(self, node):
        for alias in node.names:
            name = (alias.asname or alias.name).split(".")[0] if isinstance(node, ast.Import) else (
                alias.asname or alias.name
            )
            renamed = f"{alias.name} as {alias.asname}" if alias.asname else alias.name
            if isinstance(node, ast.Import):
                self.imports.setdefault(name, f"import {renamed}")
            else:
                where = ("." * node.level + (node.module or ""))
                if node.level:
                    parts = f"cryptolab.{self.module}".split(".")
                    where = ".".join([*parts[:len(parts) - node.level], *filter(None, [node.module])])
                self.imports.setdefault(name, f"from {where} import {renamed}")

    def _needed(self, chosen: set) -> set:
        "Statements, and all before them that bind or change what they read."
        wanted, last = set(), max(chosen)
        found = set()
        for n in range(last, -1, -1):
            if n in chosen or self.examples[n].binds & wanted:
                found.add(n)
                wanted |= self.examples[n].uses
        return found

    def slice(self, target: int):  # -> (lines of imports, statements), or None where something is out of reach
        "A statement and everything before it that it needs."
        chosen, imports = self._needed({target}), {}
        folders = {"tempfile"}
        for n in sorted(chosen):  # a folder, and what is made of its name
            folders |= self.examples[n].binds if self.examples[n].uses & folders else set()
        if len(folders) > 1:  # what writes into it comes along
            writes = [
                n for n in range(target) if WRITES.search(self.examples[n].text) and self.examples[n].uses & folders
                and isinstance(self.examples[n].node, (ast.Expr, ast.For))
            ]
            chosen = self._needed(chosen | set(writes))
        wanted = {name for n in chosen for name in self.examples[n].uses}
        bound = {name for n in chosen for name in self.examples[n].binds}
        for name in sorted(wanted):
            if name in bound:
                continue
            if name in self.public:
                imports[name] = f"from cryptolab.{self.module.removesuffix('.__init__')} import {name}"
            elif name in self.imports:
                imports[name] = self.imports[name]
            elif name in self.inner or not hasattr(builtins, name):
                return None
        return imports, [self.examples[n] for n in sorted(chosen)]

    def _shown(self, n, name):
        "The statement after a result that prints or shows it, if there is one right behind; else the same."
        made, after = self.examples[n], self.examples[n + 1] if n + 1 < len(self.examples) else None
        if not isinstance(made.node, ast.Assign) or after is None or after.cell != made.cell:
            return n
        shows = isinstance(after.node, ast.Expr) and not CHECKS.match(after.text)
        return n + 1 if shows and made.binds & after.uses else n

    def example(self, name: str):  # -> (code, number of the cell it ends in, whether it ends that cell), or None
        "The first example of a name that fits on few lines, else none."
        found = []
        for n, statement in enumerate(self.examples):
            if name not in statement.uses or isinstance(statement.node, (ast.FunctionDef, ast.ClassDef)):
                continue
            end = self._shown(n, name)
            if (made := self.slice(end)) is None:
                continue
            imports, chosen = made
            texts = [f"\n{s.text}\n" if isinstance(s.node, (ast.FunctionDef, ast.ClassDef)) else s.text for s in chosen]
            code = re.sub(r"\n{3,}", "\n\n", "\n".join([*grouped(imports.values()), "", *texts])).strip()
            if len(found) == 12:
                break
            lines, checks = code.count("\n") + 1, bool(CHECKS.match(statement.text))
            if lines <= MOST:
                last = not any(s.cell == statement.cell for s in self.examples[end + 1:])
                found.append((checks, lines > 12, (code, statement.cell, last)))
        return min(found, key=lambda one: one[:2])[2] if found else None


def grouped(lines) -> list:
    "Imports from one place on one line, those of other projects first."
    places = {}
    for line in dict.fromkeys(lines):
        if found := re.match(r"from (\S+) import (.+)", line):
            places.setdefault(found[1], []).append(found[2])
        else:
            places.setdefault(line, None)
    made = [
        place if names is None else f"from {place} import {', '.join(sorted(names))}" for place, names in places.items()
    ]
    return sorted(made, key=lambda line: ("cryptolab" in line, line.startswith("from"), line))
