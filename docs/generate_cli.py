"""Put the real `--help` texts into the documentation.

Every fenced block in docs/reference/cli.md that starts with `$ casstore ... --help` is replaced by what that command
says; a command without a block gets one at the end. Run `python docs/generate_cli.py` after changing the command line;
tests/test_docs.py fails until that was done.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import click

from casstore.cli.main import main as root

PAGE = Path(__file__).parent / "reference" / "cli.md"
BLOCK = re.compile(r"```text\n\$ (casstore[^\n]*?) --help\n.*?\n```", re.DOTALL)
HEAD = "# Command line\n"


def helps(command: click.Command, name: str, parent: click.Context | None = None) -> Iterator[tuple[str, str]]:
    """The help text of a command and of every command below it that is not hidden, by full name."""
    settings = {**command.context_settings, "terminal_width": 100, "max_content_width": 100}
    context = click.Context(command, info_name=name, parent=parent, **settings)
    yield context.command_path, command.get_help(context)
    if isinstance(command, click.Group):
        for child in command.list_commands(context):
            found = command.get_command(context, child)
            if found is not None and not found.hidden:
                yield from helps(found, child, context)


def render(page: str) -> str:
    """The page with all blocks up to date."""
    texts = dict(helps(root, "casstore"))
    blocks = {name: f"```text\n$ {name} --help\n{text.strip()}\n```" for name, text in texts.items()}
    there = set(BLOCK.findall(page))
    if unknown := there - set(blocks):
        raise SystemExit(f"{PAGE.name}: no such command: {', '.join(sorted(unknown))}")
    page = BLOCK.sub(lambda match: blocks[match[1]], page)
    for name, block in blocks.items():
        if name not in there:
            page += f"\n## {name}\n\n{block}\n"
    return page


if __name__ == "__main__":
    PAGE.write_text(render(PAGE.read_text() if PAGE.exists() else HEAD))
