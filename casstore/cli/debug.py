"""What --debug shows of what happens inside: the messages of casstore's loggers, on stderr."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable

from casstore.cli.session import Session
from casstore.signatures.redaction import without_private


class _Showing(logging.Handler):
    """Hands messages to a session, as `registry: ...`."""

    def __init__(self, session: Session) -> None:
        super().__init__(logging.DEBUG)
        self._session = session

    def emit(self, record: logging.LogRecord) -> None:
        """Show a message. That nobody reads stderr any more is no reason to give up the work."""
        area = record.name.removeprefix("casstore.")
        with contextlib.suppress(OSError):
            self._session.trace(f"{area}: {without_private(record.getMessage())}")


def show_messages(session: Session) -> Callable[[], None]:
    """Show all messages of the library from now on, until what is returned is called."""
    logger, handler = logging.getLogger("casstore"), _Showing(session)
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)

    def end() -> None:
        logger.removeHandler(handler)
        logger.setLevel(level)

    return end
