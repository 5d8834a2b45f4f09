"""Writes docs/first-ten-minutes.md: what somebody sees who has nothing yet, from the installation on.

    python -m tests.transcript [--out FILE] [--wheel FILE] [--root DIR]

Everything happens in an empty home with an environment of its own: a new virtual environment, the wheel built from this
tree, docker-registry on a free port. Every command is shown with all that it said and what it took; folders, ports and
the machine's kernel are replaced, nothing else. Needs mke2fs, debugfs and docker-registry, and a package index for pip.

With --root it happens in a root file system of its own, as debootstrap makes one; the page says what that had:

    debootstrap --variant=minbase --include=python3,python3-venv,ca-certificates bookworm DIR
"""

from __future__ import annotations

import argparse
import html
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from tests.benchmarks.report import say
from tests.support import disks
from tests.support.servers import registry

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "first-ten-minutes.md"
_SIZE, _DATA = 64 * disks.MIB, 8 * disks.MIB
_WIDTH = 100
_MOST_LINES = 24
INSIDE = "usr/lib/package0000/module01"

HEAD = """# The first ten minutes

<!-- Made by `python -m tests.transcript`: change that, not this file. -->

From nothing to a disk that came back from a registry, on a machine that has Python only. Everything below was typed
and said as it stands here, in an empty home; only folders and ports were made shorter, the wheel of this version stood
for `.`, and long outputs are cut where it says so. The disk is an ext4 file system of 64 MiB with 8 MiB of files; the
[tutorial](tutorial.md) explains what happens.
"""


@dataclass(frozen=True)
class Part:
    """A heading, what to say, and the commands; those of `quiet` are run and not shown."""

    title: str
    words: str
    commands: Sequence[str]


PARTS = (
    Part(
        "Install",
        "A virtual environment, and one package; `.` is a clone, or an unpacked source archive.",
        ("python3 -m venv env", "env/bin/pip install --quiet ."),
    ),
    Part("Look around", "", ("casstore", "casstore --version", "casstore doctor")),
    Part("Keep a disk", "", ("ls -ls disk.ext4", "casstore create base --disk disk.ext4", "casstore list")),
    Part(
        "Work on it, and keep it again",
        "Here 60 of its files are edited, and rows added to a database; only what changed is stored.",
        ("@edit", "casstore create edited --disk disk.ext4 --parent base", "casstore list", "casstore tree"),
    ),
    Part("What is different?", "", ("casstore diff base edited",)),
    Part(
        "Look inside, with nothing restored",
        "",
        ("casstore files edited /usr/lib", f"casstore cat edited /{INSIDE} | head -c 160"),
    ),
    Part(
        "To a registry, and elsewhere",
        "docker-registry listens on this machine, without TLS. `other` is an empty store, as another machine has it.",
        (
            "casstore push base localhost:5000/team/disks --plain-http",
            "casstore push edited localhost:5000/team/disks --plain-http",
            "casstore list localhost:5000/team/disks --plain-http",
            "casstore files localhost:5000/team/disks:edited /usr/lib/package0000 --plain-http | head -n 3",
            "casstore --store other pull localhost:5000/team/disks:edited --plain-http",
            "casstore --store other restore edited restored.ext4",
            "cmp disk.ext4 restored.ext4",
            "casstore --store other verify edited",
        ),
    ),
    Part(
        "Type something wrong",
        "",
        (
            "casstore creat again --disk disk.ext4",
            "casstore restore edted x.ext4",
            "casstore create base --disk disk.ext4",
        ),
    ),
    Part("Take it back", "", ("casstore rm edited", "casstore undo", "casstore list")),
    Part("A report for the browser", "", ("casstore report store.html --pair base edited", "ls -l store.html")),
)


class Shell:
    """Runs commands as somebody with an empty home would, in a folder of theirs."""

    def __init__(self, root: Path, wheel: Path, host: str) -> None:
        self._root, self._wheel, self._host = root, wheel, host
        inside = "/home/ann" if root != Path("/") else None
        self.home = Path(f"{root}{inside}") if inside else Path(tempfile.mkdtemp(prefix="home-", dir=wheel.parent))
        self._inside = inside or str(self.home)
        self.home.mkdir(parents=True, exist_ok=inside is None)
        path = os.pathsep.join([f"{self._inside}/env/bin", "/usr/bin", "/bin", "/usr/sbin", "/sbin"])
        self._env = {"HOME": self._inside, "PATH": path, "LC_ALL": "C.UTF-8", "COLUMNS": str(_WIDTH), "NO_COLOR": "1"}
        # Where this machine has its packages from.
        self._env |= {name: value for name, value in os.environ.items() if name.startswith("PIP_")}

    def run(self, command: str) -> tuple[str, int, float]:
        """What was said, the exit code, and the seconds."""
        real = command.replace("localhost:5000", self._host)
        real = real.replace("install --quiet .", f"install -qq {shlex.quote(str(self._wheel))}")  # no warnings
        shell = ["bash", "-c", f"cd {shlex.quote(self._inside)} && {real}"]
        if self._root != Path("/"):
            shell = ["chroot", str(self._root), *shell]
        start = time.perf_counter()
        done = subprocess.run(
            shell,
            env=self._env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
        )
        took = time.perf_counter() - start
        said = (
            done.stdout.decode(errors="replace")
            .replace(self._inside, "/home/ann")
            .replace(self._host, "localhost:5000")
        )
        return re.sub(r"(Linux \d+\.\d+)[\w.-]*", r"\1", said), done.returncode, took


def _shown(command: str, said: str, code: int, took: float) -> str:
    lines = [re.sub(r"[^\x20-\x7e\u00a0-\uffff]", "?", line.rstrip()) for line in said.rstrip("\n").splitlines()]
    if len(lines) > _MOST_LINES:
        left = len(lines) - _MOST_LINES + 1
        lines = [*lines[: _MOST_LINES - 1], f"... ({left} lines more)"]
    ended = f", exit {code}" if code else ""
    return "\n".join([f"$ {command}    # {took:.1f} s{ended}", *lines])


def transcript(work: Path, wheel: Path, root: Path) -> tuple[str, list[str]]:
    """The page, and the commands that ended in an error though they are not meant to."""
    tree, dense = work / "tree", work / "dense"
    tree.mkdir()
    disks.write_tree(tree, seed=1, data=_DATA)
    disks.make_ext4(dense, _SIZE, tree, seed=1)
    parts, failed, total = [HEAD], [], 0.0
    (work / "data").mkdir()
    with registry(work / "data") as server:
        shell = Shell(root, wheel, server.host)
        _sparse(dense, shell.home / "disk.ext4")
        for part in PARTS:
            shown = []
            for command in part.commands:
                if command == "@edit":
                    disks.edit_with_debugfs(dense, seed=2)
                    _sparse(dense, shell.home / "disk.ext4")
                    continue
                said, code, took = shell.run(command)
                total += took
                shown.append(_shown(command, said, code, took))
                if code and part.title != "Type something wrong":
                    failed.append(f"{command}: exit {code}: {said[-300:]}")
            words = f"{part.words}\n\n" if part.words else ""
            # A record, not samples: with typing errors, and outputs that look like commands.
            block = html.escape("\n\n".join(shown), quote=False)
            parts.append(f"## {part.title}\n\n{words}<pre>\n{block}\n</pre>\n")
        python = shell.run("env/bin/python -V")[0].strip()
    parts.append(
        f"All commands together took {total:.0f} s, the installation included. Recorded on"
        f" {datetime.now(UTC).date().isoformat()} with `python -m tests.transcript`{_told(root)}, {python}.\n"
    )
    return "\n".join(parts), failed


def _told(root: Path) -> str:
    if root == Path("/"):
        return ""
    system = dict(re.findall(r'^(\w+)="?([^"\n]*)', (root / "etc/os-release").read_text(), re.MULTILINE))
    return f" in a new {system.get('PRETTY_NAME', 'system')} (minbase, with python3, python3-venv and ca-certificates)"


def _sparse(dense: Path, disk: Path) -> None:
    subprocess.run(["cp", "--sparse=always", dense, disk], check=True)


def commands(page: str) -> list[list[str]]:
    """Every casstore command of the page, as words."""
    lines = re.findall(r"^\$ (.*?)    # [\d.]+ s", html.unescape(page), re.MULTILINE)
    parsed = [shlex.split(line.partition(" | ")[0]) for line in lines]
    return [words for words in parsed if words[0] == "casstore"]


def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=PAGE, help="the page (%(default)s)")
    parser.add_argument("--root", type=Path, default=Path("/"), help="do it in this root file system, as root")
    parser.add_argument("--wheel", type=Path, help="what is installed (the wheel is built from this tree)")
    args = parser.parse_args(words)
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder).resolve()
        wheel = args.wheel
        if wheel is None:
            build = [sys.executable, "-m", "build", "--wheel", "--outdir", str(work / "dist"), str(ROOT)]
            subprocess.run(build, check=True, stdout=subprocess.DEVNULL)
            wheel = next((work / "dist").glob("*.whl"))
        if args.root != Path("/"):
            (args.root / "srv").mkdir(exist_ok=True)
            wheel = Path("/srv", Path(shutil.copy(wheel, args.root / "srv")).name)
        page, failed = transcript(work, wheel, args.root)
    args.out.write_text(page)
    say("\n".join(failed) or f"{args.out}: every command did what it should")
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
