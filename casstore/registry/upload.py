"""Sending one blob to a registry, whatever happens on the way.

The ladder, each rung only if the one before did not do:

1. A mount from another repository of the registry (`mount`): nothing is sent.
2. One PUT of the whole.
3. After any trouble first a HEAD: what arrived is never sent again. Then the session is asked how much it has, and the
   rest goes on from there in parts (PATCH), the last of which goes with the final PUT, because ECR fails on an empty
   one. A session that is gone, or says nothing of use, is begun anew.
4. Where parts are refused (GAR), the whole again; where a part is too large (413), smaller ones.

Each setback costs one of a few tries, except one after which the registry has at least a MiB more than ever before: so
a large blob passes a line that breaks often, and one that never gets on is given up. A session given up is deleted.

docker-registry 2.8.2 answers 404 for the session of a request that broke half-way, says `0-0` for no bytes as for one,
and ignores Content-Range. Registries differ in all of it, so nothing here is trusted to keep the bytes right: that is
the digest in the final PUT, with which a registry must compare what it has.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum, auto

import requests

from casstore import log, spec
from casstore.content import Fetcher
from casstore.digest import Digest
from casstore.errors import CasstoreError, NotFound, RegistryError, Unavailable
from casstore.oci import Descriptor
from casstore.registry.http import RegistryClient
from casstore.registry.manifests import check_digest_header
from casstore.registry.outgoing import Outgoing
from casstore.registry.urls import Origin, follow, shown

PART = 4 * spec.MIB
"""Bytes of a part: the most that GHCR takes in one PATCH."""
ECR_PART = 8 * spec.MIB
"""ECR takes 5 to 10 MiB."""
_LEAST_PART = 64 * 1024
_MOST_PART = spec.GIB
"""What a registry may ask for with OCI-Chunk-Min-Length."""
_PROGRESS = spec.MIB
_MAX_SESSIONS = 64
"""Sessions from mounts that were answered 202, kept for the upload that follows."""

_ECR = re.compile(r"(?:[0-9]+\.dkr\.ecr(?:-fips)?\.[a-z0-9-]+\.amazonaws\.com(?:\.cn)?|public\.ecr\.aws)\Z")
_RANGE = re.compile(r"(?:bytes[= ])?0-([0-9]{1,18})\Z", re.ASCII)
_NUMBER = re.compile(r"[0-9]{1,18}\Z", re.ASCII)


class _Kind(Enum):
    AGAIN = auto()
    """The way broke, or the registry is busy: the session may have more than we know of."""
    LOST = auto()
    """There is no such session any more, or it is spoilt."""
    TOO_LARGE = auto()
    NO_PARTS = auto()
    """The registry does not take parts."""


_MEANING = {
    404: _Kind.LOST,
    410: _Kind.LOST,
    408: _Kind.AGAIN,
    416: _Kind.AGAIN,
    425: _Kind.AGAIN,
    429: _Kind.AGAIN,
    413: _Kind.TOO_LARGE,
    400: _Kind.NO_PARTS,
    405: _Kind.NO_PARTS,
    409: _Kind.NO_PARTS,
}
_TAKEN = (200, 201, 202, 204)


class _Setback(Exception):
    """`answer` is the one that said so, if there was one."""

    def __init__(self, kind: _Kind, error: CasstoreError, answer: requests.Response | None = None) -> None:
        super().__init__(str(error))
        self.kind, self.error, self.answer = kind, error, answer


@dataclass(slots=True)
class _Session:
    """An upload that was begun: where it goes on, and how many bytes the registry has."""

    location: str
    offset: int = 0


class Uploads:
    """Uploads to the repository `name` at the URL `base`. Thread-safe. `exists` is a HEAD."""

    def __init__(
        self,
        client: RegistryClient,
        *,
        base: str,
        name: str,
        scope: str,
        exists: Callable[[Descriptor], bool],
        mount_from: Iterable[str],
        tries: int,
    ) -> None:
        self._client, self._base, self._name, self._scope = client, base, name, scope
        self._exists, self._tries = exists, tries
        self._part = part_of(client.origin.host)
        self._neighbours = tuple(mount_from)
        self._refused: set[str] = set()
        self._sessions: dict[Digest, _Session] = {}
        self._lock = threading.Lock()

    def upload(self, blob: Descriptor, source: Fetcher) -> None:
        """Send a blob, whether or not it is there already.

        Raises:
            DigestMismatch: the registry stored something else.
            RegistryError: the upload leads to another host, or nothing was stored.
            Anything that `source` raises.
        """
        with self._lock:
            session = self._sessions.pop(blob.digest, None)
        with Outgoing(blob, source, f"{self._name}: {blob.kind} {blob.digest}") as content:
            _Ladder(self._wire(blob), content, self._part, self._tries, session).climb()

    def mount(self, blob: Descriptor, neighbour: str | None) -> bool:
        """Take a blob from another repository of the registry: `neighbour`, or one of those named at the beginning.
        False if that cannot be.

        Raises:
            Unavailable: no answer.
        """
        asked = dict.fromkeys(filter(None, (neighbour, *self._neighbours)))
        mounted = any(name not in self._refused and self._mount(blob, name) for name in asked)
        if mounted:
            log.debug("registry", "%s: %s %s was mounted from another repository", self._name, blob.kind, blob.digest)
            self._keep(blob, None)
        return mounted

    def _mount(self, blob: Descriptor, repository: str) -> bool:
        wire = self._wire(blob)
        url = f"{wire.start}?mount={blob.digest}&from={repository}"
        scope = f"{self._scope}pull,push repository:{repository}:pull"
        try:
            response = self._client.request("POST", url, subject=wire.subject, expect=(201, 202), scope=scope)
        except Unavailable:
            raise
        except (RegistryError, NotFound):  # we may not read there, or it knows no mounts: it will not for the next blob
            self._refused.add(repository)
            return False
        self._client.finish(response, wire.subject)
        if response.status_code == 201:
            return self._exists(blob)
        self._keep(blob, _Session(wire.locate(url, response)))
        return False

    def _keep(self, blob: Descriptor, session: _Session | None) -> None:
        """Keep the session of a mount that was none for the upload that follows; None drops the one that was kept."""
        with self._lock:
            superfluous = self._sessions.pop(blob.digest, None)
            if session is not None:
                self._sessions[blob.digest] = session
            if superfluous is None and len(self._sessions) > _MAX_SESSIONS:
                superfluous = self._sessions.pop(next(iter(self._sessions)))
        if superfluous is not None:
            self._wire(blob).cancel(superfluous)

    def _wire(self, blob: Descriptor) -> _Wire:
        start, scope = f"{self._base}/blobs/uploads/", self._scope
        return _Wire(self._client, blob, f"{self._name}: {blob.kind} {blob.digest}", scope, start, self._exists)


@dataclass(frozen=True, slots=True)
class _Wire:
    """The requests of one blob's upload."""

    client: RegistryClient
    blob: Descriptor
    subject: str
    scope: str
    start: str
    exists: Callable[[Descriptor], bool]

    def begin(self) -> tuple[_Session, int]:
        """A new session, and the fewest bytes of a part that it takes."""
        response = self.client.request(
            "POST", self.start, subject=self.subject, expect=(202,), scope=self.scope + "pull,push"
        )
        self.client.finish(response, self.subject)
        asked = response.headers.get("OCI-Chunk-Min-Length", "")
        least = min(int(asked), _MOST_PART) if _NUMBER.match(asked) else 0
        return _Session(self.locate(self.start, response)), least

    def send(self, method: str, url: str, content: Outgoing, start: int, length: int) -> requests.Response:
        """PATCH or PUT the bytes from `start`; an answer that took them, not yet finished.

        Raises:
            _Setback: it took none, or not all.
        """
        headers = {"Content-Type": "application/octet-stream"}
        if length and (start or method == "PATCH"):
            headers["Content-Range"] = f"{start}-{start + length - 1}"
        try:
            response = self.client.request(
                method,
                url,
                subject=self.subject,
                expect=(*_TAKEN, *_MEANING),
                scope=self.scope + "pull,push",
                headers=headers,
                data=lambda: content.part(start, length),
                retry=False,
            )
        except Unavailable as error:
            content.check()
            raise _Setback(_Kind.AGAIN, error) from None
        if response.status_code in _TAKEN:
            return response
        refusal = self.client.refusal(response, self.subject, expected="201" if method == "PUT" else "202")
        if isinstance(refusal, NotFound):  # not what the caller looks for is missing
            refusal = RegistryError(f"{refusal}; the registry lost an upload that it had begun")
        raise _Setback(_MEANING[response.status_code], refusal, response)

    def ask(self, session: _Session) -> bool:
        """Learn how many bytes the session has; False if it does not say."""
        try:
            response = self.client.request(
                "GET", session.location, subject=self.subject, expect=(204, 200, 202), scope=self.scope + "pull,push"
            )
        except (RegistryError, NotFound):
            return False
        self.client.finish(response, self.subject)
        return self.adopt(session, response)

    def adopt(self, session: _Session, response: requests.Response) -> bool:
        """Take over what an answer says of the session; False if it says nothing of use."""
        offset = _range(response)
        if offset is None or offset > self.blob.size:
            return False
        session.offset = offset
        if response.headers.get("Location"):
            session.location = self.locate(session.location, response)
        return True

    def cancel(self, session: _Session) -> None:
        """Delete a session. Best effort: registries forget them after a while anyway."""
        with suppress(CasstoreError):
            response = self.client.request(
                "DELETE",
                session.location,
                subject=self.subject,
                expect=_TAKEN,
                scope=self.scope + "delete",
                retry=False,
            )
            self.client.finish(response, self.subject)

    def locate(self, url: str, response: requests.Response) -> str:
        """Where an upload goes on.

        Another origin is refused: bytes and session belong to the registry, and no registry that is known needs it.
        What does lead elsewhere is one behind a proxy whose public address it was not told.
        """
        client, told = self.client, f"{self.subject}: upload"
        location = follow(url, response.headers.get("Location"), subject=told, secrets=client.secrets)
        if Origin.of(location) != client.origin:
            raise RegistryError(
                f"{told}: expected a Location on {client.origin}, got {shown(location, client.secrets)};"
                " the registry's proxy may hide its public address from it"
            )
        return location


class _Ladder:
    """One blob's way up; used once."""

    def __init__(self, wire: _Wire, content: Outgoing, part: int, tries: int, session: _Session | None) -> None:
        self._wire, self._content, self._size, self._session = wire, content, wire.blob.size, session
        self._part, self._least = part, _LEAST_PART
        self._in_parts = self._whole_refused = self._parts_refused = False
        self._all_tries = self._tries = tries
        self._most = self._mark = 0

    def climb(self) -> None:
        """Send until the blob is there.

        Raises: see Uploads.upload.
        """
        try:
            while True:
                if self._session is None:
                    self._session, least = self._wire.begin()
                    self._least = max(_LEAST_PART, least)
                    self._part = max(self._part, least)
                try:
                    self._send(self._session)
                    return
                except _Setback as setback:
                    if self._wire.exists(self._wire.blob):
                        return
                    self._recover(self._session, setback)
        except BaseException:
            self._drop()
            raise

    def _send(self, session: _Session) -> None:
        while self._in_parts and self._size - session.offset > self._part:
            self._send_part(session)
        url = f"{session.location}{'&' if '?' in session.location else '?'}digest={self._wire.blob.digest}"
        response = self._wire.send("PUT", url, self._content, session.offset, self._size - session.offset)
        self._wire.client.finish(response, self._wire.subject)
        if response.status_code != 201 and not self._wire.exists(self._wire.blob):
            raise RegistryError(
                f"{self._wire.subject}: expected 201, got {response.status_code}, and afterwards it is not there"
            )
        check_digest_header(response, self._wire.blob.digest, self._wire.subject)

    def _send_part(self, session: _Session) -> None:
        response = self._wire.send("PATCH", session.location, self._content, session.offset, self._part)
        self._wire.client.finish(response, self._wire.subject)
        sent = session.offset + self._part
        kept = _range(response)
        session.offset = sent if kept is None or kept > sent else kept
        if response.headers.get("Location"):
            session.location = self._wire.locate(session.location, response)
        if session.offset < sent:  # it is believed, but not for ever
            self._pay(session, RegistryError(f"{self._wire.subject}: the registry kept {kept} of {sent} bytes sent"))
        self._most = max(self._most, session.offset)

    def _recover(self, session: _Session, setback: _Setback) -> None:
        kind = setback.kind
        if kind is _Kind.NO_PARTS:
            if self._whole_refused or not self._in_parts:
                raise setback.error
            self._in_parts, self._parts_refused = False, True
        elif kind is _Kind.TOO_LARGE:
            self._shrink(setback.error)
        elif not self._parts_refused:
            self._in_parts = True
        spoilt = kind in {_Kind.LOST, _Kind.NO_PARTS} or session.offset == self._size > 0
        told = setback.answer is not None and self._wire.adopt(session, setback.answer)
        if spoilt or not (told or self._wire.ask(session)):
            self._drop()
        log.info("registry", "%s; the upload %s", setback.error, self._outlook())
        self._pay(session, setback.error)

    def _outlook(self) -> str:
        """How it goes on, in words."""
        how = f"in parts of {self._part} bytes" if self._in_parts else "as a whole"
        return f"begins anew, {how}" if self._session is None else f"goes on at byte {self._session.offset}, {how}"

    def _shrink(self, error: CasstoreError) -> None:
        part = min(self._part, self._size) // 2 if self._in_parts or self._size <= self._part else self._part
        if self._parts_refused or part < self._least:
            raise error
        self._in_parts, self._whole_refused, self._part = True, True, part

    def _pay(self, session: _Session, error: CasstoreError) -> None:
        """Count a setback; raises `error` after too many without progress."""
        self._most = max(self._most, session.offset)
        if self._most >= self._mark + _PROGRESS:
            self._tries, self._mark = self._all_tries, self._most
        self._tries -= 1
        if self._tries == 0:
            raise error

    def _drop(self) -> None:
        if self._session is not None:
            self._wire.cancel(self._session)
            self._session = None


def part_of(host: str) -> int:
    """Bytes of a part that a registry takes, to begin with."""
    return ECR_PART if _ECR.match(host) else PART


def _range(response: requests.Response) -> int | None:
    """How many bytes the registry has by its Range header; None for none of use: `0-0` is said for 0 and for 1."""
    match = _RANGE.match(response.headers.get("Range", "").strip())
    return int(match[1]) + 1 if match and int(match[1]) > 0 else None
