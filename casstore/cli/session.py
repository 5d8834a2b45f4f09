"""What the verbs of one run share: the settings, the way to the store, and the two streams."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from casstore.cli import progress
from casstore.cli.env import Settings
from casstore.cli.render import printable
from casstore.errors import UsageError

if TYPE_CHECKING:
    from casstore.durable import Durability
    from casstore.store import Store


@dataclass(slots=True)
class Session:
    """One run of the command line."""

    settings: Settings
    durable: bool = True
    wait: float = 60.0
    as_json: bool = False
    """--json was given: stdout is one JSON document."""
    quiet: bool = False
    """-q was given: stderr is for errors only."""

    @property
    def durability(self) -> Durability:
        """--durability."""
        from casstore.durable import Durability

        return Durability.FULL if self.durable else Durability.NONE

    def open_store(self, *, create: bool = False) -> Store:
        """The store of this run; a context manager.

        Raises:
            NotFound: there is none, and `create` is not set.
        """
        from casstore.store import Store  # numpy and all the rest: slow
        from casstore.storedir import StoreOptions

        options = StoreOptions(durability=self.durability, wait=self.wait)
        return Store.open(self.settings.store, create=create, options=options)

    def emit(self, text: str) -> None:
        """Write a line of data to stdout. The caller has escaped what came from elsewhere."""
        click.echo(text)

    def say(self, text: str) -> None:
        """Tell people something, on stderr."""
        if not self.quiet:
            click.echo(printable(text), err=True)

    def warn(self, text: str) -> None:
        """Tell people, on stderr, what they did not ask for but should know; -q does not silence it."""
        click.echo(click.style("warning: ", fg="yellow") + printable(text), err=True)

    def fail(self, text: str) -> None:
        """Tell people, on stderr, that one of several things failed."""
        click.echo(click.style("error: ", fg="red", bold=True) + printable(text), err=True)

    def progress(self, *, expected: int | None = None) -> progress.Silent:
        """A Progress for the library, to be used in a `with`."""
        shown = self.settings.stderr_is_terminal and not self.quiet and not self.as_json
        return progress.Bar(expected) if shown else progress.Silent()

    def refuse_terminal(self, *, output: bool) -> None:
        """Raise UsageError when a disk would go to, or come from, a terminal."""
        if output and self.settings.stdout_is_terminal:
            raise UsageError("restore to '-': expected a pipe or file as standard output, got a terminal")
        if not output and self.settings.stdin_is_terminal:
            raise UsageError("disk '-': expected a pipe or file as standard input, got a terminal")
