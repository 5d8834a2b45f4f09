"""Terminals to write to: what a program shows where somebody sits in front of it."""

from __future__ import annotations

import fcntl
import os
import pty
import struct
import termios
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def terminal(*, columns: int = 120) -> Iterator[tuple[int, list[str]]]:
    """The descriptor of a terminal, and what it was shown, as one text when the block ends; lines end in CR LF."""
    primary, secondary = pty.openpty()
    fcntl.ioctl(secondary, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    shown: list[str] = []

    def read() -> None:
        data = b""
        with os.fdopen(primary, "rb", buffering=0) as screen:
            try:
                while part := screen.read(65536):
                    data += part
            except OSError:  # EIO: the other side has closed
                pass
        shown.append(data.decode())

    reader = threading.Thread(target=read)
    reader.start()
    try:
        yield secondary, shown
    finally:
        os.close(secondary)
        reader.join()
