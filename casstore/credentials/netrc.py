"""A netrc file, in which curl, git and ftp keep passwords by host."""

from __future__ import annotations

import netrc
import os

from casstore.credentials.source import Credentials
from casstore.errors import DocumentError, storage_errors

_LIMIT = 1 << 20


class NetrcFile:
    """The passwords of a netrc file, by `machine`: `host:port` first, else the host alone, at whatever port.

    `default`, which would send a password to any host, is ignored.
    """

    def __init__(self, path: str) -> None:
        self._path = path

    def lookup(self, host: str, repository: str = "") -> Credentials | None:  # noqa: ARG002  (one password per host)
        """The user and password for `host`.

        Raises:
            DocumentError: this is no netrc file.
            StorageError: the file is not there, or cannot be read.
        """
        entries: dict[str, tuple[str, str, str]] | None = None
        where = ""
        with storage_errors(self._path):
            size = os.stat(self._path).st_size
            if size > _LIMIT:
                raise DocumentError(self._path, f"expected a netrc file of at most {_LIMIT} bytes, got {size}")
            try:
                entries = dict(netrc.netrc(self._path).hosts)
            except netrc.NetrcParseError as error:
                where = f"line {error.lineno}"
            except ValueError:
                where = "some byte that is no text"
        if entries is None:  # raised out here, without the parser's error, which quotes the file
            raise DocumentError(self._path, "expected a netrc file", at=where)
        entries.pop("default", None)
        found = entries.get(host) or entries.get(host.rpartition(":")[0] or host)
        if found is None:
            return None
        username, _, password = found
        return Credentials(username, password, origin=self._path) if username and password else None
