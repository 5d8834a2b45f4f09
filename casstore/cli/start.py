"""Where the command `casstore` starts: so little is imported here that a signal finds an answer from the beginning."""

from __future__ import annotations

import os
import signal
from types import FrameType


def main() -> None:
    """Run the command line. Until its own handlers stand, a signal that asks to stop just ends the process."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _leave)
    from casstore.cli.env import prepare

    prepare()
    from casstore.cli.main import main as command_line

    command_line()


def _leave(number: int, _: FrameType | None) -> None:
    os._exit(128 + number)  # nothing has begun: there is nothing to clean up
