"""Names of members as paths that lead nowhere else."""

from __future__ import annotations

from casstore.errors import DocumentError


def safe_path(name: str, *, subject: str) -> tuple[str, ...]:
    """The parts of a member's name; one leading `./` and a directory's slash at the end mean nothing.

    Raises:
        DocumentError: absolute, with `.`, `..` or an empty part, a backslash, a drive letter or a control character.
    """
    parts = tuple(name.removeprefix("./").removesuffix("/").split("/"))
    if {"", ".", ".."} & set(parts) or not name.isprintable() or "\\" in name or parts[0][1:2] == ":":
        raise DocumentError(subject, f"expected a relative path without .. as a member's name, got {ascii(name)[:100]}")
    return parts
