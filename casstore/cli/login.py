"""login and logout: passwords for registries, where Docker's and Podman's tools keep them too."""

from __future__ import annotations

import sys

import click

from casstore.cli.connection import Connection, connection_options, registry_options
from casstore.cli.identity import auth_file, others_that_know
from casstore.cli.options import quiet_option, verb
from casstore.cli.session import Session


@verb(
    "login",
    examples="""
    casstore login registry.example -u alice
    pass registry | casstore login registry.example -u alice --password-stdin""",
)
@click.argument("host")
@click.option("-u", "--username", metavar="USER", help="The user; asked for on a terminal.")
@click.option("--password-stdin", is_flag=True, help="Read the password from standard input.")
@connection_options
@quiet_option
@click.pass_obj
def login(session: Session, host: str, username: str | None, password_stdin: bool, connection: Connection) -> None:
    """Check a password with a registry, and keep it.

    It is kept where docker login keeps it: by the credential helper that ~/.docker/config.json ($DOCKER_CONFIG) names
    for the host, else in that file, not encrypted, readable by you alone. $REGISTRY_AUTH_FILE names another file.
    """
    from casstore.credentials import Credentials
    from casstore.reference import parse_host
    from casstore.registry import login as check

    host = parse_host(host)
    if not (username and password_stdin) and not session.settings.stdin_is_terminal:
        raise click.UsageError("expected a terminal to ask on, got none: give --username and --password-stdin")
    username = username or str(click.prompt("Username", err=True))
    if password_stdin:
        password = sys.stdin.readline().rstrip("\r\n")
    else:
        password = str(click.prompt("Password", hide_input=True, err=True))
    if not password:
        raise click.UsageError("expected a password, got an empty one")
    file = auth_file(session.settings, session.settings.login_file)
    helper, others = file.helper(host), others_that_know(session.settings, host, before=True)
    credentials = Credentials(username, password)
    check(registry_options(session, connection), host, credentials)
    file.store(host, credentials)
    place = f"kept by {helper.program}" if helper else f"in {file.path}, not encrypted"
    session.say(f"logged in to {host} as {username}; the password is {place}")
    for other in others:
        session.warn(f"{other} has credentials for {host} too, and is asked first")


@verb("logout", examples="casstore logout registry.example")
@click.argument("host")
@quiet_option
@click.pass_obj
def logout(session: Session, host: str) -> None:
    """Forget the password for a registry, where login keeps it."""
    from casstore.reference import parse_host

    host = parse_host(host)
    others = others_that_know(session.settings, host, before=False)
    known = auth_file(session.settings, session.settings.login_file).erase(host)
    session.say(f"logged out of {host}" if known else f"there was no password for {host}")
    for other in others:
        session.warn(f"{other} has credentials for {host} still")
