"""The store itself: whether it is there, whole and safe, as far as a look tells; `casstore check` reads more."""

from __future__ import annotations

import contextlib
import os
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime

from casstore import durable, permissions
from casstore.checking.asis import AsIs, look
from casstore.checking.findings import Kind, Severity
from casstore.checking.litter import look_around
from casstore.doctor.findings import Finding, note, ok, problem, warning
from casstore.errors import CasstoreError, NotFound, UnsupportedVersion
from casstore.listing import nothing_to_keep
from casstore.manifest import created_time
from casstore.oci import manifest_of
from casstore.operation import operation_paths
from casstore.snapshot import Snapshot
from casstore.storedir import StoreOptions

_CHECK = "casstore check, and casstore check --repair --from SOURCE for what it finds"
_LOOK = StoreOptions(wait=1.0)
_NEWEST = 8
"""Snapshots whose time is looked at."""
FUTURE = 60
"""Seconds by which a snapshot may be newer than now."""
_SHOWN = 3


def store(path: str) -> Iterator[Finding]:
    """What is at `path`."""
    try:
        seen = look(path, _LOOK)
    except NotFound:
        yield from _nothing(path)
        return
    except UnsupportedVersion as error:
        yield problem("store", path, str(error), "get a newer casstore: pipx upgrade casstore")
        return
    except CasstoreError as error:
        yield problem("store", path, str(error), "look at the permissions of the directory")
        return
    yield from _whole(path, seen)
    yield from _derived(path, seen)
    yield from _names(path, seen)
    yield from _litter(path, seen)
    yield from _permissions(path)
    yield from _times(path, seen)


def _nothing(path: str) -> Iterator[Finding]:
    if os.path.lexists(path) and not os.path.isdir(path):
        yield problem("store", path, "expected a directory, got a file", "casstore --store DIR names another place")
    elif os.path.isdir(path) and os.listdir(path):
        text = "there is no store, and the directory has other files"
        yield problem(
            "store", path, text, "casstore --store DIR names another place; casstore init makes a store there"
        )
    else:
        yield note("store", path, "there is no store yet", "casstore init makes one, and so do create, import and pull")


def _whole(path: str, seen: AsIs) -> Iterator[Finding]:
    bad = [each for each in seen.findings if each.kind is Kind.BAD_LAYOUT]
    for each in bad:
        yield problem("store", os.path.join(path, each.subject), each.problem, _CHECK)
    if not bad:
        count = len([name for name in seen.refs if not name.startswith("sha256-")])
        how = "" if os.access(path, os.W_OK) else "; it can only be read"
        yield ok("store", path, f"a store with {count} name{'' if count == 1 else 's'}{how}")
    if not os.access(path, os.W_OK):
        yield note("store", path, "it cannot be written here: nothing can be kept or removed")


def _names(path: str, seen: AsIs) -> Iterator[Finding]:
    hurt = {
        each.subject: each.problem
        for each in seen.findings
        if each.severity is Severity.DAMAGE and each.kind is not Kind.BAD_LAYOUT
    }
    for name, digest in seen.refs.items():
        with contextlib.suppress(CasstoreError):
            if seen.blobs.size(digest) is not None:
                continue
        hurt.setdefault(f"refs/{name}", f"it leads to {digest}, which is not in the store")
    for subject, text in list(hurt.items())[:_SHOWN]:
        yield problem("names", os.path.join(path, subject), text, _CHECK)
    if len(hurt) > _SHOWN:
        yield problem("names", path, f"{len(hurt) - _SHOWN} more names are broken or lost", _CHECK)
    if not hurt:
        yield ok("names", path, "every name leads to a manifest that is here")


def _derived(path: str, seen: AsIs) -> Iterator[Finding]:
    stale = [each for each in seen.findings if each.severity is Severity.STALE]
    for each in stale:
        yield note("catalog", os.path.join(path, each.subject), each.problem, "casstore reindex")
    if not stale:
        yield ok("catalog", path, "index.json and catalog.sqlite say what the names say")


def _litter(path: str, seen: AsIs) -> Iterator[Finding]:
    dead = sum(map(_is_dead, operation_paths(seen.directory.tmp)))
    found = Counter(each.kind for each in (*seen.findings, *look_around(seen.directory, seen.blobs)))
    told = False
    if dead:
        told = True
        yield note("leftovers", path, f"{dead} interrupted commands left files in tmp/", "casstore gc")
    if found[Kind.TEMPORARY]:
        told = True
        yield note("leftovers", path, f"{found[Kind.TEMPORARY]} files were never finished", "casstore gc")
    if found[Kind.UNKNOWN_FILE]:
        told = True
        text = f"{found[Kind.UNKNOWN_FILE]} files are not the store's"
        yield note("leftovers", path, text, "casstore check names them")
    if found[Kind.QUARANTINED]:
        told = True
        yield note("leftovers", path, "quarantine/ has what repairs replaced", "casstore check tells how much it is")
    if not told:
        yield ok("leftovers", path, "nothing that an interrupted command left")


def _is_dead(operation: str) -> bool:
    """Whether the process of an operation has ended. Its lease is held for a moment."""
    with contextlib.suppress(CasstoreError, OSError):
        lease = durable.try_lock(os.path.join(operation, "lease"), create=False)
        if lease is None:
            return False
        lease.release()
    return True


def _permissions(path: str) -> Iterator[Finding]:
    told = False
    for text in permissions.warnings(path):
        told = True
        yield warning("permissions", path, text.partition("; ")[0], f"chmod -R go-w {path!r}")
    owner = os.stat(path).st_uid
    if owner != os.geteuid():
        told = True
        text = f"it belongs to the user with id {owner}, and this is {os.geteuid()}: only its owner should change it"
        yield warning("permissions", path, text, "run casstore as the owner of the store")
    if not told:
        mode = permissions.mode_of(path)
        yield ok(
            "permissions",
            path,
            f"mode {mode:04o}: {'others can' if permissions.is_open(mode) else 'only its owner can'} read it",
        )


def _times(path: str, seen: AsIs) -> Iterator[Finding]:
    """Whether the clock is past what it said before."""
    times = []
    for name in _newest(path, seen):
        with contextlib.suppress(CasstoreError, OSError):
            digest = seen.refs[name]
            size = seen.blobs.size(digest)
            if size is not None:
                found = Snapshot.read(
                    os.path.join(path, "refs", name), seen.blobs, manifest_of(digest, size), nothing_to_keep
                )
                time = created_time(found.created_at)
                times += [(time, name)] if time is not None else []
    now = datetime.now(UTC)
    if not times:
        return
    latest, name = max(times)
    ahead = (latest - now).total_seconds()
    if ahead > FUTURE:
        text = f"snapshot {name} was made {ahead / 60:.0f} minutes from now: the clock is slow, or was fast then"
        yield warning("clock", path, text, "set the clock: timedatectl set-ntp true")
    else:
        yield ok("clock", path, f"it is {now:%Y-%m-%d %H:%M:%S} UTC, after the newest snapshot")


def _newest(path: str, seen: AsIs) -> list[str]:
    """The names that were given last."""

    def age(name: str) -> int:
        try:
            return -os.lstat(os.path.join(path, "refs", name)).st_mtime_ns
        except OSError:
            return 0

    return sorted((name for name in seen.refs if not name.startswith("sha256-")), key=age)[:_NEWEST]
