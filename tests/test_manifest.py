"""The snapshot manifest against microsandbox 0.4.4: its golden ids, its own unit tests, its error texts."""

from __future__ import annotations

import dataclasses
import json
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from casstore import manifest, spec
from casstore.digest import Digest
from casstore.errors import DocumentError, UnsupportedVersion
from casstore.manifest import (
    MANIFEST_FILENAME,
    ImageRef,
    Labels,
    Manifest,
    SnapshotFormat,
    UpperIntegrity,
    UpperLayer,
    format_created_at,
    is_rfc3339,
)
from tests.support.canonical import changed, require_schema_agrees

VECTORS = Path(__file__).parents[1] / "fixtures" / "vectors" / "manifest"
IDS = {name: digest for digest, name in (line.split() for line in (VECTORS / "ids.txt").read_text().splitlines())}
SAMPLE = (VECTORS / "sample.json").read_bytes()
DOCUMENT = json.loads(SAMPLE)


def sample() -> Manifest:
    """`sample_manifest()` of microsandbox's manifest.rs."""
    return Manifest(
        format=SnapshotFormat.RAW,
        fstype="ext4",
        image=ImageRef(ref="docker.io/library/python:3.12", manifest_digest="sha256:" + "a" * 64),
        parent=None,
        created_at="2026-05-01T12:00:00Z",
        labels={"stage": "post-pip-install", "owner": "alice"},
        upper=UpperLayer(
            file="upper.ext4",
            size_bytes=4 * spec.GIB,
            integrity=UpperIntegrity(algorithm="msb-sparse-sha256-v1", digest="sha256:" + "b" * 64),
        ),
        source_sandbox="build-1",
    )


def artifact(upper: bytes) -> Manifest:
    """`make_artifact()` of microsandbox's snapshot_artifact.rs."""
    return Manifest(
        format=SnapshotFormat.RAW,
        fstype="ext4",
        image=ImageRef(ref="docker.io/library/alpine:3.20", manifest_digest="sha256:" + "0" * 63 + "1"),
        parent=None,
        created_at="2026-05-01T12:00:00Z",
        labels={},
        upper=UpperLayer(file="upper.ext4", size_bytes=len(upper)),
        source_sandbox="synthetic",
    )


def parse(document: Any) -> Manifest:
    return Manifest.parse(json.dumps(document).encode(), subject="m.json")


# --- golden values ---------------------------------------------------------------------------------------------------


def test_every_vector_has_an_id() -> None:
    assert set(IDS) == {path.name for path in VECTORS.glob("*.json")}


@pytest.mark.parametrize("name", IDS)
def test_golden_file(name: str) -> None:
    raw = (VECTORS / name).read_bytes()
    manifest = Manifest.parse(raw, subject=name)
    assert manifest.to_bytes() == raw
    assert manifest.id == Digest(IDS[name])


@pytest.mark.parametrize(
    ("upper", "size", "hex_id"),
    [
        (b"upper data goes here", 337, "c107b8d3b6c945ff6e4f25124c4d40398389ee3e706eaa9010022323e50845d2"),
        (b"the upper bytes", 337, "b3e8480749879acf727b42ca238bca91b7f04c4af24f1ba488d8bcf40253c4cd"),
        (b"plain tar bytes", 337, "b3e8480749879acf727b42ca238bca91b7f04c4af24f1ba488d8bcf40253c4cd"),
        (b"same upper", 337, "f0b0789baffaf42e937e171f2c039a021827c105eabdad5afe2c44d33754e7d6"),
        (b"hello", 336, "65cabae6d8e082cfb1566a23de71606d3a2f764e6120f5420730379ccc8e9e3f"),
    ],
)
def test_golden_artifact(upper: bytes, size: int, hex_id: str) -> None:
    manifest = artifact(upper)
    assert len(manifest.to_bytes()) == size
    assert str(manifest.id) == f"sha256:{hex_id}"


def test_golden_sample() -> None:
    assert sample().to_bytes() == SAMPLE
    assert len(SAMPLE) == 500
    assert sample() == Manifest.parse(SAMPLE, subject="sample")
    assert MANIFEST_FILENAME == "manifest.json"


def test_golden_escapes() -> None:
    labels = json.loads((VECTORS / "labels.json").read_bytes())["labels"]
    assert list(labels) == ["", "a", "b", "é", "ﬀ", "😀"]  # UTF-16 would have the last two the other way round
    assert rb'"\t\b\f\r\n\u001f' + b'\x7f\\"\\\\/"' in (VECTORS / "labels.json").read_bytes()
    assert rb'"\u0000\u0001' + "\u0080\u2028\uffff".encode() in (VECTORS / "labels.json").read_bytes()


# --- the unit tests of microsandbox's manifest.rs --------------------------------------------------------------------


def test_round_trip_canonical() -> None:
    again = Manifest.parse(sample().to_bytes(), subject="m")
    assert again == sample()
    assert again.to_bytes() == sample().to_bytes()


def test_digest_is_deterministic() -> None:
    assert sample().id == sample().id == Digest.of(SAMPLE)


@pytest.mark.parametrize(
    "change",
    [
        {"format": SnapshotFormat.QCOW2},
        {"fstype": "xfs"},
        {"image": ImageRef(ref="x", manifest_digest="sha256:" + "a" * 64)},
        {"parent": "sha256:01"},
        {"created_at": ""},
        {"labels": {}},
        {"upper": UpperLayer(file="upper.ext4", size_bytes=4 * spec.GIB)},
        {"source_sandbox": None},
    ],
    ids=lambda change: next(iter(change)),
)
def test_digest_changes_on_field_change(change: dict[str, Any]) -> None:
    other = dataclasses.replace(sample(), **change)
    assert other != sample()
    assert other.id != sample().id


def test_labels_order_does_not_matter() -> None:
    one = dataclasses.replace(sample(), labels={"a": "1", "b": "2"})
    two = dataclasses.replace(sample(), labels={"b": "2", "a": "1"})
    assert one == two
    assert one.id == two.id


@pytest.mark.parametrize("version", [42, 999, 0, 2, -1, 2**63])
def test_rejects_unknown_schema(version: int) -> None:
    with pytest.raises(UnsupportedVersion) as caught:
        parse(changed(DOCUMENT, "schema", version))
    assert str(caught.value) == f"m.json: unsupported schema version {version} (expected 1) (at schema)"


def test_a_newer_version_is_unsupported_whatever_else_it_has() -> None:
    with pytest.raises(UnsupportedVersion, match="unsupported schema version 2"):
        parse({"schema": 2, "layers": []})


@pytest.mark.parametrize("at", ["image.manifest_digest", "parent", "upper.integrity.digest"])
@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("not-a-digest", "{} is not a digest (missing ':'): not-a-digest"),
        ("", "{} is not a digest (missing ':'): "),
        (":x", "{} has empty component: :x"),
        ("sha256:", "{} has empty component: sha256:"),
        ("\x1b[2J", "{} is not a digest (missing ':'): \\x1b[2J"),
    ],
)
def test_rejects_invalid_digest_form(at: str, text: str, problem: str) -> None:
    with pytest.raises(DocumentError) as caught:
        parse(changed(DOCUMENT, at, text))
    assert caught.value.problem == problem.format(at)
    assert caught.value.at == at
    assert caught.value.subject == "m.json"


@pytest.mark.parametrize("text", ["a:b", "foo:bar:baz", "a::", "sha256:01", "sha256:" + "A" * 64])
def test_a_digest_needs_only_its_form(text: str) -> None:
    assert parse(changed(DOCUMENT, "parent", text)).parent == text


def test_parent_null_is_present() -> None:
    assert b'"parent":null' in sample().to_bytes()
    with pytest.raises(DocumentError, match="'parent' is a required property"):
        parse(changed(DOCUMENT, "parent", ...))


def test_empty_labels_are_present() -> None:
    assert b'"labels":{}' in artifact(b"").to_bytes()


@pytest.mark.parametrize("text", ["RAW", "Raw", "vmdk", ""])
def test_format_is_lower_case(text: str) -> None:
    assert b'"format":"qcow2"' in dataclasses.replace(sample(), format=SnapshotFormat.QCOW2).to_bytes()
    with pytest.raises(DocumentError, match=r"is not one of \['raw', 'qcow2'\] \(at format\)"):
        parse(changed(DOCUMENT, "format", text))


def test_integrity_null_round_trips() -> None:
    manifest = Manifest.parse(artifact(b"x").to_bytes(), subject="m")
    assert manifest.upper.integrity is None
    assert b'"integrity":null' in manifest.to_bytes()


def test_rejects_missing_integrity_field() -> None:
    with pytest.raises(DocumentError, match=r"'integrity' is a required property \(at upper\)"):
        parse(changed(DOCUMENT, "upper.integrity", ...))


def test_rejects_legacy_upper_sha256_field() -> None:
    with pytest.raises(DocumentError, match=r"'sha256' was unexpected\) \(at upper\)"):
        parse(changed(DOCUMENT, "upper.sha256", "0" * 64))


def test_field_order() -> None:
    raw = sample().to_bytes()
    assert raw.index(b'"schema"') < raw.index(b'"format"') < raw.index(b'"upper"') < raw.index(b'"source_sandbox"')


# --- what else is refused, and what is not ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("at", "problem"),
    [
        ("fstype", "empty fstype"),
        ("image.ref", "empty image.ref"),
        ("upper.file", "empty upper.file"),
        ("upper.integrity.algorithm", "empty upper.integrity.algorithm"),
    ],
)
def test_rejects_empty_texts(at: str, problem: str) -> None:
    with pytest.raises(DocumentError) as caught:
        parse(changed(DOCUMENT, at, ""))
    assert (caught.value.problem, caught.value.at) == (problem, at)


def test_order_of_the_checks() -> None:
    broken = {
        "fstype": "empty fstype",
        "image.ref": "empty image.ref",
        "image.manifest_digest": "image.manifest_digest is not a digest",
        "parent": "parent is not a digest",
        "upper.file": "empty upper.file",
        "upper.integrity.algorithm": "empty upper.integrity.algorithm",
        "upper.integrity.digest": "upper.integrity.digest is not a digest",
    }
    document = json.loads(SAMPLE)
    for path in broken:
        *parents, last = path.split(".")
        place = document
        for parent in parents:
            place = place[parent]
        place[last] = ""
    for path, problem in broken.items():
        with pytest.raises(DocumentError, match=re.escape(problem)):
            parse(document)
        *parents, last = path.split(".")
        place = document
        for parent in parents:
            place = place[parent]
        place[last] = "a:b"
    assert parse(document).fstype == "a:b"


FIELDS = [
    *("schema", "format", "fstype", "image", "parent", "created_at", "labels", "upper", "source_sandbox"),
    *("image.ref", "image.manifest_digest", "upper.file", "upper.size_bytes", "upper.integrity"),
    *("upper.integrity.algorithm", "upper.integrity.digest"),
]


@pytest.mark.parametrize("path", FIELDS)
def test_every_field_is_required(path: str) -> None:
    with pytest.raises(DocumentError, match="is a required property"):
        parse(changed(DOCUMENT, path, ...))


@pytest.mark.parametrize("path", FIELDS)
@pytest.mark.parametrize("value", [True, [], ["a:b"], {"a": "b"}, -1, 1.0], ids=repr)
def test_every_field_has_a_type(path: str, value: Any) -> None:
    if path == "labels" and isinstance(value, dict):
        value = {"a": 1}
    with pytest.raises(DocumentError) as caught:
        parse(changed(DOCUMENT, path, value))
    assert caught.value.subject == "m.json"


@pytest.mark.parametrize("path", ["extra", "image.extra", "upper.extra", "upper.integrity.extra"])
def test_unknown_fields_are_refused(path: str) -> None:
    with pytest.raises(DocumentError, match="'extra' was unexpected"):
        parse(changed(DOCUMENT, path, None))


@pytest.mark.parametrize("label", [1, None, ["x"], {}])
def test_labels_are_texts(label: object) -> None:
    with pytest.raises(DocumentError, match="is not of type 'string'"):
        parse(changed(DOCUMENT, "labels", {"a": label}))


@pytest.mark.parametrize("size", [0, 1, 2**53 + 1, 2**63, 2**64 - 1])
def test_sizes(size: int) -> None:
    manifest = parse(changed(DOCUMENT, "upper.size_bytes", size))
    assert manifest.upper.size_bytes == size
    assert b'"size_bytes":%d,' % size in manifest.to_bytes()


@pytest.mark.parametrize("size", [-1, 2**64, 10**30, "1", None])
def test_wrong_sizes(size: object) -> None:
    with pytest.raises(DocumentError):
        parse(changed(DOCUMENT, "upper.size_bytes", size))


@pytest.mark.parametrize("text", ["", "not a date", "2026-99-99"])
def test_created_at_is_not_judged(text: str) -> None:
    assert parse(changed(DOCUMENT, "created_at", text)).created_at == text


@pytest.mark.parametrize("text", ["../c/upper.ext4", "/etc/hostname", "."])
def test_upper_file_is_not_judged(text: str) -> None:
    assert parse(changed(DOCUMENT, "upper.file", text)).upper.file == text


@pytest.mark.parametrize(
    ("raw", "problem"),
    [
        (SAMPLE.replace(b'"schema":1', b'"schema":1,"schema":1'), "duplicate key 'schema'"),
        (SAMPLE.replace(b'"owner"', b'"stage"'), "duplicate key 'stage'"),
        (SAMPLE.replace(b"alice", b"\\ud800"), "lone surrogate"),
        (SAMPLE.replace(b"alice", b"\xff"), "expected UTF-8"),
        (SAMPLE.replace(b"4294967296", b"-0"), "expected a 64-bit integer, got -0"),
        (SAMPLE + b"x", "Extra data"),
        (SAMPLE[:-1], "expected JSON"),
        (b"\xef\xbb\xbf" + SAMPLE, "byte order mark"),
        (b"[" + SAMPLE + b"]", "expected a JSON object, got list"),
        (SAMPLE + b" " * spec.MAX_MANIFEST, "at most 4194304 bytes"),
        (b"", "expected JSON"),
    ],
)
def test_strict_json(raw: bytes, problem: str) -> None:
    assert raw != SAMPLE
    with pytest.raises(DocumentError, match=problem):
        Manifest.parse(raw, subject="m.json")


def test_a_manifest_that_exists_is_valid() -> None:
    for change, problem in [
        ({"fstype": ""}, "empty fstype"),
        ({"parent": "x"}, "parent is not a digest"),
        ({"source_sandbox": "\udc80"}, "lone surrogate"),
        ({"labels": {"\ud800": ""}}, "lone surrogate"),
        ({"upper": UpperLayer(file="f", size_bytes=-1)}, "got -1"),
        ({"upper": UpperLayer(file="f", size_bytes=2**64)}, "got 18446744073709551616"),
        ({"labels": {"a": "x" * spec.MAX_MANIFEST}}, "at most 4194304 bytes"),
    ]:
        with pytest.raises(DocumentError, match=f"snapshot manifest: .*{problem}"):
            dataclasses.replace(sample(), **change)  # type: ignore[arg-type]


# --- values ----------------------------------------------------------------------------------------------------------


def test_manifests_are_hashable_and_frozen() -> None:
    mine = {"b": "2", "a": "1"}
    manifest = dataclasses.replace(sample(), labels=mine)
    mine["c"] = "3"
    assert dict(manifest.labels) == {"a": "1", "b": "2"}
    assert list(manifest.labels) == ["a", "b"]
    assert len({manifest, dataclasses.replace(manifest)}) == 1
    with pytest.raises(dataclasses.FrozenInstanceError):
        manifest.fstype = "xfs"  # type: ignore[misc]


def test_labels() -> None:
    labels = Labels({"b": "2", "a": "1"})
    assert labels == {"a": "1", "b": "2"}
    assert labels["a"] == "1"
    assert hash(labels) == hash(Labels({"a": "1", "b": "2"}))
    assert repr(labels) == "{'a': '1', 'b': '2'}"
    assert not hasattr(labels, "__setitem__")


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
NONEMPTY = TEXTS.filter(bool)
DIGESTS = st.builds("{}:{}".format, NONEMPTY.filter(lambda text: ":" not in text), NONEMPTY)
MANIFESTS = st.builds(
    Manifest,
    format=st.sampled_from(SnapshotFormat),
    fstype=NONEMPTY,
    image=st.builds(ImageRef, ref=NONEMPTY, manifest_digest=DIGESTS),
    parent=st.none() | DIGESTS,
    created_at=TEXTS,
    labels=st.dictionaries(TEXTS, TEXTS, max_size=5),
    upper=st.builds(
        UpperLayer,
        file=NONEMPTY,
        size_bytes=st.integers(0, 2**64 - 1),
        integrity=st.none() | st.builds(UpperIntegrity, algorithm=NONEMPTY, digest=DIGESTS),
    ),
    source_sandbox=st.none() | TEXTS,
)


@given(MANIFESTS)
def test_parse_undoes_to_bytes(manifest: Manifest) -> None:
    raw = manifest.to_bytes()
    again = Manifest.parse(raw, subject="m")
    assert again == manifest
    assert again.to_bytes() == raw
    assert again.id == Digest.of(raw)


@given(MANIFESTS, st.randoms(use_true_random=False), st.booleans(), st.sampled_from([None, 1, "\t"]))
def test_id_does_not_depend_on_how_the_file_is_written(
    manifest: Manifest, rng: Any, ascii_only: bool, indent: int | str | None
) -> None:
    def shuffled(value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        keys = list(value)
        rng.shuffle(keys)
        return {key: shuffled(value[key]) for key in keys}

    text = json.dumps(shuffled(manifest.to_dict()), ensure_ascii=ascii_only, indent=indent)
    again = Manifest.parse(f" {text}\r\n".encode(), subject="m")
    assert again.id == manifest.id
    assert again == manifest


@given(st.text(st.characters(max_codepoint=0x10FFFF, exclude_categories=["Cs"])))
def test_escapes_what_json_must_and_nothing_else(text: str) -> None:
    """serde_json: short escapes for seven characters, \\u00xx in lower case for other controls, the rest as it is."""
    short = {"\b": "\\b", "\t": "\\t", "\n": "\\n", "\f": "\\f", "\r": "\\r", '"': '\\"', "\\": "\\\\"}
    escaped = "".join(short.get(c) or (f"\\u{ord(c):04x}" if c < " " else c) for c in text)
    raw = dataclasses.replace(sample(), created_at=text).to_bytes()
    assert f'"created_at":"{escaped}","labels"'.encode() in raw


# --- times -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ns", "text"),
    [
        (0, "1970-01-01T00:00:00+00:00"),
        (1795342337_346514995, "2026-11-22T10:12:17.346514995+00:00"),
        (1795342337_346514000, "2026-11-22T10:12:17.346514+00:00"),
        (1795342337_346000000, "2026-11-22T10:12:17.346+00:00"),
        (1795342337_000000000, "2026-11-22T10:12:17+00:00"),
        (1795342337_000000001, "2026-11-22T10:12:17.000000001+00:00"),
        (1795342337_100000000, "2026-11-22T10:12:17.100+00:00"),
        (1795342337_000010000, "2026-11-22T10:12:17.000010+00:00"),
        (-1, "1969-12-31T23:59:59.999999999+00:00"),
        (-62135596800 * 10**9, "0001-01-01T00:00:00+00:00"),
        (253402300799_999999999, "9999-12-31T23:59:59.999999999+00:00"),
    ],
)
def test_format_created_at(ns: int, text: str) -> None:
    assert format_created_at(ns) == text
    assert is_rfc3339(text)


@pytest.mark.parametrize("ns", [253402300800 * 10**9, -62135596801 * 10**9])
def test_times_have_four_digit_years(ns: int) -> None:
    with pytest.raises(OverflowError):
        format_created_at(ns)


@given(st.integers(0, 253402300799_999999999))
def test_created_at_says_the_time_exactly(ns: int) -> None:
    match = re.fullmatch(r"(.{19})(?:\.(\d{3}|\d{6}|\d{9}))?\+00:00", format_created_at(ns))
    assert match
    time = datetime.fromisoformat(match[1]).replace(tzinfo=UTC) - datetime(1970, 1, 1, tzinfo=UTC)
    assert time // timedelta(seconds=1) * 10**9 + int((match[2] or "").ljust(9, "0")) == ns


@pytest.mark.parametrize(
    "text",
    [
        "2026-05-01T12:00:00Z",
        "2026-05-01T12:00:00.5Z",
        "2026-05-01T12:00:00.1234567890123+23:59",
        "2024-02-29T23:59:59-00:00",
    ],
)
def test_rfc3339(text: str) -> None:
    assert is_rfc3339(text)


@pytest.mark.parametrize(
    "text",
    [
        *("", "not a date", "2026-05-01", "2026-05-01T12:00:00", "2026-05-01T12:00Z", "2026-05-01 12:00:00Z"),
        *("2026-05-01t12:00:00z", "2026-05-01T12:00:00Z\n", " 2026-05-01T12:00:00Z", "2026-05-01T12:00:00.Z"),
        *("2026-13-01T12:00:00Z", "2026-02-29T12:00:00Z", "2026-05-01T24:00:00Z", "2026-05-01T12:60:00Z"),
        *("2026-05-01T12:00:60Z", "2026-05-01T12:00:00+24:00", "2026-05-01T12:00:00+00:60"),
        *("2026-05-01T12:00:00+0000", "20260501T120000Z", "0000-01-01T00:00:00Z", "٢٠٢٦-05-01T12:00:00Z"),
    ],
)
def test_not_rfc3339(text: str) -> None:
    assert not is_rfc3339(text)


@given(st.data())
@settings(max_examples=300)
def test_what_looks_canonical_passes_the_schema(data: st.DataObject) -> None:
    require_schema_agrees(data, sample().to_bytes(), manifest._USUAL, "snapshot-manifest")
