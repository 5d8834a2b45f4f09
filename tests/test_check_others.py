"""What a check looks at besides the names: what was removed and can be taken back, and what other tools added; what it
says of a part, and where it stopped.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from casstore import Store, spec
from casstore.checking.check import CheckReport
from casstore.checking.findings import Finding, Kind, Severity
from casstore.checking.rereading import ReadData
from casstore.digest import Digest
from casstore.health import check_store, repair_store
from casstore.oci import Descriptor
from tests.support.command import Casstore
from tests.support.stores import FAST, blob_path, capture, content, disk_bytes, flip_byte, manifest_of, write_disk

ALL = ReadData()


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of two snapshots, of which the second has a pack of its own."""
    folder = tmp_path_factory.mktemp("base")
    with Store.init(folder / "store", options=FAST) as store:
        capture(store, folder, "one", 1, 2, 3)
        capture(store, folder, "two", 1, 2, 3, 4, parent="one")
    return folder / "store"


@pytest.fixture
def root(base: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(base, tmp_path / "store", symlinks=True))


def damage(root: Path) -> list[Finding]:
    findings = check_store(root, data=ALL, options=FAST).findings
    return [finding for finding in findings if finding.severity is Severity.DAMAGE]


def own_pack(root: Path) -> Descriptor:
    """The pack that only two needs."""
    [pack] = set(manifest_of(root, "two").packs) - set(manifest_of(root, "one").packs)
    return pack


def remove_two(root: Path) -> None:
    with Store.open(root, options=FAST) as store:
        store.remove("two")


def add_entry(root: Path, entry: dict[str, Any]) -> None:
    index = json.loads((root / "index.json").read_bytes())
    index["manifests"].append(entry)
    (root / "index.json").write_text(json.dumps(index))


def put(root: Path, data: bytes) -> dict[str, Any]:
    """Store a blob as another tool does; its descriptor."""
    digest = Digest.of(data)
    blob_path(root, digest).write_bytes(data)
    return {"mediaType": "application/octet-stream", "digest": str(digest), "size": len(data)}


def add_image(root: Path, **changes: Any) -> dict[str, Any]:
    """An image of another tool's, below an index, under the name `image`; the descriptor of its layer."""
    layer = put(root, b"a layer")
    document = {"schemaVersion": 2, "config": put(root, b"{}"), "layers": [{**layer, **changes}, "no descriptor", {}]}
    image = {**put(root, json.dumps(document).encode()), "mediaType": spec.MEDIA_MANIFEST}
    above = put(root, json.dumps({"schemaVersion": 2, "manifests": [image]}).encode())
    name = {"annotations": {spec.ANNOTATION_REF_NAME: "image"}}
    add_entry(root, {**above, "mediaType": spec.MEDIA_INDEX, **name})
    return layer


# --- what was removed ------------------------------------------------------------------------------------


def test_what_was_removed_is_read_and_mended_like_the_rest(base: Path, root: Path) -> None:
    pack = own_pack(root)
    remove_two(root)
    assert damage(root) == []
    [removed] = (root / "trash").iterdir()
    flip_byte(blob_path(root, pack.digest))
    [finding] = damage(root)
    assert (finding.kind, finding.digest, finding.snapshots) == (
        Kind.WRONG_CONTENT,
        pack.digest,
        (f"trash/{removed.name}",),
    )
    assert repair_store(root, sources=[str(base)], data=ALL, options=FAST).ok
    with Store.open(root, options=FAST) as store:
        store.undo()
        assert content(store, "two") == disk_bytes(1, 2, 3, 4)


def test_the_disk_of_what_was_removed_mends_it(root: Path, tmp_path: Path) -> None:
    flip_byte(blob_path(root, own_pack(root).digest), 99)
    remove_two(root)
    assert repair_store(root, sources=[str(write_disk(tmp_path / "d", 1, 2, 3, 4))], data=ALL, options=FAST).ok


def test_what_was_removed_counts_as_blobs_and_not_as_a_name(root: Path) -> None:
    before = check_store(root, data=ALL, options=FAST)
    remove_two(root)
    after = check_store(root, data=ALL, options=FAST)
    assert (before.snapshots, after.snapshots) == (2, 1)
    assert (after.blobs, after.read) == (before.blobs, before.read)


def test_a_name_and_a_removed_one_may_stand_for_the_same(root: Path) -> None:
    with Store.open(root, options=FAST) as store:
        store.tag("two", "other")
    remove_two(root)
    pack = own_pack_of(root, "other")
    blob_path(root, pack.digest).unlink()
    [finding] = damage(root)
    assert [name.partition("@")[0] for name in finding.snapshots] == ["other", "trash/two"]


def test_a_lost_name_that_came_back_and_is_removed_is_not_lost_again(casstore: Casstore, root: Path) -> None:
    (root / "refs/two").unlink()
    casstore("list")  # which notices
    casstore("check", code=3)
    casstore("check", "--repair")
    casstore("rm", "two")
    assert "lost-ref" not in casstore("check").stdout
    casstore("gc")
    assert casstore("check").stdout == ""


def own_pack_of(root: Path, name: str) -> Descriptor:
    [pack] = set(manifest_of(root, name).packs) - set(manifest_of(root, "one").packs)
    return pack


# --- what other tools added ------------------------------------------------------------------------------------


def test_what_another_tool_added_is_read(base: Path, root: Path) -> None:
    pack = own_pack(root)
    manifest = manifest_of(root, "two").descriptor
    (root / "refs/two").rename(root / "refs/elsewhere")  # as what skopeo copied into it: no name here knows it
    (root / "refs/elsewhere").unlink()
    index = json.loads((root / "index.json").read_bytes())
    index["manifests"] = [entry for entry in index["manifests"] if entry["digest"] != str(manifest.digest)]
    (root / "index.json").write_text(json.dumps(index))
    (root / "catalog.sqlite").unlink()
    add_entry(root, {**manifest.to_dict(), "annotations": {spec.ANNOTATION_REF_NAME: "copied"}})
    assert damage(root) == []
    flip_byte(blob_path(root, pack.digest))
    [finding] = damage(root)
    assert (finding.kind, finding.digest) == (Kind.WRONG_CONTENT, pack.digest)
    assert finding.snapshots == ("index.json copied",)
    assert repair_store(root, sources=[str(base)], data=ALL, options=FAST).ok


@pytest.mark.parametrize("size", [7, 1, "x", -1, None])
def test_an_image_is_followed_whatever_sizes_it_tells(root: Path, size: object) -> None:
    layer = add_image(root, size=size)
    assert damage(root) == []
    flip_byte(blob_path(root, layer["digest"][7:]))
    [finding] = damage(root)
    assert finding.digest is not None
    assert (str(finding.digest), finding.snapshots) == (layer["digest"], ("index.json image",))


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


@pytest.mark.parametrize("act", [cut, Path.unlink])
def test_what_another_tool_left_out_is_no_damage_and_what_it_cut_off_is(
    root: Path, act: Callable[[Path], object]
) -> None:
    layer = add_image(root)
    act(blob_path(root, layer["digest"][7:]))
    report = check_store(root, options=FAST)
    assert report.ok == (act is not cut)
    told = [finding.problem for finding in report.findings if finding.kind is Kind.FOREIGN_ENTRY]
    assert any("1 blobs" in problem for problem in told) == (act is not cut)


def test_what_is_no_manifest_at_all_hurts_nobody(root: Path) -> None:
    for data in (b"{", b"[" * 100_000, b"{}", b'{"layers": 1, "config": [], "manifests": [null, 7]}'):
        add_entry(root, {**put(root, data), "mediaType": spec.MEDIA_MANIFEST})
    add_entry(root, {"mediaType": 7, "digest": "md5:x", "size": []})
    assert damage(root) == []


# --- how much was read ------------------------------------------------------------------------------------


def test_a_part_is_called_sound_only_as_far_as_it_was_read(casstore: Casstore, root: Path) -> None:
    assert casstore.store == root
    assert casstore("check", "--read-data").stderr.endswith("\nsound\n")
    assert "\nsound, as far as can be seen without reading the blobs" in casstore("check").stderr
    text = casstore("check", "--read-data=1B").stderr
    assert "\nsound, as far as it was read: " in text
    assert " of 25" in text
    sizes = [path.name for path in (root / "blobs/sha256").iterdir()]
    n = next(n for n in range(1, 1000) if all(int(name[:16], 16) % 1000 != n - 1 for name in sizes))
    text = casstore("check", f"--read-data={n}/1000").stderr
    assert "no blob is in this part" in text
    assert "as far as it was read: 0 B of" in text
    casstore("rm", "two")
    text = casstore("check", "--read-data=1B").stderr
    assert "as far as it was read" in text
    assert text.endswith("; casstore gc removes what is left over\n")


def test_a_sound_store_is_met_with_silence(casstore: Casstore, base: Path, root: Path) -> None:
    casstore("rm", "two")
    (root / "notes").touch()
    result = casstore("check", "-q")
    assert (result.stdout, result.stderr) == ("", "")
    flip_byte(blob_path(root, manifest_of(root, "one").packs[0].digest))
    assert "removed-ref" in casstore("check", "--read-data", "-q", code=3).stdout
    result = casstore("check", "--read-data", "--repair", "--from", base, "-q")
    assert (result.stdout, result.stderr) == ("", "")


def test_where_it_stopped_is_noted_or_else_it_says_so(casstore: Casstore, root: Path) -> None:
    assert "could not be noted" not in casstore("check", "--read-data=1B").stderr
    assert check_store(root, data=ReadData(size=1), options=FAST).kept_position
    shutil.rmtree(root / "cache")
    (root / "cache").write_text("in the way")
    assert not check_store(root, data=ReadData(size=1), options=FAST).kept_position
    assert "could not be noted" in casstore("check", "--read-data=1B", code=3).stderr
    assert "could not be noted" not in casstore("check", "--read-data=1/2", code=3).stderr


def test_a_changed_name_is_told_with_the_command_that_changes_it_back(casstore: Casstore, root: Path) -> None:
    digest = manifest_of(root, "two").descriptor.digest
    (root / "refs/two").unlink()
    (root / "refs/two").symlink_to(f"../blobs/sha256/{manifest_of(root, 'one').descriptor.digest.hex}")
    command = f"casstore tag {digest} two -f"
    assert command in casstore("check").stdout
    casstore(*command.split()[1:])
    with Store.open(root, options=FAST) as store:
        assert content(store, "two") == disk_bytes(1, 2, 3, 4)


def test_a_report_without_a_part_needs_no_position() -> None:
    assert CheckReport((), 0, 0, 0, 0, 0, finished=True).kept_position
