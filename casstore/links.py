"""The symlinks that names are: `../blobs/sha256/<64 hex>`, read as text and never followed."""

from __future__ import annotations

import errno
import os
import re

from casstore.digest import Digest
from casstore.errors import StorageError

_TARGET = re.compile(r"\.\./blobs/sha256/([0-9a-f]{64})\Z", re.ASCII)


class NotARef(Exception):
    """Something else has a ref's place; the text says what is wrong with it."""


def target_of(digest: Digest) -> str:
    """What the symlink of a name for `digest` says."""
    return f"../blobs/sha256/{digest.hex}"


def read_link(path: str) -> Digest:
    """What the ref at `path` stands for.

    Raises:
        FileNotFoundError: there is nothing.
        NotARef: there is something else.
        StorageError: it cannot be read; what it is nobody knows then.
    """
    try:
        target = os.readlink(path)
    except FileNotFoundError:
        raise
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise StorageError(f"ref {path!r}: {error.strerror}") from error
        raise NotARef("expected a symlink, got something else") from None
    match = _TARGET.match(target)
    if match is None:
        raise NotARef(f"expected a symlink to ../blobs/sha256/<64 hex>, got one to {ascii(target[:200])}")
    return Digest(match[1])
