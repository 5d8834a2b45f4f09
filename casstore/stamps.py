"""What a file or directory looked like: equal stamps stand for equal content, without reading it.

A stamp is only as good as the clock of the file system: two changes within one tick of it look alike. So one is given
only for what has not changed for a while. It is good until the next boot: what a power cut does to a file may leave it
looking as before.
"""

from __future__ import annotations

import os
import time
from functools import cache

_TICK = 20_000_000  # ns; the kernel's tick is 1 to 10 ms
_COARSE_TICK = 2_500_000_000  # ns; of file systems that store whole seconds (FAT: two)
_BOOT_ID = "/proc/sys/kernel/random/boot_id"


def stamp(*paths: str) -> str | None:
    """A stamp of these files and directories; None where there is none, as for what is missing or changed just now."""
    boot, now = boot_id(), time.time_ns()
    if boot is None:
        return None
    words = [boot]
    for path in paths:
        try:
            info = os.stat(path, follow_symlinks=False)
        except OSError:
            return None
        newest = max(info.st_mtime_ns, info.st_ctime_ns)
        tick = _TICK if newest % 1_000_000_000 else _COARSE_TICK
        if now - newest < tick:
            return None
        words += map(str, (info.st_dev, info.st_ino, info.st_size, info.st_mtime_ns, info.st_ctime_ns))
    return " ".join(words)


@cache
def boot_id() -> str | None:
    """What tells this boot of the machine from all others."""
    try:
        with open(_BOOT_ID, encoding="ascii") as file:
            return file.read().strip() or None
    except (OSError, ValueError):
        return None
