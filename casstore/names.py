"""What people type to say which snapshot: a name, or a digest or id (whole or a prefix).

    name     [A-Za-z0-9]+(([._-]|--)[A-Za-z0-9]+)*   1 to 128 ASCII characters: what OCI tools take as tag and ref.name
    digest   sha256:<6 to 64 lower hex>

Nothing can be both. Names of the form sha256-<64 hex>[.suffix] are the referrers' tag scheme of registries and are
reserved for manifests that are about another one, whose digest they begin with:

    sha256-<64 hex>.sig-<first 16 hex of its own digest>   a referrer that holds a signature: a sigstore bundle
    sha256-<64 hex>.ref-<first 16 hex of its own digest>   any other referrer; signatures, too, in older stores
    sha256-<64 hex>.sig                                    cosign's: signatures, in a manifest that only this name
                                                           ties to what they are about: an attachment

Names are case-sensitive; on a case-folding file system two names that differ in case only are one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NewType

from casstore.digest import Digest
from casstore.errors import InvalidDigest, InvalidName
from casstore.oci import Descriptor, is_bundle

MAX_NAME = 128
"""Characters of a name."""

SnapshotName = NewType("SnapshotName", str)
"""A string that `parse_name` let through; safe as a file name and as a registry tag."""

ReferrerName = NewType("ReferrerName", str)
"""A reserved name, under which a manifest is kept that is about another one."""

_NAME = re.compile(r"[A-Za-z0-9]+(?:(?:[._-]|--)[A-Za-z0-9]+)*\Z", re.ASCII)
_RESERVED = re.compile(r"sha256-[0-9a-f]{64}(?:\.[A-Za-z0-9._-]*)?\Z", re.ASCII)
_REFERRER = re.compile(r"sha256-([0-9a-f]{64})\.(?:sig|(?:ref|sig)-([0-9a-f]{16}))\Z", re.ASCII)
_PREFIX = re.compile(r"sha256:([0-9a-f]{6,64})\Z", re.ASCII)
_DISK = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}\Z", re.ASCII)
_PARTS = re.compile(r"[A-Za-z0-9]+|[^A-Za-z0-9]+", re.ASCII)
_JOINTS = {".", "_", "-", "--"}
_DOCUMENTS = {"manifest.json", "snapshot.json"}
_COMPARED = 2000
"""Names that one is compared with: 20 ms."""
_NEAR = 0.65
"""How much of two names must be alike, as difflib counts it."""
_GRAMMAR = "letters and digits, joined by single '.', '_', '-' or '--', at most 128 characters"


@dataclass(frozen=True, slots=True)
class DigestPrefix:
    """The first `len(hex)` (6 to 64) hexadecimal digits of an artifact digest or snapshot id."""

    hex: str

    def __str__(self) -> str:
        return f"sha256:{self.hex}"


def is_reserved(name: str) -> bool:
    """Whether `name` belongs to the referrers' tag scheme."""
    return _RESERVED.match(name) is not None


def referrer_name(subject: Digest, referrer: Descriptor) -> ReferrerName:
    """The name that `referrer`, a manifest that refers to `subject`, is kept under; its artifact type must be known."""
    kind = "sig" if is_bundle(referrer.artifact_type) else "ref"
    return ReferrerName(f"sha256-{subject.hex}.{kind}-{referrer.digest.hex[:16]}")


def attachment_name(subject: Digest) -> ReferrerName:
    """The name that cosign keeps the signatures of `subject` under."""
    return ReferrerName(f"sha256-{subject.hex}.sig")


def is_attachment(name: str) -> bool:
    """Whether a reserved name is cosign's: the manifest does not itself say what it is about."""
    return name.endswith(".sig")


def referrer_subject(name: str) -> Digest | None:
    """What the manifest of a reserved name is about, in whichever form; None for a name of any other form."""
    match = _REFERRER.match(name)
    return None if match is None else Digest(match[1])


def fits(name: str, digest: Digest) -> bool:
    """Whether a name of which `referrer_subject` knows the subject can be that of the manifest `digest`."""
    match = _REFERRER.match(name)
    return match is not None and match[2] in {None, digest.hex[:16]}


def parse_name(text: str) -> SnapshotName:
    """Check a snapshot's name.

    Raises:
        InvalidName: outside the grammar, too long, or reserved.
    """
    if len(text) > 128 or not _NAME.match(text):
        raise InvalidName(f"snapshot name {ascii(text[:140])}: expected {_GRAMMAR}; choose another name")
    if is_reserved(text):
        raise InvalidName(f"snapshot name {ascii(text)}: names of this form are reserved for signatures")
    return SnapshotName(text)


def as_name(text: str) -> SnapshotName | None:
    """The name that is most like a text from elsewhere: what names cannot have becomes "-"; None where nothing is left
    of it.
    """
    parts = _PARTS.findall(text[:MAX_NAME])
    words = [part if (part.isascii() and part.isalnum()) or part in _JOINTS else "-" for part in parts]
    while words and not words[0].isalnum():
        del words[0]
    while words and not words[-1].isalnum():
        del words[-1]
    name = "".join(words)
    return SnapshotName(f"snapshot-{name}"[:MAX_NAME] if is_reserved(name) else name) if name else None


def nearest(wanted: str, known: Iterable[str]) -> str | None:
    """Which of the `known` names was most likely meant by one that is not among them; None where none is near.

    Of very many names only those that begin or end alike are compared, and of these so many at most that it takes no
    longer than people notice.
    """
    from difflib import get_close_matches

    low, spread = wanted.lower(), max(2, len(wanted) // 2)
    alike: list[str] = []
    for name in known:
        if name.lower() == low:
            return name
        ends = name[:1].lower() == low[:1] or name[-1:].lower() == low[-1:]
        if ends and abs(len(name) - len(wanted)) <= spread and len(alike) < _COMPARED:
            alike.append(name)
    found = get_close_matches(wanted, alike, n=1, cutoff=_NEAR)
    return found[0] if found else None


def parse_selector(text: str) -> SnapshotName | DigestPrefix:
    """Tell a name from a digest, id or prefix of one.

    Raises:
        InvalidDigest: starts with `sha256:` but is no prefix of at least 6 hexadecimal digits.
        InvalidName: neither.
    """
    if text.startswith("sha256:"):
        match = _PREFIX.match(text)
        if match is None:
            raise InvalidDigest(f"{ascii(text[:100])}: expected sha256: and 6 to 64 lower-case hex digits")
        return DigestPrefix(match[1])
    if "/" in text or ":" in text:
        raise InvalidName(
            f"snapshot {ascii(text[:140])}: expected a name or digest of the store, got what looks like a reference;"
            " casstore pull brings what is elsewhere into the store"
        )
    return parse_name(text)


def is_path(text: str) -> bool:
    """Whether a text stands for a path, where it may also be a name or a digest."""
    return "/" in text or text.startswith((".", "~"))


def is_file_name(text: str) -> bool:
    """Whether a text is the name of a file in a directory, and leads nowhere else."""
    return text not in {"", ".", ".."} and "/" not in text and "\0" not in text


def parse_disk_name(text: str) -> str:
    """Check a disk's name: `[a-z0-9][a-z0-9._-]{0,63}`, and not what a snapshot's directory needs itself.

    A disk is restored under this name, so none may hide (`.profile`) or look like an option (`-rf`).

    Raises:
        InvalidName: anything else.
    """
    if not _DISK.match(text) or text in _DOCUMENTS:
        raise InvalidName(
            f"disk name {ascii(text[:80])}: expected a-z 0-9, then up to 63 of a-z 0-9 . _ -, and not 'manifest.json'"
            " or 'snapshot.json'"
        )
    return text
