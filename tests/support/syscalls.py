"""Breaks a program at one of its system calls, with strace: the real calls, also those of SQLite and the C library.

What runs is a child that is forked when everything is imported already, and traced from the moment at which it begins:
so a case takes some hundredths of a second. strace counts the calls by their names, whatever they are about; so a run
is recorded first, and a `Point` of it is the n-th call of a name. A later run must do the same calls up to there.
Whether it did, and whether the call was broken exactly once, is read in strace's own account of that run.
"""

from __future__ import annotations

import os
import re
import select
import signal
import subprocess
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import NamedTuple

CHANGES = (
    *("write", "writev", "pwrite64", "pwritev", "pwritev2", "sendfile", "copy_file_range", "ftruncate", "fallocate"),
    *("fsync", "fdatasync", "syncfs", "sync_file_range", "ioctl"),
    *("open", "openat", "openat2", "creat", "mkdir", "mkdirat", "symlink", "symlinkat", "link", "linkat"),
    *("rename", "renameat", "renameat2", "unlink", "unlinkat", "rmdir"),
    *("chmod", "fchmod", "fchmodat", "fchmodat2"),
)
"""The calls that change a file system, or begin to."""
READS = (
    *("read", "readv", "pread64", "preadv", "preadv2", "lseek", "getdents", "getdents64"),
    *("readlink", "readlinkat", "flock", "fcntl"),
)
"""The calls that read, and lock."""
INTERRUPTIBLE = ("read", "pread64", "preadv", "write", "pwrite64", "ftruncate", "fsync", "flock")
"""The calls that a signal may end before they have begun."""

_LINE = re.compile(r"(?P<pid>\d+) +(?P<name>\w+)\((?P<arguments>.*)\) += (?P<result>.*)\Z")
_KILLED = re.compile(r"(?P<pid>\d+) +(?P<name>\w+)\((?P<arguments>.*?)(?: <unfinished \.\.\.>|\) += \?.*)\Z")
_RANDOM = re.compile(r"[0-9a-f]{64}|(?<=op-)[0-9a-f]{16}|(?<=\.)[0-9a-f]{12}(?=\.tmp)|(?<=@)[0-9]+|(?<=/#)[0-9]+")
_PATHS = re.compile(r'"((?:[^"\\]|\\.)*)"|<([^>]*)>')
_RELATIVE = re.compile(r'<(/[^>]*)>, "([^"/][^"]*)"')


class Fault(Enum):
    """How a call is broken."""

    KILL = "signal=KILL"
    """SIGKILL, instead of the call."""
    EIO = "error=EIO"
    ENOSPC = "error=ENOSPC"
    EINTR = "error=EINTR"
    """Nothing that a program should fail for, where the kernel may do it."""
    HUP = "signal=HUP"
    """The signal comes while the call is done."""
    INT = "signal=INT"
    TERM = "signal=TERM"

    @property
    def signal(self) -> int:
        """Its number; 0 for an error."""
        return int(signal.Signals[f"SIG{self.name}"]) if self.value.startswith("signal=") else 0


class Point(NamedTuple):
    """The n-th call of a name since the run began, and its paths, with a star for what is random in them."""

    name: str
    n: int
    paths: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.name} #{self.n} of {' '.join(self.paths)}"


class NotInjected(AssertionError):
    """The run did not do what the recorded one did, or its call was not broken exactly once: the case says nothing."""


@dataclass(frozen=True)
class Ended:
    """How a run ended."""

    status: int
    """Of waitpid."""
    out: str
    err: str
    trace: list[str]

    @property
    def killed(self) -> bool:
        """By a signal."""
        return os.WIFSIGNALED(self.status)

    @property
    def code(self) -> int:
        """Its exit code."""
        return os.waitstatus_to_exitcode(self.status)

    def points(self, place: Path) -> list[Point]:
        """The calls that concern `place` and what is in it, in order.

        Raises:
            NotInjected: another process or thread took part.
        """
        count: Counter[str] = Counter()
        points, pids = [], set()
        for line in self.trace:
            match = _match(line)
            if match is None:
                continue
            pids.add(match["pid"])
            count[match["name"]] += 1
            if _concerns(match["name"], match["arguments"], place):
                points.append(Point(match["name"], count[match["name"]], _paths(match["arguments"])))
        if len(pids) > 1:
            raise NotInjected(f"expected one thread, got {len(pids)}")
        return points


def _concerns(name: str, arguments: str, place: Path) -> bool:
    if name == "ioctl" and "CLONE" not in arguments:
        return False
    return re.search(rf'["<]{re.escape(str(place))}[/">]', arguments) is not None


def whole_paths(arguments: str) -> str:
    """The arguments of a call, with names that are relative to an open directory as paths."""
    return _RELATIVE.sub(r'"\1/\2"', arguments)


def _paths(arguments: str) -> tuple[str, ...]:
    found = (quoted or of_fd for quoted, of_fd in _PATHS.findall(whole_paths(arguments)))
    return tuple(_RANDOM.sub("*", path) for path in found if path)  # data is shown as an empty text


def run(body: Callable[[], int], *, strace: Sequence[str] | None = None) -> Ended:
    """Run `body` in a child, whose exit code it returns; under strace with these arguments, if there are any."""
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        trace = os.path.join(folder, "trace")
        gate, opener = os.pipe()
        child = os.fork()
        if child == 0:
            _be_child(body, gate, opener, (out.fileno(), err.fileno()))
        os.close(gate)
        tracer = None
        try:
            if strace is not None:
                tracer = _attach(child, trace, strace)
        finally:
            os.close(opener)  # which lets the child begin
            status = os.waitpid(child, 0)[1]
        if tracer is not None:
            tracer.communicate()
        lines = Path(trace).read_text(errors="replace").splitlines() if tracer is not None else []
        out.seek(0)
        err.seek(0)
        return Ended(status, out.read().decode(), err.read().decode(), lines)


def _be_child(body: Callable[[], int], gate: int, opener: int, streams: tuple[int, int]) -> None:
    code = 70
    try:
        os.close(opener)
        for number, fd in enumerate(streams, start=1):
            os.dup2(fd, number)
        select.select([gate], [], [])  # till here nothing is done that is counted: strace may begin at any moment
        code = body()
        sys.stdout.flush()
        sys.stderr.flush()
    except BaseException:  # noqa: BLE001  (a child must not return)
        os.write(2, traceback.format_exc().encode())
    finally:
        os._exit(code)


def _attach(child: int, trace: str, arguments: Sequence[str]) -> subprocess.Popen[str]:
    command = ["strace", "-f", "-y", "-s", "0", "-o", trace, *arguments, "-p", str(child)]
    tracer = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, close_fds=False)
    assert tracer.stderr is not None
    told = tracer.stderr.readline()
    if "attached" not in told:  # it says so when the child cannot make another call unseen
        tracer.kill()
        raise NotInjected(f"strace: {told}")
    return tracer


def record(body: Callable[[], int], calls: Sequence[str]) -> Ended:
    """Run `body` unbroken, and note these calls."""
    return run(body, strace=["-e", f"trace={_names(calls)}"])


def inject(body: Callable[[], int], point: Point, fault: Fault) -> Ended:
    """Run `body`, and break the call at `point`.

    Raises:
        NotInjected: it was another call, or was not broken, or more often than once.
    """
    injection = f"inject={point.name}:{fault.value}:when={point.n}"
    ended = run(body, strace=["-e", f"trace={point.name}", "-e", injection])
    calls = [match for match in map(_match, ended.trace) if match is not None]
    if len(calls) < point.n or (calls[point.n - 1]["name"], _paths(calls[point.n - 1]["arguments"])) != point[::2]:
        raise NotInjected(f"{point}: expected that call, got another, or none")
    if fault is Fault.KILL:
        times = int(ended.killed and os.WTERMSIG(ended.status) == signal.SIGKILL and len(calls) == point.n)
    elif fault.signal:
        times = sum(f"--- SIG{fault.name} " in line for line in ended.trace)
    else:
        times = sum(line.endswith("(INJECTED)") for line in ended.trace)
        times *= calls[point.n - 1].string.endswith("(INJECTED)")
    if times != 1:
        raise NotInjected(f"{point}: expected it to be broken once, got {times} times")
    return ended


def _match(line: str) -> re.Match[str] | None:
    """A call in strace's account; None for signals, and the end."""
    return _LINE.match(line) or _KILLED.match(line)


def _names(calls: Sequence[str]) -> str:
    """For strace: a name that this machine's kernel interface does not have is passed over."""
    return ",".join(f"?{name}" for name in calls)
