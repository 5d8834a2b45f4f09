"""Command lines as people type them: whether the command line would take them, without doing anything."""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Iterator, Sequence

import click

from casstore.cli.main import main


def commands(command: click.Command = main, name: str = "") -> Iterator[tuple[str, click.Command]]:
    """Every command below another, by its words, as `key show`."""
    if not isinstance(command, click.Group):
        return
    with click.Context(command, **command.context_settings) as context:
        for child in command.list_commands(context):
            found = command.get_command(context, child)
            assert found is not None
            words = f"{name} {child}".strip()
            yield words, found
            yield from commands(found, words)


def parse(words: Sequence[str], command: click.Command = main, parent: click.Context | None = None) -> click.Context:
    """Take words apart down to the last command, and let every option read its value; nothing is run.

    Raises:
        click.UsageError: they are none that the command line takes.
    """
    with command.make_context(parent.info_name if parent else "casstore", list(words), parent=parent) as context:
        if not isinstance(command, click.Group) or not words:
            return context
        left = [*context._protected_args, *context.args]
        if not left:
            return context
        _, child, rest = command.resolve_command(context, left)
        assert child is not None
        return parse(rest, child, context)


def require_valid(line: str) -> None:
    """A line for a shell is one that casstore takes."""
    first, *words = shlex.split(line, comments=True)
    assert first == "casstore", line
    with contextlib.suppress(click.exceptions.Exit):  # --help
        parse(words)
