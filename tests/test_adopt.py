"""Snapshots that other OCI tools put into a store become its own; what those take away does not matter."""

from __future__ import annotations

import json
import os
import subprocess
from contextlib import ExitStack
from pathlib import Path

import pytest

from casstore import Store, spec
from casstore.adopt import AdoptReport
from casstore.checking.findings import Severity
from casstore.digest import Digest
from casstore.durable import Durability
from casstore.schema import validate
from tests.support.command import Casstore
from tests.support.stores import (
    FAST,
    blob_path,
    blobs,
    capture,
    content,
    disk_bytes,
    flip_byte,
    index_entries,
    index_refs,
    link_refs,
    names,
    reachable,
    require_sound,
)
from tests.support.tools import run


def root_of(store: Store) -> Path:
    return Path(store.path)


def add_entry(root: Path, digest: Digest | str, name: str | None, **fields: object) -> None:
    """Write an entry into index.json, as other tools do: without asking anybody."""
    path = root / "index.json"
    document = json.loads(path.read_bytes())
    entry = {"mediaType": spec.MEDIA_MANIFEST, "digest": str(digest), "size": 1, **fields}
    document["manifests"].append(entry | ({} if name is None else {"annotations": {spec.ANNOTATION_REF_NAME: name}}))
    path.write_text(json.dumps(document))


def put_document(root: Path, document: dict[str, object]) -> Digest:
    data = json.dumps(document).encode()
    blob_path(root, Digest.of(data)).write_bytes(data)
    return Digest.of(data)


def bring(store: Store, other: Store, name: str) -> Digest:
    """Copy a snapshot's blobs here by hand, as another tool does; returns its digest."""
    snapshot = other.open_snapshot(name)
    for digest in snapshot.needs:
        blob_path(root_of(store), digest).write_bytes(blob_path(root_of(other), digest).read_bytes())
    return snapshot.digest


def why(report: AdoptReport) -> dict[str | None, str]:
    return {each.name: each.reason for each in report.left}


# --- the real tools ---------------------------------------------------------------------------------------------------


@pytest.mark.needs("skopeo")
def test_26_what_skopeo_copied_in_is_adopted(store: Store, other: Store, tmp_path: Path) -> None:
    capture(store, tmp_path, "one", 1, 2)
    theirs = capture(other, tmp_path, "theirs", 2, 3)
    run("skopeo", "copy", f"oci:{other.path}:theirs", f"oci:{store.path}:from-skopeo")
    assert names(store) == ["one"]
    report = store.adopt()
    assert [(each.name, each.digest) for each in report.adopted] == [("from-skopeo", theirs.digest)]
    assert report.left == ()
    assert content(store, "from-skopeo") == disk_bytes(2, 3)
    assert store.foreign() == []
    assert index_refs(root_of(store)) == link_refs(root_of(store))
    store.gc()
    assert blobs(root_of(store)) == reachable(root_of(store))
    require_sound(root_of(store))
    assert store.adopt() == AdoptReport(dry_run=False, adopted=(), left=(), drop=False)


@pytest.mark.needs("skopeo")
def test_26_many_copies_at_once_lose_no_ref(store: Store, other: Store, tmp_path: Path) -> None:
    """Each skopeo writes the index.json that it read, and so loses the others' entries; never ours."""
    for n in range(8):
        capture(other, tmp_path, f"n{n}", n + 1)
    for name in ("a", "b", "c"):
        capture(store, tmp_path, name, *b"xyz")
    before = link_refs(root_of(store))
    copies = [
        subprocess.Popen(
            ["skopeo", "copy", f"oci:{other.path}:n{n}", f"oci:{store.path}:n{n}"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        for n in range(8)
    ]
    for n in range(3):  # and we change names meanwhile
        store.tag("a", f"meanwhile-{n}")
    for copy in copies:
        copy.communicate(timeout=60)
    assert 0 in {copy.returncode for copy in copies}
    told = {entry["digest"] for entry in index_entries(root_of(store))} - set(before.values())
    with Store.open(store.path, options=FAST) as again:
        assert set(again.foreign()) == told  # nothing that is in index.json is overlooked
        report = again.adopt()
        assert {str(each.digest) for each in report.adopted} == told
        assert set(names(again)) == {*before, *(f"meanwhile-{n}" for n in range(3))} | {
            each.name for each in report.adopted
        }
        again.gc()
    assert link_refs(root_of(store)).items() >= before.items()
    assert blobs(root_of(store)) == reachable(root_of(store))
    require_sound(root_of(store), contents={"a": disk_bytes(*b"xyz")})


@pytest.mark.needs("umoci")
def test_26_and_27_a_name_that_umoci_added_survives_its_gc(store: Store, tmp_path: Path) -> None:
    """What umoci removes comes back; what it names is a name here, too; its gc takes nothing that we need."""
    one = capture(store, tmp_path, "one", 1, 2)
    capture(store, tmp_path, "two", 3)
    run("umoci", "tag", "--image", f"{store.path}:one", "by-umoci")
    run("umoci", "rm", "--image", f"{store.path}:two")
    run("umoci", "rm", "--image", f"{store.path}:one")
    # The names come back with the next opening, before umoci's gc can look.
    with Store.open(store.path, options=FAST) as again:
        assert [(each.name, each.digest) for each in again.adopt().adopted] == [("by-umoci", one.digest)]
        assert names(again) == ["by-umoci", "one", "two"]
    run("umoci", "gc", "--layout", store.path)
    assert sorted(run("umoci", "ls", "--layout", store.path).split()) == ["by-umoci", "one", "two"]
    require_sound(root_of(store), contents={"by-umoci": disk_bytes(1, 2), "two": disk_bytes(3)})


@pytest.mark.needs("skopeo")
def test_26_a_name_that_is_taken_is_not_taken_away(store: Store, other: Store, tmp_path: Path) -> None:
    capture(store, tmp_path, "one", 1)
    theirs = capture(other, tmp_path, "theirs", 2)
    run("skopeo", "copy", f"oci:{other.path}:theirs", f"oci:{store.path}:one")
    with Store.open(store.path, options=FAST) as again:  # takes the name back; what skopeo added is kept without one
        report = again.adopt()
        name = f"adopted-{theirs.digest.hex[:12]}"
        assert [(each.name, each.digest) for each in report.adopted] == [(name, theirs.digest)]
        assert content(again, "one") == disk_bytes(1)
        assert content(again, name) == disk_bytes(2)
        assert again.foreign() == []


# --- what is not adopted ----------------------------------------------------------------------------------------------


def test_what_cannot_be_adopted_is_reported_and_kept(store: Store, other: Store, tmp_path: Path) -> None:
    capture(store, tmp_path, "one", 1)
    capture(other, tmp_path, "whole", 2)
    capture(other, tmp_path, "damaged", 3)
    capture(other, tmp_path, "lacking", 4)
    digests = {name: bring(store, other, name) for name in ("whole", "damaged", "lacking")}
    damaged, lacking = (other.open_snapshot(name).artifact_manifest.packs[0].digest for name in ("damaged", "lacking"))
    flip_byte(blob_path(root_of(store), damaged), at=40)
    blob_path(root_of(store), lacking).unlink()
    image = put_document(root_of(store), {"schemaVersion": 2, "mediaType": spec.MEDIA_MANIFEST, "layers": []})
    for name, digest in {**digests, "image": image, "gone": Digest.of(b"gone"), "not/a-name": digests["whole"]}.items():
        add_entry(root_of(store), digest, name)
    add_entry(root_of(store), f"sha512:{'0' * 128}", "of-another-kind")
    before = blobs(root_of(store))

    planned = store.adopt(dry_run=True)
    assert names(store) == ["one"]
    report = store.adopt()
    assert (planned.adopted, planned.left) == (report.adopted, report.left)
    assert [each.name for each in report.adopted] == ["whole"]
    reasons = why(report)
    assert damaged.hex in reasons["damaged"]
    assert lacking.hex in reasons["lacking"]
    assert "expected a snapshot" in reasons["image"]
    assert "not in store" in reasons["gone"]
    assert reasons.keys() == {"damaged", "lacking", "image", "gone", "not/a-name", "of-another-kind"}
    store.gc()
    assert blobs(root_of(store)) == before
    assert names(store) == ["one", "whole"]

    dropped = store.adopt(drop=True)
    assert (dropped.adopted, why(dropped)) == ((), reasons)
    assert store.foreign() == []
    store.gc()
    assert blobs(root_of(store)) == reachable(root_of(store))
    require_sound(root_of(store), contents={"one": disk_bytes(1), "whole": disk_bytes(2)})


def test_a_dry_run_drops_nothing(store: Store) -> None:
    image = put_document(root_of(store), {"schemaVersion": 2, "layers": []})
    add_entry(root_of(store), image, "image")
    before = (root_of(store) / "index.json").read_bytes()
    assert [each.name for each in store.adopt(drop=True, dry_run=True).left] == ["image"]
    assert (root_of(store) / "index.json").read_bytes() == before


def test_an_entry_without_a_name_of_a_snapshot_that_is_here_is_tidied_up(store: Store, tmp_path: Path) -> None:
    one = capture(store, tmp_path, "one", 1)
    add_entry(root_of(store), one.digest, None)
    assert [each.name for each in store.adopt().adopted] == ["one"]
    assert (names(store), store.foreign()) == (["one"], [])
    assert len(index_entries(root_of(store))) == 1


def test_a_name_that_a_snapshot_has_is_none(store: Store, other: Store, tmp_path: Path) -> None:
    """A dry run says what is done then; what is here already is not adopted under one more name."""
    for name in ("one", "two"):
        capture(store, tmp_path, name, len(name), ord(name[0]))
    capture(other, tmp_path, "theirs", 3)
    digest = bring(store, other, "theirs")
    add_entry(root_of(store), digest, "one")
    add_entry(root_of(store), store.get("two").digest, "one")
    before = link_refs(root_of(store))
    planned, report = store.adopt(drop=True, dry_run=True), store.adopt(drop=True)
    name = f"adopted-{digest.hex[:12]}"
    assert planned.adopted == report.adopted
    assert [each.name for each in report.adopted] == [name, "two"]
    assert (planned.left, report.left) == ((), ())
    assert link_refs(root_of(store)) == {**before, name: str(digest)}
    assert store.foreign() == []


def test_a_signature_s_name_is_not_a_snapshot_s(store: Store, other: Store, tmp_path: Path) -> None:
    capture(other, tmp_path, "one", 1)
    digest = bring(store, other, "one")
    add_entry(root_of(store), digest, f"sha256-{digest.hex}.sig")
    assert "expected what it is about to have a name" in why(store.adopt())[f"sha256-{digest.hex}.sig"]


def test_damage_that_only_the_stored_bytes_show_is_found(store: Store, other: Store, tmp_path: Path) -> None:
    """A byte that no chunk needs: of a pack that another tool brought nothing is taken on trust."""
    capture(other, tmp_path, "one", 1)
    digest = bring(store, other, "one")
    add_entry(root_of(store), digest, "one")
    for blob in other.open_snapshot("one").needs:
        path = blob_path(root_of(store), blob)
        for at in (0, path.stat().st_size // 2, -1):
            flip_byte(path, at)
            assert store.adopt().adopted == ()
            flip_byte(path, at)
    assert [each.name for each in store.adopt().adopted] == ["one"]


# --- the command line -------------------------------------------------------------------------------------------------


def test_the_command(casstore: Casstore, tmp_path: Path) -> None:
    with Store.init(tmp_path / "other", options=FAST) as other, Store.init(casstore.store, options=FAST) as store:
        capture(other, tmp_path, "one", 1)
        add_entry(casstore.store, bring(store, other, "one"), "one")
        add_entry(casstore.store, Digest.of(b"gone"), "gone\x1b[31m")
    assert casstore("list").stderr.count("see casstore adopt") == 2
    assert "see casstore adopt" in casstore("gc").stderr
    document = json.loads(casstore("adopt", "--dry-run", "--json", code=12).stdout)
    validate(document, "cli-adopt", subject="adopt --json")
    assert [each["name"] for each in document["adopted"]] == ["one"]
    assert [(each["name"], each["damaged"]) for each in document["left"]] == [("gone\x1b[31m", True)]
    done = casstore("adopt", code=12)
    assert done.lines == ["one"]
    assert "\x1b" not in done.stderr
    assert "left in index.json" in done.stderr
    assert casstore("adopt", "-q", code=12).stderr.startswith("warning: ")
    assert "taken out of index.json" in casstore("adopt", "--drop", code=12).stderr
    assert "adopt" not in casstore("list").stderr
    assert casstore.json("adopt")["left"] == []


def test_what_is_no_snapshot_is_no_damage(casstore: Casstore, tmp_path: Path) -> None:
    """Exit code 12 is for what was a snapshot, or may have been."""
    with Store.init(casstore.store, options=FAST) as store:
        capture(store, tmp_path, "one", 1)
        image = put_document(casstore.store, {"schemaVersion": 2, "mediaType": spec.MEDIA_MANIFEST, "layers": []})
    add_entry(casstore.store, image, "image")
    assert [each["damaged"] for each in casstore.json("adopt")["left"]] == [False]


# --- nobody can change what was adopted -------------------------------------------------------------------------------


def test_what_is_adopted_is_for_reading_only(store: Store, other: Store, tmp_path: Path) -> None:
    """Other tools leave blobs that can be written to."""
    capture(other, tmp_path, "one", 1)
    digest = bring(store, other, "one")
    paths = [blob_path(root_of(store), blob) for blob in other.open_snapshot("one").needs]
    before = {path: path.stat().st_ino for path in paths}
    for path in paths:
        path.chmod(0o644)
    add_entry(root_of(store), digest, "one")
    store.adopt(dry_run=True)
    assert {path.stat().st_mode & 0o777 for path in paths} == {0o644}
    store.adopt()
    assert {path.stat().st_mode & 0o777 for path in paths} == {0o444}
    assert {path: path.stat().st_ino for path in paths} == before
    assert not [each for each in Store.check(store.path).findings if each.severity is Severity.DAMAGE]
    assert "loose-permissions" not in {each.kind.value for each in Store.check(store.path).findings}


@pytest.mark.parametrize("how", ["open", "linked", pytest.param("owned", marks=pytest.mark.needs("root"))])
def test_what_others_can_change_is_copied(store: Store, other: Store, tmp_path: Path, how: str) -> None:
    """Who has it open, or by another name, changes his own file afterwards."""
    capture(other, tmp_path, "one", 1)
    digest = bring(store, other, "one")
    paths = [blob_path(root_of(store), blob) for blob in other.open_snapshot("one").needs]
    for n, path in enumerate(paths):
        path.chmod(0o666 if how == "open" else 0o644)
        if how == "owned":
            os.chown(path, 65534, 65534)
        os.link(path, tmp_path / f"theirs-{n}")
        if how != "linked":
            (tmp_path / f"theirs-{n}").unlink()
    with ExitStack() as stack:
        files = [stack.enter_context(path.open("r+b")) for path in paths]
        add_entry(root_of(store), digest, "one")
        assert [each.name for each in store.adopt().adopted] == ["one"]
        for file in files:
            file.write(b"changed")
    assert {(path.stat().st_mode & 0o777, path.stat().st_uid) for path in paths} == {(0o444, os.geteuid())}
    require_sound(root_of(store), contents={"one": disk_bytes(1)})


def test_what_is_adopted_is_synced_for_other_tools_have_not(
    store: Store, other: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Row 14: before the name is told as there."""
    capture(other, tmp_path, "one", 1)
    digest = bring(store, other, "one")
    add_entry(root_of(store), digest, "new")
    synced: list[str] = []
    monkeypatch.setattr(
        Durability, "sync_file", lambda _, fd: synced.append(Path(os.readlink(f"/proc/self/fd/{fd}")).name)
    )
    assert store.adopt().adopted
    assert set(synced) >= {each.hex for each in other.open_snapshot("one").needs}
