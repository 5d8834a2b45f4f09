"""What a machine must offer for some tests: programs, and a few powers that are no program.

    root    the effective user may do everything
    loop    root, and loop mounts really work here (in many containers they do not)
    strace  the program, and tracing is permitted
    fuse    /dev/fuse and fusermount
    xfs     "loop", and such file systems (with reflinks) can be made and mounted
    btrfs   the same
    microsandbox    all the versions of it that tests/support/microsandbox.py runs
    sigstore        Node and @sigstore/verify, of .ci/install-node-packages.sh
    browser         Chromium, Node, and what .ci/install-node-packages.sh puts beside them

Any other need is the name of a program.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path

from tests.support import disks, microsandbox


def find_program(name: str) -> str | None:
    """The path of a program; also looks where an ordinary user's PATH does not."""
    return shutil.which(name, path=disks.PROGRAM_PATH)


def _root() -> bool:
    return os.geteuid() == 0


def _loop() -> bool:
    if not _root() or find_program("mount") is None:
        return False
    with tempfile.TemporaryDirectory() as folder:
        image = Path(folder, "disk")
        disks.unpack_fixture("base", image)
        try:
            with disks.loop_mounted(image):
                return True
        except (OSError, subprocess.CalledProcessError):
            return False


def _strace() -> bool:
    strace = find_program("strace")
    if strace is None:
        return False
    command = [strace, "-qq", "-o", os.devnull, "-e", "trace=none", "true"]
    return subprocess.run(command, check=False, capture_output=True).returncode == 0


def _fuse() -> bool:
    return Path("/dev/fuse").exists() and (find_program("fusermount3") or find_program("fusermount")) is not None


def _mounts(kind: disks.FileSystem) -> bool:
    if not _loop() or find_program(f"mkfs.{kind}") is None:
        return False
    with tempfile.TemporaryDirectory() as folder:
        try:
            with disks.file_system(Path(folder), kind):
                return True
        except (OSError, subprocess.CalledProcessError):
            return False


VERIFIERS = Path(__file__).parents[2] / ".cache" / "verifiers"
"""Where .ci/install-node-packages.sh puts them."""


def _sigstore() -> bool:
    return find_program("node") is not None and (VERIFIERS / "node_modules" / "@sigstore" / "verify").is_dir()


DRIVERS = Path(__file__).parents[2] / ".cache" / "browser"
"""Where .ci/install-node-packages.sh puts them."""


def _browser() -> bool:
    programs = find_program("chromium") is not None and find_program("node") is not None
    return programs and (DRIVERS / "node_modules" / "playwright-core").is_dir()


_POWERS: dict[str, Callable[[], bool]] = {
    "root": _root,
    "loop": _loop,
    "strace": _strace,
    "fuse": _fuse,
    "xfs": partial(_mounts, "xfs"),
    "btrfs": partial(_mounts, "btrfs"),
    "microsandbox": microsandbox.installed,
    "sigstore": _sigstore,
    "browser": _browser,
}


@cache
def available(need: str) -> bool:
    """Whether this machine offers `need`; found out once per session."""
    power = _POWERS.get(need)
    return power() if power else find_program(need) is not None
