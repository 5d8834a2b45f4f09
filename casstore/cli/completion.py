"""completion: what a shell needs to complete verbs, options and names."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from casstore.cli.options import verb
from casstore.cli.session import Session


@verb(
    "completion",
    examples="""
    casstore completion bash > ~/.local/share/bash-completion/completions/casstore
    casstore completion zsh > ~/.zfunc/_casstore
    casstore completion fish > ~/.config/fish/completions/casstore.fish""",
)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Write the completion script for a shell."""
    kind = get_completion_class(shell)
    if kind is None:
        raise click.UsageError(f"expected bash, zsh or fish, got {shell}")
    session: Session = ctx.obj
    session.emit(kind(ctx.find_root().command, {}, "casstore", "_CASSTORE_COMPLETE").source())
