"""Processes that a test starts by forking, and that are not left behind."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import traceback
from collections.abc import Callable, Iterable

_PR_SET_PDEATHSIG = 1


def start(body: Callable[[], object]) -> int:
    """Run `body` in a child, which ends with it, with exit code 1, or with this process; returns the child's number."""
    parent = os.getpid()
    child = os.fork()
    if child == 0:
        try:
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() == parent:
                body()
        except BaseException:  # noqa: BLE001  (a child must not return)
            traceback.print_exc()
        finally:
            os._exit(1)
    return child


def kill(children: Iterable[int]) -> None:
    """Kill those that still run, and wait for all of them."""
    children = list(children)
    for child in children:
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
    for child in children:
        with contextlib.suppress(ChildProcessError):
            os.waitpid(child, 0)
