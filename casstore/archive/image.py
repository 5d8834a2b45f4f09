"""The files of an OCI image in microsandbox's cache: what a machine needs that cannot reach the image's registry."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from casstore.errors import DocumentError, NotFound
from casstore.jsondoc import load_object
from casstore.layout import read_file
from casstore.manifest import ImageRef
from casstore.spec import MAX_MANIFEST

METADATA: Final = "manifests"
_MANIFEST: Final = "raw_manifest_json"
_DIGEST: Final = re.compile(r"[a-z0-9]+:[0-9a-f]+\Z", re.ASCII)


@dataclass(frozen=True, slots=True)
class ImageFile:
    """A file of the cache: the folder that it is in there, its name, and where it is."""

    folder: str
    name: str
    path: str

    @property
    def is_metadata(self) -> bool:
        """Whether it says what the others are."""
        return self.folder == METADATA


def image_files(cache: str, image: ImageRef, *, with_manifest: bool) -> Sequence[ImageFile]:
    """The files of an image: what it is, its file systems' metadata, and its layers.

    `with_manifest`: what it is must include its manifest, which 0.4 does not keep, and without which 0.6 and later
    refuse an archive (`snapshot image cache metadata missing`, 0.6.18 and 0.7.11).

    Raises:
        NotFound: one of them, or the manifest, is not in the cache.
        DocumentError: the cache has the image of another digest, or cannot be understood.
    """
    told = f"image {image.ref} in the cache {cache!r}"
    metadata = _file(cache, METADATA, f"{hashlib.sha256(image.ref.encode()).hexdigest()}.json", told)
    document = load_object(read_file(metadata.path, limit=MAX_MANIFEST) or b"", subject=told, limit=MAX_MANIFEST)
    if document.get("manifest_digest") != image.manifest_digest:
        problem = f"expected the digest {image.manifest_digest}, got {ascii(document.get('manifest_digest'))[:80]}"
        raise DocumentError(told, problem)
    if with_manifest and not document.get(_MANIFEST):
        problem = "its manifest is not there, as microsandbox 0.4 does not keep it and later ones need it"
        raise NotFound(f"{told}: {problem}; pull the image with a later msb, or export in the form of 0.4")
    layers = document.get("layers")
    if not isinstance(layers, list):
        raise DocumentError(told, "expected a list of layers", at="layers")
    diff_ids = [layer.get("diff_id") if isinstance(layer, dict) else None for layer in layers]
    names = [f"{_file_stem(diff_id, told)}.erofs" for diff_id in dict.fromkeys(diff_ids)]
    stem = _file_stem(image.manifest_digest, told)
    return [
        metadata,
        _file(cache, "fsmeta", f"{stem}.erofs", told),
        _file(cache, "vmdk", f"{stem}.vmdk", told),
        *(_file(cache, "layers", name, told) for name in names),
    ]


def _file_stem(digest: object, told: str) -> str:
    """What the cache calls a digest's file."""
    if not isinstance(digest, str) or not _DIGEST.match(digest):
        raise DocumentError(told, f"expected a digest, got {ascii(digest)[:80]}")
    return digest.replace(":", "_")


def _file(cache: str, folder: str, name: str, told: str) -> ImageFile:
    path = os.path.join(cache, folder, name)
    if not os.path.isfile(path):
        raise NotFound(f"{told}: {folder}/{name} is not there; pull the image with msb, or export without it")
    return ImageFile(folder, name, path)
