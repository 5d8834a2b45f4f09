r"""What happens inside, for whoever operates a program: messages to the standard library's loggers `casstore.AREA`.

The library only writes: handlers, levels and formats are the program's. `casstore` has a NullHandler, and no message is
more than INFO: what must be known is an error, or a warning in a report.

    INFO   what was done otherwise than at first try, or took back something: retries, resumed transfers, fallbacks,
           waits for other processes, what gc removed, what was derived anew
    DEBUG  what was decided on the way

A value may have come from a registry or a disk: what is no visible character is escaped, as `\u001b`. Secrets are no
values: who calls has taken them out.

`logging` takes 5 ms to import. Who has never imported it can have no handler, so nothing is imported here for nobody.
"""

from __future__ import annotations

import sys

from casstore.visible import visible

_INFO, _DEBUG = 20, 10  # as in logging
_LONGEST = 1000  # characters of a value


def info(area: str, text: str, *values: object) -> None:
    """Write a message of the area (`registry`, `store`, ...); `text` has a `%s` for each value."""
    _tell(_INFO, area, text, values)


def debug(area: str, text: str, *values: object) -> None:
    """Likewise, of less weight."""
    _tell(_DEBUG, area, text, values)


def _tell(level: int, area: str, text: str, values: tuple[object, ...]) -> None:
    if "logging" not in sys.modules:
        return
    import logging

    root = logging.getLogger("casstore")
    if not root.handlers:
        root.addHandler(logging.NullHandler())
    logger = root.getChild(area)
    if logger.isEnabledFor(level):
        logger.log(level, text, *(visible(str(value)[:_LONGEST]) for value in values), stacklevel=3)
