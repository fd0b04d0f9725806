"""Imports point down only (DESIGN, "Floors"), and in no circle: read from the source by ast."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

# From the ground up. A module may import from its own floor and from those below it.
FLOORS: list[tuple[str, ...]] = [
    ("minigan_kernels",),
    ("minigan.errors",),
    ("minigan.random", "minigan.backend", "minigan.cuda"),
    ("minigan.tensor", "minigan.holders", "minigan.autograd", "minigan.recompute"),
    ("minigan.check", "minigan.debug", "minigan.ops", "minigan.functional"),
    ("minigan",),  # the package itself: the public names of the engine
    (
        "minigan.nn",
        "minigan.optim",
        "minigan.data",
        "minigan.weights",
        "minigan.augment",
        "minigan.losses",
        "minigan.penalties",
        "minigan.reconstruction",
        "minigan.regularizers",
    ),
    ("minigan.gans",),
    ("minigan.metrics",),
    ("minigan.training",),
    ("minigan.trace", "minigan.apps", "minigan.cli"),
    ("minigan.__main__",),
]
# Modules of one floor may import one another, but the second of a pair never the first.
ORDER = [
    ("minigan.cuda", "minigan.backend"),
    ("minigan.functional", "minigan.ops"),
    ("minigan.losses", "minigan.nn"),
    ("minigan.losses", "minigan.optim"),
    ("minigan.cli", "minigan.apps"),
    ("minigan.cli", "minigan.trace"),
]


def modules(root: Path) -> dict[str, Path]:
    """Dotted name -> file of every module of both packages."""
    found: dict[str, Path] = {}
    for base, package in ((root, "minigan"), (root / "kernels", "minigan_kernels")):
        for path in sorted((base / package).rglob("*.py")):
            parts = path.relative_to(base).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def is_type_checking(test: ast.expr) -> bool:
    return getattr(test, "id", getattr(test, "attr", "")) == "TYPE_CHECKING"


def statements(body: list[ast.stmt], deep: bool) -> Iterator[ast.stmt]:
    """Statements that run: without TYPE_CHECKING blocks, and functions only if `deep`."""
    for node in body:
        if isinstance(node, ast.If) and is_type_checking(node.test):
            yield from statements(node.orelse, deep)
            continue
        yield node
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not deep:
            continue
        for name in ("body", "orelse", "finalbody"):
            yield from statements(getattr(node, name, []), deep)
        for handler in getattr(node, "handlers", []):
            yield from statements(handler.body, deep)
        for case in getattr(node, "cases", []):
            yield from statements(case.body, deep)


def imports(name: str, path: Path, known: set[str], deep: bool) -> set[str]:
    """The modules of ours that `name` imports; with `deep`, inside functions too."""
    found: set[str] = set()
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    for node in statements(ast.parse(path.read_text(encoding="utf-8")).body, deep):
        if isinstance(node, ast.Import):
            found.update(longest(alias.name, known) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package.split(".")[: len(package.split(".")) - node.level + 1]
            origin = ".".join([*base, node.module or ""]).strip(".") if node.level else node.module
            for alias in node.names:
                found.add(longest(f"{origin}.{alias.name}", known))
    return {m for m in found if m and m != name}


def longest(dotted: str, known: set[str]) -> str:
    """The longest prefix of a dotted name that is one of our modules, or ""."""
    parts = dotted.split(".")
    for end in range(len(parts), 0, -1):
        if ".".join(parts[:end]) in known:
            return ".".join(parts[:end])
    return ""


def place(name: str) -> tuple[int, str]:
    """(floor, its entry) of a module."""
    for i, floor in enumerate(FLOORS):
        for entry in floor:
            if name == entry or (entry != "minigan" and name.startswith(entry + ".")):
                return i, entry
    raise AssertionError(f"{name} stands on no floor: add it to FLOORS in {Path(__file__).name}")


def violations(root: Path) -> list[str]:
    """Every upward import, wherever it stands, and every circle of imports at module level."""
    known = modules(root)
    problems: list[str] = []
    for name, path in known.items():
        for target in sorted(imports(name, path, set(known), deep=True)):
            (mine, entry), (theirs, other) = place(name), place(target)
            if theirs > mine or (other, entry) in ORDER:
                problems.append(f"{name} imports {target}, upward")
            if entry == "minigan_kernels" and other != entry:
                problems.append(f"{name} imports {target}: kernels know arrays only")
    graph = {name: imports(name, path, set(known), deep=False) for name, path in known.items()}
    return problems + [f"circle: {' -> '.join(c)}" for c in circles(graph)]


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """One circle through each module that lies on one (parents' __init__ do not count)."""
    found: list[list[str]] = []
    state: dict[str, int] = {}

    def visit(name: str, path: list[str]) -> None:
        state[name] = 1
        for target in sorted(graph.get(name, ())):
            if state.get(target) == 1:
                found.append([*path[path.index(target) :], target])
            elif target not in state:
                visit(target, [*path, target])
        state[name] = 2

    for name in sorted(graph):
        if name not in state:
            visit(name, [name])
    return found


def test_imports_point_down() -> None:
    assert violations(ROOT) == []


def test_every_module_stands_on_a_floor() -> None:
    for name in modules(ROOT):
        place(name)


PLANTED = {
    "upward": ({"minigan/ops/conv.py": "from minigan.nn import layers"}, "minigan.ops.conv"),
    "upward in a function": (
        {"minigan/tensor.py": "def f():\n    import minigan.ops.shape"},
        "minigan.tensor imports minigan.ops.shape, upward",
    ),
    "relative": ({"minigan/nn/layers.py": "from ..gans import dcgan"}, "minigan.gans"),
    "kernel": ({"kernels/minigan_kernels/cpu/conv.py": "import minigan.errors"}, "arrays only"),
    "package root": ({"minigan/ops/norm.py": "import minigan"}, "imports minigan, upward"),
    "circle": (
        {
            "minigan/ops/a.py": "from minigan.ops import b",
            "minigan/ops/b.py": "import minigan.ops.a",
        },
        "circle",
    ),
    "in try": (
        {"minigan/data/x.py": "try:\n    import minigan.cli\nexcept ImportError:\n    pass"},
        "minigan.data.x imports minigan.cli",
    ),
    "second of a pair": ({"minigan/nn/x.py": "import minigan.losses"}, "upward"),
}

GOOD = {
    "minigan/ops/good.py": "from typing import TYPE_CHECKING\nimport numpy\n"
    "from minigan.tensor import Tensor\nif TYPE_CHECKING:\n    from minigan.nn import layers\n",
    "minigan/tensor.py": "import minigan.backend",
}
TREE = [
    *(f"minigan/{p}/__init__.py" for p in ("ops", "nn", "gans", "cli", "data", "optim")),
    "minigan/__init__.py", "minigan/errors.py", "minigan/backend.py", "minigan/ops/shape.py",
    "minigan/nn/layers.py", "minigan/gans/dcgan.py", "minigan/losses.py",
    "kernels/minigan_kernels/__init__.py", "kernels/minigan_kernels/cpu/__init__.py",
]  # fmt: skip


def plant(root: Path, files: dict[str, str]) -> None:
    for name in TREE:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    for name, text in {**GOOD, **files}.items():
        (root / name).write_text(text)


def test_a_clean_tree_passes(tmp_path: Path) -> None:
    plant(tmp_path, {})
    assert violations(tmp_path) == []


@pytest.mark.parametrize("what", PLANTED)
def test_planted_violations_are_found(what: str, tmp_path: Path) -> None:
    files, expected = PLANTED[what]
    plant(tmp_path, files)
    problems = violations(tmp_path)
    assert any(expected in p for p in problems), problems
