"""export and import on the command line, under both of their names; what a kill, a full disk or a closed pipe leave.

Numbers are rows of docs/explanation/faults.md.
"""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import time
from pathlib import Path

import pytest

from casstore import Store
from casstore.manifest import Dialect
from tests.support import archives, tars
from tests.support.command import Casstore
from tests.support.microsandbox import FIXTURES, unpack
from tests.support.seed import make_artifact
from tests.support.stores import FAST

CHAIN = FIXTURES / "0.4.4" / "exports" / "chain-with-parents.tar.zst"
PLAIN = FIXTURES / "0.6.18" / "exports" / "plain.tar"


@pytest.fixture
def filled(casstore: Casstore, tmp_path: Path) -> Casstore:
    """A store with s0 and its child s1."""
    with Store.open(casstore.store, create=True, options=FAST) as store:
        archives.fill(store, tmp_path / "in", archives.line(2))
    return casstore


def test_two_lines_say_what_came_in_and_where(casstore: Casstore) -> None:
    result = casstore("import", CHAIN)
    head = casstore.json("inspect", "chain-with-parents")
    assert result.lines == [head["digest"], str(casstore.store / "refs" / "chain-with-parents")]
    assert "its parent sha256:2a855df0" in result.stderr
    assert casstore("load", CHAIN, "-q").lines == [head["digest"]]


def test_json(filled: Casstore, tmp_path: Path) -> None:
    exported = filled.json("export", "s1", tmp_path / "out.tar.zst", "--with-parents")
    assert (exported["form"], exported["parents"]) == ("common", ["s0"])
    assert exported["written_bytes"] == (tmp_path / "out.tar.zst").stat().st_size
    head, parent = filled.json("import", tmp_path / "out.tar.zst", "--name", "x")["snapshots"]
    assert (head["name"], head["id"], parent["name"], parent["is_new"]) == ("x", exported["id"], "x-parent", True)


@pytest.mark.parametrize(("verbs", "form"), [(("export", "import"), "0.4"), (("save", "load"), "oci")])
def test_out_and_in_again_under_both_spellings(
    filled: Casstore, there: Casstore, tmp_path: Path, verbs: tuple[str, str], form: str
) -> None:
    out, into = verbs
    assert filled(out, "s1", tmp_path / "a.tar", "--as", form).lines == [str(tmp_path / "a.tar")]
    there(into, tmp_path / "a.tar", "--name", "s1")
    assert there.json("inspect", "s1")["id"] == filled.json("inspect", "s1")["id"]


def test_an_id_that_is_another_in_the_archive_is_told(filled: Casstore, tmp_path: Path) -> None:
    told = filled("export", "s0", tmp_path / "a.tar").stderr
    assert f"s0 is {filled.json('inspect', 's0')['id']} here, and sha256:" in told
    assert "in the archive" not in filled("export", "s0", tmp_path / "b.tar", "--as", "0.4").stderr


def test_an_archive_can_be_restored_on_the_way(casstore: Casstore, tmp_path: Path) -> None:
    result = casstore("import", PLAIN, tmp_path / "there", "--name", "plain")
    assert result.lines[1] == str(tmp_path / "there")
    assert sorted(path.name for path in (tmp_path / "there").iterdir()) == ["snapshot.json", "upper.ext4"]
    assert (tmp_path / "there" / "upper.ext4").stat().st_blocks * 512 < 1 << 20


def test_directories_come_in_too(casstore: Casstore, tmp_path: Path) -> None:
    home = tmp_path / "snapshots"
    for name in ("plain", "chain-head", "chain-mid", "chain-root"):
        unpack("0.4.4", name, home)
    (home / "broken").mkdir()
    (home / "broken" / "manifest.json").write_text("{}")
    assert len(casstore("import", home / "plain", "--name", "one").lines) == 2
    result = casstore("import", home)
    assert len(result.lines) == 8
    assert "skipped" in result.stderr
    assert "broken" in result.stderr
    casstore.env["CASSTORE_STORE"] = os.path.relpath(casstore.store)
    document = casstore.json("import", home)
    assert all(each["path"] == str(casstore.store / "refs" / each["name"]) for each in document["snapshots"])
    assert [each["path"] for each in document["skipped"]] == [str(home / "broken")]
    assert {each["name"] for each in document["snapshots"]} == {"plain", "chain-head", "chain-mid", "chain-root"}
    casstore("import", home, "--name", "x", code=2)
    casstore("import", tmp_path / "none", code=16)


def test_what_of_a_tree_cannot_be_taken_in_is_a_failure(casstore: Casstore, tmp_path: Path) -> None:
    """Unlike what is malformed: a script that removes the tree then would lose it."""
    casstore("import", PLAIN)
    home = tmp_path / "snapshots"
    for name in ("plain", "chain-root"):
        unpack("0.4.4", name, home)
    result = casstore("import", home, code=15)
    assert result.lines[1] == str(casstore.store / "refs" / "chain-root")
    assert f"skipped '{home}/plain'" in result.stderr
    assert "casstore import DIR --name NAME takes one of them in under another name" in result.stderr
    damaged, _ = make_artifact(home, "damaged", b"what was recorded", integrity=True)
    (damaged / "upper.ext4").write_bytes(b"is not what it is")
    casstore("import", home, "-f", code=12)


def test_a_name_that_nobody_gave_can_be_given(casstore: Casstore) -> None:
    casstore("import", PLAIN)
    other = FIXTURES / "0.7.11" / "exports" / "plain.tar"
    assert "choose another name, or force with -f; --name NAME gives" in casstore("import", other, code=15).stderr
    assert "--name NAME" not in casstore("import", other, "--name", "plain", code=15).stderr


def test_a_group_tells_what_its_head_is_called(casstore: Casstore, tmp_path: Path) -> None:
    unpack("0.7.11", "group-base", tmp_path / "snapshots")
    assert "base.plain is base, too" in casstore("import", tmp_path / "snapshots").stderr


def test_a_directory_without_artifacts_is_told(casstore: Casstore, tmp_path: Path) -> None:
    (tmp_path / "home" / "snapshots").mkdir(parents=True)
    told = casstore("import", tmp_path / "home").stderr
    assert f"; casstore import {tmp_path}/home/snapshots takes in what is there" in told
    assert ";" not in casstore("import", tmp_path / "home" / "snapshots").stderr


def test_a_place_that_is_taken_is_found_out_before_the_import(casstore: Casstore, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert "exists already" in casstore("import", PLAIN, tmp_path / "file", code=15).stderr
    assert not casstore.store.exists()
    casstore("import", PLAIN, tmp_path / "there")
    casstore("import", PLAIN, tmp_path / "there", "--name", "two", code=15)
    assert len(casstore("list", "-q").lines) == 1
    assert "plain is in the store" in casstore("import", PLAIN, "/proc/none", code=17).stderr


def test_a_name_that_0_4_does_not_read_is_told(filled: Casstore, tmp_path: Path) -> None:
    hint = "only if its name ends in .zst"
    assert hint in filled("export", "s0", tmp_path / "a.msb").stderr
    assert hint not in filled("export", "s0", tmp_path / "a.tar.zst").stderr
    for option in ("--plain-tar", "--as=0.7"):
        assert hint not in filled("export", "s0", tmp_path / option[2:], option).stderr


@pytest.mark.parametrize(
    "words",
    [
        *(["export", "s0"], ["export", "s0", "-", "--json"], ["export", "s0", "x", "--since", "s1"]),
        *(["export", "s0", "x", "--as", "0.5"], ["import"], ["import", "-"]),
    ],
)
def test_wrong_words(filled: Casstore, words: list[str]) -> None:
    with filled.start(*words, stdin=subprocess.DEVNULL) as process:
        process.communicate(timeout=60)
    assert process.returncode in {2, 12}  # an empty standard input is no archive
    assert not Path("x").exists()


def test_pipes(filled: Casstore, there: Casstore) -> None:
    with filled.start("export", "s1", "-", "--with-parents", "--as", "oci") as out:
        data, _ = out.communicate(timeout=60)
    with there.start("import", "-") as into:
        told, _ = into.communicate(data, timeout=60)
    assert (out.returncode, into.returncode) == (0, 0)
    assert told.split(b"\n")[0].decode() == filled.json("inspect", "s1")["digest"]


def test_the_image_of_the_sandboxes_home(filled: Casstore, tmp_path: Path) -> None:
    assert "is not there" in filled("export", "s0", tmp_path / "a.tar", "--with-image", code=10).stderr
    assert not (tmp_path / "a.tar").exists()


# --- row 78: an import that is killed ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("form", "number"), [("0.4", signal.SIGKILL), ("0.7", signal.SIGTERM), ("oci", signal.SIGKILL)]
)
def test_78_an_import_that_is_stopped_halfway(
    filled: Casstore, tmp_path: Path, form: str, number: signal.Signals
) -> None:
    filled("export", "s1", tmp_path / "a.tar", "--as", form, "--with-parents", "--plain-tar")
    data = (tmp_path / "a.tar").read_bytes()
    with Store.open(filled.store) as store:
        before = archives.unchanged(store)
    with filled.start("import", "-", "--name", "x") as process:
        assert process.stdin is not None
        process.stdin.write(data[: len(data) * 2 // 3])
        process.stdin.flush()
        _wait_for(filled.store / "tmp")
        process.send_signal(number)
        process.communicate(timeout=60)
    assert process.returncode == (-number if number is signal.SIGKILL else 128 + number)
    filled("gc")
    with Store.open(filled.store) as store:
        assert archives.unchanged(store) == before
    filled("import", tmp_path / "a.tar", "--name", "x")


def _wait_for(folder: Path) -> None:
    """Until an operation has started there."""
    deadline = time.monotonic() + 30
    while not (folder.exists() and any(folder.iterdir())):
        assert time.monotonic() < deadline
        time.sleep(0.02)


# --- row 79: an export that cannot be written -------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["0.6", "oci"])
def test_79_a_file_that_cannot_grow_leaves_nothing(filled: Casstore, tmp_path: Path, form: str) -> None:
    target = tmp_path / "out"
    target.mkdir()

    def small() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))

    words = ["export", "s1", target / "a.tar", "--as", form, "--plain-tar"]
    with filled.start(*words, preexec_fn=small) as process:
        _, told = process.communicate(timeout=60)
    assert process.returncode == 17, told
    assert b"File too large" in told
    assert list(target.iterdir()) == []


def test_79_a_full_device(filled: Casstore) -> None:
    with open("/dev/full", "wb") as full, filled.start("export", "s1", "-", stdout=full) as process:
        _, told = process.communicate(timeout=60)
    assert process.returncode == 17
    assert b"No space left" in told


@pytest.mark.parametrize("form", ["0.6", "oci"])
def test_79_a_reader_that_has_gone(filled: Casstore, form: str) -> None:
    """No words, no traceback: who reads has what they wanted."""
    reader, writer = os.pipe()
    os.close(reader)
    with filled.start("export", "s1", "-", "--as", form, "-q", stdout=writer) as process:
        os.close(writer)
        _, told = process.communicate(timeout=60)
    assert (process.returncode, told) == (17, b"")


def test_a_disk_of_several_layers_goes_out_as_0_7_only(filled: Casstore, tmp_path: Path) -> None:
    """What a form cannot say is refused before anything has a name."""
    with Store.open(filled.store, options=FAST) as store:
        archives.fill(store, tmp_path / "seven", archives.line(1, Dialect.V07), name="seven")
    for form in ("0.4", "0.6", "0.7"):
        filled("export", "seven0", tmp_path / f"{form}.tar", "--as", form)
        assert tars.files((tmp_path / f"{form}.tar").read_bytes())
