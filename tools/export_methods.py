"""Methods that a notebook adds to a class cell by cell stand inside that class in the library: a processor for nbdev.

A notebook grows a class in small steps: `@patch def fit(self: V9, …)`, with `from fastcore.basics import patch` in a
cell that is not exported. The exported module has an ordinary class, so `help`, editors and tracebacks name `V9.fit`,
and the library needs no fastcore.
"""
import ast
import io
import tokenize
from dataclasses import dataclass
from pathlib import Path

from check_layout import top_names

EXPORTS = ("export", "exporti", "exports")
KINDS = {
    "as_prop": "@property", "cls_method": "@classmethod", "static_method": "@staticmethod", "set_prop": "@{}.setter",
}
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


class ExportError(Exception):
    "What cannot be exported: names the notebook, its cell and what to do."


# ---- what a cell asks for

@dataclass
class Patch:
    "One method that a cell adds to a class."

    node: ast.AST  # the function
    owner: str  # name of the class
    kind: str  # a key of KINDS, or empty for a plain method

    @property
    def first(self) -> ast.arg | None:  # None without parameters
        "The first parameter: `self` or `cls`."
        return next(iter([*self.node.args.posonlyargs, *self.node.args.args]), None)


def patch_decorator(node) -> ast.AST | None:  # None where there is none
    "The decorator `patch` or `patch_to` of a function."
    for decorator in getattr(node, "decorator_list", []):
        called = decorator.func if isinstance(decorator, ast.Call) else decorator
        if isinstance(called, ast.Name) and called.id in ("patch", "patch_to"):
            return decorator
    return None


def class_name(annotation) -> str:  # empty for anything else than one name
    "The class that an annotation names."
    if isinstance(annotation, ast.Name):
        return annotation.id
    return annotation.value if isinstance(annotation, ast.Constant) and isinstance(annotation.value, str) else ""


def read_patch(node, decorator) -> Patch:  # raises ValueError with what is wrong
    "What a decorated function is to become: fastcore's rules."
    call = decorator if isinstance(decorator, ast.Call) else ast.Call(decorator, [], [])
    options = [(k.arg, getattr(k.value, "value", None)) for k in call.keywords]
    if len(options) > 1 or any(name not in KINDS or value is not True for name, value in options):
        raise ValueError(f"`@{ast.unparse(decorator)}`: at most one of {', '.join(f'{k}=True' for k in KINDS)}")
    if node.decorator_list[0] is not decorator:
        raise ValueError(f"`@{call.func.id}` must be the first decorator")
    kind = options[0][0] if options else ""
    found = Patch(node, "", kind)
    if call.func.id == "patch_to":
        annotation = next(iter(call.args), None)
    elif kind == "static_method":  # fastcore takes the first annotation there is
        every = [a.annotation for a in ast.walk(node.args) if isinstance(a, ast.arg)]
        annotation = next((a for a in [*every, node.returns] if a), None)
    else:
        annotation = found.first and found.first.annotation
    found.owner = class_name(annotation)
    if not found.owner.isidentifier():
        raise ValueError(
            "names no class: annotate `self` (or `cls`) with the class, or write `@patch_to(Class, static_method=True)`"
        )
    return found


# ---- text

def at(lines: list, row: int, column: int) -> int:  # position in the joined text
    "Where a place of the syntax tree is: rows from 1, columns in bytes of UTF-8."
    return sum(len(line) + 1 for line in lines[: row - 1]) + len(lines[row - 1].encode()[:column].decode())


def rewritten(source: str, edits: list) -> str:  # edits: (node, new text)
    "A text with the source of some nodes replaced."
    lines = source.split("\n")
    spans = [(at(lines, n.lineno, n.col_offset), at(lines, n.end_lineno, n.end_col_offset), new) for n, new in edits]
    for start, end, new in sorted(spans, reverse=True):
        source = source[:start] + new + source[end:]
    return source


def inside_texts(source: str) -> set:  # row numbers from 1
    "Rows that begin inside a text of several lines, where blanks count."
    found, opened = set(), []
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        name = tokenize.tok_name[token.type]
        if name in ("FSTRING_START", "TSTRING_START"):
            opened.append(token.start[0])
        elif name in ("FSTRING_END", "TSTRING_END"):
            found |= set(range(opened.pop() + 1, token.end[0] + 1))
        elif name == "STRING":
            found |= set(range(token.start[0] + 1, token.end[0] + 1))
    return found


def indented(source: str, by: str) -> str:
    "A function moved to the right, the inside of its texts untouched."
    kept = inside_texts(source)
    lines = source.split("\n")
    return "\n".join(line if n in kept or not line.strip() else by + line for n, line in enumerate(lines, 1))


def names_in(node) -> set:
    "Names that an expression looks up."
    return {n.id for n in ast.walk(node) if isinstance(n, ast.Name)}


def method_text(source: str, found: Patch, later: set, own: set) -> str:  # raises ValueError
    "The method as it stands in its class, not yet indented; `later`: names bound after the class, `own`: in its body."
    node, edits = found.node, []
    lines = source.split("\n")
    kind = KINDS.get(found.kind, "").format(node.name)
    first = found.first if found.kind != "static_method" else None
    if first and first.annotation:
        edits.append((first, first.arg))
    every = [a for a in ast.walk(node.args) if isinstance(a, ast.arg) and a is not first]
    for annotation in [*(a.annotation for a in every), node.returns]:
        if annotation and not isinstance(annotation, ast.Constant) and names_in(annotation) & (later | own):
            text = ast.unparse(annotation)
            edits.append((annotation, repr(text) if '"' in text else f'"{text}"'))
    evaluated = [*node.args.defaults, *filter(None, node.args.kw_defaults), *node.decorator_list[1:]]
    if early := sorted({name for e in evaluated for name in names_in(e)} & (later | own)):
        raise ValueError(f"`{early[0]}` is not known where the class is defined; define it in an earlier cell")
    hidden = {n.id for n in ast.walk(node) if isinstance(n, ast.Name)} | {
        n.attr for n in ast.walk(node) if isinstance(n, ast.Attribute)
    }
    if mangled := sorted(name for name in hidden if name.startswith("__") and not name.endswith("__")):
        raise ValueError(f"`{mangled[0]}` would get another name in a class; use one underscore")
    decorator = node.decorator_list[0]
    start, end = decorator.lineno - 1, decorator.end_lineno
    comments = start
    while comments and lines[comments - 1].startswith("#"):
        comments -= 1
    body = rewritten(source, edits).split("\n")
    body_end = len(body) - (len(lines) - node.end_lineno)
    return "\n".join([*body[comments:start], *([kind] if kind else []), *body[end:body_end]])


def without(source: str, nodes: list) -> str:
    "A cell without some of its functions, the comments right above them and the blank lines below them."
    lines = source.split("\n")
    for node in reversed(nodes):
        start, end = node.decorator_list[0].lineno - 1, node.end_lineno
        while start and lines[start - 1].startswith("#"):
            start -= 1
        while end < len(lines) and not lines[end].strip():
            end += 1
        del lines[start:end]
    return "\n".join(lines).strip("\n")


def into_class(source: str, owner: str, method: str) -> str:
    "A cell with one more method at the end of a class."
    node = next(n for n in ast.parse(source).body if isinstance(n, ast.ClassDef) and n.name == owner)
    lines, first = source.split("\n"), node.body[0]
    row, place = first.lineno - 1, at(lines, first.lineno, first.col_offset) - at(lines, first.lineno, 0)
    if lines[row][:place].strip():  # `class A: pass`
        lines[row : row + 1] = [lines[row][:place].rstrip(), "    " + lines[row][place:]]
        return into_class("\n".join(lines), owner, method)
    end, by = node.end_lineno, " " * first.col_offset
    while end < len(lines) and lines[end].startswith(by + "#"):
        end += 1
    return "\n".join([*lines[:end], "", *indented(method, by).split("\n"), *lines[end:]])


def bound_in(node: ast.ClassDef) -> set:
    "Names that the body of a class binds."
    return top_names(ast.Module(node.body, []))


# ---- one notebook

def move_methods(cells: list, where: str) -> None:  # `cells`: exported to one module, in order; changed in place
    "Put every patched function of a module into its class; raises ExportError."
    trees = [ast.Module(cell.parsed_() or [], []) for cell in cells]
    bound = [top_names(tree) for tree in trees]
    places = {}  # name of a class -> number of the cell that defines it
    for number, (cell, tree) in enumerate(zip(cells, trees)):
        moved = []
        for node in tree.body:
            if not (decorator := patch_decorator(node)):
                continue
            try:
                found = read_patch(node, decorator)
                if found.owner not in places:
                    raise ValueError(f"class `{found.owner}` is not defined in an earlier cell that is exported")
                home = cells[places[found.owner]]
                body = ast.parse(home.source).body
                place = next(i for i, n in enumerate(body) if getattr(n, "name", "") == found.owner)
                own, here = bound_in(body[place]), places[found.owner]
                if node.name in own and found.kind != "set_prop":
                    raise ValueError(f"class `{found.owner}` has a `{node.name}` already")
                known = set().union(*bound[:here], top_names(ast.Module(body[:place], [])))
                later = set().union(*bound[here:]) - known
                text = method_text(cell.source, found, later, own)
            except ValueError as e:
                raise ExportError(f"{where}, cell {cell.get('id')}, `{node.name}`: {e}") from None
            home.set_source(into_class(home.source, found.owner, text))
            moved.append(node)
        if moved:
            cell.set_source(without(cell.source, moved))
        places |= {node.name: number for node in tree.body if isinstance(node, ast.ClassDef)}


def exported_modules(nb) -> dict:  # {where to, empty for the notebook's own module: code cells in order}
    "The cells of a notebook that are exported."
    modules = {}
    for cell in nb.cells:
        for directive in EXPORTS:
            if cell.cell_type == "code" and directive in cell.directives_:
                modules.setdefault(cell.directives_[directive], []).append(cell)
    return modules


class Methods:
    "Processor for `nbdev_export`: patched functions of exported cells go into their class."

    def __init__(self, nb):  # a notebook as `read_nb` gives it
        self.nb = nb

    def begin(self):
        "Change the exported cells before they are written."
        for cells in exported_modules(self.nb).values():
            move_methods(cells, Path(self.nb.get("path_", "notebook")).name)
