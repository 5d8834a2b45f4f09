"""What people type who come from `msb snapshot`, of any version: the same words work, or the how-to page says what to
type instead.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from casstore.cli.main import main
from tests.support import disks
from tests.support.command import Casstore
from tests.support.sandboxes import IMAGE, IMAGE_DIGEST, SandboxHome, config

PAGE = Path(__file__).parents[1] / "docs" / "how-to" / "microsandbox.md"
DIGEST = r"sha256:[0-9a-f]{64}"


@pytest.fixture
def home(tmp_path: Path, casstore: Casstore) -> Iterator[SandboxHome]:
    made = SandboxHome(tmp_path / "msb", "0.7")
    disk = tmp_path / "disk"
    disks.random_sparse_file(disk, seed=1)
    made.add("box", upper=disk)
    made.add("my box", upper=disk)
    made.add("busy", upper=disk, status="Running")
    made.add("image", upper=None, config_text=config("0.7", digest=None))
    casstore.env["MSB_HOME"] = str(made.folder)
    yield made
    made.close()


# --- create -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words",
    [
        "first --from box",  # 0.4
        "--from box first",
        "first --from box --label a=b --label c=d --force --integrity",
        "first --from box -f",
        "first --sandbox box",  # 0.7
        "first --from-sandbox box",
    ],
)
def test_create_writes_digest_and_path(casstore: Casstore, home: SandboxHome, words: str) -> None:
    digest, path = casstore("create", *words.split()).lines
    assert re.fullmatch(DIGEST, digest)
    assert path == str(casstore.store / "refs" / "first")
    found = casstore.json("inspect", "first")
    assert (found["digest"], found["source_sandbox"]) == (digest, "box")
    assert (found["image_ref"], found["image_manifest_digest"]) == (IMAGE, IMAGE_DIGEST)
    assert found["labels"] == ({"a": "b", "c": "d"} if "--label" in words else {})
    assert (found["integrity"] is not None) == ("--integrity" in words)


def test_create_without_a_name_names_it_like_the_sandbox(casstore: Casstore, home: SandboxHome) -> None:
    assert casstore("create", "--from", "my box").lines[1] == str(casstore.store / "refs" / "my-box")
    casstore("create", "{sandbox}.first", "--from", "my box")
    assert {each["name"] for each in casstore.json("list")["snapshots"]} == {"my-box", "my-box.first"}


def test_create_quietly_writes_the_digest_alone(casstore: Casstore, home: SandboxHome) -> None:
    result = casstore("create", "first", "--from", "box", "-q")
    assert re.fullmatch(DIGEST + "\n", result.stdout)
    assert result.stderr == ""


def test_create_at_a_path(casstore: Casstore, home: SandboxHome, tmp_path: Path) -> None:
    assert casstore("create", tmp_path / "alone", "--from", "box").lines[1] == str(tmp_path / "alone")
    assert not casstore.store.exists()
    casstore("pull", f"oci:{tmp_path}/alone:latest", "--name", "box")
    apart = casstore("create", tmp_path / "apart", "--disk", tmp_path / "disk")
    assert f"it is in the directory {tmp_path}/apart alone: names in the store have no /" in apart.stderr


@pytest.mark.parametrize(
    ("words", "code", "error"),
    [
        ("first --from nope", 10, "sandbox not found: nope; the home"),
        ("first --from busy", 15, "snapshot source sandbox 'busy' is not stopped"),
        ("first --from image", 16, "sandbox 'image' has no OCI image pinned"),
        ("first --from box --label x", 2, "invalid --label 'x': expected K=V"),
        ("first", 2, "expected one --disk FILE, or --from SANDBOX"),
        ("first --from box --disk x", 2, "no option that says what a disk is like"),
        ("first --from box --image a@sha256:00", 2, "no option that says what a disk is like"),
        ("first --all-stopped", 2, "expected no NAME with several sandboxes"),
        ("first --from box --from busy", 2, "expected no NAME with several sandboxes"),
        ("a/b{sandbox} --from-artifact x --from box", 2, "--from-artifact"),
        ("{sandbox}..x --from box", 2, "snapshot name"),
        ("first --from box --parent nope", 10, "there is no store"),
    ],
)
def test_create_says_what_is_wrong(casstore: Casstore, home: SandboxHome, words: str, code: int, error: str) -> None:
    result = casstore("create", *words.split(), code=code)
    assert error in result.stderr
    assert result.stdout == ""


def test_reindex_of_artifacts_says_what_takes_them_in(casstore: Casstore, home: SandboxHome, tmp_path: Path) -> None:
    casstore("create", "first", "--from", "box")
    told = casstore("reindex", tmp_path, code=10).stderr
    assert f"artifacts of microsandbox come in with casstore import {tmp_path}" in told


def test_a_home_that_is_elsewhere(casstore: Casstore, tmp_path: Path) -> None:
    casstore.env["MSB_HOME"] = str(tmp_path / "nothing")
    for words in (["first", "--from", "box"], ["--all-stopped"]):
        assert "is elsewhere, set MSB_HOME to it" in casstore("create", *words, code=10).stderr


def test_create_refuses_a_name_that_is_taken(casstore: Casstore, home: SandboxHome) -> None:
    casstore("create", "first", "--from", "box")
    casstore("create", "first", "--from", "box", code=15)
    casstore("create", "first", "--from", "box", "--force")


def test_several_sandboxes_at_once(casstore: Casstore, home: SandboxHome) -> None:
    result = casstore("create", "n-{sandbox}", "--from", "box", "--from", "nope", "--from", "my box", code=10)
    paths = [line for line in result.lines if not line.startswith("sha256:")]
    assert paths == [str(casstore.store / "refs" / name) for name in ("n-box", "n-my-box")]
    assert "sandbox not found: nope" in result.stderr
    casstore("create", "--from", "box", "--from", "busy", code=15)


def test_all_that_are_stopped(casstore: Casstore, home: SandboxHome) -> None:
    result = casstore("create", "--all-stopped")
    assert [line for line in result.lines if line.startswith("/")] == [
        str(casstore.store / "refs" / name) for name in ("box", "my-box")
    ]
    assert "skipped busy: is Running" in result.stderr
    assert "skipped image: sandbox 'image' has no OCI image pinned" in result.stderr
    assert "AlreadyExists" not in casstore("create", "--all-stopped", "--from", "busy", "-f", code=15).stderr


def test_what_became_of_several_as_json(casstore: Casstore, home: SandboxHome) -> None:
    home.add("my-box", upper=b"x")  # its snapshot would have the name of another one's
    document = casstore.json("create", "--all-stopped", code=15, schema="cli-create-all")
    assert [each["sandbox"] for each in document["snapshots"]] == ["box", "my box"]
    assert [each["sandbox"] for each in document["skipped"]] == ["busy", "image"]
    assert [each["sandbox"] for each in document["failed"]] == ["my-box"]
    assert "expected a name of its own" in document["failed"][0]["error"]


def test_one_sandbox_as_json(casstore: Casstore, home: SandboxHome) -> None:
    assert casstore.json("create", "--from", "box")["name"] == "box"


def test_no_sandboxes_at_all(casstore: Casstore, tmp_path: Path) -> None:
    with_none = SandboxHome(tmp_path / "msb")
    casstore.env["MSB_HOME"] = str(with_none.folder)
    assert "no sandbox to capture" in casstore("create", "--all-stopped").stderr
    with_none.close()
    casstore.env["MSB_HOME"] = str(tmp_path / "nowhere")
    casstore("create", "--all-stopped", code=10)


def test_the_home_is_that_of_the_environment(casstore: Casstore, home: SandboxHome, tmp_path: Path) -> None:
    del casstore.env["MSB_HOME"]
    home.folder.rename(tmp_path / ".microsandbox")  # HOME is tmp_path
    casstore("create", "first", "--from", "box")


# --- the other verbs --------------------------------------------------------------------------------------------------


def test_the_other_verbs_in_every_spelling(casstore: Casstore, home: SandboxHome, tmp_path: Path) -> None:
    digest, path = casstore("create", "first", "--from", "box", "--integrity", "--label", "a=b").lines
    for verb in ("list", "ls"):
        assert casstore(verb).lines[0].split()[:3] == ["NAME", "IMAGE", "SIZE"]
        assert casstore(verb, "-q").lines == [digest]
        [told] = json.loads(casstore(verb, "--format", "json").stdout)["snapshots"]
        assert (told["digest"], told["name"], told["image_ref"], told["format"]) == (digest, "first", IMAGE, "raw")
        assert (told["parent"], told["size_bytes"] > 0, told["path"]) == (None, True, path)
    for words in (("first",), (digest,), (digest[:20],), ("first", "--verify")):
        fields = dict(re.findall(r"^([A-Z][\w ()]*?): +(.*)$", casstore("inspect", *words).stdout, re.MULTILINE))
        wanted = {"Digest": digest, "Path": path, "Image": IMAGE, "Image Manifest": IMAGE_DIGEST, "Format": "raw"}
        wanted |= {"Filesystem": "ext4", "Parent": "-", "Upper File": "upper.ext4", "Source Sandbox": "box"}
        assert wanted.items() <= fields.items()
        assert {"Created", "Upper Size", "Integrity", "Labels"} <= fields.keys()
        assert ("Verification" in fields) == ("--verify" in words)
    assert "verified (sha256 sha256:" in casstore("verify", "first").stdout
    assert re.fullmatch(r"indexed 1 snapshot from .*\n", casstore("reindex").stdout)
    for export, load in (("export", "import"), ("save", "load")):
        archive = tmp_path / f"{export}.tar.zst"
        assert casstore(export, "first", archive).lines[-1] == str(archive)
        assert re.fullmatch(DIGEST, casstore(load, archive, "--name", f"by-{load}").lines[0])
    casstore("export", "first", tmp_path / "plain.tar", "--plain-tar", "--with-parents")
    casstore("import", tmp_path / "plain.tar", tmp_path / "artifact", "--name", "plain")
    assert (tmp_path / "artifact" / "upper.ext4").exists()
    casstore("remove", "by-load", "-f", "-q")
    casstore("rm", "by-import", "plain")
    assert casstore("rm", "nope", code=10).stdout == ""
    casstore("rm", digest)
    assert casstore("ls", "-q").stdout == ""


def test_every_command_of_the_page_is_one(casstore: Casstore) -> None:
    text = PAGE.read_text()
    commands = re.findall(r"^ {4}(casstore .*?)(?: +#.*)?$", text, re.MULTILINE)
    commands += re.findall(r"`(casstore [^`]*)`", text)
    assert len(commands) > 15
    for command in commands:
        verb, *words = shlex.split(command)[1:]
        found = main.get_command(click.Context(main), verb)
        assert found is not None, command
        known = {option for param in found.params for option in (*param.opts, *param.secondary_opts)}
        used = {word.partition("=")[0] for word in words if word.startswith("-") and word != "-"}
        assert used <= known, command
