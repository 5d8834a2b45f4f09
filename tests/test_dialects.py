"""The forms of 0.6 and 0.7: the ids that the real tools print, canonical bytes, and what is refused."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from casstore import spec
from casstore.dialects import MEDIA_TYPES, parse_manifest, parse_trusted, sniff, v06, v07
from casstore.dialects.sidecars import Group, GroupMember, labels_to_bytes, parse_labels
from casstore.dialects.v06 import Manifest06
from casstore.dialects.v07 import Layer, Manifest07
from casstore.digest import Digest
from casstore.errors import CasstoreError, DocumentError, UnsupportedVersion
from casstore.manifest import Dialect, ImageRef, Manifest, SnapshotFormat, UpperIntegrity, UpperLayer
from tests.support.canonical import changed, require_schema_agrees
from tests.support.dialects import (
    IDS,
    LEGACY_LABELS,
    VECTORS,
    disordered,
    documents_06,
    documents_07,
    labels,
    write_artifact,
)
from tests.support.microsandbox import RealTool, Version

SAMPLE_06 = json.loads((VECTORS / "06-sample.json").read_bytes())
CHAIN_07 = json.loads((VECTORS / "07-chain.json").read_bytes())
PLAIN_07 = json.loads((VECTORS / "07-of-04-child.json").read_bytes())
FORMS = {Dialect.V06: (SAMPLE_06, "microsandbox-0.6", v06), Dialect.V07: (PLAIN_07, "microsandbox-0.7", v07)}


def read(data: bytes) -> Manifest:
    """Of whatever form."""
    return parse_manifest(data, MEDIA_TYPES[sniff(data, subject="m.json")], subject="m.json")


def parse(document: Any) -> Manifest:
    return read(json.dumps(document).encode())


def refused(document: Any, at: str, error: type[CasstoreError] = DocumentError) -> str:
    """How it is refused."""
    with pytest.raises(error) as caught:
        parse(document)
    assert isinstance(caught.value, DocumentError)
    assert (caught.value.subject, caught.value.at) == ("m.json", at)
    return caught.value.problem


# --- golden values ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", IDS)
def test_ids_are_those_of_the_real_tools(name: str) -> None:
    data = (VECTORS / name).read_bytes()
    manifest = read(data)
    assert manifest.dialect.value.replace(".", "") == name[:2]
    assert str(manifest.id) == IDS[name]
    assert read(manifest.to_bytes()) == manifest
    if "-of-" in name or "sample" in name:
        assert manifest.to_bytes() == data, "the real tool wrote it"


def test_what_a_chain_says() -> None:
    manifest = read((VECTORS / "07-chain.json").read_bytes())
    assert isinstance(manifest, Manifest07)
    assert [disk.name for disk in manifest.disks] == [
        f"layer_{digit * 32}.{form}" for digit, form in (("0", "raw"), ("a", "qcow2"), ("b", "qcow2"))
    ]
    assert [disk.size for disk in manifest.disks] == [spec.GIB, 5 << 16, None], "of a qcow2 the integrity may tell"
    assert manifest.disks[0].integrity is not None
    assert manifest.disks[0].integrity.algorithm == "sha256"
    assert manifest.upper == UpperLayer(file=manifest.disks[-1].name, size_bytes=spec.GIB)
    assert (manifest.format, manifest.layout) == (SnapshotFormat.QCOW2, "flat")
    assert manifest.known_as == manifest.snapshot_id == "snap_" + "1" * 32
    assert manifest.created_at == "2026-04-30T23:30:00.500000000Z"
    assert manifest.requires == ("é",)


def test_what_an_early_0_7_left_out() -> None:
    manifest = read((VECTORS / "07-early.json").read_bytes())
    assert manifest.labels == {"a": "1"}
    assert b'"root_disk":{"layout":"managed"}' in manifest.to_bytes()
    data = (VECTORS / "07-early.json").read_bytes()
    beside = parse_manifest(data, spec.MEDIA_CONFIG_07, subject="m", labels={"b": "2"})
    assert beside.labels == {"b": "2"}, "labels beside it hide those in it"
    assert (beside.id, hash(beside) == hash(manifest)) == (manifest.id, False)


# --- canonical bytes -------------------------------------------------------------------------------------------------


def reference_06(document: Any) -> bytes:
    """Its canonical bytes, written down once more."""

    def ordered(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: ordered(value[key]) for key in sorted(value)}
        return [ordered(each) for each in value] if isinstance(value, list) else value

    loose = {"labels": ordered(document["labels"]), "extensions": ordered(document["extensions"])}
    return json.dumps({**document, **loose}, separators=(",", ":"), ensure_ascii=False).encode()


def reference_07(value: Any) -> str:
    """RFC 8785, section 3.2.3, written down once more."""
    if isinstance(value, dict):
        units = {key: [*memoryview(key.encode("utf-16-le")).cast("H")] for key in value}
        pairs = (f"{reference_07(key)}:{reference_07(value[key])}" for key in sorted(value, key=units.__getitem__))
        return "{" + ",".join(pairs) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(reference_07, value)) + "]"
    return json.dumps(value, ensure_ascii=False)


@given(documents_06(), st.integers(0, 5))
@settings(max_examples=100)
def test_canonical_bytes_06(document: Any, seed: int) -> None:
    manifest = read(disordered(document, seed))
    canonical = {**document, "created_at": manifest.created_at}
    assert manifest.to_bytes() == reference_06(canonical)
    assert manifest.id == Digest.of(manifest.to_bytes())
    assert read(manifest.to_bytes()) == manifest == parse_trusted(manifest.to_bytes(), manifest.media_type, subject="m")
    assert hash(read(manifest.to_bytes())) == hash(manifest)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{0,8}[1-9])?Z", manifest.created_at)


@given(documents_07(), labels, st.integers(0, 5))
@settings(max_examples=100)
def test_canonical_bytes_07(document: Any, beside: dict[str, str], seed: int) -> None:
    manifest = parse_manifest(disordered(document, seed), spec.MEDIA_CONFIG_07, subject="m", labels=beside)
    canonical = changed(document, "capture.created_at", manifest.created_at)
    canonical.setdefault("root_disk", {"layout": "managed"})
    assert manifest.to_bytes() == reference_07(canonical).encode()
    again = parse_trusted(manifest.to_bytes(), manifest.media_type, subject="m", labels=beside)
    assert again == manifest
    assert hash(again) == hash(manifest)
    assert read(manifest.to_bytes()).id == manifest.id, "labels are no part of it"
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z", manifest.created_at)
    assert parse_labels(labels_to_bytes(manifest.labels), subject="l") == beside


@pytest.mark.parametrize(
    ("time", "short", "long"),
    [
        ("2026-05-01T12:00:00Z", "2026-05-01T12:00:00Z", "2026-05-01T12:00:00.000000000Z"),
        ("2026-05-01T12:00:00.000-00:00", "2026-05-01T12:00:00Z", "2026-05-01T12:00:00.000000000Z"),
        ("2026-01-01T00:30:00.1203+01:00", "2025-12-31T23:30:00.1203Z", "2025-12-31T23:30:00.120300000Z"),
        ("2026-05-01T12:00:00.1234567899Z", "2026-05-01T12:00:00.123456789Z", "2026-05-01T12:00:00.123456789Z"),
    ],
)
def test_times_are_normalised(time: str, short: str, long: str) -> None:
    assert parse(changed(SAMPLE_06, "created_at", time)).created_at == short
    assert parse(changed(PLAIN_07, "capture.created_at", time)).created_at == long


@pytest.mark.parametrize(
    "time",
    [
        *("", "not a date", "2026-05-01", "2026-05-01 12:00:00Z", "2026-05-01t12:00:00z", "2026-05-01T12:00:00"),
        *("2026-02-29T12:00:00Z", "2026-05-01T12:00:60Z", "0001-01-01T00:00:00+00:01", "9999-12-31T23:59:59-00:01"),
        *("2026-05-01T12:00:00+24:00", "2026-05-01T12:00:00.Z", "0000-05-01T12:00:00Z", "2026-05-01T12:00:00Z\n"),
    ],
)
def test_what_is_no_time(time: str) -> None:
    refused(changed(SAMPLE_06, "created_at", time), "created_at")
    refused(changed(PLAIN_07, "capture.created_at", time), "capture.created_at")


# --- what is refused -------------------------------------------------------------------------------------------------

HEX = "a" * 64
MERKLE = {"algorithm": "msb-file-merkle-blake3-v1", "root": f"blake3:{HEX}", "logical_size": 4096, "leaf_size": 65536}


@pytest.mark.parametrize(
    ("path", "value", "at"),
    [
        ("labels", ..., ""),
        ("x", 1, ""),
        ("state.x", 1, "state"),
        ("state.upper.x", 1, "state.upper"),
        ("state.upper.integrity", ..., "state.upper"),
        ("state.upper.integrity.x", 1, "state.upper.integrity"),
        ("parent", ..., ""),
        ("scope", "resumable", "scope"),
        ("state.kind", "other", "state.kind"),
        ("state.format", "RAW", "state.format"),
        ("state.fstype", "", "state.fstype"),
        ("image.ref", "", "image.ref"),
        *(
            (f"{place}", value, place)
            for place in ("image.manifest_digest", "parent", "state.upper.integrity.digest")
            for value in ("", "sha256:", f"sha512:{HEX}", f"sha256:{HEX[1:]}", f"sha256:{HEX}0", f"sha256:{HEX[1:]}A")
        ),
        ("state.upper.size_bytes", -1, "state.upper.size_bytes"),
        ("state.upper.size_bytes", 2**53, "state.upper.size_bytes"),
        *(("state.upper.file", name, "state.upper.file") for name in ("", ".", "..", "a/b", "/a", "a/", "a\0")),
        *(
            ("state.upper.file", name, "state.upper.file")
            for name in ("snapshot.json", "manifest.json", ".manifest.json.legacy", ".snapshot-migration.lock")
        ),
        ("state.upper.integrity", {**MERKLE, "logical_size": 4095}, "state.upper.integrity.logical_size"),
        ("state.upper.integrity", {**MERKLE, "leaf_size": 4096}, "state.upper.integrity.leaf_size"),
        ("state.upper.integrity", {**MERKLE, "digest": f"sha256:{HEX}"}, "state.upper.integrity"),
        ("state.upper.integrity.algorithm", "md5", "state.upper.integrity.algorithm"),
        ("requires", ["a"], "requires"),
        ("requires", [""], "requires"),
        ("labels.x", 1, "labels.x"),
    ],
)
def test_row_06_is_refused(path: str, value: Any, at: str) -> None:
    document = changed(SAMPLE_06, "state.upper.size_bytes", 4096)
    assert len(refused(changed(document, path, value), at)) < 400


@pytest.mark.parametrize(
    ("path", "value", "at"),
    [
        ("capture", ..., ""),
        ("x", 1, ""),
        ("capture.source_lineage", ..., "capture"),
        ("capture.consistency", "none", "capture.consistency"),
        ("image.reference", "", "image.reference"),
        ("image.manifest_digest", f"sha256:{HEX.upper()}", "image.manifest_digest"),
        ("snapshot_id", "snap_1", "snapshot_id"),
        ("snapshot_id", "layer_" + "1" * 32, "snapshot_id"),
        ("parent", f"sha256:{HEX}", "parent"),
        ("parent", "snap_" + "1" * 32, "parent"),
        ("root_disk.layout", "tmpfs", "root_disk.layout"),
        ("root_disk", {"layout": "tmpfs", "size_mib": 1}, "root_disk.layout"),
        ("root_disk.x", 1, "root_disk"),
        ("scope", "checkpoint", "scope"),
        ("state.filesystem", "", "state.filesystem"),
        ("state.layers", [], "state.layers"),
        ("state.head", "layer_" + "0" * 32, "state.head"),
        ("state.disk_format", "raw", "state.disk_format"),
        ("state.virtual_size", 1, "state.virtual_size"),
        ("state.layers.0.layer_id", "layer_" + "0" * 31, "state.layers[1].backing"),
        ("state.layers.0.backing", "layer_" + "b" * 32, "state.layers[0].backing"),
        ("state.layers.1.backing", None, "state.layers[1].backing"),
        ("state.layers.2.backing", "layer_" + "0" * 32, "state.layers[2].backing"),
        ("state.layers.1.format", "raw", "state.layers[1].format"),
        ("state.layers.0.virtual_size", 2**53, "state.layers[0].virtual_size"),
        ("state.layers.0.payload.file_kind", "block", "state.layers[0].payload.file_kind"),
        ("state.layers.0.payload.integrity", ..., "state.layers[0].payload"),
        ("state.layers.0.payload.integrity.digest", "", "state.layers[0].payload.integrity.digest"),
        ("state.layers.0.payload.integrity", MERKLE, "state.layers[0].payload.integrity.logical_size"),
        ("requires", ["é", "é"], "requires"),
        ("extensions.é", 1.5, ""),
        ("extensions.é", 2**53, "extensions"),
        ("extensions.é", [{"a": [-(2**53)]}], "extensions"),
        ("extensions.é", [0] * 4097, "extensions"),
        ("extensions", {LEGACY_LABELS: {"a": 1}}, f"extensions.{LEGACY_LABELS}"),
        ("extensions", {LEGACY_LABELS: []}, f"extensions.{LEGACY_LABELS}"),
    ],
)
def test_row_07_is_refused(path: str, value: Any, at: str) -> None:
    assert len(refused(changed(CHAIN_07, path, value), at)) < 400


def test_too_many_layers() -> None:
    layer = CHAIN_07["state"]["layers"][0]
    refused(changed(CHAIN_07, "state.layers", [layer] * 257), "state.layers")
    layers = tuple(
        Layer(layer_id=f"layer_{n:032x}", format=SnapshotFormat.QCOW2 if n else SnapshotFormat.RAW, virtual_size=4)
        for n in range(257)
    )
    assert len(chain(layers[:256]).disks) == 256
    for wrong in ((), layers):
        with pytest.raises(DocumentError, match=f"expected 1 to 256 layers, got {len(wrong)}"):
            chain(wrong)
    with pytest.raises(DocumentError, match="each layer_id once"):
        chain(layers[:2] + layers[1:2])


def chain(layers: tuple[Layer, ...], **more: Any) -> Manifest07:
    return Manifest07(
        fstype="ext4",
        image=ImageRef(ref="a", manifest_digest=f"sha256:{HEX}"),
        parent=None,
        created_at="2026-05-01T12:00:00Z",
        source_sandbox=None,
        snapshot_id="snap_" + "1" * 32,
        layers=layers,
        **more,
    )


@pytest.mark.parametrize(
    "more",
    [
        *({"extensions": text} for text in ("", "[]", '{"b":1,"a":1}', '{ "a":1}', '{"a":1.5}', '{"a":1,"a":1}', "x")),
        *({"requires": names} for names in (("a",), ("b", "a"), ("a", "a"))),
        {"layout": "tmpfs"},
        {"consistency": "x"},
        {"labels": {"a": "\ud800"}, "source_checkpoint": "\ud800"},
        {"extensions": json.dumps({"a": "x" * spec.MIB}, separators=(",", ":"))},
    ],
)
def test_what_no_document_says_cannot_be_constructed(more: dict[str, Any]) -> None:
    layer = Layer(layer_id="layer_" + "1" * 32, format=SnapshotFormat.RAW, virtual_size=4)
    assert chain((layer,), extensions='{"a":1,"b":1}', requires=("a", "b")).requires
    with pytest.raises(DocumentError):
        chain((layer,), **more)


@pytest.mark.parametrize("dialect", FORMS)
def test_duplicate_keys_are_refused_at_any_depth(dialect: Dialect) -> None:
    data = json.dumps(changed(FORMS[dialect][0], "extensions", {"a": {"b": 1}}))
    for key in ('"schema":', '"created_at":', '"b":'):
        twice = re.sub(f"({key} (?:[^,}}]*))", r"\1, \1", data, count=1)
        with pytest.raises(DocumentError, match="duplicate key"):
            read(twice.encode())


CHECKPOINT_06 = {"kind": "checkpoint", "checkpoint_id": "c", "manifest": f"sha256:{HEX}"}
CHECKPOINT_07 = {
    "kind": "checkpoint",
    "checkpoint_id": "c",
    "checkpoint_root": f"sha256:{HEX}",
    "restore_intents": ["resume"],
    "requirements_summary": {"vcpus": 1},
}


def test_checkpoints_are_told() -> None:
    """They parse, and have no disk that could be stored."""
    six = changed(SAMPLE_06, "state", CHECKPOINT_06)
    for scope in ("disk", "resumable"):
        assert "running VM's memory" in refused(changed(six, "scope", scope), "state.kind", UnsupportedVersion)
    seven = changed(changed(PLAIN_07, "state", CHECKPOINT_07), "scope", "checkpoint")
    for layout in ({"layout": "managed"}, {"layout": "tmpfs", "size_mib": 64}):
        told = refused(changed(seven, "root_disk", layout), "state.kind", UnsupportedVersion)
        assert "running VM's memory" in told
    refused(changed(seven, "state.checkpoint_id", ...), "state")


@pytest.mark.parametrize(
    ("document", "dialect"),
    [
        ({}, Dialect.V04),
        ({"schema": 1}, Dialect.V04),
        ({"schema": 42}, Dialect.V04),
        ({"schema": 1, "artifact": "snapshot"}, Dialect.V06),
        ({"schema": 2, "artifact": "x"}, Dialect.V06),
        ({"schema": "microsandbox.snapshot/1"}, Dialect.V07),
    ],
)
def test_a_document_says_what_it_is(document: Any, dialect: Dialect) -> None:
    assert sniff(json.dumps(document).encode(), subject="m") is dialect


def test_versions_to_come() -> None:
    for schema in ("microsandbox.snapshot/2", "other"):
        with pytest.raises(UnsupportedVersion, match="schema"):
            sniff(json.dumps({"schema": schema}).encode(), subject="m")
        with pytest.raises(UnsupportedVersion, match="schema"):
            Manifest07.parse(json.dumps({"schema": schema}).encode(), subject="m")
    refused(changed(SAMPLE_06, "schema", 2), "schema", UnsupportedVersion)
    refused(changed(SAMPLE_06, "artifact", "other"), "artifact", UnsupportedVersion)
    with pytest.raises(UnsupportedVersion, match="config of type text/plain"):
        parse_manifest(b"{}", "text/plain", subject="m")
    for data in (b"", b"[]", b"{"):
        with pytest.raises(DocumentError):
            sniff(data, subject="m")


@pytest.mark.parametrize("dialect", FORMS)
@given(data=st.data())
@settings(max_examples=300)
def test_what_looks_canonical_passes_the_schema(dialect: Dialect, data: st.DataObject) -> None:
    document, schema, module = FORMS[dialect]
    require_schema_agrees(data, parse(document).to_bytes(), module._USUAL, schema)


_WRONG: st.SearchStrategy[Any] = (
    st.none() | st.booleans() | st.integers() | st.text(max_size=3) | st.just({}) | st.just([])
)


@given(st.sampled_from(sorted(FORMS)), st.data())
@settings(max_examples=200)
@example(Dialect.V06, None).via("the document as it is")
def test_no_change_of_a_document_is_an_error_of_ours(dialect: Dialect, data: st.DataObject | None) -> None:
    """Whatever comes, it is parsed, or a DocumentError says where it is wrong."""
    document = copy.deepcopy(FORMS[dialect][0])
    place = document
    while data is not None:
        keys = sorted(place) if isinstance(place, dict) else list(range(len(place)))
        key = data.draw(st.sampled_from(keys))
        if not isinstance(place[key], dict | list) or not place[key] or data.draw(st.booleans()):
            place[key] = data.draw(_WRONG)
            break
        place = place[key]
    raw = json.dumps(document).encode()
    try:
        manifest = parse_manifest(raw, MEDIA_TYPES[dialect], subject="m")
    except DocumentError:
        return
    assert parse_manifest(manifest.to_bytes(), MEDIA_TYPES[dialect], subject="m") == manifest


# --- the files beside ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "kind", "value"),
    [
        ('{"schema":"microsandbox.snapshot-group/1","head":"snap_' + "1" * 32 + '"}', Group, "snap_" + "1" * 32),
        ('{"schema":"microsandbox.snapshot-group/1","head":null}', Group, None),
        ('{"schema":"microsandbox.snapshot-group-member/1","name":"after-pip"}', GroupMember, "after-pip"),
    ],
)
def test_groups(text: str, kind: type[Group | GroupMember], value: str | None) -> None:
    parsed = kind.parse(text.encode(), subject="g")
    assert parsed.to_bytes() == text.encode()
    assert value == (parsed.head if isinstance(parsed, Group) else parsed.name)
    for wrong in (text.replace("/1", "/2"), text[:-1] + ',"x":1}', text.replace('"schema"', '"schem"'), "[]"):
        with pytest.raises(DocumentError):
            kind.parse(wrong.encode(), subject="g")
    wrongs = ["1", '"snap_1"', "{}"] if kind is Group else ["1", "null", '""', '"' + "é" * 65 + '"']
    for other in wrongs:
        with pytest.raises(DocumentError):
            kind.parse(re.sub(r'(null|"[^"]*")}', f"{other}}}", text).encode(), subject="g")


def test_labels_beside_a_manifest() -> None:
    text = '{"schema":"microsandbox.snapshot-metadata/1","labels":{"a":"1","ﬀ":"3","😀":"2"}}'
    found = parse_labels(text.encode(), subject="l")
    assert found == {"😀": "2", "ﬀ": "3", "a": "1"}
    assert labels_to_bytes(found) == text.encode(), "sorted by code point"
    for wrong in ('{"a":1}', "[]", "null", '{"a":"1","a":"2"}'):
        with pytest.raises(DocumentError):
            parse_labels(f'{{"schema":"microsandbox.snapshot-metadata/1","labels":{wrong}}}'.encode(), subject="l")
    with pytest.raises(UnsupportedVersion):
        parse_labels(text.replace("/1", "/2").encode(), subject="l")
    with pytest.raises(DocumentError, match="at most"):
        labels_to_bytes({"a": "x" * spec.MIB})


# --- the real tools --------------------------------------------------------------------------------------------------


@pytest.mark.needs("microsandbox")
@pytest.mark.parametrize(("version", "dialect"), [("0.6.18", Dialect.V06), ("0.7.11", Dialect.V07)])
def test_the_real_tool_gives_documents_the_same_ids(version: Version, dialect: Dialect, tmp_path: Path) -> None:
    """Of any content, in any order of their keys."""
    made: list[Path] = []
    ids: list[str] = []

    @given(documents_06() if dialect is Dialect.V06 else documents_07(), st.integers(0, 5))
    @settings(max_examples=60, database=None, deadline=None)
    def write(document: Any, seed: int) -> None:
        data = disordered(document, seed)
        ids.append(str(read(data).id))
        made.append(write_artifact(tmp_path / f"{len(made)}" / "snapshot", document, data))

    write()
    script = "return [(await Snapshot.open(path)).digest for path in args]"
    assert RealTool(version, tmp_path / "home").sdk(script, *made) == ids


def test_constructing_is_as_strict_as_parsing() -> None:
    made = parse(SAMPLE_06)
    assert isinstance(made, Manifest06)
    wrong = UpperIntegrity(algorithm="sha256", digest="a:b")
    with pytest.raises(DocumentError, match=r"state\.upper\.integrity\.digest"):
        Manifest06(
            format=made.format,
            fstype=made.fstype,
            image=made.image,
            parent=None,
            created_at=made.created_at,
            upper=UpperLayer(file="upper.ext4", size_bytes=1, integrity=wrong),
            source_sandbox=None,
        )
