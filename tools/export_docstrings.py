"""Comments beside parameters become numpydoc docstrings in the library: a processor for nbdev.

In a notebook a parameter's comment stands beside it, as fastcore's docments have it: that is where a reader of the
lesson looks. `help()` and editors show docstrings, so the exported function has its comments there, with types and
defaults, in the sections `Parameters`, `Returns` (or `Yields`) and `Raises`; its signature has none. A class has those
of its constructor or of its fields. Private functions and functions inside functions stay as they are.
"""
import ast
import io
import re
import textwrap
import tokenize
from dataclasses import dataclass, field

from export_methods import FUNCTIONS, exported_modules

WIDTH = 120
MARKS = re.compile(r"#\s*(?:noqa|type:|fmt:|pragma|pylint|ruff:)")  # comments for programs
RULE = re.compile(r"(\s*[*/],)?\s*")  # `*,` alone on its line
HIDDEN = {("recursive", "state")}  # (decorator, parameter): parameters that the decorator supplies itself
ERROR = r"[A-Z]\w*Error"
HEIRS = ("Error", "Table")  # classes whose heirs show their constructor: it keeps its own docstring
CLAUSE = re.compile(rf"(.*?)(?:^|; )((?:raises (?:an? )?)?{ERROR}\b.*)")
RAISED = re.compile(rf"({ERROR}(?: or {ERROR})*)(?::? (.+))?")


@dataclass
class Facts:
    "What is said of one function or class, and which of its comments say it."

    parameters: list = field(default_factory=list)  # (name, type, default, comment): source texts, empty for none
    returns: tuple = ("", "")  # type and comment
    used: set = field(default_factory=set)  # rows of comments that go into the docstring


# ---- comments

@dataclass
class Comment:
    "One comment of a cell."

    column: int  # in characters
    text: str  # without the mark
    alone: bool  # nothing else stands on its line


def comments_of(source: str) -> dict:  # {row from 1: Comment}; those for programs are left out
    "The comments of a cell."
    found = {}
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT and not MARKS.match(token.string):
            alone = not token.line[: token.start[1]].strip()
            found[token.start[0]] = Comment(token.start[1], token.string.lstrip("#").strip(), alone)
    return found


def above(comments: dict, row: int) -> list:  # rows, ascending
    "Lines of comment right above a row."
    found = []
    while row - 1 in comments and comments[row - 1].alone:
        row -= 1
        found.insert(0, row)
    return found


def said_at(comments: dict, first: int, last: int, taken: set) -> tuple:  # (text, rows)
    "What is said of the thing that stands on these rows: behind it, or in the lines above it."
    rows = [row for row in range(last, first - 1, -1) if row in comments and not comments[row].alone][:1]
    rows = [row for row in rows or above(comments, first) if row not in taken]
    return " ".join(comments[row].text for row in rows), set(rows)


# ---- what the source says

def source_of(source: str, node) -> str:  # on one line; empty for None
    "The text of an expression."
    if node is None:
        return ""
    return ast.unparse(node) if node.lineno != node.end_lineno else ast.get_source_segment(source, node)


def annotation_of(source: str, node) -> str:
    "The text of an annotation, without quotes."
    return node.value if isinstance(getattr(node, "value", None), str) else source_of(source, node)


def default_of(source: str, value) -> str:
    "A field's default as one would write it as an argument; empty for none."
    if isinstance(value, ast.Call) and isinstance(value.func, ast.Name) and value.func.id == "field":
        given = {k.arg: k.value for k in value.keywords}
        factory = given.get("default_factory")
        if isinstance(factory, ast.Lambda):
            return source_of(source, factory.body)
        return f"{source_of(source, factory)}()" if factory else source_of(source, given.get("default"))
    return source_of(source, value)


def signature_end(source: str, node) -> tuple:  # row and column (characters) of the colon
    "Where the signature of a function ends."
    depth = started = 0
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.start[0] < node.lineno or token.type != tokenize.OP:
            continue
        depth += (token.string in "([{") - (token.string in ")]}")
        started = started or depth
        if token.string == ":" and not depth and started:
            return token.start
    raise ValueError(node.name)


def arguments(node, method: bool) -> list:  # (marked name, argument, default); of a method without self or cls
    "The parameters of a function in order."
    a, every = node.args, [*node.args.posonlyargs, *node.args.args]
    defaults = [None] * (len(every) - len(a.defaults)) + a.defaults
    found = [(arg.arg, arg, value) for arg, value in zip(every, defaults)]
    found += [(f"*{a.vararg.arg}", a.vararg, None)] if a.vararg else []
    found += [(arg.arg, arg, value) for arg, value in zip(a.kwonlyargs, a.kw_defaults)]
    found += [(f"**{a.kwarg.arg}", a.kwarg, None)] if a.kwarg else []
    bound = method and not any(ast.unparse(d) == "staticmethod" for d in node.decorator_list)
    return found[1:] if bound else found


def function_facts(source: str, node, comments: dict, method: bool = False) -> Facts:
    "What the comments of a signature say."
    facts, (end, colon) = Facts(), signature_end(source, node)
    lines, here = source.split("\n"), {row: c for row, c in comments.items() if node.lineno <= row <= end}
    hidden = {name for d in node.decorator_list for key, name in HIDDEN if ast.unparse(d).startswith(f"{key}(")}
    last = end in here and here[end].column > colon
    returned = [end] if last else []
    while last and comments.get(max(returned) + 1, Comment(0, "", False)).alone:
        returned.append(max(returned) + 1)
    here = {row: c for row, c in here.items() if row not in returned}
    here = {row: c for row, c in here.items() if c.alone or not RULE.fullmatch(lines[row - 1][: c.column])}
    args = arguments(node, method)
    for number, (name, arg, value) in enumerate(args):
        if name in hidden:
            continue
        stop = max(arg.end_lineno, getattr(value, "end_lineno", 0))
        following = args[number + 1][1].lineno if number + 1 < len(args) else end
        while stop + 1 < following and not here.get(stop + 1, Comment(0, "", False)).alone:
            stop += 1  # a bracket and a comma below a long default
        if number + 1 < len(args) and following == stop:
            text, rows = said_at({r: c for r, c in here.items() if c.alone}, arg.lineno, stop, facts.used)
        else:
            text, rows = said_at(here, arg.lineno, stop, facts.used)
        facts.used |= rows
        facts.parameters.append((name, annotation_of(source, arg.annotation), source_of(source, value), text))
    facts.returns = annotation_of(source, node.returns), " ".join(comments[row].text for row in returned)
    facts.used |= set(returned)
    return facts


def is_dataclass(node) -> bool:
    "Whether the fields of a class are its parameters."
    made = [ast.unparse(d).partition("(")[0].rpartition(".")[2] for d in node.decorator_list]
    return "dataclass" in made or any(ast.unparse(base).rpartition(".")[2] == "NamedTuple" for base in node.bases)


def field_facts(source: str, node, comments: dict) -> Facts:
    "What the comments beside the fields of a dataclass say."
    facts = Facts()
    for item in node.body:
        if not isinstance(item, ast.AnnAssign) or item.target.id.startswith("_"):
            continue
        kind = annotation_of(source, item.annotation)
        if "ClassVar" in kind or "init=False" in source_of(source, item.value).replace(" ", ""):
            continue
        text, rows = said_at(comments, item.lineno, item.end_lineno, facts.used)
        facts.used |= rows
        facts.parameters.append((item.target.id, kind, default_of(source, item.value), text))
    return facts


# ---- the docstring

def split_raises(text: str) -> tuple:  # (text, [(error, when)]); as it was where the clauses cannot be told apart
    "Take what a comment says of errors out of it."
    match = CLAUSE.fullmatch(text)
    if not match:
        return text, []
    raised = []
    for entry in re.split(rf"(?:, and |, | and )(?={ERROR}\b)", re.sub(r"^raises (?:an? )?", "", match[2])):
        one = RAISED.fullmatch(entry)
        if not one or re.search(rf"{ERROR}|;", one[2] or ""):
            return text, []
        raised += [(name, one[2] or "") for name in one[1].split(" or ")]
    return match[1], raised


WHOLE = {"break_long_words": False, "break_on_hyphens": False}


def entry_lines(head: str, text: str, width: int) -> list:
    "One entry of a section."
    return [head, *textwrap.wrap(text, width, initial_indent="    ", subsequent_indent="    ", **WHOLE)]


def parameter_head(name: str, kind: str, default: str, width: int) -> str:  # such as `window : int, default 60`
    "The first line of a parameter."
    for shown in (default, "…"):
        facts = ", ".join(filter(None, [kind, f"default {shown}" if default else ""]))
        if len(head := f"{name} : {facts}" if facts else name) <= width:
            return head
    return name


def sections(facts: Facts, width: int) -> list:  # lines, empty where nothing is said
    "The numpydoc sections of a docstring."
    found = {}
    if any(comment for *_, comment in facts.parameters):
        found["Parameters"] = [
            line for name, kind, default, comment in facts.parameters
            for line in entry_lines(parameter_head(name, kind, default, width), comment, width)
        ]
    kind, comment = facts.returns
    text, raised = split_raises(comment)
    title = "Yields" if text.startswith("yields ") else "Returns"
    text = text.removeprefix("yields ")
    if comment and kind and not (kind == "None" and text in ("", "nothing")):
        found[title] = entry_lines(kind, text, width)
    elif text and not kind:
        found[title] = textwrap.wrap(text, width, subsequent_indent="    ", **WHOLE)
    if raised:
        found["Raises"] = [line for name, when in raised for line in entry_lines(name, when, width)]
    return [line for name, lines in found.items() for line in ("", name, "-" * len(name), *lines)]


def docstring(text: str, lines: list, indent: str) -> str:  # source, without the first indent
    "A docstring of one summary and its sections."
    first, _, rest = text.partition("\n")
    first = "\n".join(textwrap.wrap(first, WIDTH - len(indent) - len('r"""'), **WHOLE))
    body = "\n".join([first, *([rest] if rest else []), *lines]).strip("\n")
    mark = "r" if "\\" in body and '"""' not in body else ""
    if not mark:
        body = body.replace("\\", "\\\\").replace('"""', '\\"\\"\\"')
    shown = "\n".join(indent + line if line and n else line for n, line in enumerate(body.split("\n")))
    return f'{mark}"""{shown}\n{indent}"""'


# ---- the signature

def joined(lines: list) -> str:
    "The lines of a signature as one."
    text = lines[0].rstrip()
    for line in map(str.strip, lines[1:]):
        if line[:1] in tuple(")]}"):
            text = text.removesuffix(",") + line
        else:
            text += line if text[-1:] in tuple("([{") else f" {line}"
    return text


def plain_signature(lines: list, rows: set, start: int, comments: dict) -> list:  # `lines` from row `start`
    "A signature without some of its comments; on one line where that holds it."
    kept = [
        line[: comments[row].column].rstrip() if row in rows else line for row, line in enumerate(lines, start)
    ]
    kept = [line for row, line in enumerate(kept, start) if line.strip() or row not in rows]
    if len(kept) > 1 and not any(start <= row < start + len(lines) for row in set(comments) - rows):
        try:
            same = [ast.dump(ast.parse(textwrap.dedent(text) + " pass")) for text in ("\n".join(kept), joined(kept))]
        except SyntaxError:  # a text of several lines
            return kept
        if len(joined(kept)) <= WIDTH and same[0] == same[1]:
            return [joined(kept)]
    return kept


# ---- a cell

def has_docstring(node) -> bool:
    "Whether the first statement is a text."
    first = node.body[0]
    return isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str)


def put_docstring(lines: list, node, facts: Facts, changes: list) -> None:  # adds (first row, last row, lines)
    "Note how the docstring of a function or class changes."
    first = node.body[0]
    row = min([first.lineno, *(d.lineno for d in getattr(first, "decorator_list", []))])
    indent = " " * (len(lines[row - 1]) - len(lines[row - 1].lstrip()))
    if not (found := sections(facts, WIDTH - len(indent))):
        return
    if has_docstring(node):
        end = lines[first.end_lineno - 1].encode()[first.end_col_offset :].decode()
        text = docstring(ast.get_docstring(node), found, indent) + end
        changes.append((first.lineno, first.end_lineno, (indent + text).split("\n")))
    else:
        row -= len(above(comments_of("\n".join(lines)), row))
        changes.append((row, row - 1, (indent + docstring("", found, indent)).split("\n")))


def change_function(source: str, node, comments: dict, changes: list, owner=None) -> None:  # `owner`: its class
    "Note how a function changes: its comments go into its docstring, those of a constructor into that of its class."
    end, _ = signature_end(source, node)
    lines, facts = source.split("\n"), function_facts(source, node, comments, owner is not None)
    if not facts.used or node.body[0].lineno <= end:
        return
    of_class = node.name == "__init__" and not owner.name.endswith(HEIRS)
    put_docstring(lines, owner if of_class else node, facts, changes)
    first, last = node.lineno, max([end, *facts.used])
    changes.append((first, last, plain_signature(lines[first - 1 : last], facts.used, first, comments)))


def change_fields(source: str, node, comments: dict, changes: list) -> None:
    "Note how a dataclass changes."
    lines, facts = source.split("\n"), field_facts(source, node, comments)
    put_docstring(lines, node, facts, changes)
    for row in facts.used:
        rest = lines[row - 1][: comments[row].column].rstrip()
        changes.append((row, row, [rest] if rest else []))


def documented(source: str) -> str:
    "A cell whose public functions and classes have their comments in their docstrings."
    comments, changes = comments_of(source), []

    def visit(body, owner=None):
        for node in body:
            if isinstance(node, ast.ClassDef) and owner is None:
                if is_dataclass(node) and not node.name.startswith("_"):
                    change_fields(source, node, comments, changes)
                visit(node.body, node)
            elif isinstance(node, FUNCTIONS):
                hidden = owner.name if owner and node.name == "__init__" else node.name
                if not re.match(r"_(?!_\w+__$)", hidden):
                    change_function(source, node, comments, changes, owner)

    visit(ast.parse(source).body)
    lines = source.split("\n")
    for first, last, new in sorted(changes, key=lambda change: change[:2], reverse=True):
        lines[first - 1 : last] = new
    return "\n".join(lines)


class Docstrings:
    "Processor for `nbdev_export`: comments beside parameters become docstrings."

    def __init__(self, nb):  # a notebook as `read_nb` gives it
        self.nb = nb

    def begin(self):
        "Change the exported cells before they are written."
        for cells in exported_modules(self.nb).values():
            for cell in cells:
                if cell.parsed_():
                    cell.set_source(documented(cell.source))
