#!/usr/bin/env python3
"""Fail when a notebook does not stand where its module is, or a module uses one above it: check_layout.py [ROOT].
Reads files only.

`nbs/70_systems/30_v9/90_system.ipynb` exports `systems.v9.system`; `NN_<room>.ipynb` in a room's folder exports its
face `<room>.__init__`. A module uses only modules with smaller numbers, compared folder by folder from the top; an
import inside a function counts too. Methods stand in their class, and a call names its arguments after the sixth.
"""
import ast
import json
import re
import sys
from dataclasses import dataclass, field
from pathlib import Path

from check_modules import problem
from tree import ROOT

LIBRARY = "cryptolab"
NUMBERED = re.compile(r"(\d+)_(.+)")
EXPORTS = re.compile(r"#\s*\|\s*default_exp +([\w.]+)")
MENTION = re.compile(rf"(?<!getLogger\(\")(?<![\w./-]){LIBRARY}((?:\.[A-Za-z_]\w*)+)(?::([A-Za-z_]\w*))?(?!\w*[/(-])")
GUESTS = ("tests", "tools", "benchmarks", "colab")  # they use the library's public names, as everybody does
WITHOUT_MODULES = ("tutorials", "studies", "templates")  # folders of nbs


MOST_BY_PLACE = 6  # arguments that a call may pass without their names


@dataclass
class Module:
    "One module of the library, its notebook and what it uses."

    name: str  # such as systems.v9.system; a face is systems.__init__
    path: Path  # the Python file
    notebook: Path | None = None  # the notebook that exports it
    uses: dict = field(default_factory=dict)  # {module: line of the first import}
    private: list = field(default_factory=list)  # (line, name) of underscore names of other modules
    missing: list = field(default_factory=list)  # (line, name) of what is imported and does not exist
    names: set = field(default_factory=set)  # names that it binds at the top
    tree: ast.Module | None = None  # its syntax tree

    @property
    def floor(self) -> list:  # [(number, name), …] from the top folder to the notebook; empty without a notebook
        "Where the notebook stands."
        parts = self.notebook.parts if self.notebook else ()
        found = [NUMBERED.fullmatch(part.removesuffix(".ipynb")) for part in parts[1:]]
        return [(int(m[1]), m[2]) for m in found] if all(found) else []


# ---- what there is

def top_names(tree: ast.Module) -> set:
    "Names that a module binds outside functions and classes."
    found, todo = set(), list(tree.body)
    while todo:
        node = todo.pop()
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            found.add(node.name)
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            found |= {(alias.asname or alias.name).split(".")[0] for alias in node.names}
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
        else:
            todo += ast.iter_child_nodes(node)
    return found


class House:
    "The modules of a checkout, from their files."

    def __init__(self, root: Path):  # a checkout
        self.root, self.modules = root, {}
        for path in sorted((root / LIBRARY).rglob("*.py")):
            parts = path.relative_to(root / LIBRARY).with_suffix("").parts
            if "__pycache__" not in parts and parts[-1] != "_modidx":
                self.modules[".".join(parts)] = Module(".".join(parts), path)
        self.notebooks = {p: self._exported(p) for p in sorted((root / "nbs").rglob("[!._]*.ipynb"))
                          if not any(part[0] in "._" for part in p.relative_to(root).parts)}
        for path, name in self.notebooks.items():
            if name in self.modules:
                self.modules[name].notebook = path.relative_to(root)
        trees = {m.name: ast.parse(m.path.read_text(encoding="utf-8")) for m in self.modules.values()}
        for name, tree in trees.items():
            self.modules[name].names, self.modules[name].tree = top_names(tree), tree
        for name, tree in trees.items():
            self._read(self.modules[name], tree)
        self.guests = [Module(path.stem, path) for folder in GUESTS for path in sorted((root / folder).rglob("*.py"))]
        for guest in self.guests:
            guest.tree = ast.parse(guest.path.read_text(encoding="utf-8"))
            self._read(guest, guest.tree)

    @staticmethod
    def _exported(path):
        found = EXPORTS.search(path.read_text(encoding="utf-8"))
        return found[1] if found else ""

    def module(self, dotted: str) -> str:  # name in `modules`: the module itself or a package's face; empty for none
        "The module that `cryptolab.<dotted>` is."
        face = f"{dotted}.__init__" if dotted else "__init__"
        return dotted if dotted in self.modules and dotted else face if face in self.modules else ""

    def _read(self, module, tree):
        "Fill in what a module imports, and which private names it takes from others."
        package = module.name.split(".")[:-1]
        bound = {}  # local name -> dotted name inside the library, of modules
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    if alias.name.split(".")[0] == LIBRARY:
                        dotted = alias.name.removeprefix(LIBRARY).strip(".")
                        bound[alias.asname or LIBRARY] = dotted if alias.asname else ""
                        self._use(module, dotted, node.lineno)
            elif isinstance(node, ast.ImportFrom):
                if node.level:
                    base = package[: len(package) - node.level + 1] + (node.module or "").split(".")
                elif (node.module or "").split(".")[0] == LIBRARY:
                    base = node.module.split(".")[1:]
                else:
                    continue
                base = ".".join(filter(None, base))
                for alias in node.names:
                    inner = f"{base}.{alias.name}".strip(".")
                    if self.module(inner):
                        bound[alias.asname or alias.name] = inner
                        self._use(module, inner, node.lineno)
                        continue
                    self._use(module, base, node.lineno)
                    found = self.module(base)
                    if found and (found == module.name or alias.name not in {"*", *self.modules[found].names}):
                        module.missing.append((node.lineno, f"{base}.{alias.name}"))
                    if alias.name[0] == "_" and not alias.name.startswith("__") and found != module.name:
                        module.private.append((node.lineno, inner))
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and node.attr[0] == "_" and not node.attr.startswith("__"):
                chain, value = [], node.value
                while isinstance(value, ast.Attribute):
                    chain, value = [value.attr, *chain], value.value
                if isinstance(value, ast.Name) and value.id in bound:
                    dotted = ".".join(filter(None, [bound[value.id], *chain]))
                    if self.module(dotted) not in ("", module.name):
                        module.private.append((node.lineno, f"{dotted}.{node.attr}"))

    def _use(self, module, dotted, line):
        "One arrow. A package without a face that is merely a parent is none."
        found = self.module(dotted)
        if not found:
            module.missing.append((line, dotted))
        elif found not in ("__init__", module.name):
            module.uses.setdefault(found, line)

    @property
    def rooms(self) -> list:  # sorted names
        "The rooms: top folders of the library."
        return sorted({name.split(".")[0] for name in self.modules if "." in name})

    def closure(self, names) -> set:  # names of modules, the given ones among them
        "Everything that some modules use, through others too."
        found, todo = set(), list(names)
        while todo:
            name = todo.pop()
            if name not in found:
                found.add(name)
                todo += self.modules[name].uses
        return found


# ---- what is refused

def misplaced(house: House) -> list:  # one line per notebook
    "Notebooks whose path is not the path of their module, and those that were not exported."
    problems = []
    for path, module in house.notebooks.items():
        name = path.relative_to(house.root / "nbs")
        if name.parts[0] in WITHOUT_MODULES or name.as_posix() == "index.ipynb":
            if module:
                problems.append(f"{path.relative_to(house.root)}: exports `{module}`; this folder has no modules")
            continue
        parts = [NUMBERED.fullmatch(part) for part in name.with_suffix("").parts]
        if not all(parts):
            problems.append(f"{path.relative_to(house.root)}: a folder or notebook without a number")
            continue
        plain = [part[2] for part in parts]
        allowed = {".".join(plain)} | (
            {".".join([*plain[:-1], "__init__"])} if plain[-1] == (plain[-2] if len(plain) > 1 else LIBRARY) else set()
        )
        if module not in allowed:
            problems.append(
                f"{path.relative_to(house.root)}: exports `{module or 'nothing'}` and not `{sorted(allowed)[-1]}`"
            )
        elif module not in house.modules:
            problems.append(f"{path.relative_to(house.root)}: `{module}` was not exported")
    return problems


def twins(house: House) -> list:  # one line per folder and name
    "Notebooks of one folder that have one name without the numbers."
    seen, problems = {}, []
    for path in house.notebooks:
        match = NUMBERED.fullmatch(path.stem)
        first = seen.setdefault((path.parent, match[2] if match else path.stem), path)
        if first != path:
            problems.append(f"{path.relative_to(house.root)}: the folder has {first.name} already")
    return problems


def climbs(source: Module, target: Module) -> bool:
    "Whether an import leads to a number that is not smaller."
    for (here, own), (there, other) in zip(source.floor, target.floor):
        if (here, own) != (there, other):
            return there >= here
    return False


def arrows(house: House) -> list:  # one line per import
    "Imports to larger numbers."
    return [
        f"{m.path.relative_to(house.root)}:{line}: {m.notebook} uses {house.modules[name].notebook}, whose number is "
        "not smaller"
        for m in house.modules.values()
        for name, line in m.uses.items()
        if climbs(m, house.modules[name])
    ]


def circles(house: House) -> list:  # lists of module names
    "Groups of modules that use one another (strongly connected components of more than one module)."
    index, low, stack, found = {}, {}, [], []

    def visit(name):
        index[name] = low[name] = len(index)
        stack.append(name)
        for other in house.modules[name].uses:
            if other not in index:
                visit(other)
            if other in stack:
                low[name] = min(low[name], low[other])
        if low[name] == index[name]:
            at = stack.index(name)
            group, stack[at:] = stack[at:], []
            if len(group) > 1:
                found.append(sorted(group))

    for name in house.modules:
        if name not in index:
            visit(name)
    return found


def private_names(house: House) -> list:  # one line per use
    "Underscore names of one module used in another."
    return [f"{m.path.relative_to(house.root)}:{line}: `{name}` is private to its module"
            for m in [*house.modules.values(), *house.guests] for line, name in m.private]


def mentions(house: House) -> list:  # one line per mention
    "Dotted names in library, tools, benchmarks, notebooks and README that lead nowhere, and imports of nothing."
    problems = [
        f"{m.path.relative_to(house.root)}:{line}: `{LIBRARY}.{name}` does not exist" for m in house.modules.values()
        for line, name in m.missing
    ]
    own = Path(__file__).resolve()
    texts = [p for folder in (LIBRARY, "tools", "benchmarks") for p in sorted((house.root / folder).rglob("*.py"))
             if p.name != "_modidx.py" and p.resolve() != own]
    for path in [*texts, *house.notebooks, house.root / "README.md"]:
        if path.is_file():
            for match in MENTION.finditer(sources(path)):
                if not resolves(house, match[1][1:], match[2]):
                    problems.append(f"{path.relative_to(house.root)}: `{match[0]}` names nothing")
    return problems


def late_assignments(house: House) -> list:  # one line per attribute
    "Attributes that a module gives a class after its definition: `Class.method = _method`."
    problems = []
    for module in house.modules.values():
        for node in module.tree.body:
            targets = getattr(node, "targets", [getattr(node, "target", None)])
            problems += [
                f"{module.path.relative_to(house.root)}:{node.lineno}: `{ast.unparse(inner)} = …`; define it in the "
                "class, or with `@patch` in the notebook"
                for target in filter(None, targets) for inner in ast.walk(target)
                if isinstance(inner, ast.Attribute) and isinstance(inner.ctx, ast.Store)
                and isinstance(inner.value, ast.Name) and inner.value.id[0].isupper()
            ]
    return problems


def code_cells(path: Path) -> list:  # (id, syntax tree) of the cells that are plain Python
    "The code of a notebook."
    found = []
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        if cell["cell_type"] == "code":
            try:
                found.append((cell.get("id"), ast.parse(re.sub(r"^[%!].*", "", "".join(cell["source"]), flags=re.M))))
            except SyntaxError:
                continue
    return found


def definitions(trees) -> dict:  # name -> whether it takes any number of arguments (`*args`)
    "Functions, methods and classes; a class counts as its constructor."
    found = {}
    for node in (node for tree in trees for node in ast.walk(tree)):
        made = node
        if isinstance(node, ast.ClassDef):
            made = next((n for n in node.body if getattr(n, "name", "") == "__init__"), None)
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            found[node.name] = found.get(node.name, False) or bool(made and made.args.vararg)
    return found


def crowded_calls(house: House) -> list:  # one line per call
    "Calls of the library's functions that pass more than six arguments by place: nobody can read those."
    library, problems = definitions(m.tree for m in house.modules.values()), []
    places = {path: code_cells(path) for path in house.notebooks}
    places |= {m.path: [("", m.tree)] for m in house.guests if "tests" not in m.path.relative_to(house.root).parts}
    for path, cells in places.items():
        known = {**library, **definitions(tree for _, tree in cells)}
        for cell, node in ((cell, node) for cell, tree in cells for node in ast.walk(tree)):
            if isinstance(node, ast.Call) and len(node.args) > MOST_BY_PLACE:
                name = getattr(node.func, "id", getattr(node.func, "attr", ""))
                if known.get(name) is False:
                    where = f"{path.relative_to(house.root)}{f', cell {cell}' if cell else f':{node.lineno}'}"
                    many = f"`{name}` with {len(node.args)} arguments by place"
                    problems.append(f"{where}: {many}; name those after the sixth")
    return problems


def sources(path: Path) -> str:
    "The text of a file; of a notebook its cells without their outputs."
    text = path.read_text(encoding="utf-8")
    if path.suffix != ".ipynb":
        return text
    return "\n".join("".join(cell["source"]) for cell in json.loads(text)["cells"])


def resolves(house: House, dotted: str, after: str | None = None) -> bool:  # `after`: the name behind a colon
    "Whether a dotted name is a package, a module or a name at the top of a module."
    parts = dotted.split(".")
    if parts[0].startswith("__") or dotted == "_modidx":  # of the package itself, such as cryptolab.__version__
        return True
    for n in range(len(parts), 0, -1):
        head = ".".join(parts[:n])
        rest = [*parts[n:], *([after] if after else [])]
        if found := house.module(head):
            return not rest or rest[0] in house.modules[found].names or rest[0].startswith("__")
        if (house.root / LIBRARY / Path(*parts[:n])).is_dir():
            return not rest
    return False


def check(root: Path) -> tuple:  # (problems, one line of summary)
    "Everything that is refused, and the closing line of `make test`."
    house = House(root)
    up, round_ = arrows(house), circles(house)
    problems = [
        *misplaced(house), *twins(house), *up, *(f"a circle: {' → '.join([*group, group[0]])}" for group in round_),
        *private_names(house), *mentions(house), *late_assignments(house), *crowded_calls(house),
    ]
    count = sum(m.notebook is not None for m in house.modules.values())
    return (
        problems,
        f"{count} modules in {len(house.rooms)} rooms, {len(round_)} circles, {len(up)} arrows to larger numbers",
    )


if __name__ == "__main__":
    root = Path(sys.argv[1]).resolve() if sys.argv[1:] else ROOT
    problems, line = check(root)
    if root == ROOT:
        modules = sorted(p for p in (root / LIBRARY).rglob("*.py") if "__pycache__" not in p.parts)
        problems += [found for module in modules if (found := problem(module, root))]
    print(*problems, line, sep="\n")
    sys.exit(bool(problems))
