"""The page of all commands, written from the program itself: its commands, options, defaults and words of help."""
import importlib
import importlib.util
import inspect
import re
import sys
from enum import Enum

from tree import ROOT

sys.path.insert(0, str(ROOT))
INTRO = """# All commands

> Every command of `cryptolab` with its arguments and options, as the program itself declares them

`cryptolab COMMAND --help` shows the same in a terminal. What is not
given comes from `settings.ini` where the help says so.
"""


def program():
    "The program `cryptolab` as a tree of commands."
    import typer
    from cryptolab.cli.main import app

    return typer.main.get_command(app)


def behind(name: str, command):  # the command itself, or the program that it hands its words to
    "Some commands are programs of their own, imported only when they are called: `runs` is `runs_app` of cli.runs."
    import typer

    dotted = f"cryptolab.cli.{name}"
    if getattr(command, "commands", {}) or importlib.util.find_spec(dotted) is None:
        return command
    app = getattr(importlib.import_module(dotted), f"{name}_app", None)
    return command if app is None else typer.main.get_command(app)


def commands(command, path: str = "cryptolab"):  # yields (such as "cryptolab runs ls", command)
    "Every command of a program that is not hidden, from the outside in; a group comes before what it holds."
    if path.count(" ") == 1:
        command = behind(path.split()[-1], command)
    yield path, command
    for name, inner in getattr(command, "commands", {}).items():
        if not inner.hidden:
            yield from commands(inner, f"{path} {name}")


def as_text(text: str | None) -> str:  # markdown of one line
    "A help text as it is; `code` stays code."
    parts = re.split(r"(`[^`]+`)", re.sub(r"\s+", " ", (text or "").replace("\b", "").replace("\f", "")).strip())
    return "".join(
        part.replace("|", "\\|") if i % 2 else re.sub(r"([\\*_\[\]<>$|{}#~])", r"\\\1", part)
        for i, part in enumerate(parts)
    )


def without_sections(text: str | None) -> str:
    "A help text without the tables of parameters that docstrings carry."
    return re.split(r"^\w+\n-{3,}$", inspect.cleandoc(text or ""), flags=re.M)[0].strip()


def value_type(param):  # a type, or None where this version of typer does not tell
    "What the value of an option becomes."
    if hasattr(param, "type_descriptor"):
        return param.type_descriptor.annotation
    return {"integer": int, "float": float}.get(getattr(getattr(param, "type", None), "name", ""))


def flags(param) -> str:  # markdown
    "How an argument or option is written."
    if param.param_type_name == "argument":
        return f"`{(param.metavar or param.name).strip('[]').upper()}`"
    names = ", ".join(f"`{name}`" for name in [*param.opts, *param.secondary_opts])
    number = value_type(param) in (int, float)
    return names if param.is_flag else f"{names} `{param.metavar or ('NUMBER' if number else 'TEXT')}`"


def meaning(param) -> str:  # markdown
    "The help of an argument or option, its choices, whether it is needed, and its default if it has one."
    parts = [as_text(getattr(param, "help", ""))]
    kind = value_type(param)
    choices = getattr(getattr(param, "type", None), "choices", None) or [
        member.value for member in (kind if isinstance(kind, type) and issubclass(kind, Enum) else ())
    ]
    if choices:
        parts.append("one of " + ", ".join(f"`{choice}`" for choice in choices))
    if param.required:
        parts.append("required")
    value = param.default
    if isinstance(value, (str, int, float)) and not isinstance(value, bool) and value != "":
        if "default" not in parts[0]:
            parts.append(f"default `{value}`")
    return "; ".join(filter(None, parts))


def command_text(path: str, command) -> str:  # markdown
    "One command: what it does, how it is called, and a table of its arguments and options."
    groups, params = getattr(command, "commands", {}), [p for p in command.params if not getattr(p, "hidden", False)]
    arguments = [p for p in params if p.param_type_name == "argument"]
    shown = [flags(p).strip("`") if p.required else f"[{flags(p).strip('`')}]" for p in arguments]
    call = " ".join([path, *shown, *(["COMMAND"] if groups else []), "[OPTIONS]"])
    help_texts = re.split(r"\n\s*\n", without_sections(command.help))
    lines = ["##" + "#" * (path.count(" ") > 1) + f" {path}", "", *[f"{as_text(t)}\n" for t in help_texts]]
    lines += ["```text", call, "```", ""]
    rows = [(flags(p), meaning(p)) for p in params if not (p.opts and "--help" in p.opts)]
    if rows:
        lines += ["| option | meaning |", "| --- | --- |", *(f"| {name} | {text} |" for name, text in rows), ""]
    return "\n".join(lines)


def commands_page() -> str:  # markdown
    "The whole page."
    found = list(commands(program()))
    lines = ["| command | |", "| --- | --- |"]
    for path, command in found[1:]:
        first = as_text(without_sections(command.help).split("\n\n")[0])
        lines.append(f"| [`{path.partition(' ')[2]}`](#{path.replace(' ', '-')}) | {first} |")
    return "\n".join([INTRO, *lines, "", *(command_text(*one) for one in found)])
