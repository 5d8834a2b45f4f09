"""casstore.json: which version of the format a store has, and what one must know to read or change it.

    {"version": 1,
     "features": {"compatible": [], "readOnlyCompatible": [], "incompatible": []},
     "since": {"a-flag": "0.9"}}

A flag that this version does not know is ignored where it is compatible, keeps the store from being changed where it is
read-only compatible, and keeps it from being opened where it is incompatible. `since`, which may be missing, says which
version of casstore was the first to know a flag, so that the refusal can say which one to get.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any

from casstore import durable, layout, spec
from casstore.durable import Durability
from casstore.errors import UnsupportedVersion
from casstore.jsondoc import dump, load_object
from casstore.links import NotARef, read_link
from casstore.schema import validate

NAME = "casstore.json"
_KNOWN: Mapping[str, frozenset[str]] = {
    "compatible": frozenset(),
    "readOnlyCompatible": frozenset(),
    "incompatible": frozenset(),
}
"""The feature flags that this version knows."""
_VERSION = re.compile(r"[0-9A-Za-z.+-]{1,32}\Z", re.ASCII)
_SHOWN = 64  # flags
_OWN = dump({"version": spec.STORE_FORMAT, "features": {kind: [] for kind in _KNOWN}})


def is_missing(root: str) -> bool:
    """Whether the directory `root` has no marker."""
    return not os.path.exists(os.path.join(root, NAME))


def is_ours(root: str) -> bool:
    """Whether there is a store in `root`, or what is left of one: it has the marker, or a ref of ours in refs/."""
    if os.path.lexists(os.path.join(root, NAME)):
        return True
    refs = os.path.join(root, "refs")
    with suppress(OSError), os.scandir(refs) as entries:
        for entry in entries:
            with suppress(NotARef, FileNotFoundError):
                read_link(entry.path)
                return True
    return False


def require_readable(root: str) -> str | None:
    """Why the store in `root` may only be read by this version; None where it may be changed, or has no marker.

    Raises:
        UnsupportedVersion: it may not even be read.
        DocumentError: the marker is damaged.
    """
    subject = os.path.join(root, NAME)
    raw = layout.read_file(subject, limit=spec.MAX_MANIFEST) if os.path.isdir(root) else None
    if raw is None or raw == _OWN:  # nearly always; jsonschema takes longer to import than `casstore list` may take
        return None
    document = load_object(raw, subject=subject, limit=spec.MAX_MANIFEST)
    version = document.get("version")
    if isinstance(version, int) and version > spec.STORE_FORMAT:
        problem = f"expected store format {spec.STORE_FORMAT}, got {version}: use a newer casstore"
        raise UnsupportedVersion(subject, problem, at="version")
    # Before all else: a marker that breaks this version's rules may follow a later one's, and must not pass for damage.
    unknown = {kind: _unknown(document, kind) for kind in _KNOWN}
    if unknown["incompatible"]:
        problem = f"this version does not know {_named(unknown['incompatible'], document)}"
        raise UnsupportedVersion(subject, problem, at="features.incompatible")
    if unknown["readOnlyCompatible"]:
        return f"this version may read it, but does not know {_named(unknown['readOnlyCompatible'], document)}"
    validate(document, "store", subject=subject)
    return None


def write(root: str, durability: Durability) -> None:
    """Mark the store in `root` as one of this version."""
    durable.replace_file(os.path.join(root, NAME), _OWN, mode=0o644, durability=durability)


def _unknown(document: Mapping[str, Any], kind: str) -> list[str]:
    """The flags of a kind that this version does not know, as far as there are any."""
    features = document.get("features")
    flags = features.get(kind) if isinstance(features, dict) else None
    return sorted({flag for flag in flags if isinstance(flag, str)} - _KNOWN[kind]) if isinstance(flags, list) else []


def _named(flags: Iterable[str], document: Mapping[str, Any]) -> str:
    """The flags, each with the version that was the first to know it where that is told, and what to do."""
    since = document.get("since")
    versions = {flag: since.get(flag) if isinstance(since, dict) else None for flag in flags}
    told = [
        f"{ascii(flag)[:70]} (since casstore {version})"
        if isinstance(version, str) and _VERSION.match(version)
        else ascii(flag)[:70]
        for flag, version in list(versions.items())[:_SHOWN]
    ]
    return f"the store's features {', '.join(told)}: use a newer casstore"
