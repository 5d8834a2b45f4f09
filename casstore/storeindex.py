"""index.json of a store: derived from its refs, so that other OCI tools can read the store; what they add is kept.

It is written without a sync, unless there is something in it that could not be derived: whatever a power cut leaves of
it, the next opening notices and derives it again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from casstore import durable, layout, spec
from casstore.digest import Digest
from casstore.durable import Durability
from casstore.errors import CasstoreError, DocumentError, InvalidDigest, StorageError
from casstore.jsondoc import dump, load_object
from casstore.names import is_reserved
from casstore.oci import Descriptor

_REF, _DIGEST = spec.ANNOTATION_STORE_REF, spec.ANNOTATION_STORE_DIGEST

Entry = dict[str, Any]
"""An entry of index.json, as it is: other tools' break our rules as they like."""


@dataclass(frozen=True, slots=True)
class IndexFile:
    """What an index.json said: `digest` is the sha256 of its bytes, `others` are the entries that are not ours."""

    digest: str
    others: tuple[Entry, ...]


class StoreIndex:
    """The index.json in directory `root`."""

    def __init__(self, root: str, durability: Durability) -> None:
        self.path: str = os.path.join(root, "index.json")
        self._root, self._durability = root, durability

    def digest(self) -> str | None:
        """The sha256 of its bytes, in hexadecimal; None when there is no such file.

        Raises:
            StorageError: it cannot be read, or is too large to be.
        """
        raw = self._read()
        return None if raw is None else hashlib.sha256(raw).hexdigest()

    def read(self, refs: Mapping[str, Digest] | None = None) -> IndexFile | None:
        """What it says; None when there is no index.json, or no index in it, or one that does not say of each of `refs`
        what that says, and nothing else of its name.

        Raises:
            StorageError: it cannot be read, or is too large to be.
        """
        raw = self._read()
        try:
            entries = None if raw is None else _load_entries(raw)
        except DocumentError:
            entries = None
        if raw is None or entries is None or not (refs is None or _says(entries, refs)):
            return None
        return IndexFile(hashlib.sha256(raw).hexdigest(), tuple(entry for entry in entries if not _is_ours(entry)))

    def derive(self, refs: Mapping[str, Digest], sizes: Mapping[Digest, int], known: IndexFile | None) -> IndexFile:
        """Let it say what the refs say, whose manifests have these sizes, and keep what is not ours. It is not parsed
        if it is still the index.json that is `known`.

        Raises:
            StorageError: it cannot be read or written.
        """
        raw = self._read()
        new, kept = self._derived(raw, refs, sizes, known)
        if raw != new:
            durability = self._durability if kept else Durability.NONE
            durable.replace_file(self.path, new, mode=0o644, durability=durability)
        return IndexFile(hashlib.sha256(new).hexdigest(), tuple(kept))

    def _derived(
        self, raw: bytes | None, refs: Mapping[str, Digest], sizes: Mapping[Digest, int], known: IndexFile | None
    ) -> tuple[bytes, list[Entry]]:
        """The bytes that it should have, and the entries in them that are not ours."""
        others: tuple[Entry, ...] = ()
        if raw is not None:
            if known is None or known.digest != hashlib.sha256(raw).hexdigest():
                known = self.read()
            others = () if known is None else known.others
        kept = []
        for entry in foreign(others, refs):
            if self._is_rotten(entry):
                continue
            annotations = {key: text for key, text in _annotations(entry).items() if key not in {_REF, _DIGEST}}
            if ref_name(entry) in refs:
                del annotations[spec.ANNOTATION_REF_NAME]  # the ref has the name; the content is kept without one
            changed = annotations != _annotations(entry)  # else they were copied from an entry of ours
            kept.append({**entry, "annotations": annotations} if changed else entry)
        return _encode([(name, digest, sizes[digest]) for name, digest in refs.items()], kept), kept

    def _is_rotten(self, entry: Entry) -> bool:
        """Whether it has our marks and leads to nothing: one of ours in which bits have changed."""
        if not {_REF, _DIGEST} & _annotations(entry).keys():
            return False
        try:
            hex_ = Digest.parse(entry["digest"]).hex
        except InvalidDigest:
            return True
        return not os.path.lexists(os.path.join(self._root, "blobs", "sha256", hex_))

    def is_right(self, refs: Mapping[str, Digest], sizes: Mapping[Digest, int]) -> bool:
        """Whether it is, to the byte, what `derive` would make of it. The size of a manifest that `sizes` has not is
        what it says itself; where it says none, it need not name the manifest.

        Raises:
            StorageError: it cannot be read.
        """
        raw = self._read()
        with contextlib.suppress(DocumentError):
            entries = _load_entries(raw or b"")
            claimed = {entry["digest"]: entry.get("size") for entry in entries if _is_ours(entry)}
            known = {digest: sizes.get(digest, claimed.get(str(digest))) for digest in refs.values()}
            whole = {digest: size for digest, size in known.items() if isinstance(size, int)}
            named = {name: digest for name, digest in refs.items() if digest in whole}
            return raw == self._derived(raw, named, whole, None)[0]
        return False

    def names(self) -> dict[str, Digest] | None:
        """The names in the entries that are ours, and what they stand for; None when there is no index in it.

        Raises:
            StorageError: it cannot be read.
        """
        raw = self._read()
        with contextlib.suppress(DocumentError):
            return None if raw is None else dict(_names(_load_entries(raw)))
        return None

    def _read(self) -> bytes | None:
        try:
            raw = layout.read_file(self.path, limit=spec.MAX_INDEX)
        except DocumentError:
            return b""  # what has its place is no index, and is replaced like one that is garbage
        if raw is not None and len(raw) > spec.MAX_INDEX:
            raise StorageError(f"store {self._root!r}: expected an index.json of at most {spec.MAX_INDEX} bytes")
        return raw


def _names(entries: list[Entry]) -> Iterator[tuple[str, Digest]]:
    for entry in entries:
        mark = _annotations(entry).get(_REF)
        if isinstance(mark, str) and _is_ours(entry):
            with contextlib.suppress(InvalidDigest):
                yield mark, Digest.parse(entry["digest"])


def without(others: tuple[Entry, ...], gone: Sequence[Entry]) -> tuple[Entry, ...]:
    """Of the entries that are not ours, those that are not among `gone`; one may have lost its name since."""
    named = {(entry["digest"], name) for entry in gone for name in (ref_name(entry), None)}
    return tuple(entry for entry in others if (entry["digest"], ref_name(entry)) not in named)


def foreign(others: tuple[Entry, ...], refs: Mapping[str, Digest]) -> list[Entry]:
    """Of the entries that are not ours, those that do not just say what a ref says."""
    if not others:
        return []
    ours = {(name, str(digest)) for name, digest in refs.items()}
    return [entry for entry in others if (ref_name(entry), entry["digest"]) not in ours]


def _encode(refs: list[tuple[str, Digest, int]], others: list[Entry]) -> bytes:
    """The index.json, as `dump` would write it. The many entries of ours are filled into a text: nothing in a name or a
    digest needs to be escaped.
    """
    ours = _template(spec.ARTIFACT_TYPE)
    referrers = _template(None)  # of what type one is, only its manifest says
    parts = [
        (referrers if is_reserved(name) else ours) % {"name": name, "hex": digest.hex, "size": size}
        for name, digest, size in refs
    ]
    parts += [dump(other).decode() for other in others]
    head, tail = dump({"schemaVersion": 2, "mediaType": spec.MEDIA_INDEX, "manifests": []}).decode().split("[]")
    return f"{head}[{','.join(parts)}]{tail}".encode()


def _template(artifact_type: str | None) -> str:
    """An entry of ours, to be filled in with `%`."""
    entry = Descriptor(
        media_type=spec.MEDIA_MANIFEST,
        digest=Digest("%(hex)s"),
        size=0,
        artifact_type=artifact_type,
        annotations={spec.ANNOTATION_REF_NAME: "%(name)s", _REF: "%(name)s", _DIGEST: str(Digest("%(hex)s"))},
    )
    return dump({**entry.to_dict(), "size": "%(size)d"}).decode().replace('"%(size)d"', "%(size)d")


def _says(entries: list[Entry], refs: Mapping[str, Digest]) -> bool:
    """Whether they say of each ref what it says, and nothing else of its name; anything odd counts as no."""
    try:
        ours = [(ref_name(entry) or "", entry["digest"]) for entry in entries if _is_ours(entry)]
        others = {ref_name(entry) for entry in entries if not _is_ours(entry)}
        return sorted(ours) == sorted((name, str(digest)) for name, digest in refs.items()) and not others & refs.keys()
    except (CasstoreError, LookupError, TypeError, AttributeError):
        return False


def _is_ours(entry: Mapping[str, Any]) -> bool:
    """Whether an entry of index.json was derived from a ref: it has our marks for its own digest, and no other name.

    umoci copies the marks to the names that it adds; skopeo keeps them where it gives a name to another digest, and
    takes the name from the entry that had it.
    """
    annotations = _annotations(entry)
    mark = annotations.get(_REF)
    return mark is not None and annotations.get(_DIGEST) == entry["digest"] and ref_name(entry) in {mark, None}


def ref_name(entry: Mapping[str, Any]) -> str | None:
    """The name that an entry has for all tools; None where it has none."""
    name = _annotations(entry).get(spec.ANNOTATION_REF_NAME)
    return name if isinstance(name, str) else None


def _annotations(entry: Mapping[str, Any]) -> Mapping[str, Any]:
    annotations = entry.get("annotations")
    return annotations if isinstance(annotations, dict) else {}


def _load_entries(raw: bytes) -> list[Entry]:
    """The entries of an index.json that have a digest: strictly parsed if that can be done, else leniently."""
    document: Any
    try:
        document, strict = load_object(raw, subject="index.json", limit=spec.MAX_INDEX), True
    except DocumentError:
        document, strict = _load_leniently(raw), False
    manifests = document.get("manifests") if isinstance(document, dict) else None
    if not isinstance(manifests, list):
        raise DocumentError("index.json", "expected a JSON object with a list of manifests")
    entries = [entry for entry in manifests if isinstance(entry, dict)]
    if not strict:
        entries = list(map(_writable, entries))
    return [entry for entry in entries if isinstance(entry.get("digest"), str)]


def _load_leniently(raw: bytes) -> Any:
    def integer(digits: str) -> int | float:
        return int(digits) if len(digits) < 4000 else float(digits)  # CPython refuses to convert longer ones

    try:
        return json.loads(raw, parse_int=integer)
    except (ValueError, RecursionError):
        return None


def _writable(entry: Entry) -> Entry:
    """The entry; of one that cannot be written as JSON again (NaN, lone surrogates), only what names its content."""
    try:
        dump(entry)
    except (ValueError, RecursionError):
        kept = {name: entry.get(name) for name in ("mediaType", "digest", "size")}
        return {
            name: value
            for name, value in kept.items()
            if isinstance(value, int) or (isinstance(value, str) and value.isascii())
        }
    return entry
