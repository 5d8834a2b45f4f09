"""The verbs of the command line: what they do, and what they write where."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest

from casstore import spec
from casstore.digest import Digest
from casstore.layout import LayoutTarget
from casstore.oci import Descriptor
from tests.support import disks
from tests.support.command import Casstore
from tests.support.manifests import SIGNATURE, sign

DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


PIN = "sha256:" + "ab" * 32


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    path = tmp_path / "disk.ext4"
    disks.unpack_fixture("base", path)
    return path


@pytest.fixture
def edited(tmp_path: Path) -> Path:
    path = tmp_path / "edited.ext4"
    disks.unpack_fixture("edited", path)
    return path


# --- create ----------------------------------------------------------------------------------------------------------


def test_create_writes_digest_and_path_and_says_what_it_cost(casstore: Casstore, disk: Path) -> None:
    result = casstore("create", "base", "--disk", disk)
    digest, path = result.lines
    assert DIGEST.fullmatch(digest)
    assert path == str(casstore.store / "refs" / "base")
    said = r"kept base: \d+\.\d KiB allocated, \d+\.\d .iB new, \d+\.\d KiB stored \(\d+\.\d : 1\), \d+\.\d s\n"
    assert re.fullmatch(said, result.stderr)


def test_create_quietly_writes_the_digest_only(casstore: Casstore, disk: Path) -> None:
    result = casstore("create", "base", "--disk", disk, "-q")
    assert DIGEST.fullmatch(result.stdout.strip())
    assert not result.err


def test_create_describes_the_snapshot(casstore: Casstore, disk: Path, edited: Path) -> None:
    created = casstore.json(
        *("create", "base", "--disk", disk, "--label", "a=1", "--label", "b=x=y", "--image", f"alpine@{PIN}"),
        *("--source-sandbox", "box", "--integrity"),
    )
    casstore("create", "child", "--disk", edited, "--parent", "base")
    seen = casstore.json("inspect", "base")
    assert seen["labels"] == {"a": "1", "b": "x=y"}
    assert (seen["image_ref"], seen["image_manifest_digest"]) == ("alpine", PIN)
    assert seen["source_sandbox"] == "box"
    assert seen["integrity"]["algorithm"] == "sha256"
    assert (seen["digest"], seen["id"], seen["children"]) == (created["digest"], created["id"], 1)
    child = casstore.json("inspect", "child", "--verify")
    assert child["parent"] == seen["id"]
    assert child["lineage"] == [{"id": seen["id"], "digest": seen["digest"], "names": ["base"]}]
    assert child["verification"]["integrity"]["status"] == "not_recorded"


@pytest.mark.parametrize("algorithm", ["sha256", "sparse", "sparse-zero", "blake3-merkle"])
def test_create_records_the_integrity_that_was_asked_for(casstore: Casstore, disk: Path, algorithm: str) -> None:
    casstore("create", f"--integrity={algorithm}", "base", "--disk", disk)
    (seen,) = casstore.json("verify", "base")["snapshots"]
    assert seen["verification"]["integrity"] == {
        "status": "verified",
        "meaning": algorithm,
        "reason": None,
        "algorithm": seen["verification"]["integrity"]["algorithm"],
        "digest": seen["verification"]["integrity"]["digest"],
    }


def test_a_bare_integrity_does_not_swallow_the_name(casstore: Casstore, disk: Path) -> None:
    casstore("create", "--integrity", "base", "--disk", disk)
    assert casstore.json("inspect", "base")["integrity"]["algorithm"] == "sha256"


def test_create_names_the_disk(casstore: Casstore, disk: Path, tmp_path: Path) -> None:
    odd = tmp_path / "root=1.ext4"
    odd.write_bytes(b"x" * 5000)
    casstore("create", "named", "--disk", f"root.img={disk}")
    casstore("create", "odd", "--disk", odd)  # "/" cannot be in a disk's name, so this is all path
    assert casstore.json("inspect", "named")["upper_file"] == "root.img"
    assert casstore.json("inspect", "odd")["upper_file"] == "disk.raw"


@pytest.mark.parametrize("place", ["{}/own", "./own", "~/own"])
def test_a_destination_with_a_slash_is_a_path(
    casstore: Casstore, disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    monkeypatch.chdir(tmp_path)
    casstore("create", place.format(tmp_path), "--disk", disk)
    assert (tmp_path / "own" / "oci-layout").exists()
    casstore("list", code=10)  # no store was made for it
    assert [each["name"] for each in casstore.json("list", "--dir", tmp_path)["snapshots"]] == ["latest"]


def test_create_takes_over_a_name_only_by_force(casstore: Casstore, disk: Path, edited: Path) -> None:
    casstore("create", "base", "--disk", disk)
    refused = casstore("create", "base", "--disk", edited, code=15)
    assert "-f" in refused.stderr
    casstore("create", "base", "--disk", edited, "-f")


def test_a_disk_streams_in_and_out_through_pipes(casstore: Casstore, disk: Path) -> None:
    casstore.process("create", "piped", "--disk", "-", stdin=disk.read_bytes())
    assert casstore.process("restore", "piped", "-").out == disk.read_bytes()


# --- list, inspect ---------------------------------------------------------------------------------------------------


def test_list_is_a_table(casstore: Casstore, disk: Path, edited: Path) -> None:
    casstore("create", "base", "--disk", disk)
    casstore("create", "edited", "--disk", edited)
    head, first, second = casstore("ls").lines
    assert head.split() == ["NAME", "IMAGE", "SIZE", "ALLOCATED", "UNIQUE", "CREATED", "(UTC)", "DIGEST"]
    assert first.startswith("edited    scratch    64.0 MiB    ")
    assert second.startswith("base      scratch    64.0 MiB    ")
    assert re.search(r"\d\d\d\d-\d\d-\d\d \d\d:\d\d:\d\d    sha256:[0-9a-f]{12}$", first)


def test_list_quietly_writes_each_digest_once(casstore: Casstore, disk: Path) -> None:
    digest = casstore("create", "base", "--disk", disk, "-q").stdout
    casstore("tag", "base", "again")
    assert casstore("list", "-q").stdout == digest


def test_an_empty_list_says_so_on_stderr(casstore: Casstore, disk: Path) -> None:
    casstore("create", "base", "--disk", disk)
    casstore("rm", "base")
    result = casstore("list")
    assert (result.out, result.stderr) == (b"", "No snapshots.\n")
    assert casstore.json("list")["snapshots"] == []


def test_list_filters_by_label(casstore: Casstore, disk: Path) -> None:
    casstore("create", "one", "--disk", disk, "--label", "step=pip", "--label", "user=a")
    casstore("create", "two", "--disk", disk, "--label", "step=apt")

    def names(*options: str) -> set[str]:
        return {each["name"] for each in casstore.json("list", *options)["snapshots"]}

    assert names("--label", "step") == {"one", "two"}
    assert names("--label", "step=apt") == {"two"}
    assert names("--label", "step", "--label", "user=a") == {"one"}
    assert names("--label", "step=") == set()


def test_list_reports_broken_refs_and_foreign_entries(casstore: Casstore, disk: Path) -> None:
    casstore("create", "base", "--disk", disk)
    os.symlink("/etc/passwd", casstore.store / "refs" / "evil")
    index = json.loads((casstore.store / "index.json").read_text())
    foreign = {**index["manifests"][0], "digest": "sha256:" + "1" * 64, "annotations": {}}
    index["manifests"].append(foreign)
    (casstore.store / "index.json").write_text(json.dumps(index))
    result = casstore("list")
    assert len(result.lines) == 2
    assert "warning: snapshot evil: expected a symlink to ../blobs/sha256/<64 hex>" in result.stderr
    assert f"warning: index.json: another tool added {foreign['digest']}" in result.stderr
    document = casstore.json("list")
    assert [problem["name"] for problem in document["problems"]] == ["evil"]
    assert document["foreign"] == [foreign["digest"]]


def test_list_of_a_directory_warns_of_what_it_skips(casstore: Casstore, disk: Path, tmp_path: Path) -> None:
    casstore("create", f"{tmp_path}/all/good", "--disk", disk, "--label", "a=b")
    bad = tmp_path / "all" / "bad"
    bad.mkdir()
    (bad / "oci-layout").write_text("{}")
    result = casstore("list", "--dir", tmp_path / "all")
    assert len(result.lines) == 2
    assert f"warning: {bad}: skipped: " in result.stderr
    assert len(casstore.json("list", "--dir", tmp_path / "all")["problems"]) == 1
    assert not casstore.json("list", "--dir", tmp_path / "all", "--label", "a=c")["snapshots"]


def test_inspect_says_everything(casstore: Casstore, disk: Path) -> None:
    casstore("create", "base", "--disk", disk, "--label", "a=1", "--source-sandbox", "box")
    lines = casstore("inspect", "base", "--verify").lines
    values = {line[:16].strip().rstrip(":"): line[17:] for line in lines}
    assert values["Names"] == "base"
    assert values["Upper Size"] == "64.0 MiB"
    assert values["Integrity"] == "not recorded"
    assert values["Verification"].endswith("chunks verified; integrity not recorded")
    assert values["Labels"] == "a=1"
    assert values["Source Sandbox"] == "box"
    assert values["Packs"] == "1"
    assert values["Parent"] == values["Lineage"] == "-"


def test_inspect_shows_what_refers_to_it(casstore: Casstore, disk: Path, tmp_path: Path) -> None:
    digest = Digest.parse(casstore.json("create", "base", "--disk", disk)["digest"])
    assert casstore.json("inspect", "base")["referrers"] == []
    size = (casstore.store / "blobs" / "sha256" / digest.hex).stat().st_size
    root = Descriptor(media_type=spec.MEDIA_MANIFEST, digest=digest, size=size)
    casstore("push", "base", f"oci:{tmp_path}/layout:base")
    signature = sign(LayoutTarget(str(tmp_path / "layout")), root)
    casstore("pull", f"oci:{tmp_path}/layout:base", "--referrers")
    [shown] = casstore.json("inspect", "base")["referrers"]
    assert shown == {"digest": str(signature.digest), "artifact_type": SIGNATURE, "bytes": signature.size}
    assert re.search(r"^Referrers: +1$", casstore("inspect", "base").stdout, re.MULTILINE)


def test_a_digest_an_id_and_a_prefix_select_too(casstore: Casstore, disk: Path) -> None:
    created = casstore.json("create", "base", "--disk", disk)
    for selector in (created["digest"], created["id"], created["digest"][:13]):
        assert casstore.json("inspect", selector)["digest"] == created["digest"]


def test_a_missing_ancestor_is_shown_by_its_id(casstore: Casstore, disk: Path, edited: Path) -> None:
    parent = casstore.json("create", "base", "--disk", disk)["id"]
    casstore("create", "child", "--disk", edited, "--parent", "base")
    casstore("rm", "-f", "base")
    assert casstore.json("inspect", "child")["lineage"] == [{"id": parent, "digest": None, "names": []}]
    assert f"{parent} (not here)" in casstore("inspect", "child").stdout


# --- restore ---------------------------------------------------------------------------------------------------------


def test_restore_writes_the_same_bytes_and_holes(casstore: Casstore, disk: Path, tmp_path: Path) -> None:
    casstore("create", "base", "--disk", disk)
    target = tmp_path / "back.ext4"
    result = casstore("restore", "base", target)
    assert result.lines == [str(target)]
    assert disks.same_bytes(disk, target)
    assert disks.extents(disk) == disks.extents(target)
    casstore("restore", "base", target, code=15)
    casstore("restore", "base", target, "-f", "-q")


@pytest.mark.parametrize("suffix", ["", "/"])
def test_restore_into_a_directory_adds_the_manifest(
    casstore: Casstore, disk: Path, tmp_path: Path, suffix: str
) -> None:
    casstore("create", "base", "--disk", disk)
    folder = tmp_path / "sandbox"
    if not suffix:
        folder.mkdir()
    assert casstore("restore", "base", f"{folder}{suffix}").lines == [str(folder / "upper.ext4")]
    assert json.loads((folder / "manifest.json").read_text())["upper"]["file"] == "upper.ext4"


# --- tag, remove, gc, reindex ----------------------------------------------------------------------------------------


def test_tag_gives_one_more_name(casstore: Casstore, disk: Path, edited: Path) -> None:
    casstore("create", "base", "--disk", disk)
    casstore("create", "edited", "--disk", edited)
    assert casstore("tag", "base", "stable").stderr.startswith("stable stands for sha256:")
    casstore("tag", "edited", "stable", code=15)
    casstore("tag", "edited", "stable", "-f", "-q")
    assert casstore.json("inspect", "stable")["names"] == ["edited", "stable"]


def test_remove_goes_on_after_a_failure(casstore: Casstore, disk: Path) -> None:
    casstore("create", "one", "--disk", disk)
    casstore("create", "two", "--disk", disk)
    result = casstore("rm", "nothing", "one", "two", code=10)
    assert result.stderr.splitlines()[:2] == ["removed one", "removed two"]
    assert "error: snapshot nothing: there is no such name" in result.stderr


def test_remove_refuses_a_parent_unless_its_children_go_too(casstore: Casstore, disk: Path, edited: Path) -> None:
    casstore("create", "base", "--disk", disk)
    casstore("create", "child", "--disk", edited, "--parent", "base")
    casstore("remove", "base", code=15)
    casstore("remove", "base", "child", "-q")
    assert casstore.json("list")["snapshots"] == []


def test_remove_by_digest_takes_all_names(casstore: Casstore, disk: Path) -> None:
    digest = casstore("create", "base", "--disk", disk, "-q").stdout.strip()
    casstore("tag", "base", "again")
    assert casstore("rm", "again").stderr.startswith("removed again; it is still there as base\n")
    casstore("tag", "base", "again")
    assert casstore("rm", digest).stderr.startswith("removed again, base\n")


def test_gc_frees_what_nothing_needs(casstore: Casstore, disk: Path) -> None:
    casstore("create", "base", "--disk", disk)
    assert casstore("gc").stdout.startswith("removed 0 blobs, 0 B; 4 kept")
    casstore("rm", "base")
    planned = casstore.json("gc", "--dry-run")
    assert casstore("gc", "--dry-run").stdout.startswith("would remove 4 blobs, ")
    freed = casstore.json("gc")
    assert freed["removed"] == planned["removed"]
    assert freed["freed_bytes"] == planned["freed_bytes"] > 0
    assert not list((casstore.store / "blobs" / "sha256").iterdir())


def test_gc_quietly_says_nothing_but_warnings(casstore: Casstore, disk: Path) -> None:
    casstore("create", "base", "--disk", disk)
    casstore("rm", "base")
    for words in (["--dry-run"], []):
        done = casstore("gc", "-q", *words)
        assert (done.stdout, done.stderr) == ("", "")
    assert casstore.json("gc")["kept"] == 0


def test_remove_of_many_names_tells_some(casstore: Casstore, disk: Path) -> None:
    casstore("create", "base", "--disk", disk)
    digest = casstore.json("inspect", "base")["digest"]
    for n in range(30):
        (casstore.store / f"refs/other-{n:02}").symlink_to(f"../blobs/sha256/{digest.removeprefix('sha256:')}")
    told = casstore("rm", "other-29").stderr
    assert "it is still there as base, other-00" in told
    assert "and 20 more" in told
    told = casstore("rm", digest).stderr
    assert "and 20 more" in told
    assert max(map(len, told.splitlines())) < 200


def test_gc_warns_of_what_it_does_not_know(casstore: Casstore, disk: Path) -> None:
    casstore("create", "base", "--disk", disk)
    (casstore.store / "blobs" / "sha256" / "stray").write_text("?")
    assert "warning: blobs/sha256/stray: not a blob" in casstore("gc").stderr


def test_reindex_makes_the_catalog_anew(casstore: Casstore, disk: Path) -> None:
    casstore("create", "base", "--disk", disk)
    (casstore.store / "catalog.sqlite").write_bytes(b"garbage" * 1000)
    assert casstore("reindex").stdout == f"indexed 1 snapshot from {casstore.store}\n"
    other = Casstore(casstore.folder / "other")
    other.folder.mkdir()
    other("create", "x", "--disk", disk)
    assert casstore("reindex", other.store).stdout == f"indexed 1 snapshot from {other.store}\n"
