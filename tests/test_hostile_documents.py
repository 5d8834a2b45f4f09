"""Documents as nobody honest writes them, at every door that reads one: rows 51 to 53, 57 to 59 and 61 to 64 of
docs/explanation/faults.md. What jsondoc.py, oci.py and their likes refuse by themselves stands in their own tests; here
it is that no reader goes another way.
"""

from __future__ import annotations

import copy
import json
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from casstore import Store, spec
from casstore.archive.inventory import Inventory
from casstore.credentials.authfile import DockerConfig
from casstore.dialects.sidecars import Group, GroupMember, parse_labels
from casstore.dialects.v06 import Manifest06
from casstore.dialects.v07 import Manifest07
from casstore.digest import Digest
from casstore.errors import (
    CasstoreError,
    CorruptContent,
    DocumentError,
    InvalidKey,
    RegistryError,
    UnsupportedVersion,
)
from casstore.jsondoc import dump
from casstore.layout import LayoutTarget
from casstore.manifest import Manifest
from casstore.marker import require_readable
from casstore.microsandbox.rootdisk import parse_root_disk
from casstore.oci import AnyManifest, ArtifactManifest, Descriptor, ImageIndex
from casstore.registry.auth import _parse_token
from casstore.registry.tags import _parse_tags
from casstore.signatures.bundle import Bundle
from casstore.signatures.cosignkey import _read as read_cosign_key
from casstore.signatures.reasons import Rejected
from casstore.signatures.simplesigning import Payload
from casstore.signatures.statement import Statement
from casstore.survey import MAX_DEPTH, survey
from tests.fuzz.target import FIXTURES, ROOT
from tests.fuzz.targets import TARGETS
from tests.fuzz.trust import golden_bundle
from tests.support.archives import unchanged
from tests.support.canonical import changed
from tests.support.command import Casstore
from tests.support.manifests import EMPTY_TYPE, image_manifest, index_manifest, put
from tests.support.registry_simulator import RegistrySimulator
from tests.support.stores import FAST, capture
from tests.support.transfers import Memory, over

VECTORS = ROOT / "fixtures" / "vectors"
ZEROS = f"sha256:{'0' * 64}"


@dataclass(frozen=True)
class Door:
    """A reader of one kind of document, a right one, and what it refuses others with."""

    read: Callable[[bytes], object]
    right: bytes
    refuses: tuple[type[Exception], ...] = (DocumentError,)


def _vector(name: str) -> bytes:
    return (VECTORS / name).read_bytes()


def _seed(name: str) -> bytes:
    return (FIXTURES / name).read_bytes()


DOORS: dict[str, Door] = {
    "artifact": Door(lambda data: ArtifactManifest.parse(data, subject="x"), _vector("oci/artifact-manifest.json")),
    "manifest": Door(
        lambda data: AnyManifest.parse(data, spec.MEDIA_MANIFEST, subject="x"), _vector("oci/artifact-manifest.json")
    ),
    "index": Door(lambda data: ImageIndex.parse(data, subject="x"), _vector("oci/index.json")),
    "snapshot 0.4": Door(lambda data: Manifest.parse(data, subject="x"), _vector("manifest/integrity.json")),
    "snapshot 0.6": Door(lambda data: Manifest06.parse(data, subject="x"), _vector("dialects/06-sample.json")),
    "snapshot 0.7": Door(lambda data: Manifest07.parse(data, subject="x"), _vector("dialects/07-chain.json")),
    "inventory 0.6": Door(Inventory.parse, _seed("inventory/seed-0.6")),
    "inventory 0.7": Door(Inventory.parse, _seed("inventory/seed-0.7")),
    "labels": Door(lambda data: parse_labels(data, subject="x"), _seed("sidecar/seed-labels")),
    "group": Door(lambda data: Group.parse(data, subject="x"), _seed("sidecar/seed-group")),
    "group member": Door(lambda data: GroupMember.parse(data, subject="x"), _seed("sidecar/seed-member")),
    "root disk": Door(lambda data: parse_root_disk(data, subject="x"), _seed("sidecar/seed-root-disk")),
    "tags": Door(lambda data: _parse_tags(data, "x"), b'{"name":"a/b","tags":["v1"]}'),
    "token": Door(lambda data: _parse_token(data, "x"), _seed("token/seed-usual"), (RegistryError,)),
    "bundle": Door(Bundle.parse, golden_bundle(), (Rejected,)),
    "statement": Door(lambda data: Statement.parse(data, subject="x"), _seed("statement/seed-golden")),
    "cosign payload": Door(lambda data: Payload.parse(data, subject="x"), _seed("cosign/seed-golden")),
    "last seen": Door(TARGETS["last-seen"].read, _seed("last-seen/seed-two")),
}


def _cosign_key(data: bytes) -> object:
    return read_cosign_key(data, name="x")


DOORS["cosign key"] = Door(
    _cosign_key,
    dump(
        {
            "kdf": {"name": "scrypt", "params": {"N": 65536, "r": 8, "p": 1}, "salt": "A" * 43 + "="},
            "cipher": {"name": "nacl/secretbox", "nonce": "A" * 32},
            "ciphertext": "A" * 64,
        }
    ),
    (InvalidKey,),
)


@pytest.fixture(params=DOORS)
def door(request: pytest.FixtureRequest) -> Door:
    return DOORS[request.param]


def refuses(door: Door, data: bytes) -> None:
    with pytest.raises(door.refuses) as caught:
        door.read(data)
    assert len(str(caught.value)) < 2000
    assert str(caught.value).isprintable()


def places(document: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """Each value in a document, with the way to it."""
    yield path, document
    if isinstance(document, (dict, list)):
        for key, value in document.items() if isinstance(document, dict) else enumerate(document):
            yield from places(value, (*path, key))


def replaced(document: Any, path: tuple[Any, ...], marker: str) -> bytes:
    """The document with another value at a place: JSON text, valid or not."""
    text = '"@@@"'
    if not path:
        return marker.encode()
    document = copy.deepcopy(document)
    place = document
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = "@@@"
    return json.dumps(document).replace(text, marker).encode()


def test_the_right_documents_are_right(door: Door) -> None:
    door.read(door.right)


def test_51_a_key_that_stands_twice_in_any_object(door: Door) -> None:
    document = json.loads(door.right)
    for path, value in places(document):
        if isinstance(value, dict) and value:
            key, kept = next(iter(value.items()))
            pair = f"{json.dumps(key)}: {json.dumps(kept)}"
            rest = json.dumps(value)[1:]
            refuses(door, replaced(document, path, f"{{{pair}, {rest}"))


def test_52_nesting_without_end_at_any_place(door: Door) -> None:
    document = json.loads(door.right)
    deep = "[" * 100_000 + "]" * 100_000
    for path, _ in list(places(document))[:20]:
        refuses(door, replaced(document, path, deep))
    refuses(door, b'{"a":' * 100_000)


@pytest.mark.parametrize("door", [name for name in DOORS if name != "cosign key"], indirect=True)  # a capped file
def test_52_documents_of_megabytes(door: Door) -> None:
    """A cap on the bytes, before anything is parsed; what is below it may be slow, but not for ever."""
    large = door in (DOORS["index"], DOORS["last seen"], DOORS["tags"])
    limit = spec.MAX_INDEX if large else spec.MAX_MANIFEST
    refuses(door, door.right + b" " * limit)


def test_52_a_million_elements(door: Door) -> None:
    items = "[" + "{}," * 1_000_000 + "{}]"
    document = json.loads(door.right)
    for path, value in places(document):
        if isinstance(value, list) and path and door is not DOORS["tags"]:  # which leaves out what is no tag
            refuses(door, replaced(document, path, items))
            break


NO_INTEGERS = ("NaN", "Infinity", "-Infinity", "1e999", "1.0", "1E2", "-0", "9" * 5000, str(2**64))


def test_53_numbers_that_are_no_integers_at_any_place(door: Door) -> None:
    document = json.loads(door.right)
    for path, value in places(document):
        if not isinstance(value, (dict, list)):
            for number in NO_INTEGERS:
                refuses(door, replaced(document, path, number))


def test_53_true_is_no_size() -> None:
    for name in ("artifact", "index", "manifest", "snapshot 0.4", "snapshot 0.6", "snapshot 0.7", "inventory 0.7"):
        document = json.loads(DOORS[name].right)
        sizes = [path for path, _ in places(document) if path and "size" in str(path[-1])]
        assert sizes
        for path in sizes:
            refuses(DOORS[name], replaced(document, path, "true"))


NO_JSON: dict[str, Callable[[bytes], bytes]] = {
    "UTF-16": lambda data: data.decode().encode("utf-16"),
    "UTF-16 without a mark": lambda data: data.decode().encode("utf-16-be"),
    "UTF-32": lambda data: data.decode().encode("utf-32-le"),
    "a byte order mark": lambda data: b"\xef\xbb\xbf" + data,
    "Latin-1": lambda data: data.replace(b'"', b'"\xe9', 1),
    "surrogates in UTF-8": lambda data: data.replace(b'"', b'"\xed\xa0\x80', 1),
    "overlong UTF-8": lambda data: data.replace(b'"', b'"\xc0\xaf', 1),
    "a word after it": lambda data: data + b" true",
    "a NUL after it": lambda data: data + b"\0",
    "another document": lambda data: data + data,
    "no end": lambda data: data.rstrip()[:-1],
    "nothing": lambda _: b"",
    "a comment": lambda data: b"/* */" + data,
    "a comma too many": lambda data: data.rstrip()[:-1] + b",}",
    "a list": lambda data: b"[" + data + b"]",
    "null": lambda _: b"null",
}  # fmt: skip


def test_62_what_is_no_json_document(door: Door) -> None:
    for change in NO_JSON.values():
        refuses(door, change(door.right))


def test_62_a_lone_surrogate_in_any_text(door: Door) -> None:
    document = json.loads(door.right)
    for path, value in places(document):
        if isinstance(value, str):
            refuses(door, replaced(document, path, '"\\ud800"'))


# --- a layout that serves such a document -----------------------------------------------------------------------------


class Place:
    """An OCI layout written by hand, which a store pulls from."""

    def __init__(self, folder: Path, store: Store) -> None:
        self.store, self.root = store, folder / "layout"
        (self.root / "blobs" / "sha256").mkdir(parents=True)
        (self.root / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
        self.before = unchanged(store)

    def put(self, data: bytes) -> Digest:
        digest = Digest.of(data)
        (self.root / "blobs" / "sha256" / digest.hex).write_bytes(data)
        return digest

    def index(self, **entry: Any) -> None:
        document = {"schemaVersion": 2, "mediaType": spec.MEDIA_INDEX, "manifests": [entry]}
        (self.root / "index.json").write_text(json.dumps(document))

    def serve(self, raw: bytes, media_type: str = spec.MEDIA_MANIFEST) -> None:
        """Name a manifest `v1`."""
        named = {spec.ANNOTATION_REF_NAME: "v1"}
        self.index(mediaType=media_type, digest=str(self.put(raw)), size=len(raw), annotations=named)

    def refused(self, error: type[CasstoreError] = CorruptContent, match: str | None = None) -> None:
        """Pull; nothing may come of it."""
        with pytest.raises(error, match=match) as caught:
            self.store.pull(f"oci:{self.root}:v1")
        assert unchanged(self.store) == self.before
        assert str(caught.value).isprintable()


@pytest.fixture
def place(store: Store, tmp_path: Path) -> Place:
    capture(store, tmp_path, "kept", 1)
    return Place(tmp_path, store)


ARTIFACT = json.loads(_vector("oci/artifact-manifest.json"))

DIGESTS: list[object] = [
    *(ZEROS + "\n", "\n" + ZEROS, ZEROS + " ", ZEROS.replace("0", "A", 64), ZEROS[:-1], ZEROS + "0", "sha256:", ""),
    *("sha256:../../../../etc/passwd", "sha256:..", "sha256:" + "../" * 21 + "x", "../" * 24),
    "sha256:" + "0" * 63 + "/",
    "0" * 64,
    *("md5:d41d8cd98f00b204e9800998ecf8427e", "sha512:" + "0" * 128, "SHA256:" + "0" * 64, "sha256+b64:" + "0" * 64),
    *("sha256:" + "\u0660" * 64, "sha256:" + "\uff10" * 64, "sha256:" + "0" * 63 + "\u200b", "sha256:" + "\0" * 64),
    *(None, 5, ["sha256", "0" * 64], {}, True),
]  # fmt: skip


def test_57_digests_that_are_none() -> None:
    for digest in DIGESTS:
        for path in ("config.digest", "layers.0.digest", "layers.1.digest"):
            refuses(DOORS["artifact"], json.dumps(changed(ARTIFACT, path, digest)).encode())
            refuses(DOORS["manifest"], json.dumps(changed(ARTIFACT, path, digest)).encode())
        subject = {"mediaType": spec.MEDIA_MANIFEST, "digest": digest, "size": 2}
        refuses(DOORS["manifest"], json.dumps({**ARTIFACT, "subject": subject}).encode())


def test_57_a_digest_becomes_no_path(place: Place, tmp_path: Path) -> None:
    """Whatever the index says: what lies where such a path would lead is not read."""
    secret = tmp_path / "secret"
    secret.write_bytes(dump(ARTIFACT))
    named = {spec.ANNOTATION_REF_NAME: "v1"}
    for digest in [*DIGESTS, "sha256:../../../secret", str(secret), f"sha256:{secret}"]:
        place.index(mediaType=spec.MEDIA_MANIFEST, digest=digest, size=secret.stat().st_size, annotations=named)
        place.refused()
        with pytest.raises(CorruptContent):
            LayoutTarget(str(place.root)).resolve("v1")


@pytest.mark.parametrize("path", ["config.size", "layers.0.size", "layers.1.size"])
def test_54_sizes_that_are_not_those_of_the_blobs(place: Place, tmp_path: Path, path: str) -> None:
    document = moved(place, tmp_path)
    right = int(document_at(document, path))
    for size in (-1, 0, right - 1, right + 1, 2**62, 2**63 - 1, 2**63, 2**64 - 1, 2**64):
        place.serve(dump(changed(document, path, size)))
        tracemalloc.start()
        try:
            place.refused()
            assert tracemalloc.get_traced_memory()[1] < 32 * spec.MIB
        finally:
            tracemalloc.stop()


@pytest.mark.parametrize(
    ("change", "media_type"),
    [
        ({"manifests": []}, spec.MEDIA_MANIFEST),
        ({"mediaType": spec.MEDIA_INDEX}, spec.MEDIA_INDEX),
        ({"mediaType": spec.MEDIA_INDEX}, spec.MEDIA_MANIFEST),
        ({"mediaType": spec.MEDIA_INDEX, "manifests": []}, spec.MEDIA_INDEX),
        ({"mediaType": "application/vnd.docker.distribution.manifest.v2+json"}, spec.MEDIA_MANIFEST),
        ({"mediaType": None}, spec.MEDIA_MANIFEST),
        ({"mediaType": [spec.MEDIA_MANIFEST]}, spec.MEDIA_MANIFEST),
        ({"mediaType": spec.MEDIA_MANIFEST + "\n"}, spec.MEDIA_MANIFEST),
        ({}, spec.MEDIA_INDEX),
    ],
)
def test_58_manifests_that_can_be_read_as_two_things(place: Place, change: dict[str, Any], media_type: str) -> None:
    raw = dump({**ARTIFACT, **change})
    place.serve(raw, media_type)
    place.refused()


def test_58_a_manifest_without_a_media_type(place: Place) -> None:
    place.serve(dump({key: value for key, value in ARTIFACT.items() if key != "mediaType"}))
    place.refused(match="mediaType")


@pytest.mark.parametrize("served", [spec.MEDIA_INDEX, "application/json", "", "text/html", spec.MEDIA_MANIFEST + "x"])
def test_58_a_registry_that_serves_it_as_something_else(store: Store, served: str) -> None:
    with RegistrySimulator() as registry:
        registry.put_manifest("a/b", dump(ARTIFACT), tag="v1")
        registry.faults.media_type = served
        with pytest.raises(CasstoreError) as caught:
            store.pull(f"{registry.host}/a/b:v1", options=over(registry))
    assert "expected" in str(caught.value)
    assert store.list() == []


@pytest.mark.parametrize(
    "other", ["application/vnd.casstore.snapshot.v2", "application/vnd.example.other", "", None, 5, ...], ids=ascii
)
def test_59_another_artifact_is_unsupported_not_guessed(place: Place, other: object) -> None:
    place.serve(dump(changed(ARTIFACT, "artifactType", other)))
    place.refused(UnsupportedVersion, "expected application/vnd.casstore.snapshot.v1")


@pytest.mark.parametrize("path", ["config.mediaType", "layers.0.mediaType", "layers.1.mediaType"])
def test_59_parts_of_a_newer_version(place: Place, tmp_path: Path, path: str) -> None:
    document = moved(place, tmp_path)
    newer = changed(document, path, document_at(document, path).replace("v1", "v2"))
    place.serve(dump(newer))
    place.refused()
    assert place.store.open_snapshot("kept").artifact_manifest.raw == dump(document)


def document_at(document: Any, path: str) -> Any:
    for step in path.split("."):
        document = document[int(step) if step.isdecimal() else step]
    return document


def moved(place: Place, tmp_path: Path) -> dict[str, Any]:
    """Put all blobs of the store's snapshot into the layout; its manifest."""
    for blob in (tmp_path / "store" / "blobs" / "sha256").iterdir():
        place.put(blob.read_bytes())
    document: dict[str, Any] = json.loads(place.store.open_snapshot("kept").artifact_manifest.raw)
    return document


@pytest.mark.parametrize("version", ["1.1.0", "2.0.0", "1.0", "1.0.0\n", 1, None])
def test_59_a_layout_of_another_version(place: Place, version: object) -> None:
    place.serve(dump(ARTIFACT))
    (place.root / "oci-layout").write_text(json.dumps({"imageLayoutVersion": version}))
    place.refused()


@pytest.mark.parametrize("marker", [{"version": 2}, {"version": 1}, {"version": "1"}, {}, {"version": True}])
def test_59_a_store_of_another_version(tmp_path: Path, marker: dict[str, object]) -> None:
    (tmp_path / "casstore.json").write_text(json.dumps(marker))
    with pytest.raises(DocumentError):
        require_readable(str(tmp_path))


def test_59_annotations_that_nobody_knows_are_kept_and_ignored(place: Place, other: Store, tmp_path: Path) -> None:
    document = moved(place, tmp_path)
    document["annotations"]["org.example.unknown"] = ESCAPES
    document["org.example.field"] = {"a": [None, True, "b"]}
    place.serve(dump(document))
    other.pull(f"oci:{place.root}:v1")
    assert other.get("v1").digest == Digest.of(dump(document))


def test_61_inline_data_and_urls_are_refused(place: Place) -> None:
    fields: tuple[dict[str, object], ...] = (
        {"data": "AAAA"},
        {"data": ""},
        {"urls": ["https://registry.example/x"]},
        {"urls": []},
    )
    for field in fields:
        for at in ("config", "layers.0", "layers.1"):
            document = copy.deepcopy(ARTIFACT)
            holder = document["config"] if at == "config" else document["layers"][int(at[-1])]
            holder.update(field)
            place.serve(dump(document))
            place.refused(match="not allowed here")


def test_61_data_and_urls_of_foreign_manifests_are_never_looked_at() -> None:
    """A copy of somebody's image fetches each blob by its digest, from the place that is copied."""
    memory = Memory()
    layer = put(memory, b"layer", "application/octet-stream")
    put(memory, b"{}", EMPTY_TYPE)
    document = json.loads(image_manifest([layer]))
    document["layers"][0] |= {"data": "bm90IGl0", "urls": ["file:///etc/passwd", "http://169.254.169.254/"]}
    root = put(memory, dump(document), spec.MEDIA_MANIFEST)
    assert layer in survey(memory, root).blobs
    assert AnyManifest.parse(dump(document), spec.MEDIA_MANIFEST, subject="x").blobs[1] == layer


def nested(depth: int) -> tuple[Memory, Descriptor]:
    """An image within so many indexes."""
    memory = Memory()
    put(memory, b"{}", EMPTY_TYPE)
    root = put(memory, image_manifest(), spec.MEDIA_MANIFEST)
    for _ in range(depth):
        root = put(memory, index_manifest([root]), spec.MEDIA_INDEX)
    return memory, root


def test_61_indexes_in_indexes() -> None:
    memory, root = nested(MAX_DEPTH)
    assert len(survey(memory, root).nodes) == MAX_DEPTH + 1
    memory, root = nested(MAX_DEPTH + 1)
    with pytest.raises(UnsupportedVersion, match=f"{MAX_DEPTH} deep, got more"):
        survey(memory, root)


class Circular(Memory):
    """Says that every manifest is referred to by itself and by all others."""

    def referrers(self, subject: Descriptor) -> list[Descriptor]:
        return [Descriptor.of(raw, spec.MEDIA_MANIFEST) for raw in self.manifests]

    manifests: tuple[bytes, ...] = ()


def put_other(memory: Memory) -> bytes:
    """A manifest that refers to something else."""
    raw = image_manifest(subject=Descriptor.of(b"else", spec.MEDIA_MANIFEST))
    put(memory, raw, spec.MEDIA_MANIFEST)
    return raw


def test_61_a_subject_in_a_circle() -> None:
    """No digests can form one; a list of referrers can claim it."""
    memory = Circular()
    put(memory, b"{}", EMPTY_TYPE)
    first = image_manifest()
    root = put(memory, first, spec.MEDIA_MANIFEST)
    second = image_manifest(subject=root)
    put(memory, second, spec.MEDIA_MANIFEST)
    memory.manifests = (first, second)
    assert len(survey(memory, root, referrers=True).nodes) == 2
    memory.manifests = (put_other(memory),)
    with pytest.raises(DocumentError, match="expected it to refer to"):
        survey(memory, root, referrers=True)


@pytest.mark.parametrize(
    "annotations",
    [
        {"a": 5}, {"a": None}, {"a": ["b"]}, {"a": {"b": "c"}}, {"a": True}, {"": "b"}, ["a"], "a",
        {"a": "x" * 1_000_000}, {"k" * 2000: "b"}, {f"k{n}": "" for n in range(2000)},
    ],
    ids=lambda value: ascii(value)[:30],
)  # fmt: skip
def test_63_annotations_that_are_no_short_texts(place: Place, annotations: object) -> None:
    place.serve(dump({**ARTIFACT, "annotations": annotations}))
    place.refused(match="annotations")
    layers = [{**ARTIFACT["layers"][0], "annotations": annotations}, *ARTIFACT["layers"][1:]]
    place.serve(dump({**ARTIFACT, "layers": layers}))
    place.refused(match="annotations")
    raw = dump(ARTIFACT)
    place.put(raw)
    if isinstance(annotations, dict):
        named = {**annotations, spec.ANNOTATION_REF_NAME: "v1"}
        place.index(mediaType=spec.MEDIA_MANIFEST, digest=str(Digest.of(raw)), size=len(raw), annotations=named)
        place.refused(match="annotations")


@pytest.mark.parametrize("labels", [{"a": 5}, {"a": None}, ["a"], None, {"a": {"b": "c"}}])
def test_63_labels_that_are_no_texts(labels: object) -> None:
    document = json.loads(_vector("manifest/sample.json"))
    refuses(DOORS["snapshot 0.4"], dump({**document, "labels": labels}))
    refuses(DOORS["labels"], dump({**json.loads(DOORS["labels"].right), "labels": labels}))


# --- what reaches a terminal ------------------------------------------------------------------------------------------

ESCAPES = "\x1b[31m\x07\r\x08\x9b1m\x85\u202e\u2066\u2028\u200b\ufeff\u00ad\x1b]52;c;eA\x07\x1b]8;;http://x\x1b\\"
"""CSI, BEL, CR, BS, C1, NEL, bidirectional, a line separator, zero width, the clipboard (OSC 52), a link (OSC 8)."""
_INVISIBLE = {char for char in ESCAPES if not char.isprintable()}


@pytest.fixture
def hostile(casstore: Casstore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Casstore:
    """A store with a snapshot `evil` whose texts are as above, and a sound one `base`."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "disk").write_bytes(b"x" * 65536)
    image = f"image{ESCAPES}@sha256:{'1' * 64}"
    casstore("create", "base", "--disk", tmp_path / "disk", "-q")
    casstore("create", "evil", "--disk", tmp_path / "disk", "--label", f"k{ESCAPES}=v{ESCAPES}", "--image", image, "-q")
    document = json.loads(_vector("manifest/sample.json"))
    text = f"x{ESCAPES}"
    document |= {"fstype": text, "created_at": text, "source_sandbox": text, "parent": f"{text}:{text}"}
    document["image"] = {"ref": text, "manifest_digest": f"{text}:{text}"}
    document["labels"] = {text: text}
    with Store.open(casstore.store, options=FAST) as store:
        made = store.open_snapshot("base").artifact_manifest
        upper = {"file": "disk.raw", "size_bytes": 65536, "integrity": {"algorithm": text, "digest": f"{text}:{text}"}}
        config = Manifest.from_dict(
            {**document, "upper": {**upper, "file": store.open_snapshot("base").manifest.upper.file}}, subject="x"
        )
        _commit(store, config, made, "worse")
    return casstore


def _commit(store: Store, config: Manifest, like: ArtifactManifest, name: str) -> None:
    from casstore.names import parse_name
    from casstore.streams import BytesSource

    with store.transaction() as change:
        manifest = ArtifactManifest.build(
            config=change.add(config.to_bytes(), spec.MEDIA_CONFIG),
            layers=like.layers,
            annotations={f"a{ESCAPES}": f"b{ESCAPES}", spec.ANNOTATION_BASE_NAME: f"c{ESCAPES}"},
        )
        change.push(manifest.descriptor, BytesSource(manifest.raw))
        change.commit(parse_name(name), manifest.descriptor)


def clean(casstore: Casstore, *args: object, shows: bool = False) -> None:
    """Run, with whatever exit code; as text nothing is raw, and as JSON all of it is ASCII."""
    for more in ((), ("--json",)):
        done = casstore.run(*args, *more)
        for raw in (done.out, done.err):
            text = raw.decode()
            assert not _INVISIBLE & set(text), (args, text)
            assert text.replace("\n", "").isprintable(), (args, text)
            assert not more or raw.isascii()
        if shows:
            assert b"\\u202e" in done.out + done.err, args
        assert done.code != 1, (args, done.stderr)


def test_64_no_verb_writes_escapes(hostile: Casstore, tmp_path: Path) -> None:
    for name in ("evil", "worse"):
        clean(hostile, "inspect", name, shows=True)
        clean(hostile, "verify", name)
        clean(hostile, "restore", name, tmp_path / f"{name}.raw")
        clean(hostile, "tag", name, f"{name}-2")
        clean(hostile, "push", name, f"oci:{tmp_path}/layout:{name}")
        clean(hostile, "inspect", f"oci:{tmp_path}/layout:{name}", shows=True)
        clean(hostile, "pull", f"oci:{tmp_path}/layout:{name}", "--name", f"{name}-3")
        clean(hostile, "copy", f"oci:{tmp_path}/layout:{name}", f"oci:{tmp_path}/copy:{name}")
        for form in ("0.4", "0.6", "0.7", "oci"):
            clean(hostile, "export", name, tmp_path / f"{name}-{form}.tar", "--as", form)
        clean(hostile, "import", tmp_path / f"{name}-oci.tar", "--name", f"{name}-4")
    clean(hostile, "list", shows=True)
    clean(hostile, "list", f"oci:{tmp_path}/layout")
    for verb in ("check", "stats", "gc", "reindex"):
        clean(hostile, verb)
    clean(hostile, "check", "--read-data")
    clean(hostile, "prune", "--keep-last", "1", "--dry-run")
    clean(hostile, "remove", "worse", "worse-2")
    clean(hostile, "undo")


E = ESCAPES
WORDS = [
    *(["inspect", f"x{E}"], ["verify", f"x{E}"], ["restore", f"x{E}", "y"], ["tag", "base", f"x{E}"], ["rm", f"x{E}"]),
    *(["push", "base", f"oci:x{E}:y{E}"], ["push", "base", f"localhost:1/{E}"], ["pull", f"oci:x{E}:v1"]),
    *(["pull", f"host.example/a@sha256:{E}"], ["import", f"x{E}.tar"], ["list", "--label", f"x{E}"]),
    *(["create", f"x{E}", "--disk", "y"], ["create", "x", "--disk", f"y{E}"], [f"verb{E}"], ["list", f"--option{E}"]),
    *(["login", f"host{E}"], ["export", "base", f"no{E}/x.tar"]),
]  # fmt: skip


@pytest.mark.parametrize("words", WORDS, ids=lambda words: words[0][:8])
def test_64_errors_quote_without_escapes(hostile: Casstore, words: list[str]) -> None:
    clean(hostile, *words)


def test_64_documents_from_elsewhere_are_quoted_without_escapes(hostile: Casstore, tmp_path: Path) -> None:
    with Store.open(hostile.store, options=FAST) as store:
        place = Place(tmp_path / "x", store)
    for n, document in enumerate(
        [
            {**ARTIFACT, "artifactType": f"x{ESCAPES}"},
            {**ARTIFACT, "mediaType": f"x{ESCAPES}"},
            {**ARTIFACT, f"x{ESCAPES}": 1.5},
            {**ARTIFACT, "annotations": {f"x{ESCAPES}": 5}},
            {**ARTIFACT, "annotations": {f"x{ESCAPES}": [f"y{ESCAPES}"]}},
            changed(ARTIFACT, "config.digest", f"sha256:{ESCAPES}"),
            changed(ARTIFACT, "layers.0.mediaType", f"x{ESCAPES}/y"),
        ]
    ):
        place.serve(json.dumps(document).encode())
        clean(hostile, "pull", f"oci:{place.root}:v1", "--name", f"n{n}")
        clean(hostile, "inspect", f"oci:{place.root}:v1")
        clean(hostile, "list", f"oci:{place.root}")
    place.index(
        mediaType=f"x{ESCAPES}", digest=f"y{ESCAPES}", size=1, annotations={spec.ANNOTATION_REF_NAME: f"z{ESCAPES}"}
    )
    clean(hostile, "list", f"oci:{place.root}")
    clean(hostile, "pull", f"oci:{place.root}:z{ESCAPES}")
    (hostile.store / "index.json").write_bytes((place.root / "index.json").read_bytes())
    for verb in ("list", "check", "stats", "adopt", "gc"):
        clean(hostile, verb)


def test_64_the_library_too_quotes_without_escapes(place: Place) -> None:
    for key in (f"x{ESCAPES}", "x" * 1_000_000):
        place.serve(dump({**ARTIFACT, "annotations": {key: 5}}))
        place.refused(match="(?s)^.{100,1000}$")


def test_64_progress_of_a_hostile_snapshot(hostile: Casstore, tmp_path: Path) -> None:
    for kind in ("plain", "json"):
        place = f"oci:{tmp_path}/{kind}:v1"
        for done in (
            hostile.run("push", "worse", place, "--progress", kind),
            hostile.run("pull", place, "--name", f"again-{kind}", "--progress", kind),
        ):
            assert done.code == 0, done.stderr
            assert not _INVISIBLE & set(done.stdout + done.stderr)


def test_64_errors_of_a_registry_are_quoted_without_escapes(hostile: Casstore) -> None:
    with RegistrySimulator() as registry:
        registry.faults.warnings = (f'299 - "{ESCAPES.encode().decode("latin-1")}"'.replace("\r", ""),)
        registry.put_manifest("a/b", json.dumps({**ARTIFACT, "artifactType": f"x{ESCAPES}"}).encode(), tag="v1")
        clean(hostile, "pull", f"{registry.host}/a/b:v1", "--plain-http")
        clean(hostile, "inspect", f"{registry.host}/a/b:v1", "--plain-http")
        registry.faults.tags_body = json.dumps({"name": ESCAPES, "tags": [ESCAPES, f"v{ESCAPES}", "v1"]}).encode()
        clean(hostile, "list", f"{registry.host}/a/b", "--plain-http")
        registry.faults.body = json.dumps({"errors": [{"code": ESCAPES, "message": ESCAPES}]}).encode()
        clean(hostile, "pull", f"{registry.host}/a/b:v1", "--plain-http")


def test_64_what_a_signature_says_is_shown_without_escapes(hostile: Casstore, tmp_path: Path) -> None:
    """A trusted key's owner may have signed anything."""
    key = tmp_path / "key"
    hostile("key", "generate", key, "--no-passphrase")
    for name in ("evil", "worse"):
        hostile("sign", name, "--key", f"{key}.key", "-a", f"x{ESCAPES}=y{ESCAPES}")
        clean(hostile, "inspect", name, "--key", f"{key}.pub")
        clean(hostile, "verify", name, "--signatures-only", "--key", f"{key}.pub")
        clean(hostile, "verify", name, "--key", f"{key}.pub", "--threshold", "2")
    hostile("key", "generate", tmp_path / "other", "--no-passphrase")
    odd = tmp_path / f"key{ESCAPES.replace('/', '')}.pub"
    odd.write_bytes((tmp_path / "other.pub").read_bytes())
    clean(hostile, "verify", "evil", "--key", odd)
    clean(hostile, "inspect", "evil", "--key", odd)
    clean(hostile, "key", "show", odd)
    policy = tmp_path / f"policy{ESCAPES.replace('/', '')}.toml"
    policy.write_text(f"version = 1\ndefault = {json.dumps('x' + ESCAPES)}\n", encoding="utf-8")
    clean(hostile, "verify", "evil", "--policy", policy)
    rule = {"scope": "store", "require": "signed", "keys": [f"k{ESCAPES}"]}
    lines = [f"{name} = {json.dumps(value)}" for name, value in rule.items()]
    policy.write_text("\n".join(["version = 1", 'default = "refuse"', "[[rules]]", *lines, ""]), encoding="utf-8")
    clean(hostile, "verify", "evil", "--policy", policy)


def test_64_a_config_with_escapes_is_quoted_without_them(tmp_path: Path) -> None:
    config = DockerConfig(str(tmp_path / "config.json"))
    for document in ({"auths": {"host.example": {"auth": ESCAPES}}}, {"auths": ESCAPES}, {ESCAPES: 1.5}):
        (tmp_path / "config.json").write_text(json.dumps(document))
        with pytest.raises(DocumentError) as caught:
            config.lookup("host.example")
        assert str(caught.value).isprintable()


def test_64_a_name_with_escapes_is_not_found_without_them(store: Store) -> None:
    with pytest.raises(CasstoreError) as caught:
        store.get(f"x{ESCAPES}")
    assert str(caught.value).isprintable()
