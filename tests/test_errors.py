"""The tree drawn in the docstring of errors.py is the tree of its classes, exit codes included."""

from __future__ import annotations

import errno
import inspect
import re

import pytest

from casstore import errors
from casstore.errors import (
    CasstoreError,
    DigestMismatch,
    DocumentError,
    SizeMismatch,
    StorageError,
    storage_errors,
)


def drawn() -> dict[str, tuple[str, int]]:
    """Per class in the drawing: its parent's name, and its exit code (given, or its parent's)."""
    found: dict[str, tuple[str, int]] = {}
    path: list[tuple[int, str]] = []
    for line in inspect.cleandoc(errors.__doc__ or "").splitlines():
        match = re.match(r"(\s*(?:[│ ]*[├└]── )?)([A-Z]\w+)(?:\s+(\d+)?\s*\S.*)?$", line)
        if match is None or not line.startswith("    "):
            continue
        indent = len(match[1])
        while path and path[-1][0] >= indent:
            path.pop()
        parent = path[-1][1] if path else "Exception"
        inherited = found[parent][1] if parent in found else -1
        found[match[2]] = (parent, int(match[3]) if match[3] else inherited)
        path.append((indent, match[2]))
    return found


def defined() -> dict[str, type[CasstoreError]]:
    found = {}
    for name, kind in inspect.getmembers(errors, inspect.isclass):
        if kind.__module__ == errors.__name__:
            assert issubclass(kind, CasstoreError), name
            found[name] = kind
    return found


def test_tree_is_complete_and_right() -> None:
    assert drawn() == {
        name: (kind.__base__ and kind.__base__.__name__, kind.exit_code) for name, kind in defined().items()
    }


def test_every_error_has_one_base_and_a_docstring() -> None:
    for kind in defined().values():
        assert len(kind.__bases__) == 1
        assert kind.__doc__


def test_exit_codes_say_whose_fault_it_is() -> None:
    """Each direct child of CasstoreError has a code of its own, and the shell's own codes stay free."""
    codes = [kind.exit_code for kind in defined().values() if CasstoreError in (kind, kind.__base__)]
    assert len(set(codes)) == len(codes)
    assert all(0 < code < 126 for code in codes)


def test_texts() -> None:
    assert str(SizeMismatch("blob x", expected=5, got=4)) == "blob x: expected 5 bytes, got 4"
    assert str(SizeMismatch("blob x", expected=5, got=None)) == "blob x: expected 5 bytes, got more"
    assert str(DigestMismatch("blob x", expected="a", got="b")) == "blob x: expected digest a, got b"
    assert str(DocumentError("m", "empty fstype")) == "m: empty fstype"
    assert str(DocumentError("m", "empty fstype", at="a[0].b")) == "m: empty fstype (at a[0].b)"


@pytest.mark.parametrize(
    ("cause", "text"),
    [
        (OSError(errno.EDQUOT, "Disk quota exceeded", "/s/blobs/x"), "put: Disk quota exceeded (/s/blobs/x)"),
        (
            OSError(errno.ENOSPC, "No space left on device", "/s/x/y"),
            "put: No space left on device (/s/x/y); make room there: in a store, casstore rm and then casstore gc do",
        ),
        (OSError(errno.EIO, "Input/output error"), "put: Input/output error"),
        (OSError("odd"), "put: odd"),
    ],
)
def test_storage_errors(cause: OSError, text: str) -> None:
    with pytest.raises(StorageError) as caught, storage_errors("put"):
        raise cause
    assert str(caught.value) == text
    assert caught.value.__cause__ is cause


def test_storage_errors_leaves_other_errors_alone() -> None:
    with pytest.raises(KeyError), storage_errors("put"):
        raise KeyError
