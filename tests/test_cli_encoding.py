"""What the command line writes under locales that cannot say everything, and of bytes that are no text."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from casstore.schema import validate
from tests.support import disks
from tests.support.command import Casstore

LABEL = "größe=日本"
LOCALES: dict[str, dict[str, str]] = {
    "utf-8": {"PYTHONUTF8": "1"},
    "C without coercion": {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    "latin-1": {"PYTHONIOENCODING": "latin-1", "PYTHONUTF8": "0"},
}


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Casstore:
    """A snapshot with a label that is not ASCII."""
    casstore = Casstore(tmp_path_factory.mktemp("encoding"))
    disk = casstore.folder / "disk"
    disks.random_sparse_file(disk, seed=1)
    casstore("create", "base", "--disk", disk, "--label", LABEL, "--label", "name=\u202eevil\x1b[31m")
    return casstore


def run(casstore: Casstore, *args: str | bytes, **environ: str) -> subprocess.CompletedProcess[bytes]:
    env = {name: value for name, value in {**os.environ, **casstore.env, **environ}.items() if value is not None}
    return subprocess.run([sys.executable, "-m", "casstore", *args], env=env, capture_output=True, check=False)


@pytest.mark.parametrize("locale", LOCALES)
def test_every_locale_gets_an_answer(labelled: Casstore, locale: str) -> None:
    done = run(labelled, "inspect", "base", **LOCALES[locale])
    assert (done.returncode, done.stderr) == (0, b"")
    told = {LABEL.encode(), rb"gr\xf6\xdfe=\u65e5\u672c", LABEL.partition("=")[0].encode("latin-1") + rb"=\u65e5\u672c"}
    assert any(text in done.stdout for text in told)
    assert rb"name=\u202eevil\u001b[31m" in done.stdout


def test_json_is_the_same_under_every_locale(labelled: Casstore) -> None:
    written = {run(labelled, "list", "--json", **LOCALES[locale]).stdout for locale in ("utf-8", "latin-1")}
    [document] = map(json.loads, written)
    validate(document, "cli-list", subject="list")
    assert document["snapshots"][0]["labels"]["größe"] == "日本"


def test_bytes_that_are_no_text(labelled: Casstore) -> None:
    disk = os.fsencode(labelled.folder / "disk")
    done = run(labelled, "create", "new", "--disk", disk, "--label", b"x=\xff")
    assert (done.returncode, rb"invalid --label 'x=\udcff': expected UTF-8" in done.stderr) == (2, True)
    place = os.fsencode(labelled.folder) + b"/out\xff"
    done = run(labelled, "restore", "base", place, "-q")
    assert (done.returncode, done.stdout) == (0, place.replace(b"\xff", rb"\udcff") + b"\n")
    assert os.path.getsize(place) == os.path.getsize(disk)
    done = run(labelled, "--store", os.fsencode(labelled.folder) + b"/store\xff", "init", "--json")
    assert json.loads(done.stdout)["path"] == f"{labelled.folder}/store\udcff"


def test_a_full_disk_behind_standard_output_is_told(labelled: Casstore) -> None:
    with open("/dev/full", "wb") as full, labelled.start("list", stdout=full) as process:
        assert process.stderr is not None
        assert process.stderr.read() == b"error: No space left on device\n"
    assert process.returncode == 17
