"""The command `casstore`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial
from importlib import import_module
from typing import Any

import click

from casstore import __version__, units
from casstore.cli.env import Settings
from casstore.cli.failures import Report, run
from casstore.cli.options import naming_the_verb, read_as, summary
from casstore.cli.session import Session

SECTIONS = {
    "Snapshots": {
        "create": "capture:create",
        "list": "snapshots:list_snapshots",
        "tree": "tree:tree",
        "inspect": "snapshots:inspect",
        "verify": "verification:verify",
        "restore": "capture:restore",
        "tag": "snapshots:tag",
        "remove": "snapshots:remove",
        "undo": "removal:undo",
    },
    "Looking into disks": {
        "files": "files:files",
        "cat": "filecontent:cat",
        "cp": "filecontent:cp",
        "diff": "diff:diff",
    },
    "Archives and artifact directories": {
        "export": "archives:export",
        "import": "archives:import_",
    },
    "Registries and OCI layouts": {
        "push": "transfers:push",
        "pull": "transfers:pull",
        "copy": "transfers:copy",
        "login": "login:login",
        "logout": "login:logout",
    },
    "Signatures": {
        "key": "keys:key",
        "sign": "signing:sign",
    },
    "Upkeep": {
        "init": "init:init",
        "doctor": "doctor:doctor",
        "stats": "stats:stats",
        "report": "report:report",
        "check": "check:check",
        "prune": "retention:prune",
        "gc": "upkeep:gc",
        "adopt": "adoption:adopt",
        "reindex": "upkeep:reindex",
        "completion": "completion:completion",
    },
}
_VERBS = {verb: home for verbs in SECTIONS.values() for verb, home in verbs.items()}
_ALIASES = {"ls": "list", "rm": "remove", "df": "stats", "save": "export", "load": "import"}

_START = """\
casstore keeps snapshots of disks, and moves them to and from container registries.

  casstore create NAME --disk FILE     keep a disk
  casstore create NAME --from SANDBOX  keep the disk of a stopped sandbox of microsandbox
  casstore list                        show what is kept
  casstore restore NAME FILE           write a disk back
  casstore push NAME HOST/REPO:TAG     copy a snapshot to a registry
  casstore pull HOST/REPO:TAG          and from one
  casstore doctor                      look for what does not work here

All verbs: casstore --help. About one: casstore VERB --help."""


class CommandLine(click.Group):
    """Loads the module of a verb when the verb is asked for, and turns every error into an exit code."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """The verbs, in the order of the help."""
        return list(_VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """A verb, by name or alias."""
        home = _VERBS.get(_ALIASES.get(cmd_name, cmd_name))
        if home is None:
            return None
        module, _, function = home.partition(":")
        command: click.Command = getattr(import_module(f"casstore.cli.{module}"), function)
        return command

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the options of casstore itself."""
        with naming_the_verb(ctx):
            return super().parse_args(ctx, args)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click does, with a guess at what was meant."""
        known = [*_VERBS, *_ALIASES]
        if args[0] == "help" and not ctx.resilient_parsing:  # as git, docker and restic have it
            if not args[1:]:
                click.echo(ctx.get_help())
                ctx.exit()
            args = [*args[1:], "--help"]
        if not ctx.resilient_parsing and args[0] not in known and not args[0].startswith("-"):
            from difflib import get_close_matches

            from casstore.cli.meant import OTHER_WORDS

            close = [OTHER_WORDS[args[0]]] if args[0] in OTHER_WORDS else get_close_matches(args[0], known, n=1)
            ctx.fail(f"no such verb: {args[0][:80]}" + (f"; did you mean {close[0]}?" if close else ""))
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The verbs, grouped by purpose."""
        spellings = {verb: f"{verb}, {alias}" for alias, verb in _ALIASES.items()}
        width = max(len(spellings.get(verb, verb)) for verb in _VERBS)
        for section, verbs in SECTIONS.items():
            with formatter.section(section):
                rows = []
                for name in verbs:
                    command = self.get_command(ctx, name)
                    text = summary(command, formatter.width - width - 4) if command else ""
                    rows.append((spellings.get(name, name).ljust(width), text))
                formatter.write_dl(rows)

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        **extra: Any,
    ) -> Any:
        """Run the command line and exit; with standalone_mode=False return, and let errors through."""
        words = list(sys.argv[1:] if args is None else args)

        def body() -> object:
            return super(CommandLine, self).main(words, prog_name or self.name, complete_var, False, **extra)

        if not standalone_mode:
            return body()
        report = Report.for_arguments(words, color=Settings.read().color, advise=partial(self._advise, words))
        sys.exit(run(body, report))

    def _advise(self, words: Sequence[str], error: BaseException) -> str | None:
        """The command to type after an error."""
        from casstore.cli.advice import advise, take_apart
        from casstore.cli.meant import RULES

        typed = take_apart(self, words)
        return None if typed is None else advise(error, typed, RULES)


@click.group(
    "casstore",
    cls=CommandLine,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.option("--store", metavar="PATH", help="The store [$CASSTORE_STORE, else ~/.casstore].")
@click.option(
    "--durability",
    type=click.Choice(["full", "none"]),
    default="full",
    show_default=True,
    help="full: what is reported as done survives a power cut. none: no fsync at all, which is faster; a power cut may"
    " lose or tear what was written last. A killed process does no harm with either.",
)
@click.option(
    "--wait",
    default="60s",
    show_default=True,
    metavar="DURATION",
    callback=read_as(units.parse_wait),
    help="How long to wait for another casstore that holds a lock.",
)
@click.option("--debug", is_flag=True, help="Show on stderr what happens inside, and the traceback of an error.")
@click.version_option(__version__, message="%(prog)s %(version)s")
@click.pass_context
def main(ctx: click.Context, store: str | None, durability: str, wait: float, *, debug: bool) -> None:
    """Keep snapshots of disks in a content-addressed store; move them to and from container registries.

    SNAPSHOT is a name, or a digest or id `sha256:...` of which 6 digits are enough. A reference is
    HOST[:PORT]/REPO[:TAG][@sha256:...] in a registry, or oci:DIR[:TAG][@sha256:...] in an OCI layout directory.
    """
    if store == "":
        raise click.UsageError("invalid --store '': expected a directory")
    settings = Settings.read(store=store)
    ctx.color = None if settings.color else False
    ctx.obj = Session(settings, durable=durability == "full", wait=wait)
    if debug:
        from casstore.cli.debug import show_messages

        ctx.call_on_close(show_messages(ctx.obj))
    if ctx.invoked_subcommand is None:
        click.echo(_START)
