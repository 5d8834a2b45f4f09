"""completion: what a shell needs to complete verbs, options, names, and the tags of OCI layouts."""

from __future__ import annotations

import click
from click.shell_completion import BashComplete, get_completion_class

from casstore.cli.options import verb
from casstore.cli.session import Session

_BASH = r"""
%(complete_func)s() {
    local IFS=$'\n' words=() rest=$COMP_LINE i word left type value completion
    # Bash takes words apart at colons. Those with no blank between them are put together again: oci:DIR:TAG is one.
    for ((i = 0; i <= COMP_CWORD; i++)); do
        word=${COMP_WORDS[i]}
        left=${rest#"${rest%%%%[![:space:]]*}"}
        if [[ $i -eq 0 || $left != "$rest" ]]; then words+=("$word"); else words[-1]+=$word; fi
        rest=${left#"$word"}
    done
    word=${words[-1]}
    left=
    if [[ $COMP_WORDBREAKS == *:* && $word == *:* ]]; then left=${word%%"${word##*:}"}; fi
    i=$((${#words[@]} - 1))
    COMPREPLY=()
    for completion in $(env COMP_WORDS="${words[*]}" COMP_CWORD=$i %(complete_var)s=bash_complete "$1"); do
        IFS=',' read -r type value <<< "$completion"
        case $type in
            dir) compopt -o dirnames ;;
            file) compopt -o default ;;
            plain) COMPREPLY+=("${value#"$left"}") ;;
        esac
    done
}
complete -o nosort -F %(complete_func)s %(prog_name)s
"""


class _Bash(BashComplete):
    """As click's, but words may have colons in them."""

    source_template = _BASH


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
    """Write the completion script for a shell.

    Verbs, options, the names in the store and the tags of OCI layouts (oci:DIR:...) are completed; registries are not
    asked.
    """
    kind = _Bash if shell == "bash" else get_completion_class(shell)
    if kind is None:
        raise click.UsageError(f"expected bash, zsh or fish, got {shell}")
    session: Session = ctx.obj
    session.emit(kind(ctx.find_root().command, {}, "casstore", "_CASSTORE_COMPLETE").source())
