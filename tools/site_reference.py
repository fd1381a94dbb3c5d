"""The reference of a module: every public name with its signature, parameters, returns, errors, an example and its
source."""
import importlib
import inspect
import re
from pathlib import Path

from site_examples import Lesson

OUTPUT = 14  # lines of an example's output that are shown


def plain_text(text: str) -> str:  # markdown that shows the text as it is; `code` stays code
    "Escape what markdown would take for itself."
    parts = re.split(r"(`[^`]+`)", re.sub(r"\s+", " ", text))
    return "".join(
        part.replace("|", "\\|") if i % 2 else re.sub(r"([\\`*_\[\]<>$|{}#~])", r"\\\1", part)
        for i, part in enumerate(parts)
    )


def short(value) -> str:  # Python as one would write it
    "A default value or an annotation in few characters."
    if isinstance(value, type) or inspect.isroutine(value):
        return value.__name__
    text = re.sub(
        r"\b(?:pathlib|pandas|numpy|collections\.abc|typing|pd|np)\.(?:core\.\w+\.)?", "",
        str(value) if "[" in str(type(value)) or "Union" in type(value).__name__ else repr(value),
    )
    return text if len(text) <= 60 else text[:57] + "…"


def split_docstring(text: str | None) -> tuple:  # summary, {section: [(first line, rest)]}
    "A numpydoc docstring: what stands before its sections, and their entries."
    summary, *parts = re.split(r"^(\w+)\n-{3,}\n", f"{inspect.cleandoc(text or '')}\n", flags=re.M)
    found = {}
    for title, body in zip(parts[::2], parts[1::2]):
        entries = re.findall(r"^(\S.*)\n((?:(?: .*)?\n)*)", body, re.M)
        found[title] = [(head, re.sub(r"\s+", " ", rest).strip()) for head, rest in entries]
    return summary.strip(), found


def parameters(function, text: str | None = None) -> list:  # (name, kind, default text or None, type, comment) each
    "The parameters of a function as its docstring explains them; what it returns and raises comes last."
    signature, (_, found) = inspect.signature(function), split_docstring(text)
    comments = {head.partition(" : ")[0].lstrip("*"): rest for head, rest in found.get("Parameters", [])}
    empty, rows = inspect.Parameter.empty, []

    def noted(note):
        return "" if note is empty else note if isinstance(note, str) else short(note)

    for name, parameter in signature.parameters.items():
        if name in ("self", "cls"):
            continue
        note, comment = parameter.annotation, comments.get(name, "")
        if extra := getattr(note, "__metadata__", ()):
            comment, note = comment or getattr(extra[0], "help", "") or "", note.__origin__
        default = None if parameter.default is empty else short(parameter.default)
        rows.append((name, parameter.kind, default, noted(note), comment))
    note = noted(signature.return_annotation)
    for title in ("Returns", "Yields"):
        for head, rest in found.get(title, []):  # without a type the whole entry is the comment
            rows.append((title.lower(), None, None, note, rest if note else f"{head} {rest}".strip()))
    if note and not inspect.isclass(function) and not {"Returns", "Yields"} & set(found):
        rows.append(("returns", None, None, note, ""))
    rows += [("raises", None, None, head, rest) for head, rest in found.get("Raises", [])]
    return rows


def signature(rows: list) -> str:  # "(x, *, y=1)"
    "The signature without annotations; the table below has them."
    P, parts, star = inspect.Parameter, [], False
    for name, kind, default, *_ in rows:
        if kind is None:  # what it returns
            continue
        if kind is P.KEYWORD_ONLY and not star:
            parts.append("*")
        star = star or kind in (P.VAR_POSITIONAL, P.KEYWORD_ONLY)
        mark = {P.VAR_POSITIONAL: "*", P.VAR_KEYWORD: "**"}.get(kind, "")
        parts.append(f"{mark}{name}" + ("" if default is None else f"={default}"))
    return f"({', '.join(parts)})"


def parameter_table(rows: list) -> str:  # markdown
    "Names, types and comments as a table; the column of types only where there are any."
    typed = any(row[3] for row in rows)
    lines = [["parameter", "type", "meaning"], ["---"] * 3]
    for name, kind, _, note, comment in rows:
        note = note.replace("|", "\\|")
        lines.append([f"*{name}*" if kind is None else f"`{name}`", f"`{note}`" if note else "", plain_text(comment)])
    return "\n".join(f"| {' | '.join(line if typed else [line[0], line[2]])} |" for line in lines) if rows else ""


def entry(kind: str, name: str, function, text: str, more: str = "", flags: str = "") -> str:  # markdown
    "One function, class or method in the language of the site's builder; `more` stands below its parameters."
    rows = parameters(function, text) if function is not None else []
    head = f"{name}{signature(rows) if function is not None else ''}"
    fence = "`" * (6 if "````" in more else 5 if "```" in more else 4)
    body = "\n\n".join(filter(None, [plain_text(split_docstring(text)[0]), parameter_table(rows), more]))
    return f"{fence}{{py:{kind}}} {head}\n{flags}\n{body}\n{fence}"


class Shown:
    "What the lesson of a module gives to its reference: examples, and the cells where the source is."

    def __init__(self, module: str, names: list, cells: list):
        # `cells`: (number, source without directives, "export" | "example" | "", outputs) in the notebook's order
        self.lesson = Lesson(module, names, [cell[:3] for cell in cells if cell[2]])
        self.outputs = {number: outputs for number, _, _, outputs in cells}
        self.methods = {}
        for number, source, kind, _ in cells:
            for found in re.finditer(r"^@patch\b.*\n(?:@.*\n)*def (\w+)\(\s*\w+: (\w+)", source, re.M):
                if kind == "export":
                    self.methods[f"{found[2]}.{found[1]}"] = number

    def example(self, name: str) -> str:  # markdown; empty for none
        "An example of a name that runs by itself, and what it shows."
        made = self.lesson.example(name)
        if made is None:
            return ""
        code, cell, last = made
        parts = ["**Example**", f"```python\n{code}\n```"]
        if last and (text := output_text(self.outputs.get(cell, []))):
            parts.append(f"```text\n{text}\n```")
        return "\n\n".join(parts)

    def source(self, name: str) -> str:  # HTML; empty where the source is not on the page
        "A fold that shows the cell in which a name is defined."
        number = self.methods.get(name) if "." in name else self.lesson.defined.get(name)
        if number is None:
            return ""
        return (
            f'<details class="source" data-cell="cell-{number}"><summary>Source</summary>'
            f'<p><a href="#cell-{number}">The cell in the lesson</a></p></details>'
        )


def output_text(outputs: list) -> str:  # empty where there is none, or too much
    "What a cell printed or showed, as plain text."
    texts = ["".join(o["text"]) if "text" in o else "".join(o.get("data", {}).get("text/plain", "")) for o in outputs
             if o.get("name") != "stderr"]
    text = "\n".join(filter(None, texts)).rstrip()
    few = text.count("\n") < OUTPUT and max(map(len, text.splitlines()), default=0) <= 110
    return text if few and "```" not in text and not re.search(r"<[\w.]+ (?:at|size)|^(?:Figure|chart)", text) else ""


def property_entry(name: str, value: property) -> str:  # markdown
    "A property, with what it gives."
    text = inspect.getdoc(value)
    rows = [row for row in parameters(value.fget, text) if row[4]]
    return entry("property", name, None, text, parameter_table(rows))


def class_entry(cls, shown: Shown | None = None, flags: str = "") -> str:  # markdown
    "A class, its parameters and its public methods."
    from dataclasses import is_dataclass

    methods = []
    for name, value in vars(cls).items():
        function = getattr(value, "__func__", value)
        if name.startswith("_") and name != "__call__":
            continue
        if isinstance(value, property):
            methods.append(property_entry(name, value))
        elif inspect.isfunction(function):
            kind = {staticmethod: ":staticmethod:\n", classmethod: ":classmethod:\n"}.get(type(value), "")
            more = shown.source(f"{cls.__name__}.{name}") if shown else ""
            methods.append(entry("method", name, function, inspect.getdoc(function), more, kind + flags))
    own = set(vars(cls))
    for base in cls.__mro__[1:]:
        if base.__module__.startswith("cryptolab"):
            names = ", ".join(
                f"`{name}`" for name in vars(base)
                if not name.startswith("_") and name not in own and callable(getattr(base, name))
            )
            own |= set(vars(base))
            methods.append(f"From {{py:obj}}`{base.__module__}.{base.__name__}`: {names}.")
    init = vars(cls).get("__init__")
    made = cls if is_dataclass(cls) else init if inspect.isfunction(init) else None
    text = inspect.getdoc(cls) or ""
    if init and "Parameters" not in split_docstring(text)[1]:  # an error has them in its constructor
        text += "\n\n" + (inspect.getdoc(init) or "")
    more = [shown.example(cls.__name__), shown.source(cls.__name__)] if shown else []
    return entry("class", cls.__name__, made, text, "\n\n".join([*filter(None, more), *methods]), flags)


def one_name(module, name: str, shown: Shown | None = None, flags: str = "") -> str:  # markdown
    "One name that a module defines."
    value = getattr(module, name)
    if inspect.isclass(value):
        return class_entry(value, shown, flags)
    more = "\n\n".join(filter(None, [shown.example(name), shown.source(name)])) if shown else ""
    if callable(value) and hasattr(value, "__name__"):
        return entry("function", name, value, inspect.getdoc(value), more, flags)
    text = repr(value) if isinstance(value, (str, int, float, tuple, list, dict)) else ""
    text = "" if re.search(r"<\w[^>]* at 0x|<(?:class|function) ", text) else text[:300] + "…" * (len(text) > 300)
    return entry(
        "data", name, None, "",
        "\n\n".join(filter(None, [
            f"```text\n{text}\n```" if text and "```" not in text else "A value of the module.", more,
        ])), flags,
    )


def reference(module: str, cells: list | None = None, flags: str = "") -> list:  # markdown cells
    "What a module exports, with the comments of every parameter; `cells` of its lesson give examples and source."
    dotted = f"cryptolab.{module}".removesuffix(".__init__")
    found = importlib.import_module(dotted)
    names, entries, others = list(getattr(found, "__all__", [])), [], []
    names.sort(key=lambda name: not callable(getattr(found, name)))  # values last, else in the order of the lesson
    shown = Shown(module, names, cells) if cells else None
    defined = Path(inspect.getfile(found)).read_text(encoding="utf-8")
    for name in names:
        own = re.search(rf"^(?:def|class) {name}\b|^{name}\b.*=|^[\w, ]*\b{name}\b[\w, ]*=", defined, re.M)
        (entries if own else others).append(one_name(found, name, shown, flags) if own else name)
    if not entries and not others:
        return []
    intro = f"## Reference\n\nWhat `from {dotted} import …` offers."
    if others:
        intro += " From other modules, for convenience: " + ", ".join(f"{{py:obj}}`{name}`" for name in others) + "."
    return [f"{intro}\n\n```{{py:currentmodule}} {dotted}\n```", *entries]
