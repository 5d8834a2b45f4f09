"""How a run ends: errors and signals become a text on stderr, and an exit code.

    0      done
    3      done, and damage was found
    2..17  an error of the library, by its class (casstore.errors); 2 also for words that were not understood
    1      anything else
    128+n  stopped by signal n: 129 SIGHUP, 130 SIGINT, 143 SIGTERM

A first signal is an exception in the main thread, so that locks, staged files and unfinished destinations are cleaned
up on the way out. A second one ends the process at once; gc clears away what that leaves.
"""

from __future__ import annotations

import contextlib
import re
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from types import FrameType

import click

from casstore.cli.render import line, printable
from casstore.errors import CasstoreError, StorageError, UntrustedContent
from casstore.signatures.redaction import without_private  # here, as there may be no memory left when it is needed

DAMAGED = UNVERIFIABLE = 3
"""What a check that found damage exits with: no error, for it did what was asked."""

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_INSIST = 0.01  # seconds


Advise = Callable[[BaseException], str | None]


class Stopped(BaseException):
    """A signal asked to stop. No Exception, so that nothing on the way takes it for a failure."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number: int = number
        self.exit_code: int = 128 + number
        self.advice: str = ""
        """What becomes of the work, where there is more to say than that it was stopped."""


@contextlib.contextmanager
def stopping(advice: str) -> Iterator[None]:
    """Say what becomes of the work where a signal stops it."""
    try:
        yield
    except Stopped as stopped:
        stopped.advice = advice
        raise


class Report:
    """Says on stderr what went wrong: as a line, or as a JSON object."""

    def __init__(self, *, as_json: bool, debug: bool, color: bool, advise: Advise = lambda _: None) -> None:
        """`advise` knows the command to type next after an error, where there is one."""
        self._as_json, self._debug, self._color, self._advise = as_json, debug, color, advise

    @classmethod
    def for_arguments(cls, args: Sequence[str], *, color: bool, advise: Advise = lambda _: None) -> Report:
        """As the arguments want it, even those that could not be parsed."""
        words = args[: args.index("--")] if "--" in args else args
        pairs = set(zip(words, words[1:]))  # noqa: B905, RUF007
        as_json = not pairs.isdisjoint({("--format", "json"), ("--progress", "json")})
        as_json = as_json or not {"--json", "--format=json", "--progress=json"}.isdisjoint(words)
        return cls(as_json=as_json, debug="--debug" in words, color=color, advise=advise)

    def tell(
        self, kind: str, message: str, exit_code: int, *, hint: str = "", reasons: Sequence[str] = (), next_: str = ""
    ) -> int:
        """Report an error; returns its exit code. Its `reasons` are for programs; `next_` is the command to type."""
        message, next_ = without_private(message), without_private(next_)
        hint = f"Try: {next_}" if next_ else hint
        if self._as_json:
            more: dict[str, object] = {"reasons": list(reasons)} if reasons else {}
            more |= {"try": next_} if next_ else {}
            click.echo(line(error=kind, message=message, exit_code=exit_code, **more), err=True)
        else:
            head = click.style("error: ", fg="red", bold=True)
            text = head + printable(message) + (f"\n{printable(hint)}" if hint else "")
            click.echo(text, err=True, color=None if self._color else False)
        return exit_code

    def tell_error(self, error: BaseException) -> int:
        """Report an exception that ended the run; returns the exit code."""
        if self._debug and not isinstance(error, click.ClickException):
            click.echo(printable_trace(error), err=True)
        if isinstance(error, CasstoreError):
            text = "; ".join([str(error), *getattr(error, "__notes__", ())])
            reasons = error.reasons if isinstance(error, UntrustedContent) else ()
            return self.tell(type(error).__name__, text, error.exit_code, reasons=reasons, next_=self._next(error))
        if isinstance(error, click.UsageError):
            hint = f"Try: {_instead(error) or f'{error.ctx.command_path} --help'}" if error.ctx else ""
            return self.tell("UsageError", _said(error), error.exit_code, hint=hint, next_=self._next(error))
        if isinstance(error, click.ClickException):
            return self.tell(type(error).__name__, error.format_message(), error.exit_code)
        if isinstance(error, Stopped):
            advice = f"; {error.advice}" if error.advice else ""
            return self.tell("Stopped", f"stopped by {error}{advice}", error.exit_code)
        if isinstance(error, click.Abort):
            return self.tell("Stopped", "expected an answer, got the end of the input", 1)
        if isinstance(error, OSError):
            where = f"{error.filename!r}: " if error.filename else ""
            text = f"{where}{error.strerror or error}"
            return self.tell("StorageError", text, StorageError.exit_code, next_=self._next(error))
        if isinstance(error, MemoryError):
            return self.tell("MemoryError", "not enough memory: give it more, or let it work with fewer --workers", 1)
        hint = "" if self._debug else "Run it again with --debug before the verb for a traceback, and report it."
        return self.tell("InternalError", f"unexpected {type(error).__name__}: {error}", 1, hint=hint)

    def _next(self, error: Exception) -> str:
        """The command to type next. The run has failed: to find none must not fail it once more."""
        try:
            return self._advise(error) or ""
        except Exception:  # noqa: BLE001
            return ""


def _said(error: click.UsageError) -> str:
    """What click says, in one line; of an option for every verb, that its place is before it."""
    if isinstance(error, click.NoSuchOption) and error.ctx is not None:
        root = error.ctx.find_root().command
        if any(error.option_name in param.opts and not param.is_eager for param in root.params):
            return f"No such option '{error.option_name}'. It goes before the verb."
    return re.sub(r"\n\t?", " ", error.format_message())


def _instead(error: click.UsageError) -> str | None:
    """The words that were meant, where it is plain: push signs with --sign."""
    if not isinstance(error, click.NoSuchOption) or error.ctx is None:
        return None
    words = error.ctx.command_path
    return f"{words} --sign ..." if error.option_name == "--key" and words.endswith(" push") else None


def printable_trace(error: BaseException) -> str:
    """The traceback, for --debug."""
    text = without_private("".join(traceback.format_exception(error)))
    return "\n".join(printable(line) for line in text.splitlines())


def run(body: Callable[[], object], report: Report) -> int:
    """Run the command line; whatever happens becomes an exit code."""
    try:
        with signals():
            result = body()
    except (Exception, Stopped, KeyboardInterrupt) as error:  # noqa: BLE001  (the last resort of the whole program)
        return report.tell_error(Stopped(signal.SIGINT) if isinstance(error, KeyboardInterrupt) else error)
    return result if isinstance(result, int) else 0


@contextlib.contextmanager
def signals() -> Iterator[None]:
    """Raise Stopped for the first signal that asks to stop. A signal that was ignored (nohup) stays so."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in _SIGNALS}
    mine = [number for number, handler in before.items() if handler is not signal.SIG_IGN]

    def stop(number: int, _: FrameType | None) -> None:
        for each in mine:
            signal.signal(each, signal.SIG_DFL)
        raise Stopped(number)

    def insist(unraisable: sys.UnraisableHookArgs) -> None:
        """Python drops what is raised inside a callback of the garbage collector: stop again, a moment later."""
        if not isinstance(unraisable.exc_value, Stopped):
            previous_hook(unraisable)
            return
        number = unraisable.exc_value.number
        signal.signal(signal.SIGALRM, lambda _number, frame: stop(number, frame))
        signal.setitimer(signal.ITIMER_REAL, _INSIST)

    previous_hook, sys.unraisablehook = sys.unraisablehook, insist
    for number in mine:
        signal.signal(number, stop)
    try:
        yield
    finally:
        sys.unraisablehook = previous_hook
        for number in mine:
            signal.signal(number, before[number])
