"""Completion in real shells: a TAB after the beginning of a name, and of the tag of a layout."""

from __future__ import annotations

import os
import pty
import re
import select
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.support import disks
from tests.support.command import Casstore

_PATIENCE = 30.0  # seconds; for a machine that is busy


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> Casstore:
    """A store with two names, a layout with a tag, and a program `casstore` on the search path."""
    casstore = Casstore(tmp_path_factory.mktemp("completion"))
    disk = casstore.folder / "disk"
    disks.random_sparse_file(disk, seed=1)
    casstore("create", "after-pip", "--disk", disk)
    casstore("create", "base", "--disk", disk)
    casstore("push", "base", f"oci:{casstore.folder}/layout:weekly")
    (casstore.folder / "bin").mkdir()
    program = casstore.folder / "bin" / "casstore"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m casstore "$@"\n')
    program.chmod(0o755)
    for shell in ("bash", "zsh", "fish"):
        (casstore.folder / f"complete.{shell}").write_bytes(casstore("completion", shell).out)
    return casstore


def environment(casstore: Casstore) -> dict[str, str]:
    mine = {name: value for name, value in casstore.env.items() if value is not None}
    root = str(Path(__file__).parents[1])
    path = f"{casstore.folder}/bin:{os.environ['PATH']}"
    return {**os.environ, **mine, "PATH": path, "PYTHONPATH": root, "TERM": "dumb", "PS1": "$ ", "HISTFILE": ""}


def typed(casstore: Casstore, shell: Sequence[str], setup: str, keys: str, *, until: str) -> str:
    """What a shell on a terminal shows after these keys."""
    terminal, other = pty.openpty()
    process = subprocess.Popen(
        list(shell), env=environment(casstore), stdin=other, stdout=other, stderr=other, start_new_session=True
    )
    os.close(other)
    shown = b""
    try:
        os.write(terminal, f"{setup}; echo RE''ADY\n".encode())
        sent, deadline = False, time.monotonic() + _PATIENCE
        while time.monotonic() < deadline and until.encode() not in shown:
            if select.select([terminal], [], [], 0.05)[0]:
                shown += os.read(terminal, 65536)
            if not sent and b"READY" in shown:
                os.write(terminal, keys.encode())
                shown, sent = b"", True
    finally:
        process.kill()
        process.wait()
        os.close(terminal)
    return shown.decode(errors="replace")


SHELLS = {
    "bash": (["bash", "--norc", "--noprofile", "-i"], "source {file}"),
    "zsh": (["zsh", "-f", "-i"], "PS1='$ '; autoload -Uz compinit; compinit -u -D; source {file}"),
}


@pytest.mark.parametrize("shell", [pytest.param(name, marks=pytest.mark.needs(name)) for name in SHELLS])
@pytest.mark.parametrize(
    ("words", "rest"), [("restore ba", "se"), ("pull oci:{folder}/layout:w", "eekly"), ("undo --dry", "-run")]
)
def test_a_tab(known: Casstore, shell: str, words: str, rest: str) -> None:
    command, setup = SHELLS[shell]
    start = f"casstore {words.format(folder=known.folder)}"
    shown = typed(known, command, setup.format(file=known.folder / f"complete.{shell}"), f"{start}\t", until=rest)
    assert start + rest in re.sub(r"[\r\n\x07]|\x1b\[\??[0-9;]*[a-zA-Z]", "", shown), shown


@pytest.mark.needs("fish")
def test_fish(known: Casstore) -> None:
    def completed(words: str) -> list[str]:
        script = f"source {known.folder}/complete.fish; complete -C '{words}'"
        done = subprocess.run(
            ["fish", "--no-config", "-c", script], env=environment(known), capture_output=True, text=True, check=True
        )
        return [line.partition("\t")[0] for line in done.stdout.splitlines()]

    assert completed("casstore restore ") == ["after-pip", "base"]
    layout = f"oci:{known.folder}/layout:"
    assert completed(f"casstore pull {layout}") == [f"{layout}weekly"]


def test_completion_imports_nothing_that_is_slow(known: Casstore) -> None:
    code = (
        "import sys\nfrom casstore.cli.main import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "slow = ('numpy', 'rich', 'requests', 'jsonschema', 'cryptography', 'zstandard', 'sqlite3')\n"
        "print([name for name in slow if name in sys.modules], file=sys.stderr)"
    )
    for words in ("casstore restore b", f"casstore pull oci:{known.folder}/layout:"):
        environ = {"_CASSTORE_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": "2"}
        environ |= environment(known)
        done = subprocess.run([sys.executable, "-c", code], env=environ, capture_output=True, text=True, check=True)
        assert done.stdout.startswith("plain,")
        assert done.stderr == "[]\n"


@pytest.mark.parametrize(
    "index", ["", "[]", '{"manifests": 1}', '{"manifests": [1, {"annotations": []}]}', "[" * 100_000]
)
def test_a_layout_that_is_none_completes_to_nothing(known: Casstore, index: str) -> None:
    (known.folder / "bad").mkdir(exist_ok=True)
    (known.folder / "bad" / "index.json").write_text(index)
    environ = environment(known) | {"_CASSTORE_COMPLETE": "bash_complete", "COMP_CWORD": "2"}
    environ["COMP_WORDS"] = f"casstore pull oci:{known.folder}/bad:"
    done = subprocess.run([sys.executable, "-m", "casstore"], env=environ, capture_output=True, text=True, check=True)
    assert (done.stdout.strip(), done.stderr) == ("", "")


def test_a_fifo_in_place_of_an_index_does_not_hang_the_shell(known: Casstore) -> None:
    folder = known.folder / "fifo"
    folder.mkdir()
    os.mkfifo(folder / "index.json")
    asked = {"_CASSTORE_COMPLETE": "bash_complete", "COMP_WORDS": f"casstore pull oci:{folder}:", "COMP_CWORD": "2"}
    done = subprocess.run(
        ["casstore"], env={**environment(known), **asked}, check=True, capture_output=True, text=True, timeout=30
    )
    assert done.stdout.strip() == ""
