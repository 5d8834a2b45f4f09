"""Several processes that do everything at random with one store, while another one kills them (rows 12, 29 to 33, 38).

    python -m tests.support.thrash FOLDER --seconds 120 --processes 8

prints a line of JSON: how often each verb ended with which exit code, how many were killed, and what was wrong. Every
verb is a run of the command line, in a process that lives until it is killed. All work on the same few names. What a
disk holds stands in its first block, so whatever name it comes from at that moment, a wrong byte is seen.

An exit code that is not in VERBS is wrong: no verb may find anything damaged, whatever the others do.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from casstore import Store
from tests.support import children
from tests.support.command import Casstore
from tests.support.stores import FAST, blobs, content, disk_bytes, leftovers, link_refs, reachable, require_sound

NAMES = [f"name{number}" for number in range(8)]
TAGS = [f"tag{number}" for number in range(4)]
_DONE, _MISSING, _CONFLICT = 0, 10, 15
VERBS: dict[str, Sequence[int]] = {
    "create": (_DONE, _MISSING, _CONFLICT),  # its parent is gone; the name is taken
    "list": (_DONE,),
    "restore": (_DONE, _MISSING),
    "verify": (_DONE, _MISSING),
    "tag": (_DONE, _MISSING, _CONFLICT),  # the name is taken
    "rm": (_DONE, _MISSING, _CONFLICT),  # it has children
    "undo": (_DONE, _MISSING, _CONFLICT),  # gc was there; the name is taken
    "prune": (_DONE,),
    "gc": (_DONE,),
    "check": (_DONE,),
    "push": (_DONE, _MISSING),
    "pull": (_DONE, _MISSING, _CONFLICT),  # nothing was pushed yet; the name is taken
}
"""How each verb may end when others do what they like: with success, or because of what they did."""
_OFTEN = {"create": 5, "restore": 2, "pull": 2}
"""What is done more often than the rest, so that there is something to work with."""
_HEAD = 4096
_WAIT = 0.05, 0.4
"""Seconds between two kills, least and most."""


def disk_of(pieces: Sequence[int]) -> bytes:
    """A disk that says what is on it."""
    return json.dumps(list(pieces)).encode().ljust(_HEAD, b" ") + disk_bytes(*pieces)


def is_right(data: bytes) -> bool:
    """Whether a disk holds what it says."""
    with contextlib.suppress(ValueError, TypeError):
        return data == disk_of(json.loads(data[:_HEAD]))
    return False


@dataclass
class _Worker:
    """One process: runs verbs until it is killed, and appends to the log how each of them ended."""

    folder: Path
    number: int
    rng: random.Random
    log: int

    def run(self) -> None:
        casstore = Casstore(self.folder)
        verbs = [verb for verb in VERBS for _ in range(_OFTEN.get(verb, 1))]
        while True:
            verb = self.rng.choice(verbs)
            self._run(casstore, verb, *getattr(self, f"_{verb}")())
            if verb == "rm" and self.rng.random() < 0.5:
                self._run(casstore, "undo")

    def _run(self, casstore: Casstore, verb: str, *arguments: object) -> None:
        self._append("begun", verb, None, "")
        result = casstore.run("--wait", 60, verb, *arguments)
        told = "" if result.code in VERBS[verb] else f"{' '.join(map(str, arguments))}: {result.stdout}{result.stderr}"
        if verb == "restore" and result.code == 0:
            data = self._file("restored").read_bytes()
            told = "" if is_right(data) else f"wrong bytes: {data[:100]!r}"
        self._append("ended", verb, result.code, told)

    def _append(self, *entry: object) -> None:
        os.write(self.log, json.dumps([os.getpid(), *entry]).encode() + b"\n")

    def _file(self, name: str) -> Path:
        return self.folder / f"{name}{self.number}"

    def _name(self) -> str:
        return self.rng.choice(NAMES)

    def _force(self, likely: float = 0.5) -> Sequence[str]:
        return ["--force"] if self.rng.random() < likely else []

    def _create(self) -> Sequence[object]:
        pieces = [self.rng.randrange(1, 30) for _ in range(self.rng.randint(1, 5))]
        self._file("disk").write_bytes(disk_of(pieces))
        parent = ["--parent", self._name()] if self.rng.random() < 0.3 else []
        return [self._name(), "--disk", self._file("disk"), *parent, *self._force()]

    def _list(self) -> Sequence[object]:
        return []

    def _restore(self) -> Sequence[object]:
        return [self._name(), self._file("restored"), "--force"]

    def _verify(self) -> Sequence[object]:
        return [self._name()]

    def _tag(self) -> Sequence[object]:
        return [self._name(), self._name(), *self._force()]

    def _rm(self) -> Sequence[object]:
        return [self._name(), *self._force()]

    def _undo(self) -> Sequence[object]:
        return self.rng.choice([[], [self._name()]])

    def _prune(self) -> Sequence[object]:
        return ["--keep-last", self.rng.randint(5, 10)]

    def _gc(self) -> Sequence[object]:
        return self.rng.choice([[], ["--dry-run"], ["--keep-trash", "1s"]])

    def _check(self) -> Sequence[object]:
        return self.rng.choice([[], ["--read-data"]])

    def _push(self) -> Sequence[object]:
        return [self._name(), f"oci:{self.folder}/layout:{self.rng.choice(TAGS)}"]

    def _pull(self) -> Sequence[object]:
        return [f"oci:{self.folder}/layout:{self.rng.choice(TAGS)}", "--name", self._name(), *self._force()]


@dataclass
class Tally:
    """What came of it."""

    ended: dict[str, Counter[int]] = field(default_factory=dict)
    """By verb: how often with which exit code."""
    killed: Counter[str] = field(default_factory=Counter)
    """By verb: how many were killed in the middle."""
    wrong: list[str] = field(default_factory=list)

    def read(self, log: Path) -> None:
        """Take in what the processes wrote."""
        running: dict[int, str] = {}
        for line in log.read_text().splitlines():
            process, event, verb, code, told = json.loads(line)
            if event == "begun":
                running[process] = verb
                continue
            del running[process]
            self.ended.setdefault(verb, Counter())[code] += 1
            if told:
                self.wrong.append(f"{verb} ended with {code}: {told}")
        self.killed.update(running.values())

    @property
    def without_success(self) -> set[str]:
        """The verbs that never did what they are for."""
        return {verb for verb in VERBS if not self.ended.get(verb, Counter())[_DONE]}


def thrash(folder: Path, *, seconds: float, processes: int, seed: int) -> Tally:
    """Let them run, on a busy machine until each verb has succeeded once, and look at the store at the end."""
    rng = random.Random(seed)
    root = folder / "store"
    Store.init(root, options=FAST).close()
    log = os.open(folder / "log", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def start(number: int) -> int:
        return children.start(_Worker(folder, number, random.Random(rng.random()), log).run)

    _warm_up(Casstore(folder))
    end = time.monotonic() + seconds
    running = {number: start(number) for number in range(processes)}
    tally = Tally()
    try:
        while (now := time.monotonic()) < end or (now < end + 10 * seconds and _so_far(folder).without_success):
            time.sleep(rng.uniform(*_WAIT))
            number = rng.choice(list(running))
            os.kill(running[number], signal.SIGKILL)
            _, status = os.waitpid(running[number], 0)
            if os.WIFEXITED(status):
                tally.wrong.append(f"a process ended by itself with {os.WEXITSTATUS(status)}, see stderr")
            running[number] = start(number)
    finally:
        children.kill(running.values())
    tally.read(folder / "log")
    try:
        _look(Casstore(folder), root)
    except Exception as error:  # noqa: BLE001  (whatever is wrong is told)
        tally.wrong.append(f"at the end: {type(error).__name__}: {error}")
    return tally


def _so_far(folder: Path) -> Tally:
    tally = Tally()
    tally.read(folder / "log")
    return tally


def _warm_up(casstore: Casstore) -> None:
    """Import here what the processes need, so that each of them has it at once."""
    disk = casstore.folder / "disk"
    disk.write_bytes(disk_of([1, 2]))
    reference = f"oci:{casstore.folder}/layout:{TAGS[0]}"
    casstore("create", NAMES[0], "--disk", disk)
    casstore("push", NAMES[0], reference)
    casstore("pull", reference, "--name", NAMES[1])
    casstore("restore", NAMES[1], disk, "--force")
    assert is_right(disk.read_bytes())


def _look(casstore: Casstore, root: Path) -> None:
    """What must hold at the end, before anything was mended and after gc."""
    casstore("check", "--read-data")
    require_sound(root)
    with Store.open(root, options=FAST) as store:
        for name in link_refs(root):
            assert is_right(content(store, name)), f"{name} holds wrong bytes"
        store.gc()
    assert leftovers(root) == [], f"gc left {leftovers(root)}"
    assert blobs(root) == reachable(root), f"gc left {blobs(root) - reachable(root)}"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--processes", type=int, default=8)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    tally = thrash(args.folder, seconds=args.seconds, processes=args.processes, seed=args.seed)
    json.dump({"ended": tally.ended, "killed": tally.killed, "wrong": tally.wrong}, sys.stdout)
    if not tally.wrong:
        shutil.rmtree(args.folder / "store")


if __name__ == "__main__":
    main()
