"""Options and arguments that several verbs share, and the commands' own class."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import os
import re
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import Any, TypeVar, cast

import click
from click.shell_completion import CompletionItem

from casstore.cli.env import Settings
from casstore.cli.progress import KINDS
from casstore.cli.session import Session
from casstore.spec import ANNOTATION_REF_NAME

F = TypeVar("F", bound=Callable[..., object])

_INDEX = 16 << 20
"""Bytes of an index.json that are read to complete a tag."""
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}", re.ASCII)


def read_as(parse: Callable[[str], float]) -> Callable[[click.Context, click.Parameter, Any], Any]:
    """A callback for an option whose value a function of `units` reads."""

    def callback(_: click.Context, __: click.Parameter, value: Any) -> Any:
        try:
            return parse(value) if isinstance(value, str) else value
        except ValueError as error:
            raise click.BadParameter(str(error)) from None

    return callback


class BareOption(click.Option):
    """An option whose value may be left out, but must stand after `=`: `--integrity` or `--integrity=sparse`.

    click's own optional values swallow the next word: `create --integrity base` would have no name any more.
    """

    def __init__(self, *args: Any, bare: str, **options: Any) -> None:
        super().__init__(*args, **options)
        self.bare: str = bare

    def takes(self, value: str) -> bool:
        """Whether a word is one of its values."""
        return isinstance(self.type, click.Choice) and value in self.type.choices

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        record = super().get_help_record(ctx)
        return record and (f"{self.opts[0]}[={self.metavar}]", record[1])


class GroupedOption(click.Option):
    """An option that stands under a heading of its own in the help: one that few need."""

    def __init__(self, *args: Any, heading: str, **options: Any) -> None:
        super().__init__(*args, **options)
        self.heading: str = heading


@contextlib.contextmanager
def naming_the_verb(ctx: click.Context) -> Iterator[None]:
    """Let every error about words say of which verb they were: click's parser leaves it out where a value is missing,
    and then nobody is told where to find help.
    """
    try:
        yield
    except click.UsageError as error:
        error.ctx = error.ctx or ctx
        raise


class Verb(click.Command):
    """A command with examples in its help."""

    def __init__(self, *args: Any, examples: str = "", **options: Any) -> None:
        super().__init__(*args, **options)
        self.examples: list[str] = [line.strip() for line in examples.strip().splitlines()]

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse, with the values that BareOptions leave out filled in."""
        end = args.index("--") if "--" in args else len(args)
        bare = {param.opts[0]: param for param in self.params if isinstance(param, BareOption)}
        words = [f"{word}={bare[word].bare}" if word in bare else word for word in args[:end]]
        apart = [f"{word}={after}" for word, after in pairwise(args[:end]) if word in bare and bare[word].takes(after)]
        with naming_the_verb(ctx):
            try:
                return super().parse_args(ctx, words + args[end:])
            except click.UsageError as error:
                if not apart:
                    raise
                raise click.UsageError(f"{error.format_message()}; did you mean {apart[0]}?", error.ctx) from None

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options, those with a heading last."""
        sections: dict[str, list[tuple[str, str]]] = {"Options": []}
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx) if isinstance(param, click.Option) else None
            if record is not None:
                heading = param.heading if isinstance(param, GroupedOption) else "Options"
                sections.setdefault(heading, []).append(record)
        for heading, records in sections.items():
            with formatter.section(heading):
                formatter.write_dl(records)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """Write the examples, as they stand."""
        if self.examples:
            with formatter.section("Examples"):
                for line in self.examples:
                    formatter.write(f"{'':>{formatter.current_indent}}{line}\n")


class VerbGroup(Verb, click.Group):
    """Several commands under one verb."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options, and the commands."""
        super().format_options(ctx, formatter)
        self.format_commands(ctx, formatter)


def summary(command: click.Command, width: int) -> str:
    """The first sentence of a help text, or so much of it as fits and still is one."""
    text = " ".join((command.help or "").partition("\n\n")[0].split())
    text = re.split(r"(?<=[.?]) ", text, maxsplit=1)[0]
    for pause in ("[;:]", "[;:,]"):
        if len(text) <= width:
            break
        shorter = [f"{text[: found.start()]}." for found in re.finditer(f"{pause} ", text) if found.start() < width]
        text = shorter[-1] if shorter else text
    return text


def verb(name: str, *, examples: str = "") -> Callable[[Callable[..., object]], Verb]:
    """Make a function a command."""
    return click.command(name, cls=Verb, examples=examples)


def _set(attribute: str) -> Callable[[click.Context, click.Parameter, Any], None]:
    def callback(ctx: click.Context, _: click.Parameter, value: Any) -> None:
        if value and isinstance(ctx.obj, Session):
            setattr(ctx.obj, attribute, True)

    return callback


def gathered(kind: type, name: str, *options: Callable[[F], F]) -> Callable[[F], F]:
    """Options whose values reach the function as one argument `name`: a `kind`, a dataclass whose fields they are. What
    no option is for has its default.
    """

    def decorate(function: F) -> F:
        @functools.wraps(function)
        def call(*args: Any, **values: Any) -> object:
            mine = {field.name: values.pop(field.name) for field in dataclasses.fields(kind) if field.name in values}
            return function(*args, **values, **{name: kind(**mine)})

        wrapped = cast("F", call)
        for option in reversed(options):
            wrapped = option(wrapped)
        return wrapped

    return decorate


def quiet_option(function: F) -> F:
    """-q."""
    option = click.option(
        "-q",
        "--quiet",
        is_flag=True,
        expose_value=False,
        callback=_set("quiet"),
        help="Say less: data and errors only.",
    )
    return option(function)


def json_option(function: F) -> F:
    """--json, which may also be spelled --format json, as microsandbox does; and --format with a template."""

    def callback(ctx: click.Context, _: click.Parameter, value: str | None) -> None:
        if value is None or not isinstance(ctx.obj, Session):
            return
        ctx.obj.as_json = True
        if value != "json":
            from casstore.cli.outputs import outputs
            from casstore.cli.template import Template

            template = Template.parse(value, outputs(ctx.command_path.partition(" ")[2]))
            if not template.fields:
                raise click.UsageError(
                    f"--format: expected json, or a template with fields in single braces, as {{digest}}, got {value!r}"
                )
            ctx.obj.template = template

    flag = click.option(
        "--json", is_flag=True, expose_value=False, callback=_set("as_json"), help="Write one JSON document."
    )
    spelled = click.option(
        "--format",
        metavar="TEMPLATE",
        expose_value=False,
        callback=callback,
        help="Write what a template makes of that document, as '{digest}'; or json.",
    )
    return flag(spelled(function))


def progress_option(function: F) -> F:
    """--progress."""

    def callback(ctx: click.Context, _: click.Parameter, value: str) -> None:
        if isinstance(ctx.obj, Session):
            ctx.obj.show_progress(value)

    option = click.option(
        "--progress",
        type=click.Choice(KINDS),
        default="auto",
        show_default=True,
        expose_value=False,
        callback=callback,
        metavar="HOW",
        help=f"How to show on stderr what is done: {', '.join(KINDS)}. json is an object a line; auto takes bar on a"
        " terminal and plain elsewhere, and none with -q or --json.",
    )
    return option(function)


def force_option(help_text: str) -> Callable[[F], F]:
    """-f."""
    return click.option("-f", "--force", is_flag=True, help=help_text)


def workers_option(function: F) -> F:
    """--workers."""
    option = click.option(
        "--workers",
        type=click.IntRange(1, 256),
        metavar="N",
        help="Threads to work with; one per processor where it is not given.",
    )
    return option(function)


def selector(name: str = "snapshot", *, nargs: int = 1, required: bool = True) -> Callable[[F], F]:
    """An argument that selects a snapshot."""
    return click.argument(name, nargs=nargs, required=required, shell_complete=complete_names)


def complete_names(ctx: click.Context, _: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The names in the store, for the shell: from refs/ alone, without opening the store; the tags after `oci:DIR:`."""
    if incomplete.startswith("oci:"):
        return _complete_layout(incomplete)
    settings = Settings.read(store=ctx.find_root().params.get("store"))
    try:
        names = sorted(os.listdir(os.path.join(settings.store, "refs")))
    except OSError:
        return []
    from casstore.names import is_reserved

    shown = [name for name in names if name[:1].isalnum() and not is_reserved(name)]
    return [CompletionItem(name) for name in shown if name.startswith(incomplete)]


def complete_places(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The tags after `oci:DIR:`, where no name of the store may stand."""
    return complete_names(ctx, parameter, incomplete) if incomplete.startswith("oci:") else []


def _complete_layout(incomplete: str) -> list[CompletionItem]:
    """The tags of an OCI layout, from its index.json alone; before the second colon, directories."""
    folder, colon, start = incomplete.removeprefix("oci:").rpartition(":")
    if not colon:
        return [CompletionItem(incomplete, type="dir")]
    try:
        path = os.path.join(folder, "index.json")
        if not os.path.isfile(path):  # to open a FIFO would hang the shell
            return []
        with open(path, "rb") as file:
            entries = json.loads(file.read(_INDEX))["manifests"]
        tags = {entry.get("annotations", {}).get(ANNOTATION_REF_NAME) for entry in entries}
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return []
    from casstore.names import is_reserved

    shown = sorted(tag for tag in tags if isinstance(tag, str) and _TAG.fullmatch(tag) and tag.startswith(start))
    return [CompletionItem(f"oci:{folder}:{tag}") for tag in shown if not is_reserved(tag)]


def label_filters(labels: Sequence[str], option: str = "--label") -> list[tuple[str, str | None]]:
    """`K[=V]` words as pairs; None stands for any value.

    Raises:
        click.UsageError: a word with nothing before its `=`.
    """
    parts = [label.partition("=") for label in labels]
    if any(not key for key, _, _ in parts):
        raise click.UsageError(f"invalid {option}: expected K or K=V")
    return [(key, value if equals else None) for key, equals, value in parts]


def parse_labels(labels: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """`K=V` words as pairs.

    Raises:
        click.UsageError: a word without `=`, or nothing before it.
    """
    pairs = []
    for text in labels:
        key, equals, value = text.partition("=")
        if not (key and equals):
            raise click.UsageError(f"invalid --label {text!r}: expected K=V")
        if any("\ud800" <= char <= "\udfff" for char in text):  # a byte of the command line that is not UTF-8
            raise click.UsageError(f"invalid --label {text!r}: expected UTF-8")
        pairs.append((key, value))
    return tuple(pairs)
