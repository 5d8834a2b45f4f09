"""How the command line fails: exit codes, what is said, what is never said, and how it stops."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from casstore.cli.render import printable, size
from casstore.schema import validate
from casstore.store import Store
from casstore.storedir import StoreDirectory, StoreOptions
from tests.support import disks
from tests.support.command import Casstore
from tests.support.terminal import terminal

HOSTILE = "\x1b[31m\x07\r\x9b\u202e\u2066\u2028\u200b\x1b]52;c;eA\x07"


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    path = tmp_path / "disk"
    disks.random_sparse_file(path, seed=1)
    return path


# --- words that are not understood -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("args", "text"),
    [
        (["lst"], "no such verb: lst; did you mean list?"),
        (["frobnicate"], "no such verb: frobnicate"),
        (["list", "--nothing"], "No such option"),
        (["key", "show", "x", "--store", "y"], "No such option '--store'. It goes before the verb.\n"),
        (["restore", "r.example/x:y", "z"], "got what looks like a reference; casstore pull brings"),
        (["list", "--format", "{{.Name}}"], "fields in single braces, as {digest}, got '{{.Name}}'"),
        (["list", "--format", "table"], "fields in single braces, as {digest}, got 'table'"),
        (["list", "--format", "{size}"], "did you mean size_bytes?"),
        (["completion"], "Choose from: bash, zsh, fish\n"),
        (["list", "--store", "x"], "Try: casstore --store x list"),
        (["push", "x", "r.example/x", "--key", "k"], "Try: casstore push --sign ..."),
        (["--wait", "-1", "list"], "--wait"),
        (["--wait", "1x", "list"], "expected a duration such as 90s or 1h30m, got '1x'"),
        (["--wait"], "Option '--wait' requires an argument.\nTry: casstore --help"),
        (["list", "--label"], "Option '--label' requires an argument.\nTry: casstore list --help"),
        (["create", "x", "--disk"], "Option '--disk' requires an argument.\nTry: casstore create --help"),
        (["list", "--quiet=yes"], "Try: casstore list --help"),
        (["--store", "", "list"], "invalid --store ''"),
        (["create", "x"], "expected one --disk FILE, or --from SANDBOX, got none"),
        (["create", "--disk", "a"], "missing NAME|PATH"),
        (["create", "", "--disk", "disk"], "destination must not be empty"),
        (["create", "x", "--disk", ""], "invalid --disk ''"),
        (["create", "x", "--disk", "a", "--disk", "b"], "expected one --disk FILE, or --from SANDBOX, got 2"),
        (["create", "x", "--disk", "disk", "--label", "a"], "invalid --label 'a': expected K=V"),
        (["create", "x", "--disk", "disk", "--label", "=a"], "invalid --label '=a': expected K=V"),
        (["create", "x", "--disk", "disk", "--image", "alpine"], "invalid --image 'alpine': expected REF@DIGEST"),
        (["create", "x", "--disk", "disk", "--integrity=md5"], "--integrity"),
        (["create", "x", "--disk", "disk", "--integrity", "sparse"], "unexpected extra argument"),
        (
            ["create", "x", "--disk", "disk", "--scan-secrets", "refuse"],
            "(refuse); did you mean --scan-secrets=refuse?",
        ),
        (["create", "x", "--disk", "disk", "--level", "20"], "--level"),
        (["create", "x..y", "--disk", "disk"], "snapshot name 'x..y'"),
        (["create", "sha256:abc", "--disk", "disk"], "snapshot name 'sha256:abc'"),
        (["list", "--label", "=x"], "invalid --label"),
        (["verify"], "expected either snapshots or --all"),
        (["verify", "x", "--all"], "expected either snapshots or --all"),
        (["restore", "x", ""], "invalid DEST ''"),
        (["inspect", "sha256:12"], "expected sha256: and 6 to 64"),
        (["push", "x", "nowhere/repo"], "no registry host in it"),
        (["pull", "localhost/repo:tag", "--plain-http", "--insecure"], "--plain-http: http has no certificates"),
        (["pull", "localhost/repo@sha256:" + "0" * 64], "give one with --name"),
        (["login", "a b"], "expected host or host:port"),
        (["completion", "tcsh"], "tcsh"),
    ],
)
def test_usage_errors_exit_with_2(
    casstore: Casstore, disk: Path, monkeypatch: pytest.MonkeyPatch, args: list[str], text: str
) -> None:
    monkeypatch.chdir(disk.parent)
    casstore("create", "there", "--disk", disk)
    result = casstore(*args, code=2)
    assert text in result.stderr
    assert result.stderr.startswith("error: ")
    assert not result.out


@pytest.mark.parametrize(
    ("args", "code"),
    [
        (["list"], 10),
        (["inspect", "x"], 10),
        (["gc"], 10),
        (["create", "x", "--disk", "nothing"], 16),
        (["create", "x", "--disk", "."], 16),
        (["pull", "oci:nothing:x"], 10),
    ],
)
def test_errors_have_their_exit_code(
    casstore: Casstore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, args: list[str], code: int
) -> None:
    monkeypatch.chdir(tmp_path)
    result = casstore(*args, code=code)
    assert re.fullmatch(r"error: [^\n]+\nTry: [^\n]+\n", result.stderr)


def test_reading_verbs_make_no_store(casstore: Casstore) -> None:
    for verb in ("list", "gc", "reindex"):
        casstore(verb, code=10)
    assert not casstore.store.exists()


def test_a_locked_store_exits_with_11(casstore: Casstore, disk: Path) -> None:
    casstore("create", "base", "--disk", disk)
    directory = StoreDirectory.open(str(casstore.store), StoreOptions(), create=False)
    with directory.exclusive():
        for wait, told in (("0.1", "0.1 s"), ("0.1s", "0.1 s"), ("0", "0 s"), ("0s", "0 s"), ("0.001m", "0.06 s")):
            assert f"for more than {told};" in casstore("--wait", wait, "tag", "base", "more", code=11).stderr


def _error(text: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(text)
    validate(document, "cli-error", subject="error")
    return document


@pytest.mark.parametrize("spelling", [["--json"], ["--format", "json"], ["--format=json"]])
def test_with_json_an_error_is_a_json_object(casstore: Casstore, spelling: list[str]) -> None:
    error = _error(casstore("list", *spelling, code=10).stderr)
    assert (error["error"], error["exit_code"]) == ("NotFound", 10)
    error = _error(casstore("list", "--nothing", *spelling, code=2).stderr)
    assert (error["error"], error["exit_code"]) == ("UsageError", 2)
    assert not casstore("list", "--", *spelling, code=2).stderr.startswith("{")


def test_an_unexpected_error_is_short_and_hints_at_debug(casstore: Casstore, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("oh\x1b[31m")

    monkeypatch.setattr(Store, "open", broken)
    result = casstore("list", code=1)
    assert result.stderr.startswith("error: unexpected RuntimeError: oh\\u001b[31m\n")
    assert "--debug" in result.stderr
    traced = casstore("--debug", "list", code=1).stderr
    assert "Traceback (most recent call last):" in traced
    assert "\x1b" not in traced


def test_debug_shows_where_an_expected_error_came_from(casstore: Casstore) -> None:
    assert "Traceback" not in casstore("list", code=10).stderr
    assert "Traceback" in casstore("--debug", "list", code=10).stderr


# --- what reaches a terminal -----------------------------------------------------------------------------------------


def test_text_from_elsewhere_is_escaped_for_people_and_raw_in_json(casstore: Casstore, disk: Path) -> None:
    image = f"image{HOSTILE}@sha256:{64 * '1'}"
    casstore("create", "base", "--disk", disk, "--label", f"k{HOSTILE}=v{HOSTILE}", "--image", image)
    shown = casstore("inspect", "base").stdout + casstore("list").stdout
    assert not set(shown) & set(HOSTILE) - set("[31m]52;c;eA")
    assert "\\u001b[31m\\u0007\\u000d\\u009b\\u202e\\u2066\\u2028\\u200b" in shown
    assert casstore.json("inspect", "base")["labels"] == {f"k{HOSTILE}": f"v{HOSTILE}"}
    assert casstore("inspect", "base", "--json").out.isascii()


def test_file_names_are_escaped_too(casstore: Casstore, tmp_path: Path) -> None:
    name = os.fsdecode(b"a\x1b[31m\nb\xff")
    (tmp_path / name).write_bytes(b"x" * 4096)
    result = casstore("create", "base", "--disk", tmp_path / name)
    assert casstore("restore", "base", tmp_path / f"{name}2").stdout.endswith("a\\u001b[31m\\u000ab\\udcff2\n")
    assert "\x1b" not in casstore("create", "base", "--disk", tmp_path / f"{name}3", code=16).stderr
    assert result.code == 0


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain", "plain"),
        ("two words", "two words"),
        ("größe 容量", "größe 容量"),
        ("\x00\t\x7f\x85", "\\u0000\\u0009\\u007f\\u0085"),
        ("\u200d\ufeff\u00ad", "\\u200d\\ufeff\\u00ad"),
        ("\U000e0041", "\\U000e0041"),
        ("\udc80", "\\udc80"),
    ],
)
def test_printable(text: str, shown: str) -> None:
    assert printable(text) == shown


@pytest.mark.parametrize(
    ("count", "shown"),
    [
        *[(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (64 << 20, "64.0 MiB"), (3 << 29, "1.5 GiB")],
        (1 << 40, "1024.0 GiB"),
    ],
)
def test_sizes_look_as_microsandbox_shows_them(count: int, shown: str) -> None:
    assert size(count) == shown


def _on_a_terminal(casstore: Casstore, *args: object, **environ: str) -> str:
    """What a run writes to a terminal that is its stdout and stderr."""
    casstore.env |= environ
    with terminal() as (screen, shown):
        casstore.start(*args, stdin=subprocess.DEVNULL, stdout=screen, stderr=screen).wait(60)
    return shown[0]


def test_colours_only_on_a_terminal_and_without_no_color(casstore: Casstore, disk: Path) -> None:
    casstore("create", "base", "--disk", disk)
    terminal = {"TERM": "xterm"}
    assert "\x1b[1mNAME" in _on_a_terminal(casstore, "list", **terminal)
    assert "\x1b[31m" in _on_a_terminal(casstore, "inspect", "x", **terminal)
    assert "\x1b" not in casstore.process("list").stdout
    assert "\x1b" not in casstore.process("inspect", "x", code=10).stderr
    for quiet in ({"NO_COLOR": "1"}, {"TERM": "dumb"}):
        for args in (["list"], ["inspect", "x"], ["list", "--nothing"]):
            assert "\x1b" not in _on_a_terminal(casstore, *args, **(terminal | quiet))
        casstore.env["NO_COLOR"] = None


def test_a_disk_never_goes_to_or_comes_from_a_terminal(casstore: Casstore, disk: Path) -> None:
    casstore("create", "base", "--disk", disk)
    assert "got a terminal" in _on_a_terminal(casstore, "restore", "base", "-")
    primary, secondary = pty.openpty()
    try:
        process = casstore.start("create", "x", "--disk", "-", stdin=secondary)
        assert b"got a terminal" in process.communicate(timeout=60)[1]
        assert process.returncode == 2
    finally:
        os.close(primary)
        os.close(secondary)
