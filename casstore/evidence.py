"""The signatures of a manifest, as they are found where it is; nobody has verified them yet.

They are looked for as what refers to it, then as cosign's attachment, then by their names, for the list of what refers
to a manifest does not survive every tool's copy. What is wrong with one of them is told in its place, and keeps the
others from nothing: who verifies goes on until enough are good.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Final

from casstore import spec
from casstore.attachments import MAX_SIGNATURE_MANIFEST, read_attachment
from casstore.content import ReferrerLister, Source, TagLister
from casstore.errors import (
    CasstoreError,
    CorruptContent,
    DocumentError,
    NotFound,
    NotOffered,
    RegistryError,
    Unauthorized,
    Unavailable,
)
from casstore.names import attachment_name, is_attachment, referrer_subject
from casstore.oci import AnyManifest, Descriptor, is_bundle
from casstore.signatures import simplesigning
from casstore.signatures.claims import Evidence, Form
from casstore.signatures.reasons import Reason
from casstore.streams import fetch_all

MAX_BLOB: Final = 256 * spec.KIB
"""Bytes of a signature."""
MAX_LISTED: Final = 10_000
"""Manifests of any kind that are told to refer to one subject."""
MAX_READ: Final = 1000
"""Manifests about one subject that are read."""


def gather(source: Source, subject: Descriptor, *, by_name: bool = True) -> Iterator[Evidence]:
    """What signatures there are of `subject`: first those that are listed, in the order of the list. They are fetched
    one after the other, as they are asked for. Where there are more than are read, the last one told is `too-many`.
    Unless `by_name`, those that only a list of all names tells of are left out: it may be a long one.

    Raises:
        Unavailable, Unauthorized, StorageError: the place, or the way to it, failed.
    """
    reader = _Reader(source, subject)
    yield from reader.listed()
    yield from reader.attached()
    if by_name:
        yield from reader.named()


class _Reader:
    """Reads signatures of one subject, each once."""

    def __init__(self, source: Source, subject: Descriptor) -> None:
        self._source, self._subject = source, subject
        self._left = MAX_READ
        self._seen: set[str] = set()

    def listed(self) -> Iterator[Evidence]:
        """Bundles that are told to refer to the subject."""
        if not isinstance(self._source, ReferrerLister):
            return
        try:
            listed = self._source.referrers(self._subject)
        except (CorruptContent, NotFound, RegistryError) as error:
            yield _bad(Form.BUNDLE, self._subject, _passing(error), "the list of what refers to it cannot be used")
            return
        yield from self._bundles(listed[:MAX_LISTED])
        if len(listed) > MAX_LISTED:
            problem = f"expected a list of at most {MAX_LISTED} manifests, got a longer one; the rest was not looked at"
            yield _evidence(Form.BUNDLE, self._subject, Reason.TOO_MANY, problem)

    def named(self) -> Iterator[Evidence]:
        """Bundles that only their names tell of."""
        if not isinstance(self._source, TagLister):
            return
        try:
            tags = self._source.tags()
        except (NotFound, NotOffered):
            return
        except (CorruptContent, RegistryError) as error:
            yield _bad(Form.BUNDLE, self._subject, _passing(error), "the list of tags cannot be used")
            return
        found = [tag for tag in tags if referrer_subject(tag) == self._subject.digest and not is_attachment(tag)]
        # Those of signatures first: what has the older names may be anything.
        for name in sorted(found, key=lambda tag: (".ref-" in tag, tag)):
            if name[-16:] in self._seen:
                continue
            if not self._left:
                yield self._too_many()
                return
            self._left -= 1
            try:
                descriptor = self._source.resolve(name)
            except (CorruptContent, NotFound, RegistryError) as error:
                yield _bad(Form.BUNDLE, self._subject, _passing(error), f"{name} cannot be read")
            else:
                yield from self._read(replace(descriptor, artifact_type=None))

    def _bundles(self, descriptors: Sequence[Descriptor]) -> Iterator[Evidence]:
        for descriptor in descriptors:
            known = descriptor.artifact_type  # as the list says; it may say nothing
            if known is not None and not is_bundle(known):
                continue
            if not self._left:
                yield self._too_many()
                return
            self._left -= 1
            yield from self._read(descriptor)

    def _read(self, descriptor: Descriptor) -> Iterator[Evidence]:
        short = descriptor.digest.hex[:16]
        if short in self._seen:
            return
        self._seen.add(short)
        try:
            evidence = self._bundle(descriptor)
        except (CorruptContent, NotFound, RegistryError) as error:
            evidence = _bad(Form.BUNDLE, descriptor, _passing(error))
        if evidence is not None:
            yield evidence

    def _bundle(self, descriptor: Descriptor) -> Evidence | None:
        """What a manifest holds; None where it is that of something else."""
        if descriptor.media_type != spec.MEDIA_MANIFEST:
            return None if descriptor.artifact_type is None else _malformed(descriptor, "an OCI image manifest")
        if descriptor.size > MAX_SIGNATURE_MANIFEST:
            return _too_large(Form.BUNDLE, descriptor, descriptor, MAX_SIGNATURE_MANIFEST)
        raw = fetch_all(self._source, descriptor, limit=MAX_SIGNATURE_MANIFEST)
        manifest = AnyManifest.parse_referrer(raw, descriptor.media_type, of=self._subject)
        if not is_bundle(manifest.descriptor.artifact_type):
            told = descriptor.artifact_type is not None
            return _malformed(descriptor, f"the artifact type {descriptor.artifact_type}") if told else None
        if len(manifest.layers) != 1 or not is_bundle(manifest.layers[0].media_type):
            return _malformed(descriptor, "one layer, with a sigstore bundle")
        found = manifest.descriptor
        for blob in manifest.blobs:
            if blob.size > MAX_BLOB:
                return _too_large(Form.BUNDLE, found, blob, MAX_BLOB)
        return Evidence(
            form=Form.BUNDLE, manifest=found, raw=fetch_all(self._source, manifest.layers[0], limit=MAX_BLOB)
        )

    def attached(self) -> Iterator[Evidence]:
        """Those of cosign's attachment."""
        name = attachment_name(self._subject.digest)
        try:
            attachment = read_attachment(self._source, self._subject.digest)
        except (CorruptContent, NotFound, RegistryError) as error:
            yield _bad(Form.COSIGN, self._subject, _passing(error), f"{name} cannot be read")
            return
        if attachment is None:
            return
        if attachment.descriptor.size > MAX_SIGNATURE_MANIFEST:
            yield _too_large(Form.COSIGN, attachment.descriptor, attachment.descriptor, MAX_SIGNATURE_MANIFEST)
            return
        large = next((blob for blob in attachment.manifest.blobs if blob.size > MAX_BLOB), None)
        if large is not None:  # who relies on one of its signatures gets the others, too
            yield _too_large(Form.COSIGN, attachment.descriptor, large, MAX_BLOB)
            return
        for layer in attachment.layers:
            yield self._signature(attachment.descriptor, layer)

    def _signature(self, manifest: Descriptor, layer: Descriptor) -> Evidence:
        told = f"{manifest.digest.short}, layer {layer.digest.short}"
        if layer.media_type != simplesigning.MEDIA_TYPE:
            problem = f"{told}: expected {simplesigning.MEDIA_TYPE}, got {ascii(layer.media_type)[:100]}"
            return _evidence(Form.COSIGN, manifest, Reason.UNKNOWN_FORM, problem)
        if simplesigning.CERTIFICATE_ANNOTATION in layer.annotations:
            problem = f"{told}: expected a signature by a key, got one by a certificate"
            return _evidence(Form.COSIGN, manifest, Reason.KEYLESS, problem)
        signature = layer.annotations.get(simplesigning.SIGNATURE_ANNOTATION)
        if signature is None:
            problem = f"{told}: expected the annotation {simplesigning.SIGNATURE_ANNOTATION}"
            return _evidence(Form.COSIGN, manifest, Reason.MALFORMED, problem)
        try:
            raw = fetch_all(self._source, layer, limit=MAX_BLOB)
        except (CorruptContent, NotFound, RegistryError) as error:
            return _bad(Form.COSIGN, manifest, _passing(error))
        return Evidence(form=Form.COSIGN, manifest=manifest, raw=raw, signature=signature)

    def _too_many(self) -> Evidence:
        problem = f"expected at most {MAX_READ} manifests about it, got more; the rest was not read"
        return _evidence(Form.BUNDLE, self._subject, Reason.TOO_MANY, problem)


def _passing(error: CasstoreError) -> CasstoreError:
    """An error that is about one signature; those about the whole place are raised."""
    if isinstance(error, Unavailable | Unauthorized):
        raise error
    return error


def _bad(form: Form, manifest: Descriptor, error: CasstoreError, told: str = "") -> Evidence:
    reason = Reason.MALFORMED if isinstance(error, DocumentError) else Reason.UNREADABLE
    return _evidence(form, manifest, reason, f"{told}: {error}" if told else str(error))


def _malformed(manifest: Descriptor, expected: str) -> Evidence:
    problem = f"signature {manifest.digest.short}: expected {expected}, got something else"
    return _evidence(Form.BUNDLE, manifest, Reason.MALFORMED, problem)


def _too_large(form: Form, manifest: Descriptor, blob: Descriptor, limit: int) -> Evidence:
    problem = (
        f"signature {manifest.digest.short}: expected at most {limit} bytes, got {blob.size} in {blob.digest.short}"
    )
    return _evidence(form, manifest, Reason.TOO_LARGE, problem)


def _evidence(form: Form, manifest: Descriptor, reason: Reason, problem: str) -> Evidence:
    return Evidence(form=form, manifest=manifest, raw=b"", problem=(reason, problem))
