"""Every verb of the command line, broken at each of its system calls in turn, and what must hold afterwards.

    python -m tests.support.syscall_sweep PLACE

makes the stores and disks to begin with below PLACE, and then answers each line of JSON on its standard input, the
arguments of `Sweep.broken` or `Sweep.limited` with the name of the verb, with one: how many cases were tried, and what
was wrong. One thread does all the work: what would be done by a pool of threads is done at once.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import gc
import importlib
import json
import os
import pkgutil
import re
import resource
import shutil
import signal
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import casstore
from casstore import Store, sources, stamps
from casstore.checking.findings import Severity
from casstore.cli.main import main as command_line
from casstore.storedir import StoreOptions
from tests.support.stores import FAST, blobs, content, leftovers, link_refs, reachable, require_sound
from tests.support.syscalls import CHANGES, INTERRUPTIBLE, READS, Ended, Fault, NotInjected, Point, inject, record, run
from tests.support.verbs import BASE, VERBS, Verb, make_bases, plain

DOCUMENTED = {0, *range(10, 18), *(128 + number for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM))}
_DIGEST = re.compile("[0-9a-f]{64}")


class _AtOnce(concurrent.futures.Executor):
    """A pool without threads: work is done when it is handed in, and its error kept for whoever asks."""

    def __init__(self, *_: object, **__: object) -> None:
        pass

    def submit(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> concurrent.futures.Future[Any]:
        future: concurrent.futures.Future[Any] = concurrent.futures.Future()
        try:
            future.set_result(function(*args, **kwargs))
        except Exception as error:  # noqa: BLE001  (it is the future's)
            future.set_exception(error)
        return future


class Sweep:
    """The cases of one verb."""

    def __init__(self, place: Path, verb: Verb) -> None:
        self._place, self._verb, self._case, self._next = place, verb, place / "case", place / "next"
        self._root = self._case / "store"
        self._before = _refs(place / verb.base / "store")
        words = verb.words.format(case=self._case, place=place).split()
        self._words = ["--store", str(self._root), "--wait", "5", *words]
        if words[0] in {"create", "restore", "pull", "check"}:
            self._words.append("-q")  # what shows progress is a thread

    def broken(self, calls: str, faults: list[str], step: int, start: int) -> dict[str, Any]:
        """Break the verb at each of its calls (changes, reads or interruptible ones) in each of these ways; of all
        cases every step-th is tried, from `start` on.
        """
        self._prepare()
        with self._fresh():
            whole = record(self._body, {"changes": CHANGES, "reads": READS, "interruptible": INTERRUPTIBLE}[calls])
            points = whole.points(self._case)
            problems = [*self._problems(whole)]
        if whole.code != 0 or not points:
            problems.append(f"unbroken: exit {whole.code}: {whole.err}")
        cases = [(point, Fault[fault]) for point in points for fault in faults]
        for point, fault in cases[start::step]:
            with self._fresh():
                problems += [f"{fault.name} at {point}: {told}" for told in self._try(point, fault)]
        tried = len(range(start, len(cases), step))
        return {"points": len(points), "all": len(cases), "cases": tried, "problems": problems}

    def limited(self, limit: str, values: list[int]) -> dict[str, Any]:
        """Run the verb with one resource limited: to so many open files more than it has when it begins, or bytes of a
        file.
        """
        self._prepare()
        problems, codes = [], []
        for value in values:
            with self._fresh():
                ended = run(lambda value=value: self._limited_body(limit, value))  # type: ignore[misc]
                codes.append(ended.status if ended.killed else ended.code)
                problems += [f"{limit} {value}: {told}" for told in self._problems(ended)]
        return {"cases": len(values), "codes": codes, "problems": problems}

    def _limited_body(self, limit: str, value: int) -> int:
        if limit == "NOFILE":
            value += 1 + max(map(int, os.listdir("/proc/self/fd")[:-1]))
        number = getattr(resource, f"RLIMIT_{limit}")
        resource.setrlimit(number, (value, resource.getrlimit(number)[1]))
        return self._body()

    def _prepare(self) -> None:
        for path in (self._case, self._next):
            shutil.rmtree(path, ignore_errors=True)
        shutil.copytree(self._place / self._verb.base, self._next, symlinks=True)

    @contextlib.contextmanager
    def _fresh(self) -> Iterator[None]:
        """A new case. It was copied a while ago, so that its times are old enough to be believed, each time."""
        self._next.rename(self._case)
        try:
            shutil.copytree(self._place / self._verb.base, self._next, symlinks=True)
            yield
        finally:
            shutil.rmtree(self._case)

    def _body(self) -> int:
        stamps._TICK = 0  # so that time has no say in which calls are done
        sources._BLOCK_DEVICES = os.devnull  # type: ignore[misc]  # others make and take away loop devices
        for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)
        try:
            command_line(self._words)
        except SystemExit as end:
            return end.code if isinstance(end.code, int) else 1
        return 71

    def _try(self, point: Point, fault: Fault) -> Iterator[str]:
        try:
            ended = inject(self._body, point, fault)
        except NotInjected as error:
            yield f"not injected: {error}"
            return
        left = [
            path.name for path in (*self._root.glob("tmp/*"), *self._root.glob(".*")) if path.name != f"op-{0:016x}"
        ]
        yield from self._problems(ended)
        if fault is Fault.EINTR and ended.code != 0:
            yield f"expected it to be done again, got exit {ended.code}: {ended.err}"
        if fault.signal and not ended.killed and ended.code not in {0, 128 + fault.signal}:
            yield f"expected exit {128 + fault.signal}, got {ended.code}: {ended.err}"
        if ended.code > 128 and "kept for the next pull" not in ended.err and "/tmp/op-" not in str(point):
            yield from (f"left by a clean stop: {name}" for name in left)
        at_blob = point.paths[-1:] == (f"{self._root}/blobs/sha256/*",)
        if at_blob and ended.code > 0 and not fault.signal and not _DIGEST.search(ended.out + ended.err):
            yield f"expected the blob's digest, got {ended.out}{ended.err}"

    def _problems(self, ended: Ended) -> Iterator[str]:
        try:
            self._look(ended)
        except Exception as error:  # noqa: BLE001  (whatever is wrong is told)
            yield f"{type(error).__name__}: {error}; it ended with {ended.status}: {ended.err}"

    def _look(self, ended: Ended) -> None:
        """Everything that must hold after a case."""
        done = self._state()
        if not ended.killed:
            told = ended.err.count("error: ") == (ended.code != 0)
            if self._words[4] == "check" and ended.code == 3:
                told = "damage: " in ended.out
            else:
                assert ended.code in DOCUMENTED, f"exit code {ended.code}"
            assert told, "expected a message with an error, and only then"
            assert "Traceback" not in ended.err
            assert done or ended.code != 0, "success was reported"
            assert self._litter() == [], "left beside the target"
        damaged = self._verb.base == "damaged" and not done
        if done or (not damaged and (self._root / "blobs" / "sha256").exists()):  # the last that is made of a store
            findings = Store.check(self._root, options=FAST).findings
            bad = [finding for finding in findings if finding.severity is Severity.DAMAGE]
            assert bad == []
            require_sound(self._root, contents=self._contents(link_refs(self._root)))
        again = run(self._body)
        assert again.code == (self._verb.again if done else 0), f"once more: exit {again.code}: {again.err}"
        assert self._state(), "once more, and still not done"
        changed = [name for name, pieces in self._verb.changes.items() if pieces is not None]
        with Store.open(self._root, options=StoreOptions(wait=5)) as store:
            assert store.gc().unknown == ()
            assert {name: content(store, name) for name in changed} == self._contents(changed)
        assert leftovers(self._root) == []
        assert blobs(self._root) == reachable(self._root)

    def _state(self) -> bool:
        """Whether the verb is done. Every name, and the target, has to be old or new."""
        refs = _refs(self._root)
        changes = self._verb.changes
        done = self._target_state() and self._mended()
        for name in refs.keys() | self._before.keys() | changes.keys():
            now, old = refs.get(name), self._before.get(name)
            if name not in changes:
                assert now == old, f"{name}: expected {old}, got {now}"
            elif now == old:
                done = False
            else:
                assert (now is None) == (changes[name] is None), f"{name}: {now} is neither old nor new"
        return done

    def _contents(self, names: Iterable[str]) -> dict[str, bytes]:
        """What these names have to stand for, as they are now."""
        contents, refs = {}, link_refs(self._root)
        for name in names:
            digest = refs[name]
            pieces = BASE.get(name) if digest == self._before.get(name) else self._verb.changes[name]
            assert pieces is not None
            contents[name] = plain(pieces)
        return contents

    def _mended(self) -> bool:
        """Whether all blobs are what they are in the backup; each has to be that, or still what it was."""
        if self._verb.base != "damaged":
            return True
        done = True
        for good in (self._place / "backup" / "blobs" / "sha256").iterdir():
            blob, bad = (
                base / "store" / "blobs" / "sha256" / good.name for base in (self._case, self._place / "damaged")
            )
            data = blob.read_bytes() if blob.exists() else None
            if data != good.read_bytes():
                assert data == (bad.read_bytes() if bad.exists() else None), f"{blob.name} is neither old nor new"
                done = False
        return done

    def _target_state(self) -> bool:
        if self._verb.target is None:
            return True
        out = self._case / "out"
        data = out.read_bytes() if out.exists() else None
        old = self._place / self._verb.base / "out"
        if data == (old.read_bytes() if old.exists() else None):
            return False
        assert data == plain(self._verb.target), "the target is neither old nor new"
        return True

    def _litter(self) -> list[str]:
        return [path.name for path in self._case.iterdir() if path.name not in {"store", "out"}]


def _refs(root: Path) -> dict[str, str]:
    """The refs of a store; none where there is not yet one."""
    return link_refs(root) if (root / "refs").exists() else {}


def serve(place: Path) -> None:
    """Answer one line with one."""
    make_bases(place)
    concurrent.futures.ThreadPoolExecutor = _AtOnce  # type: ignore[misc,assignment]
    for module in pkgutil.walk_packages(casstore.__path__, "casstore."):  # all that a verb imports when it is run
        if module.name != "casstore.__main__":
            loaded = importlib.import_module(module.name)
            if hasattr(loaded, "ThreadPoolExecutor"):
                setattr(loaded, "ThreadPoolExecutor", _AtOnce)  # noqa: B010  (mypy does not know that it is there)
    gc.collect()
    gc.freeze()
    for line in sys.stdin:
        asked = json.loads(line)
        sweep = Sweep(place, VERBS[asked.pop("verb")])
        told = sweep.limited(**asked) if "limit" in asked else sweep.broken(**asked)
        print(json.dumps(told), flush=True)  # noqa: T201


if __name__ == "__main__":
    serve(Path(sys.argv[1]))
