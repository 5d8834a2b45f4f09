"""Reads a policy from a file, and the keys that it names from the files beside it."""

from __future__ import annotations

import os
import stat
from dataclasses import replace

from casstore.errors import InvalidPolicy
from casstore.signatures.keys import MAX_KEY_FILE
from casstore.trust.policy import MAX_POLICY, Policy


def read_policy(path: str) -> Policy:
    """The policy in the file `path`. Relative names of keys start from its directory, and so do not depend on where the
    process is; directories in scopes are looked up, so that a link to one is no other place.

    Raises:
        InvalidPolicy: it, or one of its keys, cannot be read, is no regular file, or cannot be followed to the letter.
    """
    subject = f"policy {path!r}"
    directory = os.path.dirname(path)

    def read_key(name: str) -> bytes:
        return _read(os.path.join(directory, name), MAX_KEY_FILE)

    try:
        raw = _read(path, MAX_POLICY)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        problem = f"expected a regular file that can be read, got: {getattr(error, 'strerror', None) or error}"
        raise InvalidPolicy(f"{subject}: {problem}; nothing is taken until the policy is right") from None
    policy = Policy.parse(raw, subject=subject, read_key=read_key, real_path=os.path.realpath)
    return replace(policy, path=path)


def _read(path: str, limit: int) -> bytes:
    """At most `limit + 1` bytes of a regular file; whoever opens a pipe may wait for ever."""
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(fd, "rb") as file:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise ValueError("it is no regular file")
        return file.read(limit + 1)
