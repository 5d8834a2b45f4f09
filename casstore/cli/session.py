"""What the verbs of one run share: the settings, the way to the store, and the two streams."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import click

from casstore.cli import progress, render
from casstore.cli.bars import Bars
from casstore.cli.env import Settings
from casstore.errors import UsageError

if TYPE_CHECKING:
    from casstore.cli.template import Template
    from casstore.durable import Durability
    from casstore.store import Store
    from casstore.storedir import StoreOptions


@dataclass(slots=True)
class Session:
    """One run of the command line."""

    settings: Settings
    durable: bool = True
    wait: float = 60.0
    as_json: bool = False
    """--json or --format was given: stdout is one JSON document, or what a template makes of it."""
    template: Template | None = None
    """--format, unless that is `json`."""
    quiet: bool = False
    """-q was given: stderr is for errors only."""
    progress_kind: str = "auto"
    """--progress: one of progress.KINDS."""
    display: progress.Silent = field(default_factory=progress.Silent)
    """What shows progress now; all that is said goes through it."""
    _warned: bool = False

    @property
    def durability(self) -> Durability:
        """--durability."""
        from casstore.durable import Durability

        return Durability.FULL if self.durable else Durability.NONE

    @property
    def store_options(self) -> StoreOptions:
        """How this run works with stores."""
        from casstore.storedir import StoreOptions

        return StoreOptions(durability=self.durability, wait=self.wait)

    def open_store(self, *, create: bool = False) -> Store:
        """The store of this run; a context manager. What is odd about the store itself is told once.

        Raises:
            NotFound: there is none, and `create` is not set.
        """
        from casstore.store import Store  # numpy and all the rest: slow

        return self._opened(Store.open(self.settings.store, create=create, options=self.store_options))

    def make_store(self, *, share: bool) -> Store:
        """The store of this run, made where there is none; see Store.init."""
        from casstore.store import Store

        return self._opened(Store.init(self.settings.store, share=share, options=self.store_options))

    def _opened(self, store: Store) -> Store:
        if not self._warned:
            for warning in store.warnings:
                self.warn(warning)
            self._warned = True
        return store

    def tell_taken_over(self, store: Store) -> None:
        """Say what names stood for that `store` has given to something else, by force."""
        for name, ref in store.taken_over.items():
            self.say(
                f"{name} was {ref.digest}; casstore undo {name} --as OTHER gives it another name, until casstore gc"
            )

    def warn_of_loss(self, names: Sequence[str]) -> None:
        """Say what was removed for good, because the disk is full."""
        if names:
            self.warn(
                f"removed for good: {render.some(names)}; on the full disk the trash had no room for what undoes it"
            )

    def emit(self, text: str) -> None:
        """Write a line of data to stdout. The caller has escaped what came from elsewhere."""
        click.echo(text)

    def emit_document(self, **content: Any) -> None:
        """Write a JSON document of the given fields to stdout, with its version; or what --format makes of it.

        Raises:
            UsageError: the template names a field that it has not.
        """
        if self.template is None:
            self.emit(render.document(**content))
            return
        for line in self.template.lines({"version": render.JSON_VERSION, **content}):
            self.emit(line)

    def say(self, text: str) -> None:
        """Tell people something, on stderr."""
        if not self.quiet:
            self._talk("message", text)

    def warn(self, text: str) -> None:
        """Tell people, on stderr, what they did not ask for but should know; -q does not silence it."""
        self._talk("warning", text)

    def fail(self, text: str) -> None:
        """Tell people, on stderr, that one of several things failed."""
        self._talk("error", text)

    def trace(self, text: str) -> None:
        """Tell people, on stderr, what happens inside; only --debug asks for it."""
        self._talk("debug", text)

    def _talk(self, kind: str, text: str) -> None:
        # With --json an error that ends the run is a JSON object on stderr: so is all that comes before it.
        (progress.Objects() if self._all_json else self.display).say(kind, text)

    @property
    def _all_json(self) -> bool:
        return self.as_json and self.template is None

    def show_progress(self, kind: str) -> None:
        """Take --progress."""
        self.progress_kind = kind
        self.display = _display(kind)

    def progress(self, *, expected: int | None = None) -> progress.Silent:
        """A Progress for the library, to be used in a `with`; `expected` is the total where it does not know its own.

        Unless --progress says what to show, it is bars on a terminal and lines elsewhere, and nothing where -q or
        --json asks for a quiet stderr. A terminal that cannot draw bars gets lines instead.
        """
        kind = self.progress_kind
        if kind == "auto":
            kind = "bar" if self.settings.stderr_is_terminal else "plain"
            kind = "none" if self.quiet or self.as_json else kind
        if kind == "bar" and self.settings.dumb_terminal:
            kind = "plain"
        self.display = _display(kind, expected)
        return self.display

    def refuse_terminal(self, *, output: bool, subject: str = "") -> None:
        """Raise UsageError when a disk or archive, the `subject`, would go to, or come from, a terminal."""
        if output and self.settings.stdout_is_terminal:
            raise UsageError(
                f"{subject or 'restore to'} '-': expected a pipe or file as standard output, got a terminal"
            )
        if not output and self.settings.stdin_is_terminal:
            raise UsageError(f"{subject or 'disk'} '-': expected a pipe or file as standard input, got a terminal")


def _display(kind: str, expected: int | None = None) -> progress.Silent:
    """A display of one of progress.KINDS; `auto`, which is still to be decided, shows nothing."""
    displays: dict[str, Callable[[int | None], progress.Silent]]
    displays = {"bar": Bars, "plain": progress.Lines, "json": progress.JsonLines}
    return displays[kind](expected) if kind in displays else progress.Silent()
