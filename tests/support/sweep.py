"""Breaks an action on a store at each of its system calls in turn, and looks at what is left.

    python -m tests.support.sweep BASE ACTION STEP KIND...

copies the store BASE for each case, runs ACTION in a child whose n-th call of one of CALLS on the copy is broken, and
prints a line of JSON: how many cases there were, and what was wrong. A KIND is `kill` (SIGKILL before the call), `late`
(SIGKILL after it) or the name of an errno that the call fails with. Of each kind every STEP-th case is run; the first
kind begins with the first call, the second with the second, and so on.
"""

from __future__ import annotations

import errno
import functools
import json
import os
import shutil
import signal
import sys
import traceback
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from casstore import Snapshot, Store
from casstore.errors import CasstoreError
from casstore.names import is_reserved
from casstore.retention import Policy
from casstore.storedir import StoreOptions
from tests.support.signing import sign_by, verdicts
from tests.support.stores import blobs, disk_bytes, leftovers, link_refs, reachable, require_sound, write_disk

CALLS = ("open", "write", "fsync", "fchmod", "chmod", "rename", "link", "symlink", "unlink", "mkdir", "rmdir")
OLD, TWO, NEW, FORCED, GONE = (1, 2, 3), (3, 7), (2, 3, 4), (4, 5), (8, 9)
DONE, FAILED, WRONG = 0, 3, 4  # how a child ends


def make_base(root: Path) -> None:
    """The store that every case starts from: two snapshots with three names, and some garbage."""
    disk = root.parent / "disk"
    with Store.init(root) as store:
        for name, pieces in (("gone", GONE), ("one", OLD), ("two", TWO)):
            labels = {"kept": ""} if name == "two" else {}
            Snapshot.builder(write_disk(disk, *pieces)).name(name).labels(labels).create(store)
        store.tag("one", "alias")
        store.remove("gone")
    with Store.init(root.parent / "source") as store:
        Snapshot.builder(write_disk(disk, *NEW)).name("new").create(store)
        store.push("new", f"oci:{root.parent}/layout")


def act(store: Store, action: str, disk: Path) -> None:
    match action:
        case "create":
            Snapshot.builder(write_disk(disk, *NEW)).name("new").create(store)
        case "force":
            Snapshot.builder(write_disk(disk, *FORCED)).name("one").force().create(store)
        case "pull":
            store.pull(f"oci:{disk.parent}/layout:new")
        case "tag":
            store.tag("one", "new")
        case "remove":
            store.remove("two")
        case "sign":
            with store.transaction() as change:
                sign_by(change, store._directory.resolve("one"), "ed-alice", cosign_tag=True)
                change.commit_all({})
        case "undo":
            store.undo()
        case "prune":
            store.prune(Policy(labels=(("kept", None),)), now=datetime.now(UTC))
        case "gc":
            store.gc()


def after(action: str, refs: dict[str, str], before: dict[str, str]) -> bool:
    """Whether `refs` are what the action leaves."""
    match action:
        case "create" | "pull":
            return {**refs, "new": ""} == {**before, "new": ""} and "new" in refs
        case "force":
            return refs != before and {**refs, "one": ""} == {**before, "one": ""}
        case "tag":
            return refs == {**before, "new": before["one"]}
        case "sign":
            return before.items() <= refs.items() and len(refs) == len(before) + 2
        case "undo":
            return {**refs, "gone": ""} == {**before, "gone": ""} and "gone" in refs
        case "prune":
            return refs == {"two": before["two"]}
        case "remove":
            return refs == {name: digest for name, digest in before.items() if name != "two"}
    return refs == before


class Breaker:
    """Wraps the calls of the os module, counts those on the store, and breaks the n-th (never for n = 0)."""

    def __init__(self, root: Path, kind: str, n: int) -> None:
        self._root, self._kind, self._n = str(root), kind, n
        self.count = 0
        for name in CALLS:
            setattr(os, name, self._wrapped(getattr(os, name)))

    def _wrapped(self, real: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(real)
        def call(*args: Any, **kwargs: Any) -> Any:
            if not self._concerns(args[0], kwargs):
                return real(*args, **kwargs)
            self.count += 1
            if self.count != self._n:
                return real(*args, **kwargs)
            if self._kind == "late":
                real(*args, **kwargs)
            if self._kind in {"kill", "late"}:
                os.kill(os.getpid(), signal.SIGKILL)
            number = getattr(errno, self._kind)
            raise OSError(number, os.strerror(number))

        return call

    def _concerns(self, subject: Any, kwargs: dict[str, Any]) -> bool:
        place: Any = subject
        if isinstance(subject, int):
            place = os.readlink(f"/proc/self/fd/{subject}")
        for folder in (kwargs.get("dir_fd"), kwargs.get("src_dir_fd")):
            if folder is not None and not os.path.isabs(subject):
                place = os.readlink(f"/proc/self/fd/{folder}")
        return str(os.fspath(place)).startswith(self._root)


def run_broken(root: Path, action: Callable[[], object], kind: str, n: int) -> tuple[int, int]:
    """Run an action on the store in a child whose n-th call is broken; how it ended, and how many calls it made (if it
    lived).
    """
    here, there = os.pipe()
    child = os.fork()
    if child:
        os.close(there)
        with open(here, "rb") as pipe:
            count = int.from_bytes(pipe.read(), "big")
        return os.waitpid(child, 0)[1], count
    result = WRONG
    try:
        breaker = Breaker(root, kind, n)
        try:
            action()
            result = DONE
        except CasstoreError:
            result = FAILED
        os.write(there, breaker.count.to_bytes(4, "big"))
    except BaseException:  # noqa: BLE001  (a child must not return)
        traceback.print_exc()
    finally:
        os._exit(result)


def _open_and_act(root: Path, action: str) -> None:
    with Store.open(root, options=StoreOptions(wait=5)) as store:
        act(store, action, root.parent / "disk")


def look(root: Path, action: str, before: dict[str, str], status: int) -> None:
    """Everything that must hold after a case."""
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) in {DONE, FAILED}, f"ended with {status}: no typed error"
    refs = link_refs(root)
    new = after(action, refs, before)
    some = action == "prune" and before.keys() - {"one", "alias"} <= refs.keys() <= before.keys()
    if action == "sign":  # two signatures, each whole
        some = before.items() <= refs.items() and len(refs) == len(before) + 1
    assert new or refs == before or some, f"{refs}: neither old nor new"
    if os.WIFEXITED(status) and os.WEXITSTATUS(status) == DONE:
        assert new, "success was reported"
    was = {"alias": OLD, "one": FORCED if new and action == "force" else OLD, "two": TWO, "gone": GONE}
    was["new"] = OLD if action == "tag" else NEW
    require_sound(root, contents={name: disk_bytes(*was[name]) for name in refs if not is_reserved(name)})
    with Store.open(root) as store:
        if action == "sign":
            found = verdicts(store._directory, store._directory.resolve("one"), "ed-alice")
            assert found == ["bundle:ed-alice", "cosign:ed-alice"][: len(refs) - len(before)]
    with Store.open(root) as store:
        store.gc()
    assert leftovers(root) == []
    assert blobs(root) == reachable(root)


def main(base: Path, action: str, step: int, kinds: list[str]) -> None:
    root = base.parent / "-".join([action, *kinds])
    before = link_refs(base)
    problems = []
    shutil.copytree(base, root, symlinks=True)
    broken = functools.partial(run_broken, root, functools.partial(_open_and_act, root, action))
    status, total = broken("kill", 0)
    assert status == DONE, status
    cases = [(kind, n) for start, kind in enumerate(kinds) for n in range(1 + start % step, total + 1, step)]
    for kind, n in cases:
        shutil.rmtree(root)
        shutil.copytree(base, root, symlinks=True)
        status, _ = broken(kind, n)
        try:
            look(root, action, before, status)
        except Exception as error:  # noqa: BLE001  (whatever is wrong is reported)
            problems.append(f"{kind} at call {n} of {total}: {type(error).__name__}: {error}")
    print(json.dumps({"calls": total, "cases": len(cases), "problems": problems}))  # noqa: T201


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), sys.argv[4:])
