"""What names in registries and layouts led to when they were last pulled: STORE/state/last-seen.json.

    {"version": 1,
     "refs": {"registry.example/team/disks:latest":
                {"digest": "sha256:...", "seen": TIME, "signed": TIME or null, "created": TIME or null,
                 "earlier": ["sha256:...", ...]}}}

A signature says who made a snapshot, and not that it is the newest: who can write to a registry can let a name lead
back to an older one, with good signatures. Only who was there before can tell. Of a name that goes back the record
stays as it is, so that the step back is told until the name leads on.

The file cannot be made again. Where it is lost, the next pull is a first one, as on another machine.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from casstore import durable, layout, spec
from casstore.blobs import is_plain_directory
from casstore.digest import Digest
from casstore.errors import DocumentError, UnsupportedVersion, UsageError, storage_errors
from casstore.jsondoc import dump, load_object
from casstore.manifest import created_time
from casstore.schema import validate
from casstore.storedir import StoreDirectory

NAME: Final = "state/last-seen.json"
VERSION: Final = 1
MAX_REFS: Final = 10_000
"""Names. Those seen longest ago make room for new ones."""
MAX_EARLIER: Final = 64
"""Digests that one name led to before; the oldest make room."""
MAX_NAME: Final = 1024
"""Characters."""
AHEAD: Final = timedelta(minutes=5)
"""How far the clock of whoever signs may be ahead of the one here."""
MAX_FILE: Final = 16 * spec.MIB
"""Bytes: more than 10,000 names that each led to a dozen digests."""
_ADVICE = "; without it the next pull of each name is the first: remove it if nobody can mend it"
_Entry = dict[str, Any]
"""What the file says of a name, of the right shape."""
_DIGEST = r'"sha256:[0-9a-f]{64}"'
_TIME = r'"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]{6})?Z"'
_ENTRY = (
    rf'"[ !#-\[\]-~]{{1,1024}}":\{{"created":(?:null|{_TIME}),"digest":{_DIGEST},'
    rf'"earlier":\[(?:{_DIGEST}(?:,{_DIGEST}){{0,63}})?\],"seen":{_TIME},"signed":(?:null|{_TIME})\}}'
)
_USUAL = re.compile(rf'\{{"refs":\{{(?:{_ENTRY}(?:,{_ENTRY})*)?\}},"version":1\}}'.encode())
"""The file as it is written here. JSON like this passes the schema, which takes much longer to say."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sighting:
    """What a name led to. All times are in UTC."""

    digest: Digest
    seen: datetime
    """When, by the clock here."""
    signed: datetime | None = None
    """The time of the newest of the signatures that were relied on, for this or for what the name led to before: what
    is taken without a signature meanwhile must not make room for an older one with.
    """
    created: datetime | None = None
    """What the artifact says."""
    earlier: tuple[Digest, ...] = ()
    """What the name led to before, the oldest first."""

    def why_older(self, digest: Digest, *, signed: datetime | None, created: datetime | None) -> str | None:
        """Why `digest`, which the name leads to now, is a step back; None where it is none.

        It is one if the name led to it before, or if it is older than what was seen last: by the times of the
        signatures where both have one, else by those of the artifacts. One without a time comes after none with one.
        """
        if digest == self.digest:
            return None
        before = f"{self.digest}, seen {self.seen:%Y-%m-%d %H:%M:%S} UTC"
        if digest in self.earlier:
            return f"it was superseded by {before}"
        for what, then, now in (("signed", self.signed, signed), ("made", self.created, created)):
            if then is not None and now is not None:
                if now >= then:
                    return None
                return f"it was {what} {_told(now)}, before {before}, which was {what} {_told(then)}"
        if self.signed is not None or self.created is not None:
            return f"it says no time that could be compared with that of {before}"
        return None

    def followed_by(self, new: Sighting) -> Sighting:
        """The record after another sighting, whose `earlier` does not count. A step back leaves it as it is."""
        signed = _later(self.signed, new.signed)
        if new.digest == self.digest:
            return replace(self, seen=max(self.seen, new.seen), signed=signed, created=new.created)
        if self.why_older(new.digest, signed=new.signed, created=new.created) is not None:
            return self
        return replace(new, signed=signed, earlier=(*self.earlier, self.digest)[-MAX_EARLIER:])


class LastSeen:
    """The record of one store."""

    def __init__(self, store: StoreDirectory) -> None:
        self._store = store
        self.path: str = os.path.join(store.path, NAME)

    def find(self, name: str) -> Sighting | None:
        """What `HOST/REPO:TAG` led to; None where it was never seen.

        Raises:
            CorruptContent: the file is damaged, or of a later version.
            StorageError: it cannot be read.
        """
        entry = self._read().get(name)
        return None if entry is None else self._sighting(entry, name)

    def require_sound(self) -> None:
        """Raise as `find`, whatever name would be asked for."""
        for name, entry in self._read().items():
            self._sighting(entry, name)

    def record(self, name: str, new: Sighting) -> None:
        """Remember what `HOST/REPO:TAG` leads to now. Of several processes that do so none undoes what another did.
        A store that is read-only remembers nothing.

        Raises:
            CorruptContent: the file is damaged, or of a later version. It stays as it is.
            StorageError, StoreLocked: it cannot be written.
        """
        if not 1 <= len(name) <= MAX_NAME:
            raise UsageError(f"name {ascii(name[:100])}: expected 1 to {MAX_NAME} characters, got {len(name)}")
        if self._store.read_only:
            return
        new = replace(new, signed=_believed(new.signed, new.seen), created=_believed(new.created, new.seen), earlier=())
        with self._store.holding_refs():
            refs = self._read()
            known = self._sighting(refs[name], name) if name in refs else None
            now = new if known is None else known.followed_by(new)
            if now != known:
                self._write({**refs, name: _document(now)})

    def _read(self) -> dict[str, _Entry]:
        if not is_plain_directory(os.path.dirname(self.path)):
            return {}
        raw = layout.read_file(self.path, limit=MAX_FILE)
        return {} if raw is None else _parse(raw, self.path)

    def _sighting(self, entry: _Entry, name: str) -> Sighting:
        times = {key: None if entry[key] is None else created_time(entry[key]) for key in ("seen", "signed", "created")}
        seen = times["seen"]
        if seen is None or any(time is None and entry[key] is not None for key, time in times.items()):
            problem = f"expected a time of the calendar{_ADVICE}"
            raise DocumentError(self.path, problem, at=f"refs.{ascii(name[:100])[1:-1]}")
        return Sighting(
            digest=Digest.parse(entry["digest"]),
            seen=seen,
            signed=times["signed"],
            created=times["created"],
            earlier=tuple(Digest.parse(digest) for digest in entry["earlier"]),
        )

    def _write(self, refs: dict[str, _Entry]) -> None:
        kept = min(len(refs), MAX_REFS)
        newest = sorted(refs, key=lambda name: refs[name]["seen"], reverse=True)
        while True:
            data = dump({"version": VERSION, "refs": {name: refs[name] for name in newest[:kept]}})
            if len(data) <= MAX_FILE:
                break
            kept -= kept // 10 + 1
        with storage_errors(f"writing {self.path!r}"):
            durable.make_part(os.path.dirname(self.path), self._store.durability)
        durable.replace_file(self.path, data, mode=0o644, durability=self._store.durability)


def _parse(raw: bytes, path: str) -> dict[str, _Entry]:
    try:
        document = load_object(raw, subject=path, limit=MAX_FILE)
        version = document.get("version")
        if isinstance(version, int) and version > VERSION:
            problem = f"expected version {VERSION}, got {version}: use a newer casstore"
            raise UnsupportedVersion(path, problem, at="version")
        if not _USUAL.fullmatch(raw) or len(document["refs"]) > MAX_REFS:
            validate(document, "last-seen", subject=path)
        refs: dict[str, _Entry] = document["refs"]
        return refs
    except UnsupportedVersion:
        raise
    except DocumentError as error:
        raise DocumentError(path, error.problem + _ADVICE, at=error.at) from None


def _document(sighting: Sighting) -> dict[str, Any]:
    return {
        "digest": str(sighting.digest),
        "seen": _told(sighting.seen),
        "signed": None if sighting.signed is None else _told(sighting.signed),
        "created": None if sighting.created is None else _told(sighting.created),
        "earlier": [str(digest) for digest in sighting.earlier],
    }


def _believed(time: datetime | None, now: datetime) -> datetime | None:
    """A time, unless it is from the future: what comes later would all be older than that."""
    return None if time is not None and time > now + AHEAD else time


def _later(one: datetime | None, other: datetime | None) -> datetime | None:
    return max((time for time in (one, other) if time is not None), default=None)


def _told(time: datetime) -> str:
    return time.astimezone(UTC).replace(tzinfo=None).isoformat() + "Z"
