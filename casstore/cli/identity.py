"""Whose credentials a run uses: the places that are asked, and in which order.

    1. CASSTORE_USERNAME and CASSTORE_PASSWORD, or CASSTORE_TOKEN: for CASSTORE_REGISTRY, and for no other place
    2. $REGISTRY_AUTH_FILE, else Podman's auth.json      with the credential helpers that it names
    3. Docker's config.json                              likewise
    4. the netrc file, where one is named

The first that has an answer counts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from casstore.cli.env import Settings

if TYPE_CHECKING:
    from casstore.credentials import CredentialSource, DockerConfig


def credential_source(settings: Settings) -> CredentialSource:
    """All places in their order.

    Raises:
        UsageError: the variables for CI contradict each other, or do not say whom they are for.
    """
    from casstore.credentials import FirstOf, NetrcFile

    sources: list[CredentialSource] = [from_environment(settings)]
    sources += [auth_file(settings, path) for path in settings.auth_files]
    if settings.netrc:
        sources.append(NetrcFile(settings.netrc))
    return FirstOf(sources)


def auth_file(settings: Settings, path: str) -> DockerConfig:
    """A file of passwords, and the helpers that it names."""
    from casstore.credentials import DockerConfig, HelperOptions

    return DockerConfig(path, helpers=HelperOptions(settings.search_path, settings.helper_environment))


def from_environment(settings: Settings) -> CredentialSource:
    """The variables for CI. Raises as credential_source; no text repeats a value but that of CASSTORE_REGISTRY."""
    from casstore.credentials import Anonymous, Credentials, HostCredentials
    from casstore.errors import InvalidReference, UsageError
    from casstore.reference import parse_host

    registry, username = settings.ci_registry, settings.ci_username
    password, token = settings.ci_password, settings.ci_token
    if not (registry or username or password or token):
        return Anonymous()
    if token and (username or password):
        raise UsageError("CASSTORE_TOKEN: expected no CASSTORE_USERNAME and CASSTORE_PASSWORD beside it, got both")
    if not (username or password or token):
        beside = "CASSTORE_USERNAME and CASSTORE_PASSWORD, or CASSTORE_TOKEN"
        raise UsageError(f"CASSTORE_REGISTRY: expected {beside} beside it, got none of them, or empty ones")
    if not token and not password:
        raise UsageError("CASSTORE_USERNAME: expected CASSTORE_PASSWORD beside it, got none, or an empty one")
    if not token and (not username or ":" in username):
        raise UsageError("CASSTORE_PASSWORD: expected CASSTORE_USERNAME without ':' beside it")
    if not registry or "@" in registry:
        variable = "CASSTORE_TOKEN" if token else "CASSTORE_PASSWORD"
        raise UsageError(f"{variable}: expected CASSTORE_REGISTRY=HOST[/PATH] beside it: it is sent nowhere else")
    if "://" in registry:
        raise UsageError("CASSTORE_REGISTRY: expected HOST[/PATH], got a URL; leave out the scheme, all up to ://")
    host, _, path = registry.partition("/")
    try:
        host = parse_host(host)
    except InvalidReference as error:
        raise UsageError(f"CASSTORE_REGISTRY: {error}") from None
    origin = "$CASSTORE_TOKEN" if token else "$CASSTORE_USERNAME"
    known = Credentials(username, password, registry_token=token or None, origin=origin)
    return HostCredentials(host, known, path=path.strip("/"))


def others_that_know(settings: Settings, host: str, *, before: bool) -> list[str]:
    """Where else than in the file of login there are credentials for a host; with `before`, only what is asked earlier.

    Credential helpers are not asked.
    """
    from casstore.credentials import DockerConfig

    paths = settings.auth_files
    asked = paths[: paths.index(settings.login_file)] if before else paths
    files = [path for path in asked if path != settings.login_file and DockerConfig(path).lookup(host) is not None]
    return [*(["the environment"] if from_environment(settings).lookup(host) is not None else []), *files]
