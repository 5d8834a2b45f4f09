"""Asking a registry whether it takes a user's credentials."""

from __future__ import annotations

from casstore.credentials import Credentials, HostCredentials
from casstore.errors import Unauthorized
from casstore.reference import parse_host
from casstore.registry.http import RegistryClient
from casstore.registry.options import RegistryOptions


def login(options: RegistryOptions, host: str, credentials: Credentials) -> None:
    """Ask the registry at `host` whether it takes these credentials. A registry that asks nobody takes everybody.

    Raises:
        Unauthorized: it does not; or its token server is on another site, where the password does not go.
        InvalidReference: no host.
        Unavailable, RegistryError, NotFound: there is no registry, or it does not work.
    """
    host = parse_host(host)
    with RegistryClient(host, options, HostCredentials(host, credentials)) as client:
        subject = f"{host}: login as {ascii(credentials.username)}"
        client.finish(client.request("GET", client.base, subject=subject, expect=(200,)), subject)
        if client.auth.challenged and not client.auth.password_sent:
            raise Unauthorized(f"{subject}: expected a check of the password, got none; {client.auth.advice}")
