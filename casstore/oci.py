"""The OCI documents that casstore uses: descriptor, artifact manifest, image index (image-spec v1.1.1).

A manifest keeps the exact bytes that it was parsed from: its digest is over them, and copying never re-serialises.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from sys import intern
from types import MappingProxyType
from typing import Any, Self

from casstore import spec
from casstore.digest import Digest
from casstore.errors import DocumentError, InvalidDigest, UnsupportedVersion
from casstore.jsondoc import dump, load_object
from casstore.schema import validate

_BLOB = (
    r'\{BEFORE"digest":"sha256:[0-9a-f]{64}","mediaType":"application/vnd\.casstore\.KIND",'
    r'"size":(?:0|[1-9][0-9]{0,DIGITS})\}'
)
_CONFIG = _BLOB.replace("KIND", r"(?:snapshot\.config\.v1|microsandbox\.v0\.[67])\+json").replace("DIGITS", "5")
_LAYER = _BLOB.replace("KIND", r"(?:map|pack|file)\.v1").replace("DIGITS", "17")
_TEXT = r'"org\.opencontainers\.image\.[a-z.]{1,40}":"[ !#-\[\]-~]{0,1000}"'
_BUNDLE = re.compile(r"application/vnd\.dev\.sigstore\.bundle\.v0\.[0-9]{1,3}\+json\Z", re.ASCII)
_NO_ANNOTATIONS: Mapping[str, str] = MappingProxyType({})
_KINDS = {
    **dict.fromkeys(spec.MEDIA_CONFIGS, "config"),
    spec.MEDIA_MAP: "map",
    spec.MEDIA_PACK: "pack",
    spec.MEDIA_FILE: "file",
    spec.MEDIA_MANIFEST: "manifest",
    spec.MEDIA_INDEX: "index",
}
_USUAL = re.compile(
    (
        r'\{"annotations":\{(?:TEXT(?:,TEXT){0,9})?\},"artifactType":"application/vnd\.casstore\.snapshot\.v1",'
        r'"config":CONFIG,"layers":\[LAYER(?:,LAYER){0,29999}\],'
        r'"mediaType":"application/vnd\.oci\.image\.manifest\.v1\+json","schemaVersion":2\}'
    )
    .replace("CONFIG", _CONFIG.replace("BEFORE", ""))
    .replace("LAYER", _LAYER.replace("BEFORE", r'(?:"annotations":\{TEXT\},)?'))
    .replace("TEXT", _TEXT)
    .encode()
)
"""Artifact manifests as casstore writes them. JSON like this passes the schema, which takes 200 times longer to say."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Descriptor:
    """What a blob is (media type), which (digest) and how long (`size`, bytes). Equality ignores the annotations."""

    media_type: str
    digest: Digest
    size: int
    artifact_type: str | None = field(default=None, compare=False)
    annotations: Mapping[str, str] = field(default_factory=dict, compare=False)

    @classmethod
    def of(cls, data: bytes, media_type: str) -> Self:
        """The descriptor of `data`."""
        return cls(media_type=media_type, digest=Digest.of(data), size=len(data))

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> Self:
        """From a descriptor object that passed its schema."""
        return cls(
            media_type=intern(document["mediaType"]),  # a store has some hundred thousand descriptors, of a few types
            digest=Digest.parse(document["digest"]),
            size=document["size"],
            artifact_type=document.get("artifactType"),
            annotations=document.get("annotations", _NO_ANNOTATIONS),
        )

    @property
    def kind(self) -> str:
        """What it is, in a word: `pack`, `map`, `config`, `file`, `manifest`, `index`; `blob` for anything else."""
        return _KINDS.get(self.media_type, "blob")

    def to_dict(self) -> dict[str, Any]:
        """As a descriptor object."""
        document: dict[str, Any] = {"mediaType": self.media_type, "digest": str(self.digest), "size": self.size}
        if self.artifact_type is not None:
            document["artifactType"] = self.artifact_type
        if self.annotations:
            document["annotations"] = dict(self.annotations)
        return document


def is_bundle(media_type: str | None) -> bool:
    """Whether a media or artifact type is that of a sigstore bundle, of whatever minor version."""
    return media_type is not None and _BUNDLE.match(media_type) is not None


def manifest_of(digest: Digest, size: int) -> Descriptor:
    """The descriptor of a manifest that a ref names."""
    return Descriptor(media_type=spec.MEDIA_MANIFEST, digest=digest, size=size)


@dataclass(frozen=True, slots=True, kw_only=True)
class ArtifactManifest:
    """The OCI image manifest that ties a snapshot's blobs together; `raw` are its exact bytes."""

    raw: bytes
    config: Descriptor
    layers: tuple[Descriptor, ...]
    annotations: Mapping[str, str] = field(compare=False)

    @classmethod
    def build(cls, *, config: Descriptor, layers: Iterable[Descriptor], annotations: Mapping[str, str]) -> Self:
        """Write a manifest; equal arguments give equal bytes."""
        layers = tuple(layers)
        document = {
            "schemaVersion": 2,
            "mediaType": spec.MEDIA_MANIFEST,
            "artifactType": spec.ARTIFACT_TYPE,
            "config": config.to_dict(),
            "layers": [layer.to_dict() for layer in layers],
            "annotations": dict(annotations),
        }
        raw = dump(document)
        if len(raw) > spec.MAX_MANIFEST:
            raise DocumentError("artifact manifest", f"expected at most {spec.MAX_MANIFEST} bytes, got {len(raw)}")
        return cls(raw=raw, config=config, layers=layers, annotations=annotations)

    @classmethod
    def parse(cls, raw: bytes, *, subject: str) -> Self:
        """Parse a snapshot's artifact manifest.

        Raises:
            UnsupportedVersion: some other kind of manifest, or of another artifact.
            DocumentError: breaks the strict JSON rules, the schema, or names a blob twice with two sizes.
        """
        document = load_object(raw, subject=subject, limit=spec.MAX_MANIFEST)
        if "manifests" in document or document.get("mediaType") != spec.MEDIA_MANIFEST:
            got = ascii(document.get("mediaType"))[:100]
            raise UnsupportedVersion(subject, f"expected an image manifest, got {got}", at="mediaType")
        if document.get("artifactType") != spec.ARTIFACT_TYPE:
            kind = document.get("artifactType")
            got = "none, as an image has" if kind is None else ascii(kind)[:100]
            problem = f"it is no snapshot of casstore: expected {spec.ARTIFACT_TYPE}, got {got}"
            raise UnsupportedVersion(subject, problem, at="artifactType")
        if not _USUAL.fullmatch(raw):
            validate(document, "artifact-manifest", subject=subject)
        manifest = cls(
            raw=raw,
            config=Descriptor.from_dict(document["config"]),
            layers=tuple(Descriptor.from_dict(layer) for layer in document["layers"]),
            annotations=document.get("annotations", {}),
        )
        manifest._check(subject)
        return manifest

    def _check(self, subject: str) -> None:
        sizes: dict[Digest, int] = {}
        for n, blob in enumerate(self.children):
            if sizes.setdefault(blob.digest, blob.size) != blob.size:
                at = f"layers[{n - 1}]" if n else "config"
                raise DocumentError(subject, f"{blob.digest} has two sizes", at=f"{at}.size")
        if len({layer.digest for layer in self.layers}) != len(self.layers):
            raise DocumentError(subject, "a layer is listed twice", at="layers")
        kinds = [layer.media_type for layer in self.layers]
        if kinds.count(spec.MEDIA_MAP) != 1 or kinds[0] != spec.MEDIA_MAP:
            raise DocumentError(subject, "expected one map, as the first layer", at="layers[0].mediaType")

    @property
    def descriptor(self) -> Descriptor:
        """The manifest's own descriptor."""
        return Descriptor(
            media_type=spec.MEDIA_MANIFEST,
            digest=Digest.of(self.raw),
            size=len(self.raw),
            artifact_type=spec.ARTIFACT_TYPE,
        )

    @property
    def map(self) -> Descriptor:
        """The map."""
        return self.layers[0]

    @property
    def packs(self) -> tuple[Descriptor, ...]:
        """The packs, those needed for delta bases only last."""
        return tuple(layer for layer in self.layers if layer.media_type == spec.MEDIA_PACK)

    def file(self, title: str) -> Descriptor | None:
        """The plain file of this title, if there is one; of several the first."""
        files = (layer for layer in self.layers if layer.media_type == spec.MEDIA_FILE)
        return next((file for file in files if file.annotations.get(spec.ANNOTATION_TITLE) == title), None)

    @property
    def children(self) -> tuple[Descriptor, ...]:
        """Every blob that the manifest names: config first, then the layers."""
        return (self.config, *self.layers)

    @property
    def needs(self) -> Mapping[Digest, int]:
        """The bytes of every blob that the snapshot is made of, by digest: the manifest itself, and its children."""
        return {blob.digest: blob.size for blob in (self.descriptor, *self.children)}


@dataclass(frozen=True, slots=True, kw_only=True)
class AnyManifest:
    """An image manifest or image index of whatever kind, as a copy sees it: only what it names is looked at."""

    descriptor: Descriptor
    """Its own; with the artifact type and the annotations that a list of referrers tells."""
    blobs: tuple[Descriptor, ...] = ()
    """Config and layers of an image manifest, each once."""
    layers: tuple[Descriptor, ...] = ()
    """The layers of an image manifest as they are listed, with their annotations."""
    manifests: tuple[Descriptor, ...] = ()
    """The manifests of an index, each once."""
    subject: Descriptor | None = None
    """What it refers to."""

    @classmethod
    def parse(cls, raw: bytes, media_type: str, *, subject: str) -> Self:
        """Parse a manifest that was served as `media_type`.

        Raises:
            UnsupportedVersion: neither of the two, or it names something by another digest than sha256.
            DocumentError: it breaks the strict JSON rules, or names something in no valid way.
        """
        document = load_object(raw, subject=subject, limit=spec.MAX_MANIFEST)
        kind = document.get("mediaType", media_type)
        if kind != media_type or kind not in {spec.MEDIA_MANIFEST, spec.MEDIA_INDEX}:
            got = (
                ascii(kind)[:100] if media_type in {spec.MEDIA_MANIFEST, spec.MEDIA_INDEX} else ascii(media_type)[:100]
            )
            problem = f"expected an OCI image manifest or index, got {got}"
            raise UnsupportedVersion(subject, problem, at="mediaType")
        is_index = kind == spec.MEDIA_INDEX
        if ("layers" in document or "config" in document) if is_index else "manifests" in document:
            raise DocumentError(subject, "expected a manifest or an index, got both in one")
        config: Descriptor | None = None
        if not is_index:
            config = _descriptor(document.get("config"), subject=subject, at="config")
        listed = document.get("manifests" if is_index else "layers", [])
        if not isinstance(listed, list):
            raise DocumentError(subject, "expected a list", at="manifests" if is_index else "layers")
        named = [_descriptor(each, subject=subject, at=f"[{n}]") for n, each in enumerate(listed)]
        told = document.get("subject")
        artifact_type = document.get("artifactType") or (config.media_type if config is not None else None)
        annotations = document.get("annotations") or {}
        if not isinstance(artifact_type, str | None) or not _are_texts(annotations):
            raise DocumentError(subject, "expected a text as artifactType, and annotations of texts")
        return cls(
            descriptor=Descriptor(
                media_type=media_type,
                digest=Digest.of(raw),
                size=len(raw),
                artifact_type=artifact_type,
                annotations=annotations,
            ),
            blobs=() if config is None else tuple(dict.fromkeys([config, *named])),
            layers=() if is_index else tuple(named),
            manifests=tuple(dict.fromkeys(named)) if is_index else (),
            subject=None if told is None else _descriptor(told, subject=subject, at="subject"),
        )

    @classmethod
    def parse_referrer(cls, raw: bytes, media_type: str, *, of: Descriptor) -> Self:
        """Parse a manifest that has to refer to `of`.

        Raises:
            DocumentError: it does not; else as `parse`.
        """
        told = f"referrer {Digest.of(raw)}"
        manifest = cls.parse(raw, media_type, subject=told)
        if manifest.subject is None or manifest.subject.digest != of.digest:
            got = "none" if manifest.subject is None else str(manifest.subject.digest)
            raise DocumentError(told, f"expected it to refer to {of.digest}, got {got}", at="subject")
        return manifest


def _descriptor(document: object, *, subject: str, at: str) -> Descriptor:
    """A descriptor in a document that no schema has seen."""
    if not isinstance(document, dict):
        raise DocumentError(subject, "expected a descriptor", at=at)
    kind, size = document.get("mediaType"), document.get("size")
    if not isinstance(kind, str) or not isinstance(size, int) or isinstance(size, bool) or size < 0:
        raise DocumentError(subject, "expected a descriptor with mediaType and size", at=at)
    annotations = document.get("annotations") or _NO_ANNOTATIONS
    if annotations is not _NO_ANNOTATIONS and not _are_texts(annotations):
        raise DocumentError(subject, "expected annotations of texts", at=at)
    try:
        digest = Digest.parse(document.get("digest"))
    except InvalidDigest as error:
        raise UnsupportedVersion(subject, str(error), at=f"{at}.digest") from None
    return Descriptor(media_type=kind, digest=digest, size=size, annotations=annotations)


def _are_texts(annotations: object) -> bool:
    return isinstance(annotations, dict) and all(isinstance(text, str) for text in annotations.values())


@dataclass(frozen=True, slots=True)
class ImageIndex:
    """An index.json: the names of an OCI layout. Entries stay dicts, so foreign ones are kept as they are."""

    entries: tuple[dict[str, Any], ...] = ()

    @classmethod
    def parse(cls, raw: bytes, *, subject: str) -> Self:
        """Parse an image index; descriptors of unknown media types are kept.

        Raises:
            DocumentError: breaks the strict JSON rules or the schema.
        """
        document = load_object(raw, subject=subject, limit=spec.MAX_INDEX)
        if "layers" in document or document.get("mediaType", spec.MEDIA_INDEX) != spec.MEDIA_INDEX:
            raise DocumentError(subject, "expected an image index, got another manifest", at="mediaType")
        validate(document, "index", subject=subject)
        return cls(tuple(document["manifests"]))

    def to_bytes(self) -> bytes:
        """The index.json."""
        return dump({"schemaVersion": 2, "mediaType": spec.MEDIA_INDEX, "manifests": list(self.entries)})

    def find(self, tag: str) -> list[Descriptor]:
        """The descriptors named `tag`; more than one where a tool without locks wrote twice.

        Raises:
            UnsupportedVersion: one of them has a digest other than sha256.
        """
        named = [e for e in self.entries if e.get("annotations", {}).get(spec.ANNOTATION_REF_NAME) == tag]
        try:
            return [Descriptor.from_dict(entry) for entry in named]
        except InvalidDigest as error:
            raise UnsupportedVersion(f"image index, {ascii(tag)}", str(error)) from None
