"""Artifact directories of microsandbox: all three forms into a store and out of it. What the real tools say of them is
in test_microsandbox_matrix.py.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import shutil
import signal
import struct
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from casstore import Store
from casstore.errors import (
    AlreadyExists,
    CasstoreError,
    CorruptContent,
    DigestMismatch,
    DocumentError,
    NotFound,
    SizeMismatch,
    SourceError,
    UnsupportedVersion,
    UsageError,
)
from casstore.importing import ImportOptions
from casstore.integrity import ALGORITHMS, hasher
from casstore.manifest import Dialect
from casstore.microsandbox.directory import read_directory, read_tree
from casstore.progress import ProgressEvent
from tests.support import disks
from tests.support.command import Casstore
from tests.support.microsandbox import copy_artifact, snapshots, unpack
from tests.support.seed import make_artifact, sha256
from tests.support.stores import (
    FAST,
    blob_path,
    content,
    flip_byte,
    leftovers,
    link_refs,
    names,
    python,
    require_sound,
    write_disk,
)

MIB = 1 << 20
STRICT = ImportOptions(strict=True)
FORCE = ImportOptions(force=True)
RECORDED = {name: algorithm.recorded for name, algorithm in ALGORITHMS.items()}


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the three microsandboxes made, each in its folder."""
    folder = tmp_path_factory.mktemp("fixtures")
    for version in ("0.4.4", "0.6.18", "0.7.11"):
        for name in snapshots(version):
            (folder / version).mkdir(exist_ok=True)
            unpack(version, name, folder / version)
    return folder


def digest_of(path: Path, name: str, extents: list[tuple[int, int]] | None = None) -> str:
    """A digest of a disk's content, with its extents or others."""
    digester = hasher(name, path.stat().st_size)
    with path.open("rb") as file:
        for start, length in disks.extents(path) if extents is None else extents:
            digester.begin_extent(start, length)
            for at in range(start, start + length, MIB):
                digester.update(os.pread(file.fileno(), min(MIB, start + length - at), at))
    return digester.finish()


def record(artifact: Path, name: str, digest: str) -> Path:
    """Let the document of an artifact directory of 0.4 record this integrity."""
    document = json.loads((artifact / "manifest.json").read_bytes())
    document["upper"]["integrity"] = {"algorithm": RECORDED[name], "digest": digest}
    (artifact / "manifest.json").write_text(json.dumps(document))
    return artifact


def artifact_of(disk: Path, folder: Path, name: str | None = None, digest: str = "") -> Path:
    """An artifact directory of 0.4 with a copy of a disk, holes and all; `name` is the algorithm to record."""
    artifact, _ = make_artifact(folder, "artifact", b"")
    subprocess.run(["cp", "--sparse=auto", disk, artifact / "upper.ext4"], check=True)
    document = json.loads((artifact / "manifest.json").read_bytes())
    document["upper"]["size_bytes"] = disk.stat().st_size
    (artifact / "manifest.json").write_text(json.dumps(document))
    return artifact if name is None else record(artifact, name, digest or digest_of(artifact / "upper.ext4", name))


def make_dense(path: Path) -> Path:
    path.write_bytes(path.read_bytes())
    return path


# --- in ---------------------------------------------------------------------------------------------------------------


def test_a_tree_is_taken_in_with_the_names_that_it_has(store: Store, tree: Path) -> None:
    report = store.import_tree(tree / "0.4.4")
    assert not report.skipped
    assert not any(imported.warnings for imported in report.imported)
    assert names(store) == snapshots("0.4.4")
    order = [str(imported.names[0]) for imported in report.imported]
    assert order.index("chain-root") < order.index("chain-mid") < order.index("chain-head")
    ids = [store.get(f"chain-{part}").id for part in ("root", "mid")]
    assert [store.get(f"chain-{part}").parent_digest for part in ("mid", "head")] == list(map(str, ids))
    require_sound(Path(store.path))


def test_a_group_is_taken_in_as_its_members_and_its_head(store: Store, tree: Path) -> None:
    report = store.import_tree(tree / "0.7.11")
    assert not report.skipped
    assert names(store) == ["base", "base.after-pip", "base.plain", "templates", "templates.tmpl"]
    assert store.get("base").digest == store.get("base.plain").digest
    assert store.get("base.after-pip").labels == {"owner": "alice", "stage": "post-deps", "é": 'ü"\\/'}
    alone = Store.init(Path(store.path).with_name("alone"), options=FAST)
    assert not alone.import_tree(tree / "0.7.11" / "base").skipped
    assert names(alone) == ["base", "base.after-pip", "base.plain"]


def test_a_migrated_directory_is_what_its_newer_document_says(store: Store, tree: Path) -> None:
    imported = store.import_directory(tree / "0.6.18" / "chain-head")
    snapshot = store.open_snapshot("chain-head")
    assert snapshot.manifest.dialect is Dialect.V06
    assert snapshot.id == imported.created.manifest.id
    assert snapshot.parent == "sha256:648b65ef3d47dc4dbfc4467b6e8f4b0bb8ecaef42c8252e9032c74a2c24a6bd3"  # not here


def test_a_member_that_07_took_from_04_has_its_disk_where_it_was(store: Store, tree: Path, tmp_path: Path) -> None:
    old = tree / "0.4.4" / "plain"
    store.import_directory(old, name="old")
    made = Path(store.restore("old", tmp_path / "group" / "snap_1", dialect=Dialect.V07))
    place = made.parents[1]
    made.rename(place / "upper.ext4")
    made.parent.rmdir()
    shutil.copy(old / "manifest.json", place / ".manifest.json.legacy")
    assert not store.import_tree(tmp_path).skipped
    member = store.open_snapshot("group.1")
    assert str(member.id) == "sha256:ca7863906e9ce07851792eeb2189980b684165547eae35b892bfc2f341510e17"
    again = Path(store.restore("group.1", f"{tmp_path}/again/"))
    assert again.parent.name == "layers"
    assert disks.same_bytes(again, old / "upper.ext4")


def test_a_second_time_finds_everything_unchanged(store: Store, tree: Path) -> None:
    for version in ("0.4.4", "0.7.11"):
        store.import_tree(tree / version)
    before = link_refs(Path(store.path)), sorted(os.listdir(Path(store.path, "blobs/sha256")))
    for version in ("0.4.4", "0.7.11"):
        report = store.import_tree(tree / version)
        assert not report.skipped
        assert not any(imported.is_new for imported in report.imported)
    assert (link_refs(Path(store.path)), sorted(os.listdir(Path(store.path, "blobs/sha256")))) == before


def test_what_is_malformed_is_named_and_skipped(store: Store, tmp_path: Path) -> None:
    place = tmp_path / "snapshots"
    make_artifact(place, "good", b"good")
    (place / "not-an-artifact").mkdir()
    (place / "file").write_text("")
    make_artifact(place, ".staging", b"hidden")
    bad, _ = make_artifact(place, "bad", b"bad", schema=42)
    missing, _ = make_artifact(place, "missing", b"missing")
    (missing / "upper.ext4").unlink()
    (place / "linked").symlink_to("good")
    report = store.import_tree(place)
    assert names(store) == ["good", "linked"]
    assert [path for path, _ in report.skipped] == [str(bad), str(missing)]
    assert isinstance(report.skipped[0][1], UnsupportedVersion)
    assert isinstance(report.skipped[1][1], SourceError)
    with pytest.raises(NotFound):
        store.import_tree(tmp_path / "nothing")


@pytest.mark.parametrize("file", ["snapshot.json", "metadata.json", "group-member.json", "../group.json"])
def test_a_folder_in_the_place_of_a_document_is_one_malformed_artifact(
    store: Store, tree: Path, tmp_path: Path, file: str
) -> None:
    source = next((tree / "0.7.11" / "templates").glob("snap_*"))
    bad = copy_artifact(source, tmp_path / "snapshots" / "bad" / source.name)
    make_artifact(tmp_path / "snapshots", "good", b"good")
    with contextlib.suppress(FileNotFoundError):
        (bad / file).unlink()
    (bad / file).mkdir()
    report = store.import_tree(tmp_path / "snapshots")
    assert [str(error).partition(": ")[2] for _, error in report.skipped] == ["expected a regular file"]
    assert "good" in names(store)


def test_a_folder_that_cannot_be_read_is_told(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One of them, among others, or in a group; root may read them all, so the answer is made up."""
    place = tmp_path / "snapshots"
    make_artifact(place, "good", b"good")
    (place / "secret").mkdir()
    access = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: not str(path).endswith("secret") and access(path, mode))
    report = store.import_tree(place)
    assert names(store) == ["good"]
    assert [path for path, _ in report.skipped] == [str(place / "secret")]


def test_none_of_a_tree_takes_a_name_from_another_one_of_it(store: Store, tmp_path: Path) -> None:
    make_artifact(tmp_path, "a b", b"one")
    make_artifact(tmp_path, "a-b", b"two!")
    first = store.import_tree(tmp_path, options=FORCE)
    assert [type(error) for _, error in first.skipped] == [AlreadyExists]
    assert content(store, "a-b") == b"one"
    (tmp_path / "a b").rename(tmp_path / ".hidden")
    assert not store.import_tree(tmp_path, options=FORCE).skipped
    assert content(store, "a-b") == b"two!"


def test_a_name_that_is_taken_is_left_alone(store: Store, tmp_path: Path) -> None:
    make_artifact(tmp_path / "one", "same", b"one")
    make_artifact(tmp_path / "two", "same", b"two")  # of equal length: the same id, other content
    store.import_tree(tmp_path / "one")
    first = store.get("same")
    report = store.import_tree(tmp_path / "two")
    assert [type(error) for _, error in report.skipped] == [AlreadyExists]
    assert store.get("same").digest == first.digest
    with pytest.raises(AlreadyExists):
        store.import_directory(tmp_path / "two" / "same")
    assert store.import_directory(tmp_path / "two" / "same", options=FORCE).is_new
    assert (store.get("same").id, store.get("same").digest == first.digest) == (first.id, False)


@pytest.mark.parametrize(
    ("called", "name"), [("a b", "a-b"), ("~a", "a"), ("sha256:abc", "sha256-abc"), ("é", "snapshot"), ("_x_", "x")]
)
def test_a_name_that_is_none_here_becomes_one_like_it(store: Store, tmp_path: Path, called: str, name: str) -> None:
    artifact, digest = make_artifact(tmp_path, called, b"upper")
    assert store.import_directory(artifact).names == [name]
    assert str(store.get(name).id) == digest


# --- refusals ---------------------------------------------------------------------------------------------------------


def _replace(field: str) -> Callable[[Path], None]:
    def change(artifact: Path) -> None:
        document = json.loads((artifact / "manifest.json").read_bytes())
        document["upper"]["file"] = field
        (artifact / "manifest.json").write_text(json.dumps(document))

    return change


def _linked(artifact: Path) -> None:
    (artifact / "upper.ext4").rename(artifact.parent / "elsewhere")
    (artifact / "upper.ext4").symlink_to("../elsewhere")


def _fifo(artifact: Path) -> None:
    (artifact / "upper.ext4").unlink()
    os.mkfifo(artifact / "upper.ext4")


def _link_document(artifact: Path) -> None:
    (artifact / "manifest.json").rename(artifact / "other.json")
    (artifact / "manifest.json").symlink_to("other.json")


REFUSED: list[tuple[str, type[CasstoreError], Callable[[Path], object]]] = [
    ("other bytes", DigestMismatch, lambda artifact: (artifact / "upper.ext4").write_bytes(b"UPPER")),
    ("shorter", SizeMismatch, lambda artifact: (artifact / "upper.ext4").write_bytes(b"uppe")),
    ("longer", SizeMismatch, lambda artifact: (artifact / "upper.ext4").write_bytes(b"upper!")),
    ("missing", SourceError, lambda artifact: (artifact / "upper.ext4").unlink()),
    ("symlink", SourceError, _linked),
    ("fifo", SourceError, _fifo),
    ("up", DocumentError, _replace("../c/upper.ext4")),
    ("absolute", DocumentError, _replace("/etc/hostname")),
    ("folder", DocumentError, _replace("a/upper.ext4")),
    ("dots", DocumentError, _replace("..")),
    ("NUL", DocumentError, _replace("a\0b")),
    ("no document", NotFound, lambda artifact: (artifact / "manifest.json").unlink()),
    ("linked document", SourceError, _link_document),
    ("folder as document", SourceError, lambda artifact: (artifact / "snapshot.json").mkdir()),
    ("fifo as document", SourceError, lambda artifact: os.mkfifo(artifact / "snapshot.json")),
    ("no JSON", DocumentError, lambda artifact: (artifact / "manifest.json").write_text("{")),
    ("huge document", DocumentError, lambda artifact: (artifact / "manifest.json").write_bytes(b" " * 5 * MIB)),
    ("checkpoint", UnsupportedVersion, lambda artifact: (artifact / "snapshot.json").write_text('{"schema":"x/2"}')),
]


@pytest.mark.parametrize(("kind", "error", "damage"), REFUSED, ids=[kind for kind, _, _ in REFUSED])
def test_what_is_refused_leaves_nothing(
    store: Store, tmp_path: Path, kind: str, error: type[CasstoreError], damage: Callable[[Path], object]
) -> None:
    artifact, _ = make_artifact(tmp_path, "artifact", b"upper", integrity=True)
    damage(artifact)
    with pytest.raises(error, match="artifact"):
        store.import_directory(artifact)
    assert names(store) == []
    assert not leftovers(Path(store.path))
    assert not os.listdir(Path(store.path, "blobs/sha256"))


def test_layers_are_not_looked_for_behind_a_symlink(store: Store, tree: Path, tmp_path: Path) -> None:
    source = next((tree / "0.7.11" / "templates").glob("snap_*"))
    member = copy_artifact(source, tmp_path / "member")
    (member / "layers").rename(tmp_path / "layers")
    (member / "layers").symlink_to("../layers")
    with pytest.raises(SourceError, match="layers"):
        store.import_directory(member)


# --- integrity --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", list(ALGORITHMS))
@pytest.mark.parametrize("form", ["sparse", "dense"])
def test_every_recorded_integrity_is_verified(store: Store, tmp_path: Path, name: str, form: str) -> None:
    """The digest is one of the sparse file: a dense copy of it is recognised by its zero blocks."""
    disk = write_disk(tmp_path / "disk", 1, 0, 0, 2, 0)
    artifact = artifact_of(disk, tmp_path / "in", name)
    if form == "dense":
        make_dense(artifact / "upper.ext4")
    imported = store.import_directory(artifact, options=STRICT)
    assert not imported.warnings
    upper = store.verify("artifact").upper
    assert (upper.kind, upper.meaning) == ("verified", name)
    back = Path(store.restore("artifact", f"{tmp_path}/out/"))
    assert disks.same_bytes(back, disk)
    if form == "sparse" or name == "sparse":
        assert disks.extents(back) == disks.extents(disk)
    bad = record(copy_artifact(artifact, tmp_path / "bad"), name, "sha256:" + 64 * "0")
    if form == "dense" and RECORDED[name] == RECORDED["sparse"]:
        assert store.import_directory(bad).warnings
    else:
        with pytest.raises(DigestMismatch, match="upper digest mismatch"):
            store.import_directory(bad)


def test_a_digest_of_another_allocation_is_refused_where_there_are_holes(store: Store, tmp_path: Path) -> None:
    disk = write_disk(tmp_path / "disk", 1, 0, 2)
    artifact = artifact_of(disk, tmp_path / "in", "sparse", digest_of(disk, "sparse", [(0, disk.stat().st_size)]))
    with pytest.raises(DigestMismatch, match="upper digest mismatch"):
        store.import_directory(artifact)


def test_allocated_zeros_are_told_from_holes_by_the_digest(store: Store, tmp_path: Path) -> None:
    """Preallocated, read, written with zeros: the digest says which, if one of the ways holds."""
    size = 8 * MIB
    disk = tmp_path / "disk"
    data = bytearray(size)
    data[MIB : MIB + 5] = b"hello"
    disk.write_bytes(data)
    for n, extents in enumerate(([(0, size)], [(MIB, 4096)])):
        artifact = artifact_of(disk, tmp_path / f"in{n}", "sparse", digest_of(disk, "sparse", extents))
        make_dense(artifact / "upper.ext4")
        store.import_directory(artifact, name=f"s{n}", options=STRICT)
        back = Path(store.restore(f"s{n}", tmp_path / f"out{n}"))
        assert disks.extents(back) == extents
        assert back.read_bytes() == data
    half = artifact_of(disk, tmp_path / "half", "sparse", digest_of(disk, "sparse", [(0, 2 * MIB)]))
    make_dense(half / "upper.ext4")
    with pytest.raises(DigestMismatch):
        store.import_directory(half, options=STRICT)
    imported = store.import_directory(half)
    [warning] = imported.warnings
    assert "cannot be verified any more" in warning
    assert store.verify("artifact").upper.kind == "unverifiable"
    assert not imported.created.damaged
    require_sound(Path(store.path))


def test_a_golden_digest_of_each_meaning(store: Store, tmp_path: Path) -> None:
    """As microsandbox computed them of 64 MiB with "hello" at 8 MiB."""
    disk = tmp_path / "disk"
    with disk.open("wb") as out:
        out.seek(8 * MIB)
        out.write(b"hello")
        out.truncate(64 * MIB)
    golden = {
        "sparse": "sha256:4544fdea104218d8a24ecb2aae1249d52fd580c8a1522c8cee8e1443dffc8292",
        "sparse-zero": "sha256:e9145ae92e9a4951aea5de07a6f4d87100db2797ed85aea6907e7a92fa0b2249",
        "blake3-merkle": "blake3:5bcec0112888e9a09336b42e4bbedd9b3efb0c5e938831d92f9804fbf7eaa70c",
    }
    for name, digest in golden.items():
        artifact = artifact_of(disk, tmp_path / name, name, digest)
        assert store.import_directory(artifact, name=name, options=STRICT).created.manifest.disks[0].integrity
        assert store.verify(name).upper.meaning == name


def test_an_unknown_algorithm_is_not_guessed(store: Store, tmp_path: Path) -> None:
    artifact, _ = make_artifact(tmp_path, "artifact", b"upper")
    document = json.loads((artifact / "manifest.json").read_bytes())
    document["upper"]["integrity"] = {"algorithm": "md5", "digest": "md5:00"}
    (artifact / "manifest.json").write_text(json.dumps(document))
    with pytest.raises(UnsupportedVersion, match="unsupported upper integrity algorithm: md5"):
        store.import_directory(artifact)


# --- out --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", ["0.4.4", "0.6.18", "0.7.11"])
def test_what_goes_out_is_what_came_in(store: Store, tree: Path, tmp_path: Path, version: str) -> None:
    found = read_tree(str(tree / version)).found
    for n, each in enumerate(found):
        source = Path(each.artifact.path)
        store.import_directory(source, name=f"s{n}")
        out = Path(os.path.dirname(store.restore(f"s{n}", f"{tmp_path}/s{n}/")))
        out = out.parent if out.name == "layers" else out
        written = read_directory(str(out))
        assert written.manifest == each.artifact.manifest
        assert written.sidecars == each.artifact.sidecars
        name = written.manifest.filename
        assert (out / name).read_bytes() == (source / name).read_bytes()
        for file in written.manifest.disks:
            folder = "layers" if version == "0.7.11" else ""
            assert disks.same_bytes(out / folder / file.name, source / folder / file.name)
            assert disks.extents(out / folder / file.name) == disks.extents(source / folder / file.name)
            assert disks.allocated(out / folder / file.name) == disks.allocated(source / folder / file.name)


@settings(max_examples=8)
@given(
    layout=disks.segments(most=5, blocks=30),
    way=st.permutations(list(Dialect)),
    name=st.sampled_from([None, "sha256", "sparse", "sparse-zero"]),
)
def test_every_form_tells_the_same(
    tmp_path_factory: pytest.TempPathFactory, layout: list[disks.Segment], way: list[Dialect], name: str | None
) -> None:
    tmp_path = tmp_path_factory.mktemp("forms")
    disk = tmp_path / "disk"
    disks.write_segments(disk, layout)
    with Store.init(tmp_path / "store", options=FAST) as store:
        artifact = artifact_of(disk, tmp_path / "in", name)
        disk = artifact / "upper.ext4"  # the copy of a short hole may have none
        store.import_directory(artifact, name="s", options=STRICT)
        for n, dialect in enumerate(way):
            document = store.document("s", dialect)
            out = Path(store.restore("s", tmp_path / f"out{n}", dialect=dialect))
            assert disks.same_bytes(out, disk)
            assert disks.extents(out) == disks.extents(disk)
            place = out.parents[dialect is Dialect.V07]
            imported = store.import_directory(place, name="s", options=ImportOptions(force=True, strict=True))
            assert imported.created.manifest == document
            assert document.dialect is dialect
            assert (document.upper.integrity is None) is (name is None)
            assert document.source_sandbox == "synthetic"


def test_a_chain_is_converted_as_microsandbox_does_it(store: Store, tree: Path, tmp_path: Path) -> None:
    """Ids and parents of a 0.4 chain are those that 0.6.18 gave it."""
    store.import_tree(tree / "0.4.4")
    for part in ("root", "mid", "head"):
        out = Path(store.restore(f"chain-{part}", tmp_path / part, dialect=Dialect.V06)).parent
        made = tree / "0.6.18" / f"chain-{part}" / "snapshot.json"
        assert (out / "snapshot.json").read_bytes() == made.read_bytes()


def test_a_directory_is_there_when_it_is_complete(store: Store, tree: Path, tmp_path: Path) -> None:
    store.import_directory(tree / "0.4.4" / "plain")
    place = tmp_path / "place"
    place.mkdir()
    target = place / "artifact"
    [pack] = store.open_snapshot("plain").artifact_manifest.packs[:1]
    saved = blob_path(Path(store.path), pack.digest).read_bytes()
    flip_byte(blob_path(Path(store.path), pack.digest), len(saved) // 3)
    with pytest.raises(CorruptContent):
        store.restore("plain", f"{target}/")
    assert os.listdir(place) == []
    make_artifact(place, "artifact", b"other")
    before = {path: path.read_bytes() for path in target.iterdir()}
    with pytest.raises(CorruptContent):
        store.restore("plain", target, force=True, dialect=Dialect.V07)
    assert {path: path.read_bytes() for path in target.iterdir()} == before
    assert os.listdir(place) == ["artifact"]


def test_a_forced_directory_has_nothing_of_the_one_before(store: Store, tree: Path, tmp_path: Path) -> None:
    """A document of another form, left beside the new one, would be read by that form's microsandbox."""
    store.import_directory(tree / "0.4.4" / "plain")
    for strangers in ([], ["notes.txt"]):
        for dialect in (Dialect.V04, Dialect.V07, Dialect.V06, Dialect.V04):
            target = tmp_path / f"target{len(strangers)}"
            if target.exists():
                with pytest.raises(AlreadyExists):
                    store.restore("plain", target, dialect=dialect)
            else:
                target.mkdir()
                for name in strangers:
                    (target / name).write_text("mine")
            store.restore("plain", target, force=True, dialect=dialect)
            assert read_directory(str(target)).manifest == store.document("plain", dialect)
            documents = {"manifest.json", "snapshot.json"} & set(os.listdir(target))
            assert len(documents) == 1
            assert [(target / name).read_text() for name in strangers] == ["mine"] * len(strangers)
            assert not [name for name in os.listdir(target) if name.startswith(".")]


# --- the command line -------------------------------------------------------------------------------------------------


def test_create_takes_an_artifact_directory(tree: Path, tmp_path: Path) -> None:
    casstore = Casstore(tmp_path)
    made = casstore("create", "base", "--from-artifact", tree / "0.4.4" / "after-pip")
    [digest, path] = made.lines
    assert path == str(casstore.store / "refs" / "base")
    told = casstore.json("inspect", "base")
    assert (told["digest"], told["id"]) == (
        digest,
        "sha256:6812edfb73f1f92d0ab3b94064030cc77a54d7cd6007b4c1781184f7b78b304c",
    )
    casstore("create", "base", "--from-artifact", tree / "0.4.4" / "after-pip")
    casstore("create", "base", "--from-artifact", tree / "0.4.4" / "plain", code=15)
    casstore("create", "x", "--from-artifact", tmp_path / "nothing", code=10)
    casstore("create", "x", "--from-artifact", tree / "0.4.4" / "plain", "--label", "a=b", code=2)
    casstore("create", "./x", "--from-artifact", tree / "0.4.4" / "plain", code=2)
    casstore("create", "x", code=2)


def test_create_warns_of_what_cannot_be_verified(tmp_path: Path) -> None:
    casstore = Casstore(tmp_path)
    artifact, _ = make_artifact(tmp_path, "artifact", b"upper")
    record(artifact, "sparse", "sha256:" + 64 * "0")
    casstore("create", "base", "--from-artifact", artifact, "--strict", code=12)
    assert "warning: snapshot sha256:" in casstore("create", "base", "--from-artifact", artifact, "-q").stderr
    casstore("verify", "base", code=3)


def test_restore_writes_the_form_that_is_asked_for(tree: Path, tmp_path: Path) -> None:
    casstore = Casstore(tmp_path)
    casstore("create", "base", "--from-artifact", tree / "0.6.18" / "plain")
    result = casstore("restore", "base", tmp_path / "out", "--as", "0.4")
    assert result.lines == [str(tmp_path / "out" / "upper.ext4")]
    ids = casstore_id(casstore), read_directory(str(tmp_path / "out")).manifest.id
    assert f"base is {ids[0]} here, and {ids[1]} in {tmp_path}/out" in result.stderr
    assert json.loads((tmp_path / "out" / "manifest.json").read_bytes())["source_sandbox"] == "base"
    casstore("restore", "base", tmp_path / "out", "--as", "0.6", code=15)
    assert "here, and" not in casstore("restore", "base", tmp_path / "out", "--as", "0.6", "-f").stderr
    assert sorted(os.listdir(tmp_path / "out")) == ["snapshot.json", "upper.ext4"]
    casstore("restore", "base", "-", "--as", "0.6", code=2)
    casstore("restore", "base", tmp_path / "x", "--as", "0.5", code=2)


# --- kill -9 ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", ["in", "out"])
def test_kill_9_at_any_moment_leaves_nothing_half_done(tmp_path: Path, verb: str) -> None:
    casstore = Casstore(tmp_path)
    disk = tmp_path / "disk"
    disk.write_bytes(random.Random(1).randbytes(24 * MIB))
    artifact = artifact_of(disk, tmp_path / "in", "sha256")
    casstore("init")
    if verb == "out":
        casstore("create", "base", "--from-artifact", artifact)
    for n, seconds in enumerate((0.3, 0.45, 0.6)):
        out = tmp_path / f"out{n}"
        arguments = ("create", f"s{n}", "--from-artifact", artifact) if verb == "in" else ("restore", "base", f"{out}/")
        with casstore.start(*arguments) as process:
            time.sleep(seconds)
            process.send_signal(signal.SIGKILL)
        if out.exists():
            assert read_directory(str(out)).manifest.id == casstore_id(casstore)
            assert disks.same_bytes(out / "upper.ext4", disk)
        require_sound(casstore.store)
    casstore("gc")
    casstore("check")
    assert not os.listdir(casstore.store / "tmp")


def casstore_id(casstore: Casstore) -> object:
    with Store.open(casstore.store) as store:
        return store.get("base").id


# --- memory -----------------------------------------------------------------------------------------------------------

_PEAK = """
import resource, sys
from casstore import Store
from casstore.importing import ImportOptions
with Store.open(sys.argv[1], create=True) as store:
    store.import_directory(sys.argv[2], name="s", options=ImportOptions(strict=True))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.long
def test_memory_does_not_grow_with_the_disk(tmp_path: Path) -> None:
    """0.4.4 needs the size of the archive."""
    peaks = []
    for mib in (32, 768):
        disk = tmp_path / "disk"
        disks.write_mixed_file(disk, mib * MIB, seed=1)
        os.truncate(disk, 4096 * MIB)
        artifact = artifact_of(disk, tmp_path / f"in{mib}", "sparse")
        peaks.append(int(python(_PEAK, tmp_path / f"store{mib}", artifact).stdout))
    assert peaks[1] < 200 * 1024
    assert peaks[1] - peaks[0] < 80 * 1024  # the buffers between the threads


# --- golden -----------------------------------------------------------------------------------------------------------


def test_two_disks_of_one_length_have_one_id_and_two_digests(store: Store, tmp_path: Path) -> None:
    one, digest = make_artifact(tmp_path, "one", b"the upper bytes")
    two, same = make_artifact(tmp_path, "two", b"plain tar bytes")
    assert digest == same == "sha256:b3e8480749879acf727b42ca238bca91b7f04c4af24f1ba488d8bcf40253c4cd"
    made = [store.import_directory(artifact) for artifact in (one, two)]
    assert [str(each.created.manifest.id) for each in made] == [digest, digest]
    assert made[0].digest != made[1].digest


def test_the_d_form_is_what_it_is_said_to_be(tmp_path: Path) -> None:
    """Computed here without casstore."""
    disk = write_disk(tmp_path / "disk", 1, 0, 2)
    digester = hashlib.sha256(b"msb-sparse-sha256-v1\0" + struct.pack("<Q", disk.stat().st_size))
    data = disk.read_bytes()
    for start, length in disks.extents(disk):
        digester.update(b"D" + struct.pack("<QQ", start, length) + data[start : start + length])
    assert digest_of(disk, "sparse") == f"sha256:{digester.hexdigest()}"
    assert digest_of(disk, "sha256") == sha256(data)


# --- chains -----------------------------------------------------------------------------------------------------------


def chain_of(member: Path, folder: Path) -> Path:
    """A member directory of 0.7 with two layers: a disk, and a qcow2 on top of it."""
    chain = copy_artifact(member, folder)
    document = json.loads((chain / "snapshot.json").read_bytes())
    [below] = document["state"]["layers"]
    above = "layer_" + 32 * "7"
    qcow2 = b"QFI\xfb\0\0\0\3" + random.Random(7).randbytes(300_000)
    (chain / "layers" / f"{above}.qcow2").write_bytes(qcow2)
    payload = {"file_kind": "regular", "integrity": None}
    top = {"backing": below["layer_id"], "format": "qcow2", "layer_id": above, "payload": payload}
    document["state"]["layers"].append({**top, "virtual_size": below["virtual_size"]})
    document["state"] |= {"head": above, "disk_format": "qcow2"}
    (chain / "snapshot.json").write_text(json.dumps(document, separators=(",", ":"), sort_keys=True))
    return chain


def test_a_chain_of_layers_goes_in_and_out(store: Store, tree: Path, tmp_path: Path) -> None:
    chain = chain_of(next((tree / "0.7.11" / "templates").glob("snap_*")), tmp_path / "chain")
    store.import_tree(tree / "0.7.11")
    imported = store.import_directory(chain, name="chain", options=STRICT)
    assert imported.created.stats.new_plain == (chain / "layers" / f"layer_{32 * '7'}.qcow2").stat().st_size
    artifact = store.open_snapshot("chain").artifact()
    assert [disk.name for disk in artifact.map.disks] == [file.name for file in artifact.config.disks]
    assert store.verify("chain").upper.kind == "not_recorded"  # of the last layer
    told: list[ProgressEvent] = []
    head = Path(store.restore("chain", tmp_path / "out", progress=told.append))  # a directory, though it was not said
    assert [each.done for each in told] == sorted(each.done for each in told)
    assert told[-1].done == told[-1].total == sum(disk.allocated for disk in artifact.map.disks)
    assert head.name == f"layer_{32 * '7'}.qcow2"
    for file in artifact.config.disks:
        assert disks.same_bytes(tmp_path / "out/layers" / file.name, chain / "layers" / file.name)
    assert read_directory(str(tmp_path / "out")).manifest == read_directory(str(chain)).manifest
    assert not store.import_directory(chain, name="chain").is_new
    with pytest.raises(UsageError, match="chain"):
        store.open_snapshot("chain").restore_to(lambda _: None)
    with pytest.raises(UsageError, match="chain"):
        store.salvage("chain", tmp_path / "salvaged")
    with pytest.raises(UnsupportedVersion):
        store.restore("chain", tmp_path / "older", dialect=Dialect.V04)
    (tmp_path / "file").touch()
    with pytest.raises(AlreadyExists):
        store.restore("chain", tmp_path / "file", force=True)
    require_sound(Path(store.path))


def test_salvage_writes_an_artifact_directory_of_its_form(store: Store, tree: Path, tmp_path: Path) -> None:
    member = next((tree / "0.7.11" / "templates").glob("snap_*"))
    store.import_directory(member, name="member")
    assert not store.salvage("member", f"{tmp_path}/out/").missing
    assert read_directory(f"{tmp_path}/out").manifest == read_directory(str(member)).manifest
