"""Snapshots of the forms of 0.6 and 0.7 in a store: what the catalog, the lineage and the command line say of them."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from casstore import Snapshot, Store, spec
from casstore.artifact import Artifact, load_documents
from casstore.dialects import v07
from casstore.dialects.sidecars import METADATA_FILENAME, labels_to_bytes
from casstore.dialects.v07 import Manifest07
from casstore.digest import Digest
from casstore.errors import DigestMismatch, DocumentError, HasChildren, UsageError
from casstore.integrity import hasher
from casstore.manifest import Dialect
from casstore.oci import ArtifactManifest, Descriptor
from tests.support.artifacts import MemoryBlobs
from tests.support.command import Casstore
from tests.support.dialects import VECTORS, qcow2
from tests.support.stores import FAST, capture, content, names, rebuilt, require_sound, write_disk

SIX = json.loads((VECTORS / "06-of-04-root.json").read_bytes())
SEVEN = json.loads((VECTORS / "07-of-04-root.json").read_bytes())
LABELS = {"step": "pip", "é": "ü"}


def name(prefix: str, number: int) -> str:
    return f"{prefix}_{number:032x}"


def write_07(folder: Path, number: int, *, parent: int | None = None, layers: int = 1, **more: Any) -> Path:
    """An artifact directory of 0.7: one raw layer of two pieces, empty qcow2 files over it, labels."""
    document = copy.deepcopy(SEVEN)
    document["snapshot_id"] = name("snap", number)
    document["parent"] = None if parent is None else name("snap", parent)
    (folder / "layers").mkdir(parents=True)
    raw = write_disk(folder / "layers" / f"{name('layer', number * 256)}.raw", number, 0, 7)
    size, chain, below = raw.stat().st_size, [], None
    for n in range(layers):
        layer, form = name("layer", number * 256 + n), "qcow2" if n else "raw"
        path = folder / "layers" / f"{layer}.{form}"
        if n:
            path.write_bytes(qcow2(size, f"{below}.{'qcow2' if n > 1 else 'raw'}"))
        payload = {"file_kind": "regular", "integrity": _sha256(path.read_bytes())}
        chain.append({"layer_id": layer, "format": form, "virtual_size": size, "backing": below, "payload": payload})
        below = layer
    state = {"layers": chain, "head": below, "virtual_size": size, "disk_format": chain[-1]["format"]}
    document["state"] |= state
    (folder / "snapshot.json").write_text(json.dumps(document | more))
    (folder / METADATA_FILENAME).write_bytes(labels_to_bytes(LABELS))
    return folder


def _sha256(data: bytes) -> Mapping[str, str]:
    digester = hasher("sha256", len(data))
    if data:
        digester.begin_extent(0, len(data))
        digester.update(data)
    return {"algorithm": "sha256", "digest": digester.finish()}


def write_06(folder: Path, *pieces: int, integrity: Mapping[str, str] | None = None, **more: Any) -> Path:
    """An artifact directory of 0.6."""
    folder.mkdir()
    disk = write_disk(folder / "upper.ext4", *pieces)
    document = copy.deepcopy(SIX) | more
    document["state"]["upper"] |= {"size_bytes": disk.stat().st_size, "integrity": integrity}
    (folder / "snapshot.json").write_text(json.dumps(document))
    return folder


def bring(store: Store, path: Path) -> Snapshot:
    store.import_directory(path, name=path.name)
    return store.open_snapshot(path.name)


def test_a_chain_is_one_snapshot_of_several_disks(store: Store, tmp_path: Path) -> None:
    folder = write_07(tmp_path / "chain", 1, layers=3)
    found = bring(store, folder)
    assert found.manifest.dialect is Dialect.V07
    assert found.id == Digest.of(Manifest07.parse((folder / "snapshot.json").read_bytes(), subject="m").to_bytes())
    assert found.artifact_manifest.config.digest == found.id
    assert found.labels == LABELS
    disks = found.artifact().map.disks
    assert [disk.name for disk in disks] == [disk.name for disk in found.manifest.disks]
    assert found.verify(workers=1).upper.kind == "verified"
    entry = store.entry("chain")
    assert entry.manifest == found.manifest
    assert entry.allocated == sum(disk.allocated for disk in disks)
    assert store.list({"step": "pip"})[0].name == "chain"
    assert [usage.usage.allocated for usage in store.stats().snapshots] == [entry.allocated]
    with pytest.raises(UsageError, match="chain"):
        content(store, "chain")
    require_sound(Path(store.path))


def test_salvage_knows_the_forms(store: Store, tmp_path: Path) -> None:
    """What is left of a disk stands where the form wants it; of a chain it would be of no use."""
    one = bring(store, write_07(tmp_path / "one", 1))
    salvaged = one.salvage(f"{tmp_path / 'back'}/", durability=FAST.durability)
    assert salvaged.missing == ()
    assert Path(salvaged.path) == tmp_path / "back" / "layers" / one.manifest.upper.file
    assert Path(salvaged.path).read_bytes() == content(store, "one")
    for file in ("snapshot.json", METADATA_FILENAME):
        assert (tmp_path / "back" / file).exists()
    with pytest.raises(UsageError, match="a chain of 2"):
        bring(store, write_07(tmp_path / "two", 2, layers=2)).salvage(tmp_path / "file")


@pytest.mark.parametrize("wrong", range(3))
def test_each_disk_of_a_chain_is_verified(store: Store, tmp_path: Path, wrong: int) -> None:
    folder = write_07(tmp_path / "chain", 1, layers=3)
    document = json.loads((folder / "snapshot.json").read_bytes())
    document["state"]["layers"][wrong]["payload"]["integrity"]["digest"] = "sha256:" + "0" * 64
    (folder / "snapshot.json").write_text(json.dumps(document))
    with pytest.raises(DigestMismatch, match="digest mismatch"):
        bring(store, folder)
    assert names(store) == []


def test_a_lineage_of_snapshot_ids(store: Store, tmp_path: Path) -> None:
    """A child of 0.7 names its parent by another name than the id; one of 0.4 by the id."""
    one = bring(store, write_07(tmp_path / "one", 1))
    bring(store, write_07(tmp_path / "two", 2, parent=1))
    capture(store, tmp_path, "three", 3, parent="two")
    assert store.open_snapshot("two").parent == one.manifest.known_as == name("snap", 1)
    assert store.open_snapshot("three").parent == str(store.open_snapshot("two").id)
    line = store.lineage("three")
    assert [each if isinstance(each, str) else each.names[0] for each in line] == ["two", "one"]
    assert {handle.name: handle.entry.children for handle in store.list()} == {"one": 1, "two": 1, "three": 0}
    for parent, child in (("one", "two"), ("two", "three")):
        with pytest.raises(HasChildren, match=f"snapshot {parent}: {child} in the store"):
            store.remove(parent)
    store.remove("one", force=True)
    assert list(store.lineage("two")) == [name("snap", 1)]


def test_a_lineage_that_leads_in_a_circle_ends(store: Store, tmp_path: Path) -> None:
    """Names of 0.7 are not made of the content, so anybody can write such documents."""
    for number, parent in ((1, 2), (2, 3), (3, 1)):
        bring(store, write_07(tmp_path / f"n{number}", number, parent=parent))
    line = store.lineage("n1")
    assert [each if isinstance(each, str) else each.names[0] for each in line[:2]] == ["n2", "n3"]
    assert len(line) <= 3


def test_the_catalog_is_what_a_walk_says(store: Store, tmp_path: Path) -> None:
    bring(store, write_07(tmp_path / "seven", 1, layers=2))
    bring(store, write_06(tmp_path / "six", 1, 2))
    capture(store, tmp_path, "four", 3)
    before = {handle.name: handle.manifest for handle in store.list()}
    assert {manifest.dialect for manifest in before.values()} == set(Dialect)
    assert store._catalog.dump() == rebuilt(store)
    store.reindex()
    assert {handle.name: handle.manifest for handle in store.list()} == before
    assert store._catalog.dump() == rebuilt(store)


def test_labels_survive_a_copy(store: Store, other: Store, tmp_path: Path) -> None:
    one = bring(store, write_07(tmp_path / "one", 1))
    store.push("one", f"oci:{tmp_path / 'layout'}:one")
    other.pull(f"oci:{tmp_path / 'layout'}:one", name="one")
    copied = other.open_snapshot("one")
    assert (copied.digest, copied.id, copied.labels) == (one.digest, one.id, LABELS)
    assert other.entry("one").manifest == one.manifest


# --- documents that do not fit ---------------------------------------------------------------------------------------


def rebuilt_as(snapshot: Snapshot, config: bytes, media_type: str, files: Mapping[str, bytes]) -> Artifact:
    """The snapshot's disks under another config, with other files beside it."""
    blobs = MemoryBlobs()
    manifest = snapshot.artifact_manifest
    for blob in (manifest.map, *manifest.packs):
        blobs.contents[blob.digest] = snapshot.blobs.read_range(blob, 0, blob.size)
    layers = [manifest.map, *manifest.packs]
    for title, data in files.items():
        annotations = {spec.ANNOTATION_TITLE: title}
        file = Descriptor(media_type=spec.MEDIA_FILE, digest=Digest.of(data), size=len(data), annotations=annotations)
        blobs.contents[file.digest] = data
        layers.append(file)
    described = Descriptor.of(config, media_type)
    blobs.contents[described.digest] = config
    made = ArtifactManifest.build(config=described, layers=layers, annotations={})
    blobs.contents[made.descriptor.digest] = made.raw
    load_documents(blobs, made.descriptor)
    return Artifact.load(blobs, made.descriptor)


def test_a_map_must_have_the_disks_of_the_document(store: Store, tmp_path: Path) -> None:
    one = bring(store, write_07(tmp_path / "one", 1))
    three = bring(store, write_07(tmp_path / "three", 1, layers=3))
    for disks, document, problem in (
        (one, three, "expected 3 disks"),
        (three, one, "expected one disk"),
    ):
        config = document.manifest.to_bytes()
        with pytest.raises(DocumentError, match=problem) as caught:
            rebuilt_as(disks, config, spec.MEDIA_CONFIG_07, {})
        assert caught.value.at == "upper"
    swapped = json.loads(three.manifest.to_bytes())
    swapped["state"]["layers"][1]["layer_id"] = swapped["state"]["layers"][2]["backing"] = name("layer", 9)
    with pytest.raises(DocumentError, match="the map has"):
        rebuilt_as(three, json.dumps(swapped).encode(), spec.MEDIA_CONFIG_07, {})


def test_labels_are_those_of_the_file_beside(store: Store, tmp_path: Path) -> None:
    one = bring(store, write_07(tmp_path / "one", 1))
    config, kind = one.manifest.to_bytes(), spec.MEDIA_CONFIG_07
    assert rebuilt_as(one, config, kind, {}).config.labels == {}
    found = rebuilt_as(one, config, kind, {"x": b"?", METADATA_FILENAME: labels_to_bytes({"a": "b"})})
    assert (found.config.labels, found.config.id) == ({"a": "b"}, one.id)
    for wrong in (b"", b"{}", labels_to_bytes({}).replace(b"/1", b"/2")):
        with pytest.raises(DocumentError, match=r"metadata\.json"):
            rebuilt_as(one, config, kind, {METADATA_FILENAME: wrong})


@pytest.mark.parametrize("media_type", [spec.MEDIA_CONFIG, spec.MEDIA_CONFIG_06])
def test_a_document_under_another_forms_type_is_refused(store: Store, tmp_path: Path, media_type: str) -> None:
    one = bring(store, write_07(tmp_path / "one", 1))
    with pytest.raises(DocumentError):
        rebuilt_as(one, one.manifest.to_bytes(), media_type, {})


def test_what_a_chain_may_have_at_most() -> None:
    assert v07.MAX_LAYERS <= spec.MAX_DISKS


# --- the command line ------------------------------------------------------------------------------------------------


def test_inspect_tells_the_form(casstore: Casstore, tmp_path: Path) -> None:
    with Store.init(casstore.store, options=FAST) as store:
        chain = bring(store, write_07(tmp_path / "chain", 1, layers=2))
        bring(store, write_06(tmp_path / "six", 1))
        capture(store, tmp_path, "four", 3)
    lines = [line.split(":", 1) for line in casstore("inspect", "chain").lines]
    told = {key: value.strip() for key, value in lines}
    assert told["Dialect"] == "microsandbox 0.7"
    assert told["Snapshot ID"] == name("snap", 1)
    assert told["Layers"] == ", ".join(disk.name for disk in chain.manifest.disks)
    document = casstore.json("inspect", "chain")
    assert (document["dialect"], document["known_as"]) == ("0.7", name("snap", 1))
    assert [disk["name"] for disk in document["disks"]] == [disk.name for disk in chain.manifest.disks]
    assert document["disks"][1]["size_bytes"] is None, "of a qcow2 the document does not say it"
    assert {each["name"]: each["dialect"] for each in casstore.json("list")["snapshots"]} == {
        "chain": "0.7",
        "six": "0.6",
        "four": "0.4",
    }
    assert "Dialect" not in casstore("inspect", "four").stdout


def test_what_cannot_be_compared_any_more_is_unverifiable(casstore: Casstore, tmp_path: Path) -> None:
    recorded = {"algorithm": "msb-sparse-sha256-v1", "digest": "sha256:" + "0" * 64}
    with Store.init(casstore.store, options=FAST) as store:
        bring(store, write_06(tmp_path / "six", 1, 2, integrity=recorded))
        capture(store, tmp_path, "four", 3)
    said = casstore("verify", "six", code=3).stdout
    assert f"integrity unverifiable (msb-sparse-sha256-v1 {recorded['digest']}): it depends on" in said
    document = casstore.json("verify", "--all", code=3)
    assert not document["ok"]
    by_name = {each["snapshot"]: each for each in document["snapshots"]}
    assert (by_name["four"]["ok"], by_name["six"]["ok"], by_name["six"]["error"]) == (True, False, None)
    assert by_name["six"]["verification"]["integrity"]["status"] == "unverifiable"
    assert casstore.json("inspect", "six", "--verify", code=3)["verification"]["integrity"]["reason"]
    casstore("verify", "six", "nothing", code=10)


def test_elsewhere_the_form_is_told_too(casstore: Casstore, tmp_path: Path) -> None:
    with Store.init(casstore.store, options=FAST) as store:
        one = bring(store, write_07(tmp_path / "one", 1))
        store.push("one", f"oci:{tmp_path / 'layout'}:one")
    reference = f"oci:{tmp_path / 'layout'}"
    (tag,) = casstore.json("list", reference, schema="cli-tags")["tags"]
    assert (tag["kind"], tag["id"]) == ("snapshot", str(one.id))
    document = casstore.json("inspect", f"{reference}:one", schema="cli-inspect-remote")
    assert (document["dialect"], document["labels"]) == ("0.7", LABELS)
    assert "microsandbox 0.7" in casstore("inspect", f"{reference}:one").stdout
