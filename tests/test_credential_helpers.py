"""Credential helpers, as shell scripts: the protocol, and helpers that misbehave. "row" is one of the fault list."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from casstore.credentials import CredentialHelper, Credentials, DockerConfig, HelperOptions
from casstore.errors import HelperFailed

ALICE = Credentials("alice", "canary-pass")
STORE = """
file() { echo "$KEPT/$(echo "$1" | tr / _)"; }
missing() { echo "credentials not found in native keychain"; exit 1; }
echo "$0 $*" >> "$KEPT/arguments"
case "$1" in
get) read -r host; cat "$(file "$host")" 2>/dev/null || missing;;
store) cat > "$KEPT/new"; mv "$KEPT/new" "$(file "$(sed 's/.*"ServerURL": "\\([^"]*\\)".*/\\1/' "$KEPT/new")")";;
erase) read -r host; rm "$(file "$host")";;
esac
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where the helpers are."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "kept").mkdir()
    return tmp_path / "bin"


def install(folder: Path, script: str, name: str = "test") -> None:
    path = folder / f"docker-credential-{name}"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def options(folder: Path, *, timeout: float = 20.0) -> HelperOptions:
    environment = {"PATH": "/usr/bin:/bin", "KEPT": str(folder.parent / "kept")}
    return HelperOptions(f"relative:{folder}:/nowhere", environment, timeout)


def helper(folder: Path, script: str, *, timeout: float = 20.0) -> CredentialHelper:
    install(folder, script)
    return CredentialHelper("test", options(folder, timeout=timeout))


# --- the protocol


def test_what_was_stored_is_found_and_erased(folder: Path) -> None:
    keeper = helper(folder, STORE)
    assert keeper.get("r.example:5000") is None
    assert not keeper.erase("r.example:5000")
    keeper.store("r.example:5000", ALICE)
    assert (found := keeper.get("r.example:5000")) == ALICE
    assert found.origin == keeper.program
    assert keeper.get("r.example") is None
    keeper.store("r.example:5000", Credentials("bob", 'quo"te\\n\u00e4'))
    assert keeper.get("r.example:5000") == Credentials("bob", 'quo"te\\n\u00e4')
    assert keeper.erase("r.example:5000")
    assert keeper.get("r.example:5000") is None
    seen = (folder.parent / "kept/arguments").read_text()
    assert "store" in seen
    assert not any(word in seen for word in ("r.example", "alice", "canary"))


def test_an_identity_token_has_a_user_of_its_own(folder: Path) -> None:
    keeper = helper(folder, STORE)
    keeper.store("r.example", Credentials("alice", identity_token="refresh"))
    assert json.loads((folder.parent / "kept/r.example").read_text()) == {
        "ServerURL": "r.example",
        "Username": "<token>",
        "Secret": "refresh",
    }
    assert keeper.get("r.example") == Credentials(identity_token="refresh")


def test_a_helper_sees_only_the_environment_that_it_is_given(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CANARY", "seen")
    script = """read -r host; printf '{"Username": "%s", "Secret": "%s"}' "$host" "${CANARY:-unset}" """
    assert helper(folder, script).get("r.example") == Credentials("r.example", "unset")


def test_a_helper_that_reads_nothing(folder: Path) -> None:
    keeper = helper(folder, """exec 0<&-; echo '{"Username": "alice", "Secret": "canary-pass"}'""")
    assert keeper.get("r" * 200_000) == ALICE


def test_a_helper_that_leaves_something_running(folder: Path) -> None:
    """As gpg-agent: it holds the pipes open, and is left alone."""
    script = """sleep 30 & echo $! > "$KEPT/pid"; echo '{"Username": "alice", "Secret": "canary-pass"}'"""
    start = time.monotonic()
    assert helper(folder, script).get("r.example") == ALICE
    pid = int((folder.parent / "kept/pid").read_text())
    os.kill(pid, 9)
    assert time.monotonic() - start < 25


# --- fault row 107


GARBAGE = [
    "",
    "echo hello",
    "echo '[]'",
    "echo '{}'",
    """echo '{"Username": "canary", "Secret": 5}'""",
    """echo '{"Username": 5, "Secret": "canary"}'""",
    """echo '{"Secret": "canary"}'""",
    """echo '{"Username": "a:b", "Secret": "canary"}'""",
    """echo '{"Username": "a", "Secret": "canary", "Secret": "b"}'""",
    """printf '{"Username": "a", "Secret": "\\377canary"}'""",
    "echo canary; exit 1",
    """echo '{"Username": "alice", "Secret": "canary-2"}'; echo "it is canary-2" >&2; exit 1""",
    "kill -9 $$",
    "head -c 70000 /dev/zero | tr '\\0' canary",
    "yes canary",
    "cat /dev/zero",
]


@pytest.mark.parametrize("script", GARBAGE)
def test_107_garbage_is_a_typed_error(folder: Path, script: str) -> None:
    with pytest.raises(HelperFailed, match="docker-credential-test get: expected ") as caught:
        helper(folder, script).get("r.example")
    assert "canary" not in str(caught.value)
    assert str(caught.value).isprintable()


def test_107_an_empty_secret_is_none(folder: Path) -> None:
    assert helper(folder, """echo '{"Username": "", "Secret": ""}'""").get("r.example") is None


def processes() -> Iterator[tuple[str, str]]:
    """State and process group of all there are."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it ended just now
            state, _, leader = stat.read_text().rpartition(")")[2].split()[:3]
            yield state, leader


@pytest.mark.parametrize(
    "script", ["sleep 60", "sleep 60 & wait", "cat >/dev/null; exec 1>&- 2>&-; sleep 60", "trap '' TERM; sleep 60"]
)
def test_107_a_helper_that_hangs_is_killed_with_its_children(folder: Path, script: str) -> None:
    keeper = helper(folder, f'echo $$ > "$KEPT/pid"\n{script}', timeout=0.5)
    with pytest.raises(HelperFailed, match=r"docker-credential-test get: no answer within 0\.5 s"):
        keeper.get("r.example")
    group = (folder.parent / "kept/pid").read_text().strip()
    deadline = time.monotonic() + 20  # a killed process may need a moment to end
    while any(leader == group and state not in "ZX" for state, leader in processes()):
        assert time.monotonic() < deadline


def test_107_complaints_are_cut_escaped_and_scrubbed(folder: Path) -> None:
    keeper = helper(folder, r"""cat >&2; printf '\033[31m no\r\n' >&2; yes x | head -c 300000 >&2; exit 3""")
    with pytest.raises(HelperFailed, match="store: expected exit code 0, got 3") as caught:
        keeper.store("r.example", Credentials("alice", 'canary"pass'))
    text = str(caught.value)
    assert "canary" not in text
    assert "\\x1b[31m no" in text
    assert text.isprintable()
    assert len(text) < 500


@pytest.mark.parametrize("name", ["", "../evil", "a/b", "a b", "a\n", "a;b", "\u00e4"])
def test_107_names_that_are_none(folder: Path, name: str) -> None:
    with pytest.raises(HelperFailed, match="expected letters"):
        CredentialHelper(name, options(folder))


def test_107_a_helper_that_is_not_there_or_no_program(folder: Path) -> None:
    with pytest.raises(HelperFailed, match="docker-credential-none get: expected the program on the search path"):
        CredentialHelper("none", options(folder)).get("r.example")
    (folder / "docker-credential-test").write_bytes(b"\x7fELF nonsense")
    (folder / "docker-credential-test").chmod(0o755)
    with pytest.raises(HelperFailed, match="cannot be run"):
        CredentialHelper("test", options(folder)).get("r.example")


def test_107_relative_folders_of_the_path_are_ignored(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(folder, "touch ran")
    monkeypatch.chdir(folder)
    with pytest.raises(HelperFailed, match="search path"):
        CredentialHelper("test", HelperOptions(":.", {})).get("r.example")
    assert not (folder / "ran").exists()


def test_107_an_interrupted_run_ends_its_helper(folder: Path) -> None:
    """Ctrl-C while the helper waits for a person."""
    install(folder, 'cat >/dev/null; echo $$ > "$KEPT/new"; mv "$KEPT/new" "$KEPT/pid"; sleep 60')
    code = f"""
import _thread, os, threading, time
from casstore.credentials import CredentialHelper, HelperOptions
def stop():
    while not os.path.exists({str(folder.parent / "kept/pid")!r}):
        time.sleep(0.01)
    _thread.interrupt_main()
threading.Thread(target=stop).start()
CredentialHelper("test", HelperOptions({str(folder)!r}, {options(folder).environment!r})).get("r.example")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False, timeout=30)
    assert b"KeyboardInterrupt" in done.stderr
    with pytest.raises(ProcessLookupError):
        os.kill(int((folder.parent / "kept/pid").read_text()), 0)


# --- which one is asked


def config(folder: Path, document: Any) -> DockerConfig:
    path = folder.parent / "config.json"
    path.write_text(json.dumps(document))
    return DockerConfig(str(path), helpers=options(folder))


def answering(user: str) -> str:
    return f"""read -r host; printf '{{"Username": "{user}", "Secret": "%s"}}' "$host" """


def test_the_host_s_own_helper_then_the_one_for_all(folder: Path) -> None:
    install(folder, answering("own"), "own")
    install(folder, answering("all"), "all")
    file = config(folder, {"credHelpers": {"r.example": "own", "off.example": ""}, "credsStore": "all"})
    assert file.lookup("r.example") == Credentials("own", "r.example")
    assert file.lookup("s.example:5000", "a/b") == Credentials("all", "s.example:5000")
    assert file.lookup("docker.io") == Credentials("all", "https://index.docker.io/v1/")
    assert file.lookup("off.example") is None


def test_paths_before_the_helper_and_the_file_after_it(folder: Path) -> None:
    install(folder, STORE)
    pair = base64.b64encode(b"file:p").decode()
    auths = {"r.example": {"auth": pair}, "r.example/team": {"auth": pair}, "none.example": {}}
    file = config(folder, {"auths": auths, "credsStore": "test"})
    assert file.lookup("r.example", "team/x") == Credentials("file", "p")
    assert file.lookup("r.example", "other") == Credentials("file", "p")  # the helper has nothing
    assert file.lookup("none.example") is None
    CredentialHelper("test", options(folder)).store("r.example", ALICE)
    assert file.lookup("r.example", "other") == ALICE


def test_a_helper_that_fails_does_not_mean_nobody(folder: Path) -> None:
    """Or a person would wonder why the registry refuses."""
    install(folder, "echo locked >&2; exit 2")
    with pytest.raises(HelperFailed, match=r"\(locked\)"):
        config(folder, {"credsStore": "test"}).lookup("r.example")


def test_without_helpers_none_is_run(folder: Path) -> None:
    install(folder, answering("all"))
    file = config(folder, {"credsStore": "test"})
    assert DockerConfig(file.path).lookup("r.example") is None


def test_storing_goes_to_the_helper_and_out_of_the_file(folder: Path) -> None:
    install(folder, STORE)
    pair = base64.b64encode(b"alice:canary-old").decode()
    file = config(
        folder, {"auths": {"r.example": {"auth": pair}, "s.example": {}}, "credHelpers": {"r.example": "test"}}
    )
    file.store("r.example", ALICE)
    assert file.lookup("r.example") == ALICE
    written = json.loads(Path(file.path).read_text())
    assert written == {"auths": {"s.example": {}}, "credHelpers": {"r.example": "test"}}
    assert file.erase("r.example")
    assert not file.erase("r.example")
    assert file.lookup("r.example") is None
