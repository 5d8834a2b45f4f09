"""What programs may rely on: every documented name is there, typed and described, and the table of names is true."""

from __future__ import annotations

import ast
import inspect
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest

import casstore

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "casstore"
API = (ROOT / "docs/reference/api.md").read_text()
SHOWN = sorted({*re.findall(r"^::: (\S+)", API, re.MULTILINE), "casstore.aio.Snapshot", "casstore.aio.SnapshotHandle"})


def find(path: str) -> object:
    """What a dotted path stands for."""
    parts = path.split(".")
    for count in range(len(parts), 0, -1):
        try:
            found: object = import_module(".".join(parts[:count]))
        except ModuleNotFoundError:
            continue
        for name in parts[count:]:
            found = getattr(found, name)
        return found
    raise AssertionError(f"{path} is nowhere")


def test_the_table_of_the_reference_is_what_the_package_exports() -> None:
    table = API.partition("## What is public")[2].partition("\n## ")[0]
    rows = re.findall(r"^\|([^|]*`[^|]*)\|", table, re.MULTILINE)
    told = [name for row in rows for name in re.findall(r"`(\w+)`", row)]
    assert sorted(told) == sorted(set(casstore.__all__) - {"__version__"})


def test_what_the_package_exports_is_described() -> None:
    homes = {f"casstore.{module}" for module in casstore._HOME.values()} & set(SHOWN)
    paths = {
        f"casstore.{module}.{name}" for name, module in casstore._HOME.items() if f"casstore.{module}" not in homes
    }
    assert not paths - set(SHOWN)


def test_what_the_package_exports_is_there() -> None:
    assert not [name for name in casstore.__all__ if getattr(casstore, name, None) is None]
    assert dir(casstore) == sorted(casstore.__all__)


def test_type_checkers_see_the_same_names_from_the_same_modules() -> None:
    tree = ast.parse((PACKAGE / "__init__.py").read_bytes())
    seen = {
        alias.asname: (node.module or "").removeprefix("casstore.")
        for block in tree.body
        if isinstance(block, ast.If)
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert seen == casstore._HOME


def test_importing_the_package_imports_nothing_else_of_it() -> None:
    code = "import sys, casstore; print(sorted(name for name in sys.modules if name.startswith('casstore')))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['casstore']"
    with pytest.raises(AttributeError, match="'casstore' has no attribute 'nothing'"):
        _ = casstore.nothing


# --- every name of the reference -------------------------------------------------------------------------------------


def functions(thing: object) -> Iterator[tuple[str, inspect._SourceObjectType]]:
    """A function, or the public methods of a class, and of a module's functions and classes."""
    if isinstance(thing, ModuleType):
        for name, each in vars(thing).items():
            if name[0] != "_" and getattr(each, "__module__", "") == thing.__name__:
                yield from functions(each)
    elif inspect.isclass(thing):
        for base in thing.__mro__:
            if base.__module__.startswith("casstore."):
                for name, each in vars(base).items():
                    plain = inspect.unwrap(getattr(each, "__func__", getattr(each, "fget", each)))
                    if name[0] != "_" and inspect.isfunction(plain):
                        yield f"{thing.__qualname__}.{name}", plain
    elif inspect.isfunction(thing):
        yield thing.__qualname__, inspect.unwrap(thing)


@pytest.mark.parametrize("path", SHOWN)
def test_what_the_reference_shows_is_there_described_and_says_what_it_raises(path: str) -> None:
    found = find(path)
    about = inspect.getdoc(found)
    assert about, path
    for name, function in functions(found):
        told = inspect.getdoc(function)
        assert told, f"{name} has no docstring"
        source = inspect.getsource(function)
        tree = ast.parse(f"if 1:\n{source}" if source[0] == " " else source)
        raised = set(_raised(tree)) - {"AssertionError"}
        assert not raised or re.search("[Rr]aise", told + about), f"{name} raises {raised}, and does not say so"


def _raised(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call) and isinstance(node.exc.func, ast.Name):
            yield node.exc.func.id


def test_what_holds_something_open_is_a_context_manager_and_what_takes_long_tells_how_far_it_is() -> None:
    for path in SHOWN:
        found = find(path)
        if inspect.isclass(found) and hasattr(found, "close"):
            assert hasattr(found, "__enter__"), path
            assert hasattr(found, "__exit__"), path
        for name, function in functions(found):
            parameters = inspect.signature(function).parameters  # type: ignore[arg-type]
            works = "workers" in parameters and not name.endswith(".transaction")
            assert not works or "progress" in parameters, f"{name} takes long, and does not tell how far it is"


# --- completeness of types -------------------------------------------------------------------------------------------


def untyped(tree: ast.Module) -> Iterator[str]:
    """Public attributes that are assigned and nowhere annotated: type checkers may each infer another type for them.
    What mypy asks for, as the types of functions, is not looked at.
    """
    for kind in [node for node in tree.body if isinstance(node, ast.ClassDef) and node.name[0] != "_"]:
        known = {node.name for node in kind.body if isinstance(node, ast.FunctionDef)}
        assigned = set()
        for node in ast.walk(kind):
            if isinstance(node, ast.AnnAssign):
                known.add(node.target.attr if isinstance(node.target, ast.Attribute) else ast.unparse(node.target))
            elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and node.attr[0] != "_":
                assigned |= {node.attr} if isinstance(node.value, ast.Name) and node.value.id == "self" else set()
        yield from (f"{kind.name}.{name}" for name in sorted(assigned - known))


def test_public_attributes_have_a_type() -> None:
    found = {
        str(path.relative_to(PACKAGE)): list(untyped(ast.parse(path.read_bytes()))) for path in PACKAGE.rglob("*.py")
    }
    assert {path: names for path, names in found.items() if names} == {}, "annotate them where they are assigned first"


def test_the_rule_sees() -> None:
    source = "class A:\n    x: int\n    def __init__(self):\n        self.x, self.y = 1, 2\n        self.z: int = 3"
    assert list(untyped(ast.parse(source))) == ["A.y"]
