"""Runs a command and measures it from outside."""

from __future__ import annotations

import json
import mmap
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.support import disks

PATH = os.pathsep.join([str(Path(sys.executable).parent), disks.PROGRAM_PATH])

Command = Sequence[str | Path]


@dataclass(frozen=True)
class Cost:
    """What one command took."""

    seconds: float
    peak: int
    """Bytes: the largest resident set of the process."""
    output: str
    """What it wrote to standard output."""


_FREE = 2 << 30
"""Bytes."""


class CommandFailed(Exception):
    """A measured command exited with an error, or did the wrong thing."""


# A process starts with the peak of the process that it was forked from, so something small must do the forking.
_LAUNCH = """
import json, os, sys, time
start = time.perf_counter()
child = os.posix_spawnp(sys.argv[2], sys.argv[2:], os.environ)
_, status, usage = os.wait4(child, 0)
result = [time.perf_counter() - start, usage.ru_maxrss * 1024, os.waitstatus_to_exitcode(status)]
with open(sys.argv[1], "w") as out:
    json.dump(result, out)
"""


def _bring_memory() -> None:
    """Use some memory, and free it. A virtual machine gives what nobody uses back to its host, and then the first one
    to use it, whichever tool that is, pays several times the usual price of a page.
    """
    with mmap.mmap(-1, _FREE) as memory:
        for at in range(0, _FREE, mmap.PAGESIZE):
            memory[at] = 1


def run(command: Command, *, cwd: Path, env: Mapping[str, str]) -> Cost:
    """Run a command to its end and measure it; what others wrote before is on the disk when it starts."""
    os.sync()
    _bring_memory()
    with tempfile.NamedTemporaryFile() as result:
        launch = [sys.executable, "-I", "-S", "-c", _LAUNCH, result.name, *command]
        done = subprocess.run(launch, cwd=cwd, env=env, stdin=subprocess.DEVNULL, capture_output=True, check=False)
        words = " ".join(str(word) for word in command)
        if done.returncode:
            raise CommandFailed(f"{words}: {done.stderr.decode(errors='replace')[-2000:]}")
        seconds, peak, code = json.load(result)
    if code:
        said = (done.stdout + done.stderr).decode(errors="replace")
        raise CommandFailed(f"{words}: exit {code}\n{said[-2000:]}")
    return Cost(seconds, peak, done.stdout.decode(errors="replace"))


def stored(folder: Path) -> int:
    """Bytes that the files below a folder take."""
    return sum(disks.allocated(path) for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
