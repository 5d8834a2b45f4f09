"""The constants of the formats: media types, annotation keys, limits. Each is fixed by docs/reference/format.md."""

from __future__ import annotations

from typing import Final

KIB: Final = 1024
MIB: Final = 1024 * KIB
GIB: Final = 1024 * MIB

SECTOR: Final = 512
"""Bytes. A disk has at most one extent per sector: no file system allocates in smaller units."""

BLOCK: Final = 4096
"""Bytes of a block: chunk boundaries lie on multiples of it, and zero detection works in it."""

# OCI image-spec v1.1.1
MEDIA_MANIFEST: Final = "application/vnd.oci.image.manifest.v1+json"
MEDIA_INDEX: Final = "application/vnd.oci.image.index.v1+json"
MEDIA_MANIFESTS: Final = (
    MEDIA_MANIFEST,
    MEDIA_INDEX,
    "application/vnd.docker.distribution.manifest.v2+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
)
"""What names other blobs: OCI's manifests, and Docker's."""
LAYOUT_VERSION: Final = "1.0.0"
ANNOTATION_REF_NAME: Final = "org.opencontainers.image.ref.name"
ANNOTATION_CREATED: Final = "org.opencontainers.image.created"
ANNOTATION_BASE_NAME: Final = "org.opencontainers.image.base.name"
ANNOTATION_BASE_DIGEST: Final = "org.opencontainers.image.base.digest"
ANNOTATION_TITLE: Final = "org.opencontainers.image.title"

MEDIA_EMPTY: Final = "application/vnd.oci.empty.v1+json"
MEDIA_CONFIG_IMAGE: Final = "application/vnd.oci.image.config.v1+json"

# casstore's own
ARTIFACT_TYPE: Final = "application/vnd.casstore.snapshot.v1"
MEDIA_CONFIG: Final = "application/vnd.casstore.snapshot.config.v1+json"
MEDIA_CONFIG_06: Final = "application/vnd.casstore.microsandbox.v0.6+json"
MEDIA_CONFIG_07: Final = "application/vnd.casstore.microsandbox.v0.7+json"
MEDIA_CONFIGS: Final = (MEDIA_CONFIG, MEDIA_CONFIG_06, MEDIA_CONFIG_07)
"""The snapshot manifest in the three forms that microsandbox gave it: 0.4, 0.6 and 0.7."""
MEDIA_MAP: Final = "application/vnd.casstore.map.v1"
MEDIA_PACK: Final = "application/vnd.casstore.pack.v1"
MEDIA_FILE: Final = "application/vnd.casstore.file.v1"
ANNOTATION_STORE_REF: Final = "io.casstore.ref"
"""Marks an index.json entry as derived from refs/; its value is the ref's name."""
ANNOTATION_STORE_DIGEST: Final = "io.casstore.digest"
"""The digest that such an entry was derived with: tools that give an entry another digest keep its annotations."""

STORE_FORMAT: Final = 1
POLICY_FILENAME: Final = "casstore.policy.toml"
"""In a store's directory: whose signatures what comes into it must have."""

MAX_MANIFEST: Final = 4 * MIB
"""Bytes. Registries refuse larger manifests (docker-registry 2.8.2 answers 400, zot 413)."""
MAX_INDEX: Final = 64 * MIB
"""Bytes of an index.json; about 400 per ref."""
MAX_MAP: Final = 128 * MIB
"""Bytes of a decoded map: 4.8 million runs, or 110 GiB of which no two chunks belong together."""
MAX_PACKS: Final = 30_000
"""Packs of a map; a manifest of 4 MiB names 28,000."""
MAX_DISKS: Final = 1024
"""Disks of a map. Parsing one costs much more than its 18 bytes, of which a small map could decode to millions."""
MAX_DISK: Final = 2**63 - 1
"""Bytes of a disk: the largest offset that lseek(2) takes."""

SHA256: Final = "sha256"
SPARSE_SHA256: Final = "msb-sparse-sha256-v1"
MERKLE_BLAKE3: Final = "msb-file-merkle-blake3-v1"
"""What a recorded integrity is called; see integrity.py."""
MERKLE_LEAF: Final = 64 * KIB
"""Bytes of a leaf of the tree; the last one is filled up with zeros."""

CHUNK_MIN: Final = 12 * KIB
CHUNK_MAX: Final = 96 * KIB
FRAME_PLAIN: Final = MIB
"""Plain bytes in a frame as written."""
PACK_TARGET: Final = 32 * MIB
"""Stored bytes at which a pack is closed."""

READ_FRAME_PLAIN: Final = 4 * MIB
"""Plain bytes in a frame that a reader accepts; a larger claim is refused before anything is allocated."""
READ_PACK: Final = 4 * GIB
"""Bytes of a pack that a reader accepts."""
READ_DIRECTORY: Final = 256 * MIB
"""Bytes of a pack directory that a reader accepts."""
