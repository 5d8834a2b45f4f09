"""The simulator's upload sessions: POST, PATCH, PUT, GET and DELETE under /blobs/uploads/, and mounts.

A session counts its bytes strictly, as the specification wants: a part that does not begin where the last one ended is
answered 416, and a session has one valid `_state` at a time only where the faults say so.
"""

from __future__ import annotations

import re
import secrets
import socket
from dataclasses import dataclass, field
from typing import Any, Literal

from casstore.digest import Digest

_RANGE = re.compile(r"([0-9]+)-([0-9]+)\Z")


@dataclass
class UploadFaults:
    """What goes wrong with uploads; nothing by default. Lists have one entry for each of the next requests that bring
    bytes (PATCH, PUT); None in one is a request without the fault.
    """

    breaks: list[int | None] = field(default_factory=list)
    """The connection closes after so many bytes of the body, which the session keeps."""
    unanswered: list[bool | None] = field(default_factory=list)
    """Carried out, but the connection closes without an answer."""
    answers: list[int | None] = field(default_factory=list)
    """Not carried out, but answered with this status."""
    keep: list[int | None] = field(default_factory=list)
    """Of a PATCH only so many bytes are kept; the answer says so."""
    claims: list[str | None] = field(default_factory=list)
    """What Range says after a PATCH; "" leaves it out."""
    max_body: int | None = None
    """More bytes in one PATCH or PUT are answered 413."""
    max_part: int | None = None
    """More bytes in one PATCH are answered 416, as by GHCR."""
    patch: int | None = None
    """Every PATCH is answered so."""
    patched: int = 202
    """The status of a PATCH that was carried out."""
    no_empty_put: bool = False
    """A final PUT without bytes is answered 500, as by ECR, if there are bytes already."""
    least_part: str | None = None
    """OCI-Chunk-Min-Length."""
    no_status: bool = False
    """GET of a session is answered 404."""
    forgets: bool = False
    """A session whose connection broke is gone, as in docker-registry."""
    elsewhere: str | None = None
    """Scheme and host of every Location."""
    mounts: Literal["yes", "no", "lies"] = "yes"
    """201 for what is there; 202 always; 201 always, and nothing is there."""


class UploadsMixin:
    """The part of the handler that is about uploads."""

    def _take_bytes(self: Any, length: int) -> bytes:
        """The body, as far as the faults let it come."""
        faults, sends = self.server.simulator.faults, "/blobs/uploads/" in self.path
        sends = sends and self.command in {"PUT", "PATCH"}
        self.broken = _next(faults.breaks) if sends else None
        body: bytes = self.rfile.read(length if self.broken is None else min(length, self.broken))
        return body

    def _hang_up(self: Any) -> None:
        self.close_connection = True
        self.wfile.flush()
        self.connection.shutdown(socket.SHUT_RDWR)

    def _break_upload(self: Any, path: str) -> None:
        """The connection broke within a body."""
        session = self.registry.uploads.get(path.rpartition("/")[2])
        if session is not None and self._is_next(session):
            session += self.body
        if self.faults.forgets:
            self.registry.uploads.pop(path.rpartition("/")[2], None)
        self._hang_up()

    def _upload(self: Any, repository: str, upload: str) -> None:
        """Route a request to a session."""
        session = self.registry.uploads.get(upload)
        sends = self.command in {"PUT", "PATCH"}
        answer = _next(self.faults.answers) if sends else None
        silent = _next(self.faults.unanswered) if sends else None
        if answer is not None:
            self._refuse(answer, "BLOB_UPLOAD_INVALID")
        elif session is None or self.query.get("_state") != "canary/state=":
            self._refuse(404, "BLOB_UPLOAD_UNKNOWN")
        elif silent:
            vars(self).update(_reply=_nothing, _created=_nothing)
            self._carry_out(repository, upload, session)
            self._hang_up()
        else:
            self._carry_out(repository, upload, session)

    def _carry_out(self: Any, repository: str, upload: str, session: bytearray) -> None:
        if self.command == "GET" and not self.faults.no_status:
            self._reply(204, Location=self._session_path(repository, upload), Range=_told(session))
        elif self.command == "DELETE":
            del self.registry.uploads[upload]
            self._reply(204)
        elif self.command == "PATCH":
            self._patch_upload(repository, upload, session)
        elif self.command == "PUT":
            self._finish_upload(repository, upload, session)
        else:
            self._refuse(404, "BLOB_UPLOAD_UNKNOWN")

    def _start_upload(self: Any, repository: str) -> None:
        digest, source = self.query.get("mount"), self.query.get("from")
        if digest is not None and self.faults.mounts != "no":
            data = self.contents.blobs.get((source, digest))
            if data is not None or self.faults.mounts == "lies":
                if self.faults.mounts != "lies":
                    self.contents.blobs[repository, digest] = data
                self._created(digest, f"/v2/{repository}/blobs/{digest}")
                return
        upload = secrets.token_hex(8)
        self.registry.uploads[upload] = bytearray()
        path = self._session_path(repository, upload)
        location = path if self.faults.elsewhere else f"{self.registry.url}{path}"
        if self.faults.location is not None:
            location = self.faults.location.replace("{path}", path)
        self._reply(202, Location=location, Range="0-0", OCI_Chunk_Min_Length=self.faults.least_part or "")

    def _session_path(self: Any, repository: str, upload: str) -> str:
        path = f"/v2/{repository}/blobs/uploads/{upload}?_state=canary%2Fstate%3D"
        return path if self.faults.elsewhere is None else self.faults.elsewhere + path

    def _patch_upload(self: Any, repository: str, upload: str, session: bytearray) -> None:
        faults, location = self.faults, self._session_path(repository, upload)
        keep, said = _next(faults.keep), _next(faults.claims)
        if faults.patch is not None:
            self._refuse(faults.patch, "UNSUPPORTED")
        elif self._is_too_large():
            self._refuse(413, "SIZE_INVALID")
        elif faults.max_part is not None and len(self.body) > faults.max_part:
            self._refuse(416, "BLOB_UPLOAD_INVALID")
        elif not self._is_next(session):
            self._refuse(416, "BLOB_UPLOAD_INVALID", Location=location, Range=_told(session))
        else:
            session += self.body[:keep]
            self._reply(faults.patched, Location=location, Range=_told(session) if said is None else said)

    def _finish_upload(self: Any, repository: str, upload: str, session: bytearray) -> None:
        if self._is_too_large():
            self._refuse(413, "SIZE_INVALID")
            return
        if self.faults.no_empty_put and session and not self.body:
            self._refuse(500, "UNKNOWN")
            return
        if not self._is_next(session):
            self._refuse(416, "BLOB_UPLOAD_INVALID")
            return
        content = bytes(session + self.body)
        digest = str(Digest.of(content))
        if self.query.get("digest") != digest:
            self._refuse(400, "DIGEST_INVALID")
            return
        del self.registry.uploads[upload]
        if self.faults.stores:
            self.contents.blobs[repository, digest] = content
        self._created(digest, f"/v2/{repository}/blobs/{digest}")

    def _is_too_large(self: Any) -> bool:
        return self.faults.max_body is not None and len(self.body) > self.faults.max_body

    def _is_next(self: Any, session: bytearray) -> bool:
        """Whether the body goes on where the session ends."""
        match = _RANGE.match(self.headers.get("Content-Range", ""))
        start = int(match[1]) if match else (len(session) if not self.body else 0)
        return start == len(session)


def _nothing(*arguments: object, **more: object) -> None:
    """Answer nothing."""


def _next(plan: list[Any]) -> Any:
    return plan.pop(0) if plan else None


def _told(session: bytearray) -> str:
    """Range, with docker-registry's `0-0` for nothing."""
    return f"0-{max(0, len(session) - 1)}"
