"""list, inspect and remove for what is elsewhere, in a registry or an OCI layout: nothing is pulled."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from casstore.cli import render
from casstore.cli.connection import Connection, Registries
from casstore.cli.session import Session
from casstore.cli.signatures import signature_fields, signatures_document
from casstore.errors import CasstoreError

if TYPE_CHECKING:
    from casstore.oci import Descriptor
    from casstore.remote import RemoteEntry, RemoteSnapshot
    from casstore.storedir import StoreOptions
    from casstore.transfer import TransferOptions
    from casstore.trust.trust import Trust

_HEAD = ("TAG", "KIND", "IMAGE", "SIZE", "STORED", "CREATED (UTC)", "DIGEST")


def is_reference(text: str) -> bool:
    """Whether `text` can only be meant as a reference: names hold neither `/` nor `:`, and digests say `sha256:`."""
    return ("/" in text or ":" in text) and not text.startswith("sha256:")


def _options(
    session: Session, connection: Connection, trust: Trust | None = None
) -> tuple[TransferOptions, StoreOptions]:
    from casstore.transfer import TransferOptions

    return TransferOptions(Registries(session, connection), trust=trust), session.store_options


def show_list(session: Session, reference: str, connection: Connection, *, referrers: bool) -> None:
    """The tags of a repository or layout."""
    from casstore.remote import list_remote

    options, stores = _options(session, connection)
    entries = list_remote(reference, options, referrers=referrers, stores=stores)
    if session.as_json:
        session.emit_document(reference=reference, tags=[_entry_document(entry) for entry in entries])
        return
    if session.quiet:
        for digest in dict.fromkeys(str(entry.digest) for entry in entries if entry.digest is not None):
            session.emit(digest)
    elif not entries:
        session.say(f"No tags: {reference} is empty, or not there.")
    else:
        head, *lines = render.table(_HEAD, [_row(entry) for entry in entries])
        session.emit(click.style(head, bold=True))
        session.emit("\n".join(lines))
    for entry in entries:
        if entry.problem is not None:
            session.warn(f"{entry.reference}: {entry.problem}")


def _row(entry: RemoteEntry) -> tuple[str, ...]:
    return (
        entry.name,
        entry.kind,
        entry.image_ref or "-",
        "-" if entry.size_bytes is None else render.size(entry.size_bytes),
        "-" if entry.stored_bytes is None else render.size(entry.stored_bytes),
        "-" if entry.created_at is None else render.time_text(entry.created_at),
        "-" if entry.digest is None else entry.digest.short,
    )


def _entry_document(entry: RemoteEntry) -> dict[str, Any]:
    return {
        "name": entry.name,
        "reference": entry.reference,
        "kind": entry.kind,
        "digest": None if entry.digest is None else str(entry.digest),
        "id": None if entry.snapshot_id is None else str(entry.snapshot_id),
        "image_ref": entry.image_ref,
        "size_bytes": entry.size_bytes,
        "stored_bytes": entry.stored_bytes,
        "created_at": entry.created_at,
        "problem": None if entry.problem is None else str(entry.problem),
    }


def show(session: Session, reference: str, connection: Connection, trust: Trust | None) -> None:
    """A snapshot elsewhere, as its manifest, map and signatures tell it."""
    from casstore.remote import inspect_remote

    options, stores = _options(session, connection, trust)
    found = inspect_remote(reference, options, stores=stores)
    if session.as_json:
        session.emit_document(**_document(found), **signatures_document(found.signatures, trust))
    else:
        pairs = [*_fields(found), *signature_fields(found.signatures, trust)]
        session.emit("\n".join(render.fields(pairs)))


def _fields(found: RemoteSnapshot) -> list[tuple[str, str]]:
    manifest, recorded = found.manifest, found.manifest.upper.integrity
    pairs = [
        ("Reference", found.reference),
        ("Digest", str(found.digest)),
        ("ID", str(found.id)),
        ("Image", manifest.image.ref),
        ("Image Manifest", manifest.image.manifest_digest),
        ("Format", manifest.format.value),
        ("Filesystem", manifest.fstype),
        ("Parent", manifest.parent or "-"),
        ("Created", f"{render.created(manifest)} UTC"),
        ("Upper File", manifest.upper.file),
        ("Upper Size", render.size(found.size_bytes)),
        ("Allocated", render.size(found.allocated_bytes)),
        ("Stored", render.size(found.stored_bytes)),
        ("Packs", str(len(found.artifact_manifest.packs))),
        ("Integrity", f"{recorded.algorithm} {recorded.digest}" if recorded else "not recorded"),
        ("Referrers", ", ".join(_referrer(each) for each in found.referrers if not _is_bundle(each)) or "-"),
    ]
    if manifest.source_sandbox is not None:
        pairs.append(("Source Sandbox", manifest.source_sandbox))
    if manifest.labels:
        pairs.append(("Labels", ", ".join(f"{key}={value}" for key, value in manifest.labels.items())))
    pairs += render.form_fields(manifest)
    pairs.append(("Media Type", found.root.media_type))
    return pairs


def _referrer(descriptor: Descriptor) -> str:
    return f"{descriptor.artifact_type or '-'} {descriptor.digest}"


def _is_bundle(descriptor: Descriptor) -> bool:
    """Whether it is a signature, which has a line of its own."""
    from casstore.signatures.bundle import MEDIA_TYPE

    return descriptor.artifact_type == MEDIA_TYPE


def _document(found: RemoteSnapshot) -> dict[str, Any]:
    manifest = found.manifest
    return {
        "reference": found.reference,
        "digest": str(found.digest),
        "id": str(found.id),
        **render.manifest_document(manifest),
        "source_sandbox": manifest.source_sandbox,
        "upper_file": manifest.upper.file,
        "integrity": render.integrity_document(manifest.upper.integrity),
        "disks": render.disk_documents(manifest),
        "allocated_bytes": found.allocated_bytes,
        "stored_bytes": found.stored_bytes,
        "packs": len(found.artifact_manifest.packs),
        "media_type": found.root.media_type,
        "blobs": [
            {"digest": str(blob.digest), "media_type": blob.media_type, "bytes": blob.size}
            for blob in found.artifact_manifest.children
        ],
        "referrers": referrer_documents(found.referrers),
    }


def referrer_documents(referrers: Sequence[Descriptor]) -> list[dict[str, Any]]:
    """What refers to a snapshot, for JSON."""
    return [{"digest": str(each.digest), "artifact_type": each.artifact_type, "bytes": each.size} for each in referrers]


def remove_tag(session: Session, reference: str, connection: Connection) -> CasstoreError | None:
    """Remove one tag; the error, if that failed."""
    from casstore.errors import UsageError
    from casstore.reference import parse_reference
    from casstore.remote import remove_remote

    options, stores = _options(session, connection)
    try:
        place = parse_reference(reference)
        if place.tag is None:
            got = "a digest: to delete a manifest would take all its tags" if place.digest else "none"
            return UsageError(f"remove {reference}: expected a tag, got {got}; name the tag to remove")
        digest = remove_remote(place, options, stores=stores)
    except CasstoreError as error:
        return error
    session.say(f"removed the tag {place.tag} of {place.name}; it stood for {digest}")
    return None
