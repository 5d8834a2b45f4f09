"""Archives in and out of a store: every form, whatever the order of members, and always the same snapshots."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from casstore import Snapshot, Store, spec
from casstore.archive import importing, naming, writing
from casstore.archiving import ExportOptions
from casstore.errors import (
    AlreadyExists,
    DocumentError,
    InvalidName,
    NotFound,
    SourceError,
    UnsupportedVersion,
    UsageError,
)
from casstore.importing import ImportOptions
from casstore.manifest import Dialect, ImageRef, UpperLayer
from tests.support import archives, disks, tars
from tests.support.microsandbox import FIXTURES
from tests.support.registry_simulator import RegistrySimulator
from tests.support.sandboxes import write_cache
from tests.support.stores import FAST, capture, content, disk_bytes
from tests.support.transfers import over

FIXTURE_ARCHIVES = sorted(path for path in FIXTURES.glob("*/exports/*") if path.is_file())
FORMS = {"0.4": Dialect.V04, "0.6": Dialect.V06, "0.7": Dialect.V07}


def ids(path: Path) -> str:
    return f"{path.parts[-3]}-{path.name}"


def extents(store: Store, name: str) -> list[list[int]]:
    rows: list[list[int]] = store.open_snapshot(name).artifact().map.disks[0].extents.tolist()
    return rows


# --- in ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", FIXTURE_ARCHIVES, ids=ids)
def test_archives_of_the_real_tools_come_in_with_their_documents_and_bytes(store: Store, path: Path) -> None:
    report = store.import_(path)
    stored = dict(tars.unpacked(path))
    documents = [data for name, data in stored.items() if name.endswith(("/manifest.json", "/snapshot.json"))]
    here = [report.head, *report.parents]
    assert sorted(each.snapshot.manifest.to_bytes() for each in here) == sorted(documents)
    disks = {hashlib.sha256(data).digest() for name, data in stored.items() if not name.endswith(".json")}
    for each in here:
        assert hashlib.sha256(content(store, each.name)).digest() in disks
        assert store.verify(each.name).chunks > 0
    assert report.unused == 0


def test_an_export_of_0_4_4_that_it_cannot_read_itself_gets_its_holes_back(store: Store) -> None:
    """Its integrity is that of a disk with holes, which it writes without: they are found again."""
    report = store.import_(FIXTURES / "0.4.4" / "exports" / "after-pip.tar.zst")
    assert extents(store, report.head.name) == [[0, 147456], [204800, 233472]]
    assert report.warnings == ()


@settings(max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.permutations(range(6)), st.booleans())
def test_the_order_of_members_means_nothing(
    tmp_path_factory: pytest.TempPathFactory, order: list[int], dots: bool
) -> None:
    members = [
        (f"./{name}" if dots else name, data)
        for number, (manifest, disk) in enumerate(archives.line(3))
        for name, data in archives.folder(f"p{number}", manifest, disk)
    ]
    folder = tmp_path_factory.mktemp("order")
    (folder / "a.tar").write_bytes(tars.of_files([members[n] for n in order]))
    with Store.open(folder / "store", create=True, options=FAST) as store:
        report = store.import_(folder / "a.tar")
        assert [each.name for each in report.parents] == ["a-parent", "a-parent-2"]
        for name, number in (("a", 2), ("a-parent", 1), ("a-parent-2", 0)):
            assert content(store, name) == archives.disk(number)
        assert [handle.labels["name"] for handle in (store.get("a"), *map(store.get, ("a-parent", "a-parent-2")))] == [
            "s2",
            "s1",
            "s0",
        ]


def test_the_image_and_what_no_snapshot_needs_is_left_out(store: Store, tmp_path: Path) -> None:
    [(manifest, disk)] = archives.line(1)
    members = [
        *archives.folder("p", manifest, disk),
        ("cache/layers/sha256_00.erofs", b"x" * 5000),
        ("p/upper.ext4.lock", b""),
        ("p/.manifest.json.legacy", b"{}"),
    ]
    (tmp_path / "a.tar").write_bytes(tars.of_files(members))
    report = store.import_(tmp_path / "a.tar")
    assert (report.unused, report.parents) == (3, [])


@pytest.mark.parametrize(
    ("file", "name"),
    [
        *(("base.tar.zst", "base"), ("Base 1.tar", "Base-1"), ("a--b..c.msb", "a--b-c"), ("ü.tar.zst", None)),
        *(("x.tar.zst.bak", "x.tar.zst.bak"), ("-.tar", None)),
    ],
)
def test_a_name_is_made_of_that_of_the_file(store: Store, tmp_path: Path, file: str, name: str | None) -> None:
    [(manifest, disk)] = archives.line(1)
    (tmp_path / file).write_bytes(tars.of_files(archives.folder("p", manifest, disk)))
    if name is None:
        with pytest.raises(UsageError, match="nothing in it gives a name"):
            store.import_(tmp_path / file)
    else:
        assert store.import_(tmp_path / file).head.name == name


def test_a_name_that_is_given_counts(store: Store, tmp_path: Path) -> None:
    archive = FIXTURES / "0.6.18" / "exports" / "plain.tar"
    assert store.import_(archive).head.name == "plain"
    assert store.import_(archive, name="other").head.name == "other"
    with pytest.raises(InvalidName):
        store.import_(archive, name="no name")
    del tmp_path


def test_a_name_that_is_taken_is_refused_unless_forced(store: Store, tmp_path: Path) -> None:
    archives.fill(store, tmp_path, archives.line(1), name="plain")
    store.tag("plain0", "plain")
    archive = FIXTURES / "0.6.18" / "exports" / "plain.tar"
    before = archives.unchanged(store)
    with pytest.raises(AlreadyExists):
        store.import_(archive)
    assert archives.unchanged(store)["refs"] == before["refs"]
    assert store.import_(archive, options=ImportOptions(force=True)).head.name == "plain"
    assert store.get("plain").size_bytes == 64 << 20


def test_parents_keep_the_names_that_they_have_here_and_take_none_from_others(store: Store, tmp_path: Path) -> None:
    snapshots = archives.line(3)
    members = [m for n, (manifest, disk) in enumerate(snapshots) for m in archives.folder(f"p{n}", manifest, disk)]
    (tmp_path / "a.tar").write_bytes(tars.of_files(members))
    (tmp_path / "root.tar").write_bytes(tars.of_files(members[:2]))
    root = store.import_(tmp_path / "root.tar").head
    store.tag(root.name, "a-parent-2")
    store.remove("root")
    (tmp_path / "b.tar").write_bytes(
        tars.of_files(archives.folder("q", archives.manifest("b", disk := archives.disk(9)), disk))
    )
    store.import_(tmp_path / "b.tar", name="a-parent")
    report = store.import_(tmp_path / "a.tar")
    assert [(each.name, each.is_new) for each in report.parents] == [("a-parent-3", True), ("a-parent-2", False)]
    assert content(store, "a-parent") == archives.disk(9)


def test_a_parents_name_that_somebody_takes_meanwhile_is_not_taken_back(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even with force, which is about the name that was asked for."""
    disk = archives.disk(9)
    (tmp_path / "other.tar").write_bytes(tars.of_files(archives.folder("q", archives.manifest("b", disk), disk)))
    other = store.import_(tmp_path / "other.tar").head
    members = [member for n, made in enumerate(archives.line(2)) for member in archives.folder(f"p{n}", *made)]
    (tmp_path / "a.tar").write_bytes(tars.of_files(members))
    choose = naming.parent_names

    def overtaken(*arguments: Any, **words: Any) -> Any:
        names = choose(*arguments, **words)
        store.tag(other.name, "a-parent")
        return names

    monkeypatch.setattr(importing, "parent_names", overtaken)
    with pytest.raises(AlreadyExists, match="a-parent"):
        store.import_(tmp_path / "a.tar", options=ImportOptions(force=True))
    assert {each.name for each in store.list()} == {"other", "a-parent"}
    assert content(store, "a-parent") == disk


@pytest.mark.parametrize("path", FIXTURE_ARCHIVES[1::4], ids=ids)
def test_to_import_again_changes_nothing(store: Store, path: Path) -> None:
    first = store.import_(path)
    refs = archives.unchanged(store)["refs"]
    again = store.import_(path)
    assert [each.name for each in (again.head, *again.parents)] == [each.name for each in (first.head, *first.parents)]
    assert archives.unchanged(store)["refs"] == refs


def test_all_names_appear_at_once(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A failure of the last snapshot leaves none."""
    snapshots = archives.line(2)
    broken = archives.with_sha256(snapshots[1][0], b"other")
    members = [*archives.folder("p", *snapshots[0]), *archives.folder("q", broken, snapshots[1][1])]
    (tmp_path / "a.tar").write_bytes(tars.of_files(members))
    before = archives.unchanged(store)
    with pytest.raises(Exception, match="upper digest mismatch"):
        store.import_(tmp_path / "a.tar")
    assert archives.unchanged(store) == before
    del monkeypatch


def test_an_integrity_that_cannot_hold_any_more_is_told_or_with_strict_refused(store: Store, tmp_path: Path) -> None:
    [(manifest, disk)] = archives.line(1)
    made = archives.with_sha256(manifest, b"anything")
    recorded = made.upper.integrity
    assert recorded is not None
    text = made.to_bytes().replace(b'"algorithm":"sha256"', b'"algorithm":"msb-sparse-sha256-v1"')
    (tmp_path / "a.tar").write_bytes(tars.of_files([("p/manifest.json", text), ("p/upper.ext4", disk)]))
    with pytest.raises(Exception, match="upper digest mismatch"):
        store.import_(tmp_path / "a.tar", options=ImportOptions(strict=True))
    [warning] = store.import_(tmp_path / "a.tar").warnings
    assert "cannot be verified any more" in warning


def test_what_is_no_archive_is_refused(store: Store, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="No such file"):
        store.import_(tmp_path / "none.tar")
    with pytest.raises(SourceError, match="expected a file or pipe"):
        store.import_(tmp_path)
    with pytest.raises(SourceError, match="expected a file or pipe"):
        store.import_("/dev/null")
    (tmp_path / "empty.tar").write_bytes(tars.END)
    with pytest.raises(DocumentError, match="one without files"):
        store.import_(tmp_path / "empty.tar")


# --- out and in again -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("compress", [True, False], ids=["zstd", "plain"])
@pytest.mark.parametrize("form", FORMS)
def test_a_form_of_its_own_keeps_ids_bytes_and_holes(
    store: Store, other: Store, tmp_path: Path, form: str, compress: bool
) -> None:
    snapshots = archives.line(3, FORMS[form])
    names = archives.fill(store, tmp_path, snapshots)
    path = tmp_path / "out.tar"
    exported = archives.export(store, "s2", path, form, with_parents=True, compress=compress)
    assert (path.read_bytes()[:4] == b"\x28\xb5\x2f\xfd") == compress
    assert exported.id == store.get("s2").id
    assert list(exported.names) == names
    assert exported.written == path.stat().st_size
    report = other.import_(path)
    for each, number in zip((report.head, *report.parents), (2, 1, 0), strict=True):
        assert each.snapshot.manifest == store.get(f"s{number}").manifest
        assert content(other, each.name) == snapshots[number][1]
        assert extents(other, each.name) == extents(store, f"s{number}")
    expected = ["out", "out-parent", "out-parent-2"] if form == "0.4" else ["s2", "s1", "s0"]
    expected = ["s2", "s2-parent", "s2-parent-2"] if form == "0.6" else expected
    assert [each.name for each in (report.head, *report.parents)] == expected


@pytest.mark.parametrize("source", FORMS)
def test_the_common_form_is_that_of_0_4_with_a_sha256(store: Store, other: Store, tmp_path: Path, source: str) -> None:
    snapshots = archives.line(2, FORMS[source])
    archives.fill(store, tmp_path, snapshots)
    exported = archives.export(store, "s1", tmp_path / "out.tar.zst", with_parents=True)
    report = other.import_(tmp_path / "out.tar.zst")
    assert report.head.snapshot.manifest.id == exported.id
    [parent] = report.parents
    for each, (_, data) in zip((parent, report.head), snapshots, strict=True):
        manifest = each.snapshot.manifest
        assert manifest.dialect is Dialect.V04
        assert manifest.upper.integrity is not None
        assert manifest.upper.integrity.digest == f"sha256:{hashlib.sha256(data).hexdigest()}"
        assert content(other, each.name) == data
    assert report.head.snapshot.manifest.parent == str(parent.snapshot.manifest.id)


def test_the_common_form_calls_the_disk_as_every_version_does(store: Store, other: Store, tmp_path: Path) -> None:
    capture(store, tmp_path, "plain", 1, 0, 2)
    assert store.get("plain").manifest.upper.file == "disk.raw"
    archives.export(store, "plain", tmp_path / "out.tar")
    assert other.import_(tmp_path / "out.tar").head.snapshot.manifest.upper.file == "upper.ext4"


def test_the_common_form_names_no_parent_that_is_not_in_it(store: Store, other: Store, tmp_path: Path) -> None:
    """Else microsandbox 0.6 and later refuse the archive."""
    archives.fill(store, tmp_path, archives.line(2))
    archives.export(store, "s1", tmp_path / "out.tar")
    assert other.import_(tmp_path / "out.tar").head.snapshot.manifest.parent is None


def test_an_archive_has_the_members_of_its_form(store: Store, tmp_path: Path) -> None:
    archives.fill(store, tmp_path, archives.line(2, Dialect.V07))
    layout = {}
    for form in ("common", "0.4", "0.6", "0.7"):
        path = tmp_path / f"{form}.tar"
        archives.export(store, "s1", path, form, with_parents=True, compress=False)
        with tarfile.open(path) as opened:
            assert {(each.mode, each.uid, each.gid, each.mtime) for each in opened} == {(0o100644, 0, 0, 0)}
            layout[form] = [each.name.split("/")[0] + "/" + each.name.split("/")[-1][:6] for each in opened]
    assert [name.partition("/")[2] for name in layout["common"]] == ["upper.", "manife"] * 2
    assert [name.partition("/")[2] for name in layout["0.4"]] == ["manife", "upper."] * 2
    last = "archive.json/archiv"
    assert layout["0.6"] == [*(["snapshots/snapsh", "files/upper."] * 2), last]
    assert layout["0.7"] == [*(["snapshots/snapsh", "snapshots/metada", "layers/layer_"] * 2), last]


@pytest.mark.parametrize("form", ["common", "0.4", "0.6", "0.7", "oci"])
def test_the_same_snapshot_gives_the_same_archive(store: Store, tmp_path: Path, form: str) -> None:
    archives.fill(store, tmp_path, archives.line(2))
    for workers, name in ((1, "a"), (3, "b")):
        archives.export(store, "s1", tmp_path / name, form, with_parents=True, workers=workers)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_an_ancestor_that_is_not_here_cannot_be_exported(store: Store, tmp_path: Path) -> None:
    archives.fill(store, tmp_path, archives.line(2))
    store.remove("s0", force=True)
    with pytest.raises(NotFound, match="which it comes from, is not in the store"):
        archives.export(store, "s1", tmp_path / "out.tar", with_parents=True)
    assert not (tmp_path / "out.tar").exists()
    archives.export(store, "s1", tmp_path / "out.tar")


def test_a_file_that_exists_is_not_replaced_unless_forced(store: Store, tmp_path: Path) -> None:
    archives.fill(store, tmp_path, archives.line(1))
    (tmp_path / "out").write_text("mine")
    with pytest.raises(AlreadyExists):
        store.export("s0", tmp_path / "out")
    assert (tmp_path / "out").read_text() == "mine"
    store.export("s0", tmp_path / "out", force=True)
    store.export("s0", tmp_path / "new" / "folder" / "out")
    assert (tmp_path / "new" / "folder" / "out").read_bytes() == (tmp_path / "out").read_bytes()


def test_wishes_that_do_not_go_together(store: Store, tmp_path: Path) -> None:
    archives.fill(store, tmp_path, archives.line(1))
    for options, text in (
        (ExportOptions(form="0.6", since="s0"), "for the form oci only"),
        (ExportOptions(form="0.6", with_image=True), "for the form oci only"),
        (ExportOptions(form="oci", image_cache="/"), "comes from the registry"),
    ):
        with pytest.raises(UsageError, match=text):
            store.export("s0", tmp_path / "out", options=options)
    assert not (tmp_path / "out").exists()


def test_holes_within_chunks_and_extents_of_any_length_survive(store: Store, other: Store, tmp_path: Path) -> None:
    """A chunk may have holes in it, and ranges of archives are whole blocks: neither changes a byte."""
    size = 3_000_001
    made = archives.manifest("odd", bytes(size))
    folder = tmp_path / "odd"
    folder.mkdir()
    rng = np.random.default_rng(1)
    with (folder / "upper.ext4").open("wb") as out:
        out.truncate(size)
        for at in range(0, size - 5000, 8192):
            out.seek(at)
            out.write(rng.bytes(4096))
        out.seek(size - 3)
        out.write(b"end")
    (folder / "manifest.json").write_bytes(made.to_bytes())
    store.import_directory(folder, name="odd")
    for form in ("common", "0.4", "0.6", "0.7"):
        archives.export(store, "odd", tmp_path / form, form, compress=False)
        report = other.import_(tmp_path / form, name=f"v{form}")
        assert content(other, report.head.name) == (folder / "upper.ext4").read_bytes()
        covered = extents(other, report.head.name)
        assert sum(length for _, length in covered) <= sum(length for _, length in extents(store, "odd")) + 1024


# --- the image --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("form", "folder"), [("common", "cache"), ("0.4", "cache"), ("0.6", "images"), ("0.7", "images")]
)
def test_the_image_goes_with_it_and_nothing_else_of_the_cache(
    store: Store, other: Store, tmp_path: Path, form: str, folder: str
) -> None:
    archives.fill(store, tmp_path, archives.line(1))
    files = write_cache(tmp_path)
    archives.export(store, "s0", tmp_path / "out.tar", form, image_cache=str(tmp_path / "cache"), compress=False)
    with tarfile.open(tmp_path / "out.tar") as opened:
        written = {each.name: opened.extractfile(each).read() for each in opened}  # type: ignore[union-attr]
    assert {name: data for name, data in written.items() if name.startswith(folder)} == {
        f"{folder}/{name}": data for name, data in files.items()
    }
    assert other.import_(tmp_path / "out.tar", name="x").unused == len(files)


def test_an_image_that_is_not_in_the_cache(store: Store, tmp_path: Path) -> None:
    archives.fill(store, tmp_path, archives.line(1))
    files = write_cache(tmp_path)
    for name in reversed(files):
        (tmp_path / "cache" / name).unlink()
        with pytest.raises(NotFound, match="is not there; pull the image with msb"):
            archives.export(store, "s0", tmp_path / "out.tar", image_cache=str(tmp_path / "cache"))
    metadata = tmp_path / "cache" / next(iter(files))
    for text in ('{"manifest_digest":"sha256:00","layers":[]}', "{}", "[]"):
        metadata.write_text(text)
        with pytest.raises(DocumentError):
            archives.export(store, "s0", tmp_path / "out.tar", image_cache=str(tmp_path / "cache"))
    assert not (tmp_path / "out.tar").exists()


def test_only_0_4_takes_an_image_without_its_manifest(store: Store, tmp_path: Path) -> None:
    archives.fill(store, tmp_path, archives.line(1))
    write_cache(tmp_path, manifest=False)
    for form in ("common", "0.6", "0.7"):
        with pytest.raises(NotFound, match="its manifest is not there"):
            archives.export(store, "s0", tmp_path / "out.tar", form, image_cache=str(tmp_path / "cache"))
    archives.export(store, "s0", tmp_path / "out.tar", "0.4", image_cache=str(tmp_path / "cache"))


# --- tars of OCI layouts ----------------------------------------------------------------------------------------------


def test_an_oci_archive_keeps_everything(store: Store, other: Store, tmp_path: Path) -> None:
    archives.fill(store, tmp_path, archives.line(3))
    archives.export(store, "s2", tmp_path / "a.tar", "oci", with_parents=True)
    report = other.import_(tmp_path / "a.tar")
    assert [each.name for each in (report.head, *report.parents)] == ["s2", "s1", "s0"]
    for name in ("s0", "s1", "s2"):
        assert other.get(name).digest == store.get(name).digest
        assert content(other, name) == content(store, name)


def test_an_oci_archive_leaves_out_what_the_receiver_has(store: Store, other: Store, tmp_path: Path) -> None:
    base = capture(store, tmp_path, "base", 1, 2, 3, 0, 5)
    step = capture(store, tmp_path, "step", 1, 2, 4, 0, 5, parent="base")
    archives.export(store, "base", tmp_path / "base.tar", "oci")
    whole = archives.export(store, "step", tmp_path / "all.tar", "oci").written
    assert archives.export(store, "step", tmp_path / "step.tar", "oci", since="base").written < whole / 2
    before = archives.unchanged(other)
    with pytest.raises(NotFound, match="import that first"):
        other.import_(tmp_path / "step.tar")
    assert archives.unchanged(other) == before
    assert other.import_(tmp_path / "base.tar").head.snapshot.root.digest == base.digest
    assert other.import_(tmp_path / "step.tar").head.snapshot.root.digest == step.digest
    assert content(other, "step") == disk_bytes(1, 2, 4, 0, 5)


@pytest.mark.needs("skopeo")
def test_skopeo_reads_an_oci_archive(store: Store, tmp_path: Path) -> None:
    archives.fill(store, tmp_path, archives.line(1))
    archives.export(store, "s0", tmp_path / "a.tar", "oci")
    command = ["skopeo", "inspect", "--raw", f"oci-archive:{tmp_path}/a.tar:s0"]
    raw = subprocess.run(command, capture_output=True, check=True).stdout
    assert f"sha256:{hashlib.sha256(raw).hexdigest()}" == str(store.get("s0").digest)


def test_an_oci_archive_of_something_else(store: Store, tmp_path: Path) -> None:
    """An index that names no snapshot is refused; beside one, other artifacts are left out."""
    archives.fill(store, tmp_path, archives.line(1))
    archives.export(store, "s0", tmp_path / "a.tar", "oci")
    files = tars.files((tmp_path / "a.tar").read_bytes())
    foreign = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": {"mediaType": "application/vnd.oci.empty.v1+json", "digest": "sha256:" + "0" * 64, "size": 2},
            "layers": [],
        }
    ).encode()
    digest = hashlib.sha256(foreign).hexdigest()
    entry = {
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "digest": f"sha256:{digest}",
        "size": len(foreign),
    }
    index = json.loads(files["index.json"])
    files[f"blobs/sha256/{digest}"] = foreign
    for manifests, ok in (([*index["manifests"], entry], True), ([entry], False)):
        files["index.json"] = json.dumps({**index, "manifests": manifests}).encode()
        (tmp_path / "b.tar").write_bytes(tars.of_files(files))
        if ok:
            assert store.import_(tmp_path / "b.tar").unused == 1
        else:
            with pytest.raises((DocumentError, UnsupportedVersion), match="no snapshot"):
                store.import_(tmp_path / "b.tar")


def test_the_image_itself_comes_from_its_registry_by_its_digest(store: Store, other: Store, tmp_path: Path) -> None:
    """Whatever its tag stands for now."""
    with RegistrySimulator() as registry:
        config, layer = b"{}", b"a layer, " * 1000
        blobs = {kind: registry.put_blob("lib/alpine", data) for kind, data in (("config", config), ("layer", layer))}
        image = {
            "schemaVersion": 2,
            "mediaType": spec.MEDIA_MANIFEST,
            "config": {"mediaType": "application/x-config", "digest": blobs["config"], "size": len(config)},
            "layers": [{"mediaType": "application/x-layer", "digest": blobs["layer"], "size": len(layer)}],
        }
        raw = json.dumps(image).encode()
        digest = registry.put_manifest("lib/alpine", raw, tag="old")
        ref = ImageRef(ref=f"{registry.host}/lib/alpine:3.20", manifest_digest=digest)
        disk = archives.disk(1)
        archives.fill(store, tmp_path, [(archives.manifest("a", disk, image=ref), disk)])
        options = {"with_image": True, "transfer": over(registry)}
        archives.export(store, "s0", tmp_path / "a.tar", "oci", **options)
    files = tars.files((tmp_path / "a.tar").read_bytes())
    assert files[f"blobs/sha256/{digest.removeprefix('sha256:')}"] == raw
    assert files[f"blobs/sha256/{blobs['layer'].removeprefix('sha256:')}"] == layer
    names = [
        each["annotations"]["org.opencontainers.image.ref.name"]
        for each in json.loads(files["index.json"])["manifests"]
    ]
    assert names == ["s0", ref.ref]
    report = other.import_(tmp_path / "a.tar")
    assert (report.head.snapshot.root.digest, report.unused) == (store.get("s0").digest, 1)


def test_an_archive_of_any_size_takes_the_memory_of_a_capture(tmp_path: Path) -> None:
    """Of a dense disk of 512 MiB, as 0.4 exports it: its own import needs as much memory as the archive has bytes."""
    size = 1 << 29
    manifest = archives.manifest("big", b"", upper=UpperLayer(file="upper.ext4", size_bytes=size))
    head = tars.member("p/manifest.json", manifest.to_bytes()) + tars.header("p/upper.ext4", size)
    compressor = zstandard.ZstdCompressor().compressobj()
    with (tmp_path / "big.tar.zst").open("wb") as out:
        out.write(compressor.compress(head))
        for _ in range(size >> 20):
            out.write(compressor.compress(bytes(1 << 20)))
        out.write(compressor.compress(tars.END) + compressor.flush())
    code = (
        "import sys; from casstore import Store\n"
        "with Store.open(sys.argv[1], create=True) as store: store.import_(sys.argv[2])\n"
        "print(open('/proc/self/status').read().partition('VmHWM:')[2].split()[0])"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "store"), str(tmp_path / "big.tar.zst")]
    kib = int(subprocess.run(command, capture_output=True, check=True).stdout)
    assert kib < 200 * 1024
    with Store.open(tmp_path / "store") as store:
        assert store.get("big").entry.allocated == 0


@pytest.mark.parametrize("form", ["common", "0.4"])
def test_ancestors_have_as_many_holes_as_0_4_4_reads(store: Store, other: Store, tmp_path: Path, form: str) -> None:
    """It fails at the second member of an archive whose map does not fit into its header."""
    for number in range(3):
        builder = Snapshot.builder(_in_pieces(tmp_path / f"disk{number}", 10 + number)).name(f"s{number}")
        if number:
            builder.parent(f"s{number - 1}")
        builder.create(store)
    archives.export(store, "s2", tmp_path / "out.tar", form, with_parents=True, compress=False)
    with tarfile.open(tmp_path / "out.tar") as opened:
        maps = [len(each.sparse) for each in opened if each.sparse]
    assert maps == [4, 4, 12]
    report = other.import_(tmp_path / "out.tar")
    for each, number in zip((report.head, *report.parents), (2, 1, 0), strict=True):
        assert content(other, each.name) == content(store, f"s{number}")
    assert extents(other, report.head.name) == extents(store, "s2")
    if form == "0.4":
        there = store.import_(tmp_path / "out.tar", name="s2")
        assert [(each.name, each.is_new) for each in there.parents] == [("s1", False), ("s0", False)]


def test_holes_that_a_digest_depends_on_stay(store: Store, other: Store, tmp_path: Path) -> None:
    Snapshot.builder(_in_pieces(tmp_path / "disk", 10)).name("s0").record_integrity("sparse").create(store)
    capture(store, tmp_path, "s1", 1, parent="s0")
    archives.export(store, "s1", tmp_path / "out.tar", "0.4", with_parents=True)
    [parent] = other.import_(tmp_path / "out.tar").parents
    assert extents(other, parent.name) == extents(store, "s0")
    assert other.verify(parent.name).upper.kind == "verified"


def _in_pieces(path: Path, count: int) -> Path:
    """A disk of so many pieces, and a hole after each."""
    kinds: tuple[disks.Kind, ...] = ("random", "hole")
    disks.write_segments(path, [disks.Segment(kind, 8192, n) for n in range(count) for kind in kinds])
    return path


def test_a_disk_of_too_many_ranges_for_an_inventory_is_refused(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """0.7 lists every range in archive.json, which no reader takes when it has more than 4 MiB."""
    archives.fill(store, tmp_path, archives.line(1, Dialect.V07))
    monkeypatch.setattr(writing, "MAX_MANIFEST", 100)
    with pytest.raises(UnsupportedVersion, match="in too many pieces"):
        archives.export(store, "s0", tmp_path / "a.tar", "0.7")
    assert not (tmp_path / "a.tar").exists()
