"""The arrows between the modules point downwards, and each outside world has one door.

A new module must be placed in LAYERS. The rules look at the syntax tree, so an import inside a function counts too.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "casstore"

# From the bottom to the top. A module imports from its own layer and from those below it. A package stands for all
# modules in it.
LAYERS = {
    "words": {"errors", "spec", "digest", "names", "reference", "units", "visible", "jsondoc", "schema", "oci"},
    "content": {"content", "streams", "progress", "log", "pool", "pagecache"},
    "bytes": {
        *("byteranges", "chunker", "frame", "statfs", "disk", "sequential", "scan", "integrity", "tee", "tar"),
        "filesystem",
    },
    "documents": {"manifest", "dialects", "diskmap", "extents", "pack", "signatures"},
    "whole snapshots": {
        *("directories", "decoding", "artifact", "contents", "soundness", "seeds", "remains", "writing"),
        *("newchunks", "runs", "packer", "locality", "base", "dedup", "deltas", "lookup", "capture", "binding"),
        *("secretpatterns", "secrets", "storeddisk"),
    },
    "adapters": {
        *("durable", "memory", "blobs", "operation", "layout", "links", "locks", "trash", "refs", "stamps"),
        *("storeindex", "marker", "permissions", "storedir", "lastseen", "sources", "credentials", "registry"),
    },
    "derived": {
        *("attachments", "evidence", "survey", "graph", "tables", "queries", "catalog", "derived", "selection"),
        *("lineage", "staged", "transaction"),
    },
    "policy": {"retention", "trust"},
    "use cases": {
        *("create", "restore", "salvage", "transfer", "verify", "stats", "growth", "sign", "diskfiles"),
        *("checking", "comparing", "rebuilding", "gc", "removal", "adopt"),
    },
    "bridge": {"microsandbox"},
    "archives": {"archive"},
    "face": {
        *("config", "snapshot", "health", "listing", "places", "creation", "sandboxes", "importing", "archiving"),
        *("openstore", "moving", "exchanging", "store", "remote", "report", "opened", "doctor"),
    },
    "command line": {"cli", "__main__"},
    "SDK": {"aio"},
}
SIBLINGS = "use cases"  # none imports another

NETWORK = {"requests", "oras", "urllib3", "http", "socket", "ssl", "urllib.request"}
MAY_USE_NETWORK = {"registry"}

DURABILITY = {
    *(f"os.{call}" for call in ("fsync", "fdatasync", "sync", "rename", "renames", "replace", "link")),
    *(f"fcntl.{call}" for call in ("flock", "lockf")),
    "shutil.move",
}
MAY_USE_DURABILITY = {"durable"}

SURROUNDINGS = {
    *(f"os.{name}" for name in ("environ", "environb", "getenv", "getenvb", "_exit")),
    *(f"sys.{name}" for name in ("exit", "argv", "stdin", "stdout", "stderr")),
    *("os.path.expanduser", "os.path.expandvars", "Path.home", "pathlib.Path.home"),
    *("print", "input", "exit", "quit", "breakpoint", "expanduser", "*.expanduser"),
}
MAY_USE_SURROUNDINGS = {"cli", "aio", "__main__"}


def _modules() -> dict[str, ast.Module]:
    files = (path for path in sorted(PACKAGE.rglob("*.py")) if path != PACKAGE / "__init__.py")
    names = {path: ".".join(path.relative_to(PACKAGE).with_suffix("").parts) for path in files}
    return {name.removesuffix(".__init__"): ast.parse(path.read_bytes(), str(path)) for path, name in names.items()}


MODULES = _modules()
RANK = {name: rank for rank, layer in enumerate(LAYERS.values()) for name in layer}


def imported(tree: ast.AST) -> Iterator[str]:
    """Each dotted name that a module imports, `a.b` for `from a import b`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"line {node.lineno}: a relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def own_imports(tree: ast.AST) -> set[str]:
    """The modules of casstore that a module imports, without the package's name."""
    found = set()
    for name in imported(tree):
        if name == "casstore" or not name.startswith("casstore."):
            assert name != "casstore", "imports the whole package: import the module that is meant"
            continue
        inner = name.removeprefix("casstore.")
        while inner not in MODULES and "." in inner:
            inner = inner.rpartition(".")[0]
        if inner != "__version__":
            found.add(inner)
    return found


def used(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Each dotted name a module uses, as `os.fsync` however it was imported, with its line; `*.name` for a method."""
    origin = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            origin.update({alias.asname: alias.name for alias in node.names if alias.asname})
        elif isinstance(node, ast.ImportFrom):
            origin.update({alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names})
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            yield origin.get(node.id, node.id), node.lineno
        elif isinstance(node, ast.Attribute):
            yield f"*.{node.attr}", node.lineno
            parts = [node.attr]
            value = node.value
            while isinstance(value, ast.Attribute):
                parts.append(value.attr)
                value = value.value
            if isinstance(value, ast.Name):
                yield ".".join([origin.get(value.id, value.id), *reversed(parts)]), node.lineno


def _within(module: str, names: set[str]) -> bool:
    return module in names or module.partition(".")[0] in names


def _offences(tree: ast.AST, forbidden: set[str]) -> list[str]:
    return sorted({f"line {line}: {name}" for name, line in used(tree) if name in forbidden})


def _network(tree: ast.AST) -> list[str]:
    return sorted({name for name in imported(tree) for door in NETWORK if f"{name}.".startswith(f"{door}.")})


@pytest.mark.parametrize("module", MODULES)
def test_every_module_has_a_layer(module: str) -> None:
    assert _within(module, set(RANK)), f"casstore/{module}: place it in LAYERS of {Path(__file__).name}"


def test_the_table_of_the_modules_is_that_of_the_layers() -> None:
    text = (PACKAGE.parent / "docs/explanation/architecture.md").read_text()
    rows = [set(re.findall(r"`(\w+)/?`", modules)) for modules in re.findall(r"(?m)^\|[^|]*\|([^|]*`[^|]*)\|", text)]
    assert set().union(*rows) == {module.partition(".")[0] for module in MODULES} - {"__main__"}
    ranks = [{RANK[module] for module in row} for row in rows]
    assert all(len(each) == 1 for each in ranks)
    assert ranks == sorted(ranks, key=min)


@pytest.mark.parametrize("module", MODULES)
def test_imports_point_downwards(module: str) -> None:
    top = module.partition(".")[0]
    others = {name.partition(".")[0] for name in own_imports(MODULES[module])} - {top}
    unplaced = ({top} | others) - set(RANK)
    assert not unplaced, f"place {unplaced} in LAYERS"
    upwards = {name for name in others if RANK[name] > RANK[top]}
    assert not upwards, f"{module} imports from a higher layer"
    if top in LAYERS[SIBLINGS]:
        assert not others & LAYERS[SIBLINGS], f"{module} imports its sibling"


def test_there_is_no_cycle() -> None:
    graph = {module: own_imports(tree) - {module} for module, tree in MODULES.items()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" <- ".join(error.args[1]))


@pytest.mark.parametrize("module", [name for name in MODULES if not _within(name, MAY_USE_NETWORK)])
def test_only_the_registry_adapter_knows_the_network(module: str) -> None:
    assert not _network(MODULES[module])


@pytest.mark.parametrize("module", [name for name in MODULES if not _within(name, MAY_USE_DURABILITY)])
def test_only_one_module_syncs_renames_and_locks(module: str) -> None:
    assert not _offences(MODULES[module], DURABILITY)


@pytest.mark.parametrize("module", [name for name in MODULES if not _within(name, MAY_USE_SURROUNDINGS)])
def test_the_library_never_prints_exits_or_reads_its_surroundings(module: str) -> None:
    assert not _offences(MODULES[module], SURROUNDINGS)


@pytest.mark.parametrize(
    ("source", "forbidden", "found"),
    [
        ("import os\nos.fsync(3)", DURABILITY, "os.fsync"),
        ("from os import replace as put\nput(a, b)", DURABILITY, "os.replace"),
        ("import os as o\ndef f():\n    o.link(a, b)", DURABILITY, "os.link"),
        ("print(1)", SURROUNDINGS, "print"),
        ("import os\nx = os.environ['A']", SURROUNDINGS, "os.environ"),
        ("Path('~').expanduser()", SURROUNDINGS, "*.expanduser"),
    ],
)
def test_the_rules_see(source: str, forbidden: set[str], found: str) -> None:
    assert any(offence.endswith(found) for offence in _offences(ast.parse(source), forbidden))


def test_the_rules_let_ordinary_code_through() -> None:
    source = "import os\n'a'.replace('b', 'c')\nself.exit()\nos.path.join(a, b)\nfrom urllib.parse import quote"
    assert not _offences(ast.parse(source), DURABILITY | SURROUNDINGS)
    assert not _network(ast.parse(source))
    assert _network(ast.parse("def f():\n    import requests.sessions")) == ["requests.sessions"]
