"""cosign's attachments: the signatures of a manifest are the layers of an image manifest named `sha256-<hex>.sig`.

Nothing but the name says what it is about. A layer is a signed text, with the signature over it as an annotation, and
who signs adds a layer. So where two places have different ones, the one with the layers of both loses no signature; the
manifest around them is signed by nobody, and may be made anew.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from casstore import spec
from casstore.content import Fetcher, Source, Target
from casstore.digest import Digest
from casstore.errors import Conflict, CorruptContent, NotFound, UnsupportedVersion
from casstore.jsondoc import dump
from casstore.names import attachment_name
from casstore.oci import AnyManifest, Descriptor
from casstore.streams import BytesSource, fetch_all

MAX_SIGNATURE_MANIFEST = 64 * spec.KIB
"""Bytes of a manifest that a verifier reads signatures from."""
_TRIES = 3
_BEGINNING = "0001-01-01T00:00:00Z"


@dataclass(frozen=True, slots=True)
class Attachment:
    """An attachment."""

    manifest: AnyManifest

    @classmethod
    def parse(cls, raw: bytes, *, subject: Digest) -> Self:
        """Parse that of `subject`.

        Raises:
            UnsupportedVersion, DocumentError: it is no sound image manifest.
        """
        told = f"signatures of {subject}: manifest {Digest.of(raw)}"
        return cls(AnyManifest.parse(raw, spec.MEDIA_MANIFEST, subject=told))

    @property
    def descriptor(self) -> Descriptor:
        """Of the manifest."""
        return self.manifest.descriptor

    @property
    def layers(self) -> Sequence[Descriptor]:
        """The signatures; several may be over the same text."""
        return self.manifest.layers

    def has_all_of(self, other: Attachment) -> bool:
        """Whether every signature of `other` is here, too."""
        return not _missing(self.layers, other.layers)


def read_attachment(source: Source, subject: Digest) -> Attachment | None:
    """What a place has under the name for `subject`; None where it has nothing.

    Raises:
        UnsupportedVersion, DocumentError: something that is no sound image manifest.
    """
    try:
        found = source.resolve(attachment_name(subject))
    except NotFound:
        return None
    if found.media_type != spec.MEDIA_MANIFEST:
        problem = f"expected an OCI image manifest, got {ascii(found.media_type)[:100]}"
        raise UnsupportedVersion(f"signatures of {subject}: {attachment_name(subject)}", problem, at="mediaType")
    return Attachment.parse(fetch_all(source, found, limit=spec.MAX_MANIFEST), subject=subject)


def build_attachment(layers: Sequence[Descriptor], *, subject: Digest) -> tuple[Attachment, BytesSource]:
    """An attachment of these signatures, as cosign would write it; with its config, which has to be pushed before it.

    Raises:
        UnsupportedVersion: more signatures than any verifier reads.
    """
    config = dump(
        {
            "architecture": "",
            "config": {},
            "created": _BEGINNING,
            "history": [{"created": _BEGINNING} for _ in layers],
            "os": "",
            "rootfs": {"diff_ids": [str(layer.digest) for layer in layers], "type": "layers"},
        }
    )
    raw = dump(
        {
            "schemaVersion": 2,
            "mediaType": spec.MEDIA_MANIFEST,
            "config": Descriptor.of(config, spec.MEDIA_CONFIG_IMAGE).to_dict(),
            "layers": [layer.to_dict() for layer in layers],
        }
    )
    if len(raw) > MAX_SIGNATURE_MANIFEST:
        raise UnsupportedVersion(
            f"signatures of {subject}",
            f"expected at most {MAX_SIGNATURE_MANIFEST} bytes under {attachment_name(subject)}, got {len(raw)} with"
            " those that are there; remove what is not needed of them",
        )
    return Attachment.parse(raw, subject=subject), BytesSource(config, raw)


def put_attachment(target: Target, ours: Attachment, source: Fetcher, *, subject: Digest) -> Descriptor:
    """Let the name for `subject` stand for an attachment whose blobs are there, and lose none of the signatures that it
    had; returns what it stands for then. `source` has the manifest, and its config.

    Raises:
        UnsupportedVersion: what is there is no attachment, or they are too many together.
        Conflict: others changed it again and again.
    """
    name = attachment_name(subject)
    for _ in range(_TRIES):
        theirs = _theirs(target, ours, subject)
        if theirs is not None and theirs.has_all_of(ours):
            return theirs.descriptor
        wanted, made = ours, source
        if theirs is not None and not ours.has_all_of(theirs):
            layers = [*theirs.layers, *_missing(theirs.layers, ours.layers)]
            wanted, made = build_attachment(layers, subject=subject)
            target.push(wanted.manifest.blobs[0], made)
        target.push(wanted.descriptor, made)
        target.tag(wanted.descriptor, name)
        now = read_attachment(target, subject)
        if now is not None and now.has_all_of(wanted):
            return now.descriptor
    raise Conflict(f"signatures of {subject}: {name} was changed by others {_TRIES} times meanwhile; try again")


def _theirs(target: Target, ours: Attachment, subject: Digest) -> Attachment | None:
    """As `read_attachment`; but where `ours` is there already, and damaged, it is as good as missing."""
    try:
        return read_attachment(target, subject)
    except CorruptContent:
        if target.resolve(attachment_name(subject)).digest != ours.descriptor.digest:
            raise
        return None


def _missing(layers: Sequence[Descriptor], wanted: Sequence[Descriptor]) -> Sequence[Descriptor]:
    """The signatures of `wanted` that are not among `layers`."""
    there = {_key(layer) for layer in layers}
    return [layer for layer in wanted if _key(layer) not in there]


def _key(layer: Descriptor) -> tuple[object, ...]:
    return layer.digest, layer.size, layer.media_type, tuple(sorted(layer.annotations.items()))
