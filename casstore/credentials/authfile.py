"""Docker's config.json and Podman's auth.json: one form, shared with the other tools of the machine.

{"auths": {"HOST[/PATH]": {"auth": base64 of user:password, "identitytoken": ..., "registrytoken": ...}},
 "credHelpers": {"HOST": "NAME"}, "credsStore": "NAME"}
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import re
from collections.abc import Iterator
from typing import Any

from casstore.credentials.helper import CredentialHelper, HelperOptions
from casstore.credentials.source import Credentials
from casstore.durable import replace_file
from casstore.errors import DocumentError, InvalidReference, UsageError, storage_errors
from casstore.jsondoc import load_object
from casstore.reference import parse_host

_LIMIT = 1 << 20
"""Bytes of such a file; real ones have a few hundred."""
_DOCKER_HUB = "https://index.docker.io/v1/"
_ALIASES = {"docker.io": ("docker.io", "index.docker.io", "registry-1.docker.io")}


class DockerConfig:
    """A Docker `config.json` or Podman `auth.json`. What else is in the file is kept.

    For a repository the first answer counts: the longest path under `auths` that leads to it; then the credential
    helper of the host (`credHelpers`, else `credsStore`); then the host under `auths`, also in the spellings of old
    (`https://HOST/v1/`). Without `helpers` none is run. docker.io stands under `https://index.docker.io/v1/`, as Docker
    writes it. Of two that write at once, the last one wins.
    """

    def __init__(self, path: str, *, helpers: HelperOptions | None = None) -> None:
        self.path: str = path
        self._helpers = helpers

    def lookup(self, host: str, repository: str = "") -> Credentials | None:
        """The credentials for a repository of `host`; None without a file or an entry that has any.

        Raises:
            DocumentError: the file is not such a document.
            StorageError: the file is there but cannot be read.
            HelperFailed: the host's helper gave no answer.
        """
        document = self._load()
        auths = self._section(document, "auths")
        for key in _path_keys(host, repository):
            if (found := self._entry(auths, key)) is not None:
                return found
        helper = self._helper(document, host)
        if helper is not None and (found := helper.get(_server(host))) is not None:
            return found
        answers = (self._entry(auths, key) for key in _host_keys(host))
        return next((answer for answer in answers if answer is not None), None)

    def helper(self, host: str) -> CredentialHelper | None:
        """The helper that keeps the credentials of `host`, if this file says so. Raises as `lookup`."""
        return self._helper(self._load(), host)

    def hosts(self) -> list[str]:
        """The registries that the file has an entry for, of paths and in spellings of old too, sorted. What no
        reference could name is left out; helpers are not asked.

        Raises:
            DocumentError, StorageError: as `lookup`.
        """
        document = self._load()
        hosts = set()
        for key in (*self._section(document, "auths"), *self._section(document, "credHelpers")):
            with contextlib.suppress(InvalidReference):
                host = parse_host(re.sub(r"^https?://", "", key).partition("/")[0])
                hosts.add("docker.io" if host in _ALIASES["docker.io"] else host)
        return sorted(hosts)

    def helper_programs(self) -> list[str]:
        """The programs of all credential helpers that the file names, sorted. Raises as `hosts`; and

        Raises:
            HelperFailed: the name of one is none.
        """
        document = self._load()
        named = [*self._section(document, "credHelpers").values(), document.get("credsStore", "")]
        names = {name for name in named if isinstance(name, str) and name}
        return sorted(CredentialHelper(name, HelperOptions("", {})).program for name in names)

    def store(self, host: str, credentials: Credentials) -> None:
        """Give the credentials of `host` to its helper; without one, write them to the file.

        There they stand in base64 but otherwise in clear, and the file's mode becomes 0600.

        Raises:
            UsageError: a user with ':' or nothing in it, or no secret; a registry token, which is not kept.
            DocumentError, StorageError, HelperFailed: as `lookup`; or it cannot be written. What was there is then
                untouched.
        """
        secret = credentials.identity_token or credentials.password
        if ":" in credentials.username or not secret or not (credentials.username or credentials.identity_token):
            raise UsageError(f"credentials for {host}: expected a user without ':' and a password")
        document = self._load()
        auths = self._section(document, "auths")
        helper = self._helper(document, host)
        if helper is not None:
            helper.store(_server(host), credentials)
            if self._forget(auths, host):
                self._save(document)
            return
        self._forget(auths, host)
        pair = f"{credentials.username}:{'' if credentials.identity_token else credentials.password}"
        entry = {"auth": base64.b64encode(pair.encode()).decode()}
        if credentials.identity_token:
            entry["identitytoken"] = credentials.identity_token
        auths[_server(host)] = entry
        self._save(document)

    def erase(self, host: str) -> bool:
        """Remove the credentials of `host`, but not those of paths; whether there were any. Raises as `store`."""
        document = self._load()
        helper = self._helper(document, host)
        known = helper is not None and helper.erase(_server(host))
        if self._forget(self._section(document, "auths"), host):
            self._save(document)
            known = True
        return known

    def _helper(self, document: dict[str, Any], host: str) -> CredentialHelper | None:
        if self._helpers is None:
            return None
        named = self._section(document, "credHelpers")
        keys = [key for key in _host_keys(host) if key in named]
        at = f"credHelpers.{keys[0]}" if keys else "credsStore"
        name = named[keys[0]] if keys else document.get("credsStore", "")
        if not isinstance(name, str):
            raise DocumentError(self.path, "expected a string", at=at)
        return CredentialHelper(name, self._helpers) if name else None

    def _entry(self, auths: dict[str, Any], key: str) -> Credentials | None:
        entry, at = auths.get(key, {}), f"auths.{key}"
        fields = {name: entry.get(name) or "" for name in _FIELDS} if isinstance(entry, dict) else {"": None}
        if not all(isinstance(value, str) for value in fields.values()):
            problem = f"expected an object with strings: {', '.join(_FIELDS)}"
            raise DocumentError(self.path, problem, at=at)
        username, password = self._pair(str(fields["auth"]), at)
        identity_token, registry_token = (str(fields[name]) or None for name in _FIELDS[1:])
        if not (password or identity_token or registry_token):
            return None
        return Credentials(username, password, identity_token, registry_token, origin=self.path)

    def _pair(self, auth: str, at: str) -> tuple[str, str]:
        if not auth:
            return "", ""
        try:
            username, colon, password = base64.b64decode(auth, validate=True).decode().partition(":")
        except ValueError:  # also of what is no ASCII
            username = colon = password = ""
        if not (username and colon):
            raise DocumentError(self.path, "expected base64 of user:password", at=f"{at}.auth")
        return username, password.strip("\0")  # docker pads with NULs, and strips them too

    def _load(self) -> dict[str, Any]:
        with storage_errors(self.path):
            try:
                with open(self.path, "rb") as file:
                    data = file.read(_LIMIT + 1)
            except FileNotFoundError:
                return {}
        return load_object(data, subject=self.path, limit=_LIMIT) if data.strip() else {}

    def _section(self, document: dict[str, Any], name: str) -> dict[str, Any]:
        section = document.setdefault(name, {}) if name == "auths" else document.get(name, {})
        if not isinstance(section, dict):
            raise DocumentError(self.path, "expected an object", at=name)
        return section

    @staticmethod
    def _forget(auths: dict[str, Any], host: str) -> bool:
        """Remove the host in all its spellings; whether it was there."""
        return bool([auths.pop(key) for key in _host_keys(host) if key in auths])

    def _save(self, document: dict[str, Any]) -> None:
        data = json.dumps(document, indent="\t", ensure_ascii=False).encode() + b"\n"
        # A config that is a symlink (dotfiles under version control) stays one: the file behind it is replaced.
        path = os.path.realpath(self.path)
        with storage_errors(self.path):
            os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        replace_file(path, data, mode=0o600)


_FIELDS = ("auth", "identitytoken", "registrytoken")


def _server(host: str) -> str:
    """The name of a host in front of helpers, and the key that is written."""
    return _DOCKER_HUB if host == "docker.io" else host


def _path_keys(host: str, repository: str) -> Iterator[str]:
    """The keys of paths that lead to a repository, longest first."""
    parts = repository.split("/") if repository else []
    for count in range(len(parts), 0, -1):
        for name in _ALIASES.get(host, (host,)):
            yield "/".join([name, *parts[:count]])


def _host_keys(host: str) -> Iterator[str]:
    """The keys of a host as a whole: its own, then the spellings of old."""
    yield _server(host)
    names = _ALIASES.get(host, (host,))
    yield from (name for name in names if name != _server(host))
    for name in names:
        for path in ("/v1/", "/v2/", "/v1", "/v2", "/", ""):
            if (key := f"https://{name}{path}") != _server(host):
                yield key
