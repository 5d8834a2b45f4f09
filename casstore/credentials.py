"""Who one is at a registry: user and password, and the file where Docker's tools keep them.

Nothing here speaks HTTP. Credential helpers (`credHelpers`, `credsStore`) and identity tokens (OAuth2) are other
CredentialSources; they are not implemented yet, and a host that has only those counts as one without credentials.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
from dataclasses import dataclass, field
from typing import Any, Protocol

from casstore.durable import replace_file
from casstore.errors import DocumentError, UsageError, storage_errors
from casstore.jsondoc import load_object

_LIMIT = 1 << 20
"""Bytes of a config.json; real ones have a few hundred."""
_DOCKER_HUB = "https://index.docker.io/v1/"


@dataclass(frozen=True, slots=True)
class Credentials:
    """User and password (or an access token in its place) for one registry host; `repr` hides the password."""

    username: str
    password: str = field(repr=False)


class CredentialSource(Protocol):
    """Where credentials come from."""

    def lookup(self, host: str, /) -> Credentials | None:
        """The credentials for `host[:port]` exactly as a reference names it, or None to be anonymous."""
        ...


class Anonymous:
    """A CredentialSource for nobody."""

    def lookup(self, host: str) -> None:
        """None."""


class HostCredentials:
    """A CredentialSource that knows one host."""

    def __init__(self, host: str, credentials: Credentials) -> None:
        self._host, self._credentials = host, credentials

    def lookup(self, host: str) -> Credentials | None:
        """The credentials, if this is their host."""
        return self._credentials if host == self._host else None


class DockerConfig:
    """A Docker `config.json` (or Podman `auth.json`): credentials under `auths`, by exact host.

    docker.io stands under `https://index.docker.io/v1/`, as Docker writes it. What else is in the file is kept. Of two
    that write at once, the last one wins.
    """

    def __init__(self, path: str) -> None:
        self._path = path

    def lookup(self, host: str) -> Credentials | None:
        """The credentials of `host`; None without a file, an entry, or a password in the entry (a helper may have it).

        Raises:
            DocumentError: the file is not such a document.
            StorageError: the file is there but cannot be read.
        """
        entry = self._auths(self._load()).get(_key(host))
        if entry is None:
            return None
        subject, at = self._path, f"auths.{_key(host)}"
        if not isinstance(entry, dict) or not isinstance(auth := entry.get("auth", ""), str):
            raise DocumentError(subject, "expected an object with a string `auth`", at=at)
        if not auth:
            return None
        try:
            username, colon, password = base64.b64decode(auth, validate=True).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError):
            username = colon = password = ""
        if not (username and colon):
            raise DocumentError(subject, "expected base64 of user:password", at=f"{at}.auth")
        password = password.strip("\0")  # docker pads with NULs, and strips them too
        return Credentials(username, password) if password else None

    def store(self, host: str, credentials: Credentials) -> None:
        """Write the credentials of `host`, in base64 but otherwise in clear, to the file; its mode becomes 0600.

        Raises:
            UsageError: a user with ':' or nothing in it, or an empty password.
            DocumentError, StorageError: as `lookup`; or the file cannot be written. The old file is then untouched.
        """
        if not credentials.username or ":" in credentials.username or not credentials.password:
            raise UsageError(f"credentials for {host}: expected a user without ':' and a password")
        document = self._load()
        pair = f"{credentials.username}:{credentials.password}"
        self._auths(document)[_key(host)] = {"auth": base64.b64encode(pair.encode()).decode()}
        self._save(document)

    def erase(self, host: str) -> bool:
        """Remove the credentials of `host`; whether there were any. Raises as `store`."""
        document = self._load()
        if self._auths(document).pop(_key(host), None) is None:
            return False
        self._save(document)
        return True

    def _load(self) -> dict[str, Any]:
        with storage_errors(self._path):
            try:
                with open(self._path, "rb") as file:
                    data = file.read(_LIMIT + 1)
            except FileNotFoundError:
                return {}
        return load_object(data, subject=self._path, limit=_LIMIT) if data.strip() else {}

    def _auths(self, document: dict[str, Any]) -> dict[str, Any]:
        auths = document.setdefault("auths", {})
        if not isinstance(auths, dict):
            raise DocumentError(self._path, "expected an object", at="auths")
        return auths

    def _save(self, document: dict[str, Any]) -> None:
        data = json.dumps(document, indent="\t", ensure_ascii=False).encode() + b"\n"
        # A config that is a symlink (dotfiles under version control) stays one: the file behind it is replaced.
        path = os.path.realpath(self._path)
        with storage_errors(self._path):
            os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        replace_file(path, data, mode=0o600)


def _key(host: str) -> str:
    return _DOCKER_HUB if host == "docker.io" else host
