"""Signing: a signature by each key is made, and stored beside what it is about.

What is signed is the snapshot's own words beside those of whoever signs. All signatures are made before anything is
stored, and the blobs of one are there before its manifest has a name: who is killed meanwhile leaves some bytes and no
half of a signature.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Protocol

from casstore import spec
from casstore.attachments import build_attachment, put_attachment
from casstore.content import Attacher, Target
from casstore.dialects import read_config
from casstore.errors import NotFound, NotOffered, UsageError
from casstore.jsondoc import dump
from casstore.oci import ArtifactManifest, Descriptor
from casstore.reference import Reference, RegistryReference, parse_repository
from casstore.signatures import encoding, simplesigning, statement
from casstore.signatures.bundle import MEDIA_TYPE, Bundle
from casstore.signatures.claims import Form, Signed
from casstore.signatures.keys import PrivateKey
from casstore.signatures.simplesigning import Payload
from casstore.signatures.statement import Statement
from casstore.streams import BytesSource, fetch_all
from casstore.survey import read_manifest

if TYPE_CHECKING:
    from casstore.catalog import Catalog
    from casstore.digest import Digest
    from casstore.manifest import Manifest
    from casstore.storedir import StoreDirectory

_OWN = "io.casstore."
_EMPTY = b"{}"


class Place(Target, Attacher, Protocol):
    """Where signatures can be stored."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Signing:
    """What to sign with, and what to say."""

    keys: Sequence[PrivateKey]
    """Each makes a signature of its own."""
    annotations: Mapping[str, str] = field(default_factory=dict)
    """What is signed besides what the snapshot says of itself; names that begin with `io.casstore.` are taken."""
    repository: str | None = None
    """HOST/REPO that the signatures are for. None: the repository of a registry that is signed in, or pushed to."""
    any_repository: bool = False
    """They are for every repository."""
    cosign_tag: bool = False
    """Sign in the form, too, that cosign keeps under a tag; it has to be for a repository."""

    def __post_init__(self) -> None:
        taken = next((name for name in self.annotations if name.startswith(_OWN)), None)
        if taken is not None:
            raise UsageError(f"annotation {ascii(taken[:100])}: names that begin with {_OWN} are casstore's own")
        if self.repository is not None and self.any_repository:
            raise UsageError("signing: expected either a repository or any of them, got both")

    def repository_at(self, place: Reference | None) -> str | None:
        """The repository that signatures made at `place`, or on the way there, are for; None is any.

        Raises:
            InvalidReference: the one that was given is none.
        """
        if self.repository is not None:
            return parse_repository(self.repository).name
        return place.name if isinstance(place, RegistryReference) and not self.any_repository else None


def sign(
    target: Target, root: Descriptor, signing: Signing, *, repository: str | None, now: datetime | None = None
) -> Sequence[Signed]:
    """Sign the snapshot `root` where it is.

    Raises:
        UnsupportedVersion: it is no snapshot.
        NotOffered: signatures cannot be kept there.
        As `sign_manifest`.
    """
    if not isinstance(target, Attacher):
        raise NotOffered(f"{target!r}: it cannot keep signatures")
    artifact = read_manifest(target, root)
    document = read_config(
        artifact,
        lambda config: fetch_all(target, config, limit=spec.MAX_MANIFEST),
        subject=f"snapshot {root.digest}",
    )
    return sign_manifest(
        target,
        artifact.descriptor,
        signing.keys,
        annotations={**_said_of(artifact, document), **signing.annotations},
        repository=repository,
        now=now or datetime.now(UTC),
        cosign_tag=signing.cosign_tag,
    )


def sign_stored(
    directory: StoreDirectory,
    catalog: Catalog,
    digest: Digest,
    signing: Signing,
    *,
    place: Reference | None,
    now: datetime | None = None,
) -> Sequence[Signed]:
    """Sign a snapshot of the store, for the repository `place` unless `signing` says another.

    Raises:
        StorageError: the store is read-only, or the file system refused; no signature is there then.
        As `sign`.
    """
    from casstore.transaction import Transaction  # with numpy

    repository = signing.repository_at(place)
    directory.require_writable()
    with Transaction(directory, catalog) as change:
        signed = sign(change, change.resolve(str(digest)), signing, repository=repository, now=now)
        change.commit_all({})
    return signed


def sign_manifest(
    target: Place,
    subject: Descriptor,
    signers: Sequence[PrivateKey],
    *,
    annotations: Mapping[str, str],
    repository: str | None,
    now: datetime,
    cosign_tag: bool = False,
) -> Sequence[Signed]:
    """Sign the manifest `subject`, which is there, with each key. `repository` (HOST/REPO) is what the signatures are
    for; None: any. With `cosign_tag` each signs once more, in the form that older tools look for.

    In a store the signatures get their names with the commit.

    Raises:
        UsageError: no key; annotations that cannot be signed; or a tag for cosign, but no repository.
        NotFound: there is no such manifest.
        NotOffered, Conflict, RegistryError: as the target.
    """
    if not signers:
        raise UsageError(f"signing {subject.digest.short}: expected a key, got none")
    if cosign_tag and repository is None:
        raise UsageError(
            f"signing {subject.digest.short}: expected a repository, for signatures in cosign's form are for one; say"
            " which (--repository), or leave that form out"
        )
    own = {statement.SIGNED: now.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")}
    if repository is not None:
        own[statement.REPOSITORY] = repository
    said = Statement(subject=subject.digest, annotations={**annotations, **own})
    bundles = [Bundle.sign(said, key).to_bytes() for key in signers]
    payload, attached = b"", list[Descriptor]()
    if cosign_tag and repository is not None:
        payload = Payload(subject=subject.digest, repository=repository, annotations=said.annotations).to_bytes()
        attached = [_layer(payload, key) for key in signers]
    if not target.exists(subject):
        raise NotFound(f"{subject.digest}: there is no such manifest to sign")
    signed = [
        Signed(key.public, _attach(target, subject, bundle, own[statement.SIGNED]), Form.BUNDLE)
        for key, bundle in zip(signers, bundles, strict=True)
    ]
    if attached:
        ours, source = build_attachment(attached, subject=subject.digest)
        _push(target, payload, simplesigning.MEDIA_TYPE)
        target.push(ours.manifest.blobs[0], source)
        found = put_attachment(target, ours, source, subject=subject.digest)
        signed += [Signed(key.public, found, Form.COSIGN) for key in signers]
    return signed


def _said_of(artifact: ArtifactManifest, document: Manifest) -> dict[str, str]:
    """What a snapshot says of itself, as annotations to sign."""
    said = {statement.ID: str(document.id)}
    if document.source_sandbox is not None:
        said[statement.SOURCE] = document.source_sandbox
    said |= {f"{statement.LABEL_PREFIX}{key}": value for key, value in document.labels.items()}
    bases = (spec.ANNOTATION_BASE_NAME, spec.ANNOTATION_BASE_DIGEST)
    return said | {name: artifact.annotations[name] for name in bases if name in artifact.annotations}


def _attach(target: Place, subject: Descriptor, bundle: bytes, created: str) -> Descriptor:
    config, layer = _push(target, _EMPTY, spec.MEDIA_EMPTY), _push(target, bundle, MEDIA_TYPE)
    raw = dump(
        {
            "schemaVersion": 2,
            "mediaType": spec.MEDIA_MANIFEST,
            "artifactType": MEDIA_TYPE,
            "config": config.to_dict(),
            "layers": [layer.to_dict()],
            "subject": Descriptor(media_type=subject.media_type, digest=subject.digest, size=subject.size).to_dict(),
            "annotations": {
                spec.ANNOTATION_CREATED: created,
                "dev.sigstore.bundle.content": "dsse-envelope",
                "dev.sigstore.bundle.predicateType": statement.PREDICATE_TYPE,
            },
        }
    )
    descriptor = Descriptor.of(raw, spec.MEDIA_MANIFEST)
    target.attach(descriptor, subject, BytesSource(raw))
    return descriptor


def _layer(payload: bytes, key: PrivateKey) -> Descriptor:
    """A signature in cosign's form."""
    blob = Descriptor.of(payload, simplesigning.MEDIA_TYPE)
    annotations = {simplesigning.SIGNATURE_ANNOTATION: encoding.encode(key.sign(payload))}
    return Descriptor(media_type=blob.media_type, digest=blob.digest, size=blob.size, annotations=annotations)


def _push(target: Target, data: bytes, media_type: str) -> Descriptor:
    descriptor = Descriptor.of(data, media_type)
    target.push(descriptor, BytesSource(data))
    return descriptor
