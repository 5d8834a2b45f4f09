"""OCI layouts: LayoutTarget, and a store as the layout that other tools see (fault rows 25-28)."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from casstore import Store, spec
from casstore.errors import CorruptContent, DocumentError, NotFound, StorageError, StoreLocked
from casstore.layout import LayoutTarget
from casstore.oci import Descriptor
from casstore.streams import BytesSource, fetch_all
from tests.support.stores import (
    FAST,
    all_files,
    blob_path,
    blobs,
    capture,
    content,
    disk_bytes,
    index_entries,
    index_refs,
    python,
    reachable,
    require_sound,
    start_python,
)
from tests.support.tools import run

LIMIT = spec.MIB


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.init(tmp_path / "store", options=FAST) as store:
        capture(store, tmp_path, "one", 1, 2)
        capture(store, tmp_path, "two", 2, 3)
        yield store


def put(target: LayoutTarget, data: bytes, media_type: str = spec.MEDIA_MANIFEST) -> Descriptor:
    descriptor = Descriptor.of(data, media_type)
    target.push(descriptor, BytesSource(data))
    return descriptor


# --- LayoutTarget -----------------------------------------------------------------------------------------------------


def test_a_layout_is_made_only_when_asked(tmp_path: Path) -> None:
    place = tmp_path / "deep/layout"
    with pytest.raises(NotFound):
        LayoutTarget(str(place))
    assert not (tmp_path / "deep").exists()
    LayoutTarget(str(place), create=True)
    assert json.loads((place / "oci-layout").read_bytes()) == {"imageLayoutVersion": "1.0.0"}
    assert json.loads((place / "index.json").read_bytes()) == {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [],
    }
    assert (place / "blobs/sha256").is_dir()
    before = all_files(place)
    LayoutTarget(str(place), create=True)
    assert all_files(place) == before


def test_a_directory_of_other_files_does_not_become_a_layout(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    with pytest.raises(DocumentError, match="other files"):
        LayoutTarget(str(tmp_path), create=True)
    with pytest.raises(DocumentError, match="no directory"):
        LayoutTarget(str(tmp_path / "notes.txt"), create=True)
    assert os.listdir(tmp_path) == ["notes.txt"]


@pytest.mark.parametrize("there", [["blobs"], ["blobs", "index.json"], ["index.json", ".oci-layout.0123456789ab.tmp"]])
def test_a_layout_whose_making_was_interrupted_is_finished(tmp_path: Path, there: list[str]) -> None:
    place = tmp_path / "layout"
    LayoutTarget(str(place), create=True)
    (place / "oci-layout").rename(place / ".oci-layout.0123456789ab.tmp")
    for path in place.iterdir():
        if path.name not in there:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    target = LayoutTarget(str(place), create=True)
    target.tag(put(target, b"{}"), "tag")
    assert LayoutTarget(str(place)).resolve("tag").size == 2


@pytest.mark.parametrize(
    "marker", ['{"imageLayoutVersion":"1.1.0"}', "{}", "", "[]", '{"imageLayoutVersion":"1.0.0"', "\xff"]
)
def test_a_layout_of_another_version_or_damaged_is_refused(tmp_path: Path, marker: str) -> None:
    """Row 28."""
    place = tmp_path / "layout"
    LayoutTarget(str(place), create=True)
    (place / "oci-layout").write_bytes(marker.encode("latin-1"))
    for create in (False, True):
        with pytest.raises(DocumentError, match="oci-layout"):
            LayoutTarget(str(place), create=create)


@pytest.mark.parametrize("index", [b"", b"{", b"[]", b'{"schemaVersion":2}', b'{"schemaVersion":2,"manifests":[{}]}'])
def test_a_damaged_index_is_never_overwritten(tmp_path: Path, index: bytes) -> None:
    """Row 25: in a plain layout it is the only truth."""
    place = tmp_path / "layout"
    target = LayoutTarget(str(place), create=True)
    manifest = put(target, b"{}")
    (place / "index.json").write_bytes(index)
    for act in (lambda: target.tag(manifest, "tag"), lambda: target.resolve("tag"), target.tags):
        with pytest.raises(DocumentError, match=r"index\.json"):
            act()
    assert (place / "index.json").read_bytes() == index


@pytest.mark.parametrize("file", ["index.json", "oci-layout"])
def test_a_directory_in_the_place_of_a_document_is_an_error(tmp_path: Path, file: str) -> None:
    place = tmp_path / "layout"
    target = LayoutTarget(str(place), create=True)
    (place / file).unlink()
    (place / file).mkdir()
    with pytest.raises(StorageError, match=file):
        LayoutTarget(str(place)).tags()
    assert target.exists(Descriptor.of(b"", "x")) is False


def test_entries_of_other_tools_are_kept_as_they_are(tmp_path: Path) -> None:
    place = tmp_path / "layout"
    target = LayoutTarget(str(place), create=True)
    foreign: list[dict[str, Any]] = [
        {"mediaType": "application/x-odd", "digest": f"sha512:{'a' * 128}", "size": 5, "platform": {"os": "plan9"}},
        {"mediaType": spec.MEDIA_INDEX, "digest": f"sha256:{'b' * 64}", "size": 7, "annotations": {"k": "v"}},
    ]
    document = {"schemaVersion": 2, "manifests": foreign, "annotations": {"top": "level"}}
    (place / "index.json").write_text(json.dumps(document))
    manifest = put(target, b"{}")
    target.tag(manifest, "tag")
    target.tag(manifest, "tag")
    assert index_entries(place)[:2] == foreign
    assert len(index_entries(place)) == 3
    target.delete(manifest)
    assert index_entries(place) == foreign
    assert target.tags() == {}


def test_a_tag_that_another_tool_wrote_twice_is_refused(tmp_path: Path) -> None:
    place = tmp_path / "layout"
    target = LayoutTarget(str(place), create=True)
    one, two = put(target, b"{}"), put(target, b"[]")
    target.tag(one, "one")
    target.tag(two, "two")
    text = (place / "index.json").read_text().replace('"two"', '"one"')
    (place / "index.json").write_text(text)
    with pytest.raises(DocumentError, match="2 manifests"):
        target.resolve("one")
    target.tag(one, "one")
    assert target.resolve("one") == one
    assert len(index_entries(place)) == 1


TAGGER = """
import sys, time
from casstore import spec
from casstore.layout import LayoutTarget
from casstore.oci import Descriptor
from casstore.streams import BytesSource
place, who, start = sys.argv[1:]
while time.time() < float(start):
    pass
target = LayoutTarget(place, create=True)
for n in range(25):
    data = f'{{"who": "{who}", "n": {n}}}'.encode()
    for blob in (b"shared by all %d" % n, data):
        descriptor = Descriptor.of(blob, spec.MEDIA_MANIFEST)
        target.push(descriptor, BytesSource(blob))
    target.tag(descriptor, f"{who}-{n}")
    target.tag(descriptor, f"shared-{n}")
"""


def test_no_entry_is_lost_when_many_processes_tag(tmp_path: Path) -> None:
    """Rows 29, 30; including the making of the layout."""
    import time

    place = tmp_path / "layout"
    processes = [start_python(TAGGER, place, f"p{who}", str(time.time() + 1)) for who in range(4)]
    for process in processes:
        assert process.communicate(timeout=100) == ("", "")
    target = LayoutTarget(str(place))
    tags = target.tags()
    assert sorted(tags) == sorted(
        [*(f"p{who}-{n}" for who in range(4) for n in range(25)), *(f"shared-{n}" for n in range(25))]
    )
    for name, descriptor in tags.items():
        document = json.loads(fetch_all(target, descriptor, limit=LIMIT))
        if not name.startswith("shared"):
            assert f"{document['who']}-{document['n']}" == name
    assert os.listdir(place / ".casstore") == []
    assert len(blobs(place)) == 4 * 25 + 25


def test_what_a_killed_push_left_is_cleared_by_the_next(tmp_path: Path) -> None:
    place = tmp_path / "layout"
    LayoutTarget(str(place), create=True)
    code = """
import os, signal, sys
from casstore.layout import LayoutTarget
from casstore.oci import Descriptor
class Killer:
    def read(self, size):
        os.kill(os.getpid(), signal.SIGKILL)
    def __enter__(self):
        return self
    def __exit__(self, *_):
        pass
class Source:
    def fetch(self, _):
        return Killer()
LayoutTarget(sys.argv[1]).push(Descriptor.of(b"x", "x"), Source())
"""
    assert python(code, place, check=False).returncode == -9
    assert len(os.listdir(place / ".casstore")) == 1
    assert blobs(place) == set()
    put(LayoutTarget(str(place)), b"{}")
    assert os.listdir(place / ".casstore") == []


def test_a_layout_that_somebody_locks_is_waited_for(tmp_path: Path) -> None:
    import fcntl

    target = LayoutTarget(str(tmp_path / "layout"), create=True, wait=0.1)
    manifest = put(target, b"{}")
    fd = os.open(tmp_path / "layout", os.O_RDONLY)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        with pytest.raises(StoreLocked, match="another process") as caught:
            target.tag(manifest, "tag")
        assert caught.value.exit_code == 11
    finally:
        os.close(fd)
    target.tag(manifest, "tag")


def test_a_blob_that_lies_about_itself_is_not_read(tmp_path: Path) -> None:
    """Rows 17, 18, 20."""
    target = LayoutTarget(str(tmp_path / "layout"), create=True)
    data = b"x" * 1000
    descriptor = put(target, data)
    path = blob_path(tmp_path / "layout", descriptor.digest)
    for spoilt in (b"y" + data[1:], data[:-1], data + b"x", b""):
        path.chmod(0o644)
        path.write_bytes(spoilt)
        with pytest.raises(CorruptContent):
            fetch_all(target, descriptor, limit=LIMIT)
        target.push(descriptor, BytesSource(data))  # a push makes it right
        assert fetch_all(target, descriptor, limit=LIMIT) == data
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(CorruptContent):
        fetch_all(target, descriptor, limit=LIMIT)
    with pytest.raises(CorruptContent):
        target.exists(descriptor)


@pytest.mark.parametrize("part", [".casstore", "blobs", "blobs/sha256"])
@pytest.mark.parametrize("kind", ["symlink", "file"])
def test_no_part_of_a_layout_may_lead_elsewhere(tmp_path: Path, part: str, kind: str) -> None:
    """Row 24: else a push would write to, or clear, a directory that is no part of the layout."""
    place, victim = tmp_path / "layout", tmp_path / "victim"
    target = LayoutTarget(str(place), create=True)
    put(target, b"{}")
    (place / part).rename(victim)
    (victim / "op-0123456789abcdef").mkdir()
    if kind == "symlink":
        (place / part).symlink_to(victim)
    else:
        (place / part).touch()
    before = sorted(os.listdir(victim))
    with pytest.raises(CorruptContent, match=part):  # it was opened before
        put(target, b"[]")
    for create in (False, True):
        with pytest.raises(CorruptContent, match=part):
            LayoutTarget(str(place), create=create)
    assert sorted(os.listdir(victim)) == before


def test_only_operations_are_cleared(tmp_path: Path) -> None:
    place = tmp_path / "layout"
    target = LayoutTarget(str(place), create=True)
    for name in ("op-0123456789abcdef", "op-mine", "other"):
        (place / ".casstore" / name).mkdir(parents=True)
    put(target, b"{}")
    assert sorted(os.listdir(place / ".casstore")) == ["op-mine", "other"]


def test_a_layout_may_be_named_by_a_symlink(tmp_path: Path) -> None:
    LayoutTarget(str(tmp_path / "layout"), create=True)
    (tmp_path / "link").symlink_to("layout")
    target = LayoutTarget(str(tmp_path / "link"))
    target.tag(put(target, b"{}"), "tag")
    assert LayoutTarget(str(tmp_path / "layout")).resolve("tag").size == 2


# --- a store, seen by other tools -------------------------------------------------------------------------------------


def test_every_ref_has_its_entry(store: Store) -> None:
    store.tag("one", "alias")
    root = Path(store.path)
    for entry in index_entries(root):
        name = entry["annotations"]["io.casstore.ref"]
        assert entry == {
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "artifactType": "application/vnd.casstore.snapshot.v1",
            "digest": str(store.get(name).digest),
            "size": blob_path(root, store.get(name).digest).stat().st_size,
            "annotations": {
                "org.opencontainers.image.ref.name": name,
                "io.casstore.ref": name,
                "io.casstore.digest": str(store.get(name).digest),
            },
        }
    assert sorted(index_refs(root)) == ["alias", "one", "two"]
    store.remove("one")
    assert sorted(index_refs(root)) == ["alias", "two"]


@pytest.mark.needs("skopeo")
def test_skopeo_copies_out_of_a_store(store: Store, tmp_path: Path) -> None:
    run("skopeo", "copy", f"oci:{store.path}:one", f"oci:{tmp_path}/copy:made")
    with Store.init(tmp_path / "other", options=FAST) as other:
        report = other.pull(f"oci:{tmp_path}/copy:made")
        assert report.digest == store.get("one").digest
        assert content(other, "made") == disk_bytes(1, 2)


@pytest.mark.needs("skopeo")
def test_skopeo_copies_into_a_store_and_gc_keeps_it(store: Store, tmp_path: Path) -> None:
    """Row 26: kept, counted as a root, reported; and it harms no ref."""
    root = Path(store.path)
    with Store.init(tmp_path / "other", options=FAST) as other:
        foreign = capture(other, tmp_path, "three", 7, 8)
    run("skopeo", "copy", f"oci:{other.path}:three", f"oci:{root}:from-skopeo")
    assert store.foreign() == [str(foreign.digest)]
    assert {"one", "two"} <= index_refs(root).keys()
    store.remove("two")
    report = store.gc()
    assert report.foreign == 1
    assert {digest.hex for digest in foreign.needs} <= blobs(root)
    assert blobs(root) == reachable(root) | {digest.hex for digest in foreign.needs}
    assert store.foreign() == [str(foreign.digest)]
    require_sound(root, contents={"one": disk_bytes(1, 2)})
    run("skopeo", "copy", f"oci:{root}:from-skopeo", f"oci:{tmp_path}/back:x")


@pytest.mark.needs("skopeo")
def test_skopeo_that_takes_a_refs_name_takes_nothing_else(store: Store, tmp_path: Path) -> None:
    root = Path(store.path)
    with Store.init(tmp_path / "other", options=FAST) as other:
        foreign = capture(other, tmp_path, "three", 7)
    run("skopeo", "copy", f"oci:{other.path}:three", f"oci:{root}:one")
    assert foreign.digest.hex in (root / "index.json").read_text()
    with Store.open(root, options=FAST) as again:
        assert content(again, "one") == disk_bytes(1, 2)
        assert sorted(index_refs(root)) == ["one", "two"]
        assert again.foreign() == [str(foreign.digest)]
        again.gc()
    assert {digest.hex for digest in foreign.needs} <= blobs(root)
    named = [e for e in index_entries(root) if e["annotations"].get(spec.ANNOTATION_REF_NAME) == "one"]
    assert [entry["digest"] for entry in named] == [str(store.get("one").digest)]
    require_sound(root)


@pytest.mark.needs("umoci")
def test_umoci_sees_the_names_of_a_store(store: Store) -> None:
    assert run("umoci", "ls", "--layout", store.path).split() == ["one", "two"]


@pytest.mark.needs("umoci")
def test_umoci_gc_loses_nothing_that_refs_reach(store: Store, tmp_path: Path) -> None:
    """Row 27."""
    root = Path(store.path)
    gone = capture(store, tmp_path, "gone", 9)
    store.remove("gone")
    run("umoci", "gc", "--layout", root)
    assert blobs(root) == reachable(root)
    assert gone.digest.hex not in blobs(root)
    require_sound(root, contents={"one": disk_bytes(1, 2), "two": disk_bytes(2, 3)})


@pytest.mark.needs("umoci")
def test_a_name_that_umoci_adds_or_removes(store: Store) -> None:
    """Row 26: what it removes comes back, for refs are the truth; what it adds is kept, though it copies our mark."""
    root = Path(store.path)
    run("umoci", "rm", "--image", f"{root}:two")
    run("umoci", "tag", "--image", f"{root}:one", "from-umoci")
    assert sorted(index_refs(root)) != ["one", "two"]
    with Store.open(root, options=FAST) as again:
        assert sorted(index_refs(root)) == ["one", "two"]
        assert again.foreign() == [str(store.get("one").digest)]
    assert sorted(run("umoci", "ls", "--layout", root).split()) == ["from-umoci", "one", "two"]
    require_sound(root)


@pytest.mark.parametrize(
    "index",
    [
        None,
        b"",
        b"{",
        b"\xff\xfe",
        b'{"schemaVersion":2,"manifests":null}',
        b'{"schemaVersion":2,"manifests":[1]}',
        b'{"schemaVersion":2,"manifests":[{"annotations":3}]}',
        b'{"schemaVersion":2,"manifests":[]}',
        b'{"schemaVersion":2,"manifests":[],"manifests":[]}',
        b"[" * 100_000,
    ],
)
def test_whatever_happens_to_the_index_no_ref_is_lost(store: Store, index: bytes | None) -> None:
    """Row 25."""
    root = Path(store.path)
    before = index_entries(root)
    (root / "index.json").unlink()
    if index is not None:
        (root / "index.json").write_bytes(index)
    assert store.gc().removed == ()
    with Store.open(root, options=FAST):
        assert index_entries(root) == before
    require_sound(root)


@pytest.mark.parametrize(
    "change",
    [
        lambda entries: entries[0].update(digest=entries[1]["digest"]),
        lambda entries: entries[0]["annotations"].update({"io.casstore.ref": "three"}),
        lambda entries: entries.pop(),
        lambda entries: entries[0].pop("annotations"),
    ],
)
def test_an_old_or_wrong_index_is_derived_again(store: Store, change: Any) -> None:
    root = Path(store.path)
    before = index_refs(root)
    document = json.loads((root / "index.json").read_bytes())
    change(document["manifests"])
    (root / "index.json").write_text(json.dumps(document))
    with Store.open(root, options=FAST):
        assert index_refs(root) == before
    require_sound(root)


def test_the_index_is_not_written_when_nothing_changed(store: Store) -> None:
    inode = (Path(store.path) / "index.json").stat().st_ino
    store.tag("one", "one")
    with pytest.raises(NotFound):
        store.remove("nobody")
    Store.open(store.path, options=FAST).close()
    assert (Path(store.path) / "index.json").stat().st_ino == inode
    store.tag("one", "other")
    assert (Path(store.path) / "index.json").stat().st_ino != inode


def test_a_foreign_index_of_manifests_is_kept_with_all_it_reaches(store: Store, tmp_path: Path) -> None:
    """Nested as deep as one likes, with a manifest that a ref reaches, too, and one written with leading spaces."""
    root = Path(store.path)
    target = LayoutTarget(str(root))
    layer = put(target, b"layer", "application/x-layer")
    config = put(target, b'{"not": "a manifest"}', "application/x-config")
    manifest = json.dumps({"schemaVersion": 2, "config": config.to_dict(), "layers": [layer.to_dict()]}, indent=1)
    inner = put(target, b"\n \n" + manifest.encode(), "application/x-unknown-manifest")
    ref = target.resolve("one")
    for depth in range(20):
        document = {"schemaVersion": 2, "depth": depth, "manifests": [inner.to_dict(), ref.to_dict()]}
        inner = put(target, json.dumps(document).encode(), spec.MEDIA_INDEX)
    target.tag(inner, "nested")
    put(target, b"garbage", "application/x-garbage")
    before = blobs(root)
    report = store.gc()
    assert len(report.removed) == 1
    assert len(before - blobs(root)) == 1
    assert {layer.digest.hex, config.digest.hex} <= blobs(root)
    require_sound(root)


def test_foreign_entries_of_odd_kinds_stop_nothing(store: Store) -> None:
    root = Path(store.path)
    target = LayoutTarget(str(root))
    big = put(target, bytes(spec.MAX_MANIFEST + 1), "application/octet-stream")
    document = json.loads((root / "index.json").read_bytes())
    document["manifests"] += [
        {"mediaType": "application/octet-stream", "digest": str(big.digest), "size": big.size},
        {"mediaType": "application/x", "digest": f"sha512:{'0' * 128}", "size": 1},
        {"mediaType": spec.MEDIA_MANIFEST, "digest": f"sha256:{'0' * 64}", "size": 1},
    ]
    (root / "index.json").write_text(json.dumps(document))
    assert len(store.foreign()) == 3
    report = store.gc()
    assert (report.removed, report.foreign) == ((), 3)
    store.tag("one", "other")
    assert len(store.foreign()) == 3
    require_sound(root)


@pytest.mark.parametrize(
    "odd",
    [
        '"ratio":1.5',
        '"annotations":{"long":"' + "x" * 70_000 + '"}',
        '"annotations":{"n":1}',
        '"annotations":[]',
        '"n":' + "9" * 30,
        '"k":1,"k":2',
    ],
)
def test_one_odd_entry_makes_none_be_forgotten(store: Store, odd: str) -> None:
    root = Path(store.path)
    target = LayoutTarget(str(root))
    layer, other = put(target, b"layer"), put(target, b"{}")
    manifest = put(target, json.dumps({"schemaVersion": 2, "layers": [layer.to_dict()]}).encode())
    target.tag(other, "plain")
    entry = f'{{"mediaType":"{spec.MEDIA_MANIFEST}","digest":"{manifest.digest}","size":{manifest.size},{odd}}}'
    text = (root / "index.json").read_text().replace('"manifests":[', f'"manifests":[7,{entry},')
    (root / "index.json").write_text(text)
    with Store.open(root, options=FAST) as again:
        assert again.foreign() == [str(manifest.digest), str(other.digest)]
        assert (again.gc().removed, again.gc().foreign) == ((), 2)
        again.tag("one", "another")
        again.remove("another")
        assert sorted(again.foreign()) == sorted([str(manifest.digest), str(other.digest)])
        assert json.loads(entry) in index_entries(root)
        assert again.gc().removed == ()
    require_sound(root)


@pytest.mark.parametrize("odd", ["NaN", "1e999", '"\\ud800"', "9" * 5000])
def test_of_an_entry_that_cannot_be_written_again_the_content_is_kept(store: Store, odd: str) -> None:
    root = Path(store.path)
    manifest = put(LayoutTarget(str(root)), b"{}")
    entry = f'{{"mediaType":"x","digest":"{manifest.digest}","size":2,"odd":{odd}}}'
    text = (root / "index.json").read_text().replace('"manifests":[', f'"manifests":[{entry},')
    (root / "index.json").write_text(text)
    store.tag("one", "another")
    assert {"mediaType": "x", "digest": str(manifest.digest), "size": 2} in index_entries(root)
    assert store.gc().removed == ()
    require_sound(root)


def test_an_index_too_large_to_read_is_left_as_it_is(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    root = Path(store.path)
    before = (root / "index.json").read_bytes()
    monkeypatch.setattr(spec, "MAX_INDEX", len(before) - 1)
    with pytest.raises(StorageError, match=r"index\.json"):
        store.gc()
    store.tag("one", "another")
    assert (root / "index.json").read_bytes() == before
