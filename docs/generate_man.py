"""Write the manual pages: casstore.1 about all verbs, and casstore-VERB.1 about each, from what `--help` says.

`python docs/generate_man.py DIR` writes them to DIR. They are made when the package is built, and are not kept.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import click

from casstore import __version__
from casstore.cli.main import SECTIONS
from casstore.cli.main import main as root
from casstore.cli.options import GroupedOption, summary

CHANGELOG = Path(__file__).parents[1] / "CHANGELOG.md"
_NAME = "casstore"
_EXIT = """\
.SH EXIT STATUS
0: done. 2: the command was not understood. 3: done, and damage was found.
Every other code is an error; the page "Exit codes" of the documentation lists them."""
_ENVIRONMENT = {
    "CASSTORE_STORE": "the store, unless --store names it",
    "CASSTORE_POLICY": "a file that says whose signatures what must have",
    "CASSTORE_REGISTRY, CASSTORE_USERNAME, CASSTORE_PASSWORD, CASSTORE_TOKEN": "credentials for one registry",
    "CASSTORE_PASSPHRASE": "opens private keys",
    "REGISTRY_AUTH_FILE, DOCKER_CONFIG": "where the files of passwords are",
    "HTTPS_PROXY, HTTP_PROXY, NO_PROXY, SSL_CERT_FILE": "how registries are reached",
    "MSB_HOME": "the home of microsandbox",
    "NO_COLOR": "no colours",
}


def escape(text: str) -> str:
    """Text for roff: no character has a meaning of its own, and a hyphen is one that can be copied."""
    escaped = text.replace("\\", "\\e").replace("-", "\\-")
    return re.sub(r"^([.'])", r"\\&\1", escaped, flags=re.MULTILINE)


def paragraphs(text: str) -> Iterator[str]:
    """The paragraphs of a docstring."""
    for number, paragraph in enumerate(re.split(r"\n\s*\n", text.strip())):
        if number:
            yield ".PP"
        yield escape(" ".join(paragraph.split()))


def _options(command: click.Command, context: click.Context, *, below: bool = False) -> Iterator[str]:
    """The options, under their headings; of a command `below` another one without --help, and with smaller ones."""
    sections: dict[str, list[tuple[str, str]]] = {}
    for param in command.get_params(context):
        record = param.get_help_record(context) if isinstance(param, click.Option) else None
        if record is not None and not (below and param.name == "help"):
            heading = param.heading if isinstance(param, GroupedOption) else "Options"
            sections.setdefault(heading, []).append(record)
    for heading, records in sections.items():
        yield from (".PP", f"{heading}:") if below else (f".SH {heading.upper()}",)
        for words, text in records:
            yield from (".TP", f"\\fB{escape(words)}\\fP", escape(" ".join(text.split())))


def _head(page: str, summary: str) -> Iterator[str]:
    yield f'.TH {escape(page.upper())} 1 "{_date()}" "{_NAME} {__version__}" "{_NAME} manual"'
    yield from (".SH NAME", f"{escape(page)} \\- {escape(summary)}")


def _date() -> str:
    """The day of the last release, so that the same source gives the same pages."""
    found = re.search(r"^## \[[0-9.]+\] - ([0-9-]{10})$", CHANGELOG.read_text(), re.MULTILINE)
    return found[1] if found else ""


def _summary(command: click.Command) -> str:
    text = summary(command, 80).removesuffix(".")
    return text[:1].lower() + text[1:]


def _commands(command: click.Command, context: click.Context) -> Iterator[tuple[click.Command, click.Context]]:
    yield command, context
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            child = command.get_command(context, name)
            if child is not None and not child.hidden:
                yield from _commands(child, click.Context(child, info_name=name, parent=context))


def verb_page(command: click.Command, context: click.Context) -> str:
    """The page of a verb, with those below it."""
    page = context.command_path.replace(" ", "-")
    lines = [*_head(page, _summary(command)), ".SH SYNOPSIS"]
    for each, inner in _commands(command, context):
        if not isinstance(each, click.Group):
            usage = " ".join(each.collect_usage_pieces(inner))
            lines += [".br"] if lines[-1] != ".SH SYNOPSIS" else []
            lines.append(f"\\fB{escape(inner.command_path)}\\fP {escape(usage)}")
    examples: list[str] = []
    for each, inner in _commands(command, context):
        lines += [".SH DESCRIPTION" if each is command else f".SS {escape(inner.command_path)}"]
        lines += [*paragraphs(each.help or ""), *_options(each, inner, below=each is not command)]
        examples += getattr(each, "examples", [])
    lines += [".SH EXAMPLES", ".nf", *map(escape, examples), ".fi", _EXIT, ".SH SEE ALSO", f"\\fB{_NAME}\\fP(1)"]
    return "\n".join(lines) + "\n"


def main_page(context: click.Context) -> str:
    """The page about all."""
    lines = [*_head(_NAME, "git for sandbox disks, on any container registry"), ".SH SYNOPSIS"]
    lines += [f"\\fB{_NAME}\\fP [OPTIONS] VERB [ARGS]...", ".SH DESCRIPTION", *paragraphs(root.help or "")]
    for section, verbs in SECTIONS.items():
        lines.append(f".SH {section.upper()}")
        for name in verbs:
            command = root.get_command(context, name)
            if command is not None:
                lines += [".TP", f"\\fB{_NAME}\\-{escape(name)}\\fP(1)", escape(summary(command, 80))]
    lines += [*_options(root, context), ".SH ENVIRONMENT"]
    for names, text in _ENVIRONMENT.items():
        lines += [".TP", f"\\fB{escape(names)}\\fP", escape(text)]
    lines.append(_EXIT)
    return "\n".join(lines) + "\n"


def pages() -> dict[str, str]:
    """All pages, by their files' names."""
    with click.Context(root, info_name=_NAME, **root.context_settings) as context:
        found = {f"{_NAME}.1": main_page(context)}
        for name in root.list_commands(context):
            command = root.get_command(context, name)
            if command is not None and not command.hidden:
                inner = click.Context(command, info_name=name, parent=context)
                found[f"{_NAME}-{name}.1"] = verb_page(command, inner)
    return found


def write(folder: Path) -> None:
    """Write all pages."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in pages().items():
        (folder / name).write_text(text, encoding="utf-8")


def main(args: Sequence[str]) -> None:
    """The command."""
    if len(args) != 1:
        raise SystemExit("usage: generate_man.py DIR")
    write(Path(args[0]))


if __name__ == "__main__":
    main(sys.argv[1:])
