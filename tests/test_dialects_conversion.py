"""Conversions: what microsandbox makes of older forms, byte for byte, and what the other way keeps or refuses."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from casstore.dialects import MEDIA_TYPES, parse_manifest, sniff
from casstore.dialects.conversion import KEEP, Keep, convert
from casstore.dialects.sidecars import labels_to_bytes
from casstore.dialects.v06 import Manifest06
from casstore.dialects.v07 import Manifest07
from casstore.errors import UnsupportedVersion
from casstore.manifest import Dialect, Manifest, SnapshotFormat, UpperIntegrity
from tests.support.dialects import VECTORS, disordered, documents_06, documents_07
from tests.support.microsandbox import RealTool, Version

V04, V06, V07 = Dialect
SHA = UpperIntegrity(algorithm="sha256", digest="sha256:" + "a" * 64)
MERKLE = UpperIntegrity(algorithm="msb-file-merkle-blake3-v1", digest="blake3:" + "b" * 64)


def vector(name: str) -> Manifest:
    data = (VECTORS / name).read_bytes()
    return parse_manifest(data, MEDIA_TYPES[sniff(data, subject=name)], subject=name)


def seven(name: str, **change: Any) -> Manifest07:
    manifest = vector(name)
    assert isinstance(manifest, Manifest07)
    return replace(manifest, **change)


ROOT, CHILD = vector("04-root.json"), vector("04-child.json")
SIX, SEVEN = vector("06-of-04-root.json"), vector("07-of-04-root.json")


def converted(manifests: Mapping[str, Manifest], dialect: Dialect) -> dict[str, Manifest]:
    """A whole lineage, by id: parents before their children."""
    done: dict[str, Manifest] = {}
    for id_, manifest in manifests.items():
        done[id_] = convert(manifest, dialect, parent=done.get(manifest.parent or ""))
    return done


@pytest.mark.parametrize(("dialect", "name"), [(V06, "06-of-04"), (V07, "07-of-04")])
def test_a_lineage_of_0_4_is_what_the_real_tool_makes_of_it(dialect: Dialect, name: str) -> None:
    root = convert(ROOT, dialect)
    child = convert(CHILD, dialect, parent=root)
    assert (root, child.to_bytes()) == (
        replace(vector(f"{name}-root.json"), labels=ROOT.labels),
        (VECTORS / f"{name}-child.json").read_bytes(),
    )
    assert child.parent == root.known_as
    assert root.labels == ROOT.labels


def test_a_lineage_of_0_6_is_what_0_7_makes_of_it() -> None:
    root = convert(SIX, V07)
    child = convert(vector("06-of-04-child.json"), V07, parent=root)
    assert root.to_bytes() == (VECTORS / "07-of-06-of-04-root.json").read_bytes()
    assert child.to_bytes() == (VECTORS / "07-of-06-of-04-child.json").read_bytes()
    assert root.known_as != convert(ROOT, V07).known_as, "its names are made of the id that it had in 0.6"


def test_a_parent_that_is_not_at_hand() -> None:
    """Only 0.7 has a name for it that follows from the id."""
    assert convert(CHILD, V07) == convert(CHILD, V07, parent=convert(ROOT, V07))
    assert convert(vector("06-of-04-child.json"), V07).parent == convert(SIX, V07).known_as
    assert convert(CHILD, V06).parent is None
    assert convert(vector("07-of-04-child.json"), V04).parent is None
    assert convert(vector("07-of-04-child.json"), V04, parent=ROOT).parent == str(ROOT.id)


@pytest.mark.parametrize("manifest", [ROOT, SIX, SEVEN])
@pytest.mark.parametrize("dialect", Dialect)
@pytest.mark.parametrize("integrity", [KEEP, None, SHA])
def test_each_form_in_each_other(manifest: Manifest, dialect: Dialect, integrity: UpperIntegrity | Keep | None) -> None:
    made = convert(manifest, dialect, integrity=integrity)
    assert made.dialect is dialect
    assert (made.image, made.fstype, made.source_sandbox) == (manifest.image, manifest.fstype, manifest.source_sandbox)
    assert made.labels == manifest.labels
    assert made.upper.size_bytes == manifest.upper.size_bytes
    assert made.upper.integrity == (manifest.upper.integrity if isinstance(integrity, Keep) else integrity)
    if manifest.dialect is dialect and integrity is KEEP:
        assert made is manifest
    if dialect is not V07:
        assert made.upper.file == "upper.ext4"
    assert convert(manifest, dialect, integrity=integrity) == made


@given(documents_06(), st.integers(0, 5))
@settings(max_examples=50)
def test_what_0_6_says_comes_back_from_the_others(document: Any, seed: int) -> None:
    data = disordered({**document, "extensions": {}, "requires": [], "parent": None}, seed)
    manifest = Manifest06.parse(data, subject="m")
    assert convert(convert(manifest, V07), V06) == manifest
    older = convert(manifest, V04, integrity=None)
    assert convert(older, V06, integrity=manifest.upper.integrity) == manifest


@given(documents_07(most=1))
@settings(max_examples=50)
def test_what_0_7_says_of_a_raw_disk_can_be_said_by_all(document: Any) -> None:
    document |= {"extensions": {}, "requires": [], "root_disk": {"layout": "managed"}}
    manifest = Manifest07.parse(json.dumps(document).encode(), subject="m", labels={"a": "b"})
    for dialect in (V04, V06):
        made = convert(manifest, dialect, integrity=SHA)
        again = convert(made, V07)
        assert (again.labels, again.created_at) == (manifest.labels, manifest.created_at)
        assert again.upper.size_bytes == manifest.upper.size_bytes


@pytest.mark.parametrize(
    ("manifest", "dialect", "options", "says"),
    [
        (seven("07-chain.json", extensions="{}", requires=()), V04, {}, "expected one raw layer, got 3"),
        (seven("07-chain.json", extensions="{}", requires=()), V06, {}, "expected one raw layer, got 3"),
        (
            seven("07-chain.json", extensions="{}", requires=()),
            V07,
            {"integrity": SHA},
            "expected one raw layer, got 3",
        ),
        (vector("07-chain.json"), V06, {}, "expected no extensions"),
        (vector("06-odd.json"), V07, {}, "expected no extensions"),
        (vector("06-odd.json"), V04, {"integrity": None}, "expected no extensions"),
        (seven("07-of-04-root.json", layout="flat"), V06, {}, "expected a managed root disk"),
        (replace(ROOT, format=SnapshotFormat.QCOW2), V07, {}, "expected a raw disk"),
        (replace(SIX, upper=replace(SIX.upper, integrity=MERKLE)), V04, {}, "expected another algorithm"),
        (replace(ROOT, created_at="yesterday"), V06, {}, "expected a time"),
        (replace(ROOT, image=replace(ROOT.image, manifest_digest="a:b")), V06, {}, "image.manifest_digest"),
        (replace(ROOT, parent="a:b"), V07, {}, "snap_ and 32 lower-case hex digits"),
        (replace(ROOT, upper=replace(ROOT.upper, file="snapshot.json")), V06, {}, "reserved snapshot.json"),
        (replace(ROOT, upper=replace(ROOT.upper, size_bytes=2**53)), V07, {}, "2\\^53"),
    ],
)
def test_what_a_form_cannot_say_is_refused(
    manifest: Manifest, dialect: Dialect, options: dict[str, Any], says: str
) -> None:
    with pytest.raises(UnsupportedVersion, match=says) as caught:
        convert(manifest, dialect, **options)
    assert str(caught.value).startswith(f"snapshot {manifest.id} in the form of {dialect.value}: ")


def test_a_qcow2_of_0_4_is_one_of_0_6() -> None:
    made = convert(replace(ROOT, format=SnapshotFormat.QCOW2), V06)
    assert (made.dialect, made.format) == (V06, SnapshotFormat.QCOW2)
    assert convert(made, V04, integrity=None).format is SnapshotFormat.QCOW2


# --- the real tools --------------------------------------------------------------------------------------------------

_LEGACY = ".manifest.json.legacy"


def _legacy(documents: list[Any]) -> dict[str, Manifest]:
    """Documents of 0.4, each the parent of the next, by id."""
    found: dict[str, Manifest] = {}
    for n, six in enumerate(documents):
        upper = six["state"]["upper"]
        if upper["integrity"] and "root" in upper["integrity"]:
            upper["integrity"] = None
        document = {
            "schema": 1,
            "format": "raw",
            "fstype": "ext4",
            "image": six["image"],
            "parent": next(reversed(found), None) if n % 3 else None,
            "created_at": six["created_at"],
            "labels": six["labels"],
            "upper": {**upper, "size_bytes": n},
            "source_sandbox": six["source_sandbox"],
        }
        manifest = Manifest.parse(json.dumps(document).encode(), subject="m")
        found[str(manifest.id)] = manifest
    return found


@pytest.mark.needs("microsandbox")
@pytest.mark.parametrize(("version", "dialect"), [("0.6.18", V06), ("0.7.11", V07)])
def test_the_real_tool_migrates_to_the_same_documents(version: Version, dialect: Dialect, tmp_path: Path) -> None:
    documents: list[Any] = []

    @given(documents_06())
    @settings(max_examples=30, database=None)
    def draw(document: Any) -> None:
        documents.append(document)

    draw()
    manifests = _legacy(documents)
    tool = RealTool(version, tmp_path / "home")
    for n, manifest in enumerate(manifests.values()):
        folder = tool.home / "snapshots" / f"s{n}"
        folder.mkdir(parents=True)
        (folder / "manifest.json").write_bytes(manifest.to_bytes())
        (folder / "upper.ext4").write_bytes(bytes(manifest.upper.size_bytes))
    tool.cli("snapshot", "list")
    expected = converted(manifests, dialect)
    written = sorted((tool.home / "snapshots").rglob("snapshot.json"))
    assert len(written) == len(manifests)
    for path in written:
        was = Manifest.parse((path.parent / _LEGACY).read_bytes(), subject="m")
        made = expected[str(was.id)]
        assert path.read_bytes() == made.to_bytes()
        beside = path.parent / "metadata.json"
        if dialect is V07 and made.labels:
            assert beside.read_bytes() == labels_to_bytes(made.labels)
        else:
            assert not beside.exists()
