"""key: making keys, looking at them, and where passphrases come from.

Numbers are rows of docs/explanation/faults.md.
"""

from __future__ import annotations

import contextlib
import json
import os
import pty
import select
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from casstore.errors import InvalidKey
from casstore.signatures.keys import PrivateKey, PublicKey
from tests.support.command import Casstore
from tests.support.signatures import FIXTURES, P256, VECTORS, no_passphrase

WORD = "correct horse"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty directory, which is the current one."""
    path = tmp_path / "keys"
    path.mkdir()
    monkeypatch.chdir(path)
    return path


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def load(path: Path, word: str | None = WORD) -> PrivateKey:
    passphrase = no_passphrase if word is None else word.encode
    return PrivateKey.parse(path.read_bytes(), name=path.name, passphrase=passphrase)


# --- generate


@pytest.mark.parametrize("kind", ["ecdsa-p256", "ed25519"])
def test_a_key_is_made_in_two_files(casstore: Casstore, folder: Path, kind: str) -> None:
    casstore.env["CASSTORE_PASSPHRASE"] = WORD
    done = casstore("key", "generate", "--type", kind)
    private, public = folder / "casstore.key", folder / "casstore.pub"
    assert sorted(folder.iterdir()) == [private, public]
    assert (mode(private), mode(public)) == (0o600, 0o644)
    made = PublicKey.parse(public.read_bytes(), name="made")
    assert made.kind == kind
    assert load(private).public == made
    assert done.stdout == f"{made.fingerprint}\n"
    assert "casstore.key, encrypted" in done.stderr
    assert WORD not in done.stdout + done.stderr


def test_json_and_quiet(casstore: Casstore, folder: Path) -> None:
    words = ["key", "generate", folder / "one", "--no-passphrase"]
    told = casstore.json(*words, schema="cli-key-generate")
    made = load(folder / "one.key", None)
    assert told == {
        "version": 1,
        "type": "ecdsa-p256",
        "fingerprint": str(made.public.fingerprint),
        "hint": made.public.hint,
        "private_file": str(folder / "one.key"),
        "public_file": str(folder / "one.pub"),
        "encrypted": False,
    }
    assert casstore(*words, "-f", "-q").stderr == ""
    assert load(folder / "one.key", None).public != made.public


@pytest.mark.parametrize("umask", [0o000, 0o077])
def test_nobody_else_gets_to_read_a_private_key(casstore: Casstore, folder: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        casstore("key", "generate", "--no-passphrase")
    finally:
        os.umask(before)
    assert mode(folder / "casstore.key") == 0o600
    assert mode(folder / "casstore.pub") == 0o644 & ~umask


@pytest.mark.parametrize("taken", ["casstore.key", "casstore.pub"])
@pytest.mark.parametrize("link", [False, True])
def test_what_is_there_is_not_overwritten(casstore: Casstore, folder: Path, taken: str, link: bool) -> None:
    victim = folder / "victim"
    victim.write_text("precious")
    (folder / taken).symlink_to(victim) if link else shutil.copy(victim, folder / taken)
    words = ["key", "generate", "--no-passphrase"]
    assert f"'{taken}' exists already" in casstore(*words, code=15).stderr
    assert sorted(os.listdir(folder)) == sorted([taken, "victim"])
    casstore(*words, "-f")
    assert not (folder / taken).is_symlink(), "the link is replaced, and not what it leads to"
    assert victim.read_text() == "precious"
    assert mode(folder / "casstore.key") == 0o600
    assert sorted(os.listdir(folder)) == ["casstore.key", "casstore.pub", "victim"]


def test_a_dangling_link_is_not_followed(casstore: Casstore, folder: Path) -> None:
    (folder / "casstore.key").symlink_to(folder / "elsewhere")
    casstore("key", "generate", "--no-passphrase", code=15)
    assert not (folder / "elsewhere").exists()


def test_a_directory_that_is_missing(casstore: Casstore, folder: Path) -> None:
    assert "No such file" in casstore("key", "generate", "nowhere/key", "--no-passphrase", code=17).stderr
    assert not list(folder.iterdir())


# --- passphrases


@pytest.mark.parametrize("content", [f"{WORD}\n", f"{WORD}\r\n"])
def test_a_passphrase_from_a_file(casstore: Casstore, folder: Path, content: str) -> None:
    (folder / "word").write_bytes(content.encode())
    casstore.env["CASSTORE_PASSPHRASE"] = "not this one"
    casstore("key", "generate", "--passphrase-file", "word")
    assert load(folder / "casstore.key").public.kind == "ecdsa-p256"
    shown = casstore("key", "public", "casstore.key", "--passphrase-file", "word")
    assert shown.out == (folder / "casstore.pub").read_bytes()
    told = casstore("key", "public", "casstore.key", code=2).stderr
    assert "wrong passphrase" in told
    assert "not this one" not in told


def test_a_passphrase_from_standard_input_is_that_of_every_key(casstore: Casstore, folder: Path) -> None:
    casstore("key", "generate", "--passphrase-file", "-", stdin=WORD.encode())
    shutil.copy("casstore.key", "again.key")
    words = ["key", "show", "casstore.key", "again.key", "--passphrase-file", "-"]
    assert casstore(*words, stdin=f"{WORD}\n".encode()).stdout.count("private, encrypted") == 2
    assert casstore(*words[:3], *words[4:], stdin=b"", code=2).stdout == ""


@pytest.mark.parametrize("content", [b"", b"\n", b"two\nlines", b"x" * 5000, b"\n\n"])
def test_a_file_that_is_no_passphrase(casstore: Casstore, folder: Path, content: bytes) -> None:
    (folder / "word").write_bytes(content)
    told = casstore("key", "generate", "--passphrase-file", "word", code=2).stderr
    assert "expected one line" in told
    assert not list(folder.glob("casstore*"))


def test_without_a_passphrase_nothing_is_made(casstore: Casstore, folder: Path) -> None:
    for words, told in (
        ([], "give --passphrase-file, set $CASSTORE_PASSPHRASE, or run it on a terminal; or --no-passphrase"),
        (["--passphrase-file", "nowhere"], "--passphrase-file: it cannot be read: No such file"),
        (["--passphrase-file", "x\0y"], "it cannot be read"),
        (["--passphrase-file", "/"], "it cannot be read: Is a directory"),
        (["--passphrase-file", "word", "--no-passphrase"], "expected no --passphrase-file"),
    ):
        assert told in casstore("key", "generate", *words, code=2).stderr
    casstore.env["CASSTORE_PASSPHRASE"] = ""
    casstore("key", "generate", code=2)
    casstore.env["CASSTORE_PASSPHRASE"] = "x" * 2000
    assert "expected a passphrase of 1 to 1023 bytes, got 2000" in casstore("key", "generate", code=2).stderr
    assert not list(folder.iterdir())


def test_a_passphrase_may_be_any_bytes(casstore: Casstore, folder: Path) -> None:
    """The environment and files hold bytes, and a terminal text: the same characters are the same passphrase."""
    casstore.env["CASSTORE_PASSPHRASE"] = "Grüße \udcff"
    casstore("key", "generate")
    (folder / "word").write_bytes("Grüße ".encode() + b"\xff")
    casstore.env["CASSTORE_PASSPHRASE"] = None
    casstore("key", "show", "casstore.key", "--passphrase-file", "word")


def typed(casstore: Casstore, *words: str, answers: str) -> tuple[int, str]:
    """Run on a terminal, and type answers; the exit code, and all that was shown there."""
    main, terminal = pty.openpty()
    with casstore.start(*words, stdin=terminal, stdout=terminal, stderr=terminal, start_new_session=True) as process:
        os.close(terminal)
        shown, waiting = b"", answers.encode().splitlines(keepends=True)
        with contextlib.suppress(OSError):  # how a terminal ends
            while select.select([main], [], [], 30)[0]:
                shown += os.read(main, 1000)
                # The blank is written when the terminal no longer shows what is typed, and what came before is dropped.
                if waiting and shown.endswith(b": "):
                    os.write(main, waiting.pop(0))
        process.kill()
    os.close(main)
    return process.returncode, shown.decode()


def test_on_a_terminal_a_new_passphrase_is_asked_for_twice(casstore: Casstore, folder: Path) -> None:
    code, shown = typed(casstore, "key", "generate", answers=f"{WORD}\n{WORD}\n")
    assert code == 0, shown
    assert shown.startswith("Passphrase for casstore.key: ")
    assert "The same again: " in shown
    assert WORD not in shown
    assert load(folder / "casstore.key").public.kind == "ecdsa-p256"
    code, shown = typed(casstore, "key", "generate", "empty", answers="\n\n")
    assert (code, "got an empty one; --no-passphrase leaves" in shown, (folder / "empty.key").exists()) == (
        2,
        True,
        False,
    )
    code, shown = typed(casstore, "key", "public", "casstore.key", answers=f"{WORD}\n")
    assert code == 0, shown
    assert shown.startswith("Passphrase of casstore.key: ")
    assert "BEGIN PUBLIC KEY" in shown
    code, shown = typed(casstore, "key", "public", "casstore.key", answers="another\n")
    assert code == 2
    assert "wrong passphrase" in shown
    code, shown = typed(casstore, "key", "public", "casstore.key", "--passphrase-file", "-", answers="")
    assert code == 2
    assert "got a terminal" in shown


# --- show, public


def test_show_tells_what_is_in_each_file(casstore: Casstore, folder: Path) -> None:
    shutil.copy(VECTORS / "p256.pub", folder)
    (folder / "locked.key").write_bytes(P256.to_pem(WORD.encode()))
    shutil.copy(FIXTURES / "cosign-keys" / "p256.key", folder / "cosign.key")
    casstore.env["CASSTORE_PASSPHRASE"] = WORD
    files = ["p256.pub", "locked.key", "cosign.key", str(VECTORS / "ed25519.key")]
    told = casstore.json("key", "show", *files, schema="cli-key-show")["keys"]
    assert [each["file"] for each in told] == files
    assert [(each["private"], each["encrypted"]) for each in told] == [
        *((False, False), (True, True), (True, True), (True, False))
    ]
    assert [each["type"] for each in told] == ["ecdsa-p256"] * 3 + ["ed25519"]
    assert told[0]["fingerprint"] == told[1]["fingerprint"] == str(P256.public.fingerprint)
    shown = casstore("key", "show", "p256.pub", "locked.key").lines
    assert shown[:5] == [
        "File:            p256.pub",
        "Key:             public",
        "Type:            ecdsa-p256",
        f"Fingerprint:     {P256.public.fingerprint}",
        f"Hint:            {P256.public.hint}",
    ]
    assert shown[5:8] == ["", "File:            locked.key", "Key:             private, encrypted"]


def test_what_is_public_or_open_needs_no_passphrase(casstore: Casstore, folder: Path) -> None:
    casstore("key", "show", VECTORS / "p256.pub", VECTORS / "p256.key")
    assert casstore("key", "public", VECTORS / "p256.key").out == (VECTORS / "p256.pub").read_bytes()
    (folder / "locked.key").write_bytes(P256.to_pem(WORD.encode()))
    casstore("key", "show", "locked.key", code=2)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (None, "key 'x': it cannot be read: No such file"),
        (b"", "expected a public key as PEM"),
        (b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", "got one that cannot be read"),
    ],
)
def test_what_is_no_key(casstore: Casstore, folder: Path, content: bytes | None, told: str) -> None:
    if content is not None:
        (folder / "x").write_bytes(content)
    error = json.loads(casstore("key", "show", "x", "--json", code=2).err)
    assert error["error"] == InvalidKey.__name__
    assert told in error["message"]


def test_public_wants_a_private_key(casstore: Casstore) -> None:
    assert "got a public one" in casstore("key", "public", VECTORS / "p256.pub", code=2).stderr


def test_64_a_file_name_reaches_no_terminal_as_it_is(casstore: Casstore, folder: Path) -> None:
    name = "\x1b]0;evil\x07"
    shutil.copy(VECTORS / "p256.pub", folder / name)
    assert r"\u001b" in casstore("key", "show", name).stdout
    assert "\x1b" not in casstore("key", "show", name).stdout
    assert "\x1b" not in casstore("key", "show", name + "x", code=2).stderr
    assert "\x1b" not in casstore("key", "generate", name, "--no-passphrase").stderr


def test_the_bare_verb_says_what_is_missing(casstore: Casstore) -> None:
    assert "Missing command" in casstore("key", code=2).stderr
    assert "Commands:\n  generate" in casstore("key", "--help").stdout
    for command in ("generate", "show", "public"):
        assert f"Examples:\n  casstore key {command}" in casstore("key", command, "--help").stdout


def test_no_store_is_made_and_nothing_slow_is_loaded(casstore: Casstore, folder: Path) -> None:
    casstore("key", "generate", "--no-passphrase")
    assert not casstore.store.exists()
    code = (
        "import sys\nfrom casstore.cli.main import main\n"
        f"try:\n    main(['key', 'show', {str(VECTORS / 'p256.pub')!r}])\nexcept SystemExit:\n    pass\n"
        "print([name for name in ('numpy', 'oras', 'requests', 'jsonschema', 'nacl') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
