"""Write the tables of docs/reference/json.md: the fields of every JSON output, from its schema.

All after the heading "## Documents" is replaced. Run `python docs/generate_json.py` after changing a schema or the
command line; tests/test_docs_json.py fails until that was done.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click

from casstore.cli import outputs
from casstore.cli.main import main as root
from casstore.cli.outputs import Shape

PAGE = Path(__file__).parent / "reference" / "json.md"
HEADING = "## Documents\n"
_DEEPEST = 5
_OF_ALL = {"error": "An error, on stderr", "progress": "A line on stderr, with `--progress json` or `--json`"}


def verbs(command: click.Command, name: str = "", parent: click.Context | None = None) -> Iterator[str]:
    """The words of every command that has --json."""
    if any("--json" in param.opts for param in command.params):
        yield name
    if isinstance(command, click.Group):
        with click.Context(command, info_name=command.name, parent=parent, **command.context_settings) as context:
            for child in command.list_commands(context):
                found = command.get_command(context, child)
                if found is not None and not found.hidden:
                    yield from verbs(found, f"{name} {child}".strip(), context)


def rows(shape: Shape, path: str = "", depth: int = 0) -> Iterator[tuple[str, str]]:
    """(path, type) of every field of an object, and of what is in it; `[]` stands for each item of an array."""
    for name, inner in shape.fields.items():
        here = f"{path}.{name}" if path else name
        yield here, f"{inner.type}{'' if name in shape.required else '; may be missing'}"
        if depth < _DEEPEST:
            yield from _inside(inner, here, depth + 1)


def _inside(shape: Shape, path: str, depth: int) -> Iterator[tuple[str, str]]:
    if shape.items is not None:
        yield from _inside(shape.items, f"{path}[]", depth)
    else:
        yield from rows(shape, path, depth)


def table(shape: Shape) -> str:
    """The fields of a document."""
    lines = [f"| `{path}` | {kind} |" for path, kind in rows(shape)]
    return "\n".join(["| field | |", "|---|---|", *lines])


def documents() -> str:
    """The generated part of the page."""
    users: dict[str, list[str]] = {}
    for verb in verbs(root):
        for name in outputs.names(verb):
            users.setdefault(name, []).append(f"`{verb}`")
    parts = []
    for name, told in [*((name, f"Of {', '.join(verbs)}") for name, verbs in users.items()), *_OF_ALL.items()]:
        shape = outputs.output(name)
        each = f" A template writes a line for each of `{shape.each}`." if shape.each else ""
        parts.append(f"### cli-{name}\n\n{told}.{each}\n\n{table(shape)}\n")
    return "\n".join(parts)


def render(page: str) -> str:
    """The page with all tables up to date."""
    return f"{page.partition(HEADING)[0]}{HEADING}\n{documents()}"


if __name__ == "__main__":
    PAGE.write_text(render(PAGE.read_text()))
