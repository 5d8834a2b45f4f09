"""What `import casstore` offers."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import casstore


@pytest.mark.parametrize("name", casstore.__all__)
def test_every_public_name_is_there(name: str) -> None:
    assert getattr(casstore, name) is not None


def test_dir_lists_the_public_names() -> None:
    assert dir(casstore) == sorted(casstore.__all__)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = casstore.nothing


def test_type_checkers_see_the_same_names() -> None:
    tree = ast.parse(Path(casstore.__file__).read_bytes())
    seen = {
        alias.asname
        for block in tree.body
        if isinstance(block, ast.If)
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert seen | {"__version__"} == set(casstore.__all__)


def test_importing_the_package_imports_nothing_else() -> None:
    code = "import sys, casstore; print([m for m in sys.modules if m.startswith('casstore.')])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
