"""Files for readers that want one: in memory where that can be had, and gone with the process."""

from __future__ import annotations

import os
import tempfile
from functools import cache


@cache
def _folder() -> tempfile.TemporaryDirectory[str]:
    where = "/dev/shm" if os.path.isdir("/dev/shm") else None
    return tempfile.TemporaryDirectory(prefix="casstore-fuzz-", dir=where, ignore_cleanup_errors=True)


def scratch() -> str:
    """A folder of this process, and of children that it has after it has asked for it."""
    return _folder().name


def write(path: str, data: bytes) -> str:
    """Write a file that only its owner may read; its path."""
    os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
    with open(path, "wb") as file:
        file.write(data)
    os.chmod(path, 0o600)
    return path
