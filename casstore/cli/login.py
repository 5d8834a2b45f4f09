"""login and logout: passwords for registries, where Docker's tools keep them too."""

from __future__ import annotations

import sys

import click

from casstore.cli.options import verb
from casstore.cli.session import Session
from casstore.cli.transfers import connection_options, registry_options


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
@click.pass_obj
def login(
    session: Session,
    host: str,
    username: str | None,
    password_stdin: bool,
    plain_http: bool,
    insecure: bool,
    ca_bundle: str | None,
) -> None:
    """Check a password with a registry, and keep it.

    It is kept where docker login keeps it, in ~/.docker/config.json or $DOCKER_CONFIG: not encrypted, readable by you
    alone.
    """
    from casstore.credentials import Credentials, DockerConfig
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
    credentials = Credentials(username, password)
    check(registry_options(plain_http=plain_http, insecure=insecure, ca_bundle=ca_bundle), host, credentials)
    DockerConfig(session.settings.docker_config).store(host, credentials)
    session.say(f"logged in to {host} as {username}; the password is in {session.settings.docker_config}")


@verb("logout", examples="casstore logout registry.example")
@click.argument("host")
@click.pass_obj
def logout(session: Session, host: str) -> None:
    """Forget the password for a registry."""
    from casstore.credentials import DockerConfig
    from casstore.reference import parse_host

    host = parse_host(host)
    known = DockerConfig(session.settings.docker_config).erase(host)
    session.say(f"logged out of {host}" if known else f"there was no password for {host}")
