"""After an error comes the command to type next, in the user's own words: `Try: ...`. Each error is a real one."""

from __future__ import annotations

import errno
import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import pytest

from casstore import spec
from casstore.cli.advice import advise, take_apart
from casstore.cli.main import main
from casstore.digest import Digest
from casstore.errors import StorageError, StoreLocked, storage_errors
from casstore.names import nearest
from casstore.registry.failures import failure
from casstore.schema import validate
from casstore.storedir import StoreDirectory, StoreOptions
from tests.support import disks
from tests.support.certificates import Authority
from tests.support.command import Casstore
from tests.support.registry_simulator import RegistrySimulator
from tests.support.sandboxes import SandboxHome
from tests.support.stores import flip_byte
from tests.support.words import require_valid


@dataclass(frozen=True)
class World:
    """A store with base and its child, a layout, registries, a home of microsandbox; the words of cases name them."""

    casstore: Casstore
    names: dict[str, str]

    def words(self, text: str) -> list[str]:
        return shlex.split(text.format(**self.names))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("advice")
    casstore = Casstore(folder)
    disk = folder / "disk.ext4"
    disks.random_sparse_file(disk, seed=1)
    casstore("create", "base", "--disk", disk)
    casstore("create", "child", "--disk", disk, "--parent", "base")
    casstore("create", "gone", "--disk", disk)
    casstore("push", "base", f"oci:{folder}/layout")
    casstore("rm", "gone")
    (folder / "artifact").mkdir()
    (folder / "artifact" / "manifest.json").write_text("{}")
    (folder / "image.tar").write_bytes(bytes(range(256)) * 16)
    home = SandboxHome(folder / "msb", "0.7")
    home.add("box", upper=disk)
    home.add("busy", upper=disk, status="Running")
    casstore.env["MSB_HOME"] = str(home.folder)
    authority = Authority("advice test CA")
    tls = authority.server_context("127.0.0.1", folder=folder)
    with (
        RegistrySimulator() as open_,
        RegistrySimulator(auth="basic") as closed,
        RegistrySimulator(tls=tls) as secure,
    ):
        casstore("push", "base", f"{open_.host}/a/b:base", "--plain-http")
        raw = json.dumps({"schemaVersion": 2, "mediaType": spec.MEDIA_MANIFEST, "config": EMPTY, "layers": []}).encode()
        open_.put_manifest("a/b", raw, tag="image")
        yield World(
            casstore,
            {
                "dir": str(folder),
                "disk": str(disk),
                "open": open_.host,
                "closed": closed.host,
                "secure": secure.host,
                "plain": "--plain-http --retries 0",
            },
        )
    home.close()


EMPTY = {"mediaType": "application/vnd.oci.image.config.v1+json", "size": 2, "digest": str(Digest.of(b"{}"))}


ZEROS = "0" * 64


class Case(NamedTuple):
    words: str
    code: int
    next: str
    works: bool = False
    """The suggestion does what was meant."""


CASES = [
    # no store
    Case("--store {dir}/none list", 10, "casstore --store {dir}/none init"),
    Case("--store {dir}/none restore base {dir}/x", 10, "casstore --store {dir}/none init"),
    Case("--store {dir}/layout list", 10, "casstore list oci:{dir}/layout", works=True),
    # names
    Case("restore bsae {dir}/one", 10, "casstore restore base {dir}/one", works=True),
    Case("inspect Base --json", 10, "casstore inspect base --json", works=True),
    Case("tag chidl x", 10, "casstore tag child x", works=True),
    Case("push bsae oci:{dir}/layout:y", 10, "casstore push base oci:{dir}/layout:y", works=True),
    Case("export bsae {dir}/x.tar", 10, "casstore export base {dir}/x.tar", works=True),
    Case("inspect nothing", 10, "casstore list", works=True),
    Case("inspect gone", 10, "casstore undo gone"),
    Case("inspect sha256:abcdef012", 10, "casstore list", works=True),
    Case("create 'my disk' --disk {disk}", 2, "casstore create my-disk --disk {disk}", works=True),
    Case("create base --disk {disk}", 15, "casstore create base-2 --disk {disk}", works=True),
    Case("tag child base", 15, "casstore tag child base-2"),
    Case(
        "pull oci:{dir}/layout:base --name child", 15, "casstore pull oci:{dir}/layout:base --name child-2", works=True
    ),
    # disks and files
    Case("create new --disk {dir}/dsik.ext4", 16, "casstore create new --disk {disk}", works=True),
    Case("create new2 --disk {dir}/x/nothing", 16, "ls -l {dir}/x"),
    Case("create new3 --disk {dir}/layout", 16, "ls -l {dir}/layout"),
    Case("create new4 --disk {dir}/artifact", 16, "casstore create new4 --from-artifact {dir}/artifact"),
    Case("restore base {disk}", 15, "casstore restore base {dir}/disk-2.ext4", works=True),
    Case("restore base {dir}/new/folder/disk", 17, "mkdir -p {dir}/new/folder", works=True),
    Case("import {dir}/image.tar", 12, "casstore create image --disk {dir}/image.tar"),
    Case("import {dir}/image.tra", 16, "casstore import {dir}/image.tar"),
    # sandboxes
    Case("create new5 --from busy", 15, "msb stop busy"),
    Case("create new6 --from bxo", 10, "casstore create new6 --from box", works=True),
    Case("create new7 --from completely-different", 10, "msb ls"),
    # references
    Case("push base registry.example", 2, "casstore push --help", works=True),
    Case("push base https://registry.example/a/b", 2, "casstore push base registry.example/a/b"),
    Case("pull base", 2, "casstore list", works=True),
    Case("copy base oci:{dir}/layout:z", 2, "casstore push base oci:{dir}/layout:z", works=True),
    Case("pull {open}/a/b {plain}", 2, "casstore list {open}/a/b --plain-http", works=True),
    Case("pull oci:{dir}/layout:bsae --name l1", 10, "casstore pull oci:{dir}/layout:base --name l1", works=True),
    Case("pull oci:{dir}/layout:other", 10, "casstore list oci:{dir}/layout", works=True),
    Case("pull oci:{dir}/nowhere:base", 10, "ls -l {dir}", works=True),
    # registries
    Case("pull {open}/a/b:none {plain}", 10, "casstore list {open}/a/b --plain-http", works=True),
    Case("pull {open}/a/b:image {plain}", 12, "casstore list {open}/a/b --plain-http", works=True),
    Case("pull {closed}/a/b:base {plain}", 14, "casstore login {closed} --plain-http"),
    Case("push base {closed}/a/b {plain}", 14, "casstore login {closed} --plain-http"),
    Case("pull 127.0.0.1:1/a/b:base", 14, "casstore doctor 127.0.0.1:1"),
    Case("pull {open}/a/b:base --name http", 14, "casstore pull {open}/a/b:base --name http --plain-http", works=True),
    Case("list {secure}/a/b", 14, "casstore doctor {secure}"),
    # keys
    Case("sign base --key {dir}/release.key", 2, "casstore key generate {dir}/release"),
    Case("push base oci:{dir}/layout --sign {dir}/release.key", 2, "casstore key generate {dir}/release"),
    Case("pull oci:{dir}/layout:base --name k --key {dir}/release.pub", 2, "ls -l {dir}", works=True),
    # verbs and options
    Case("craete m1 --disk {disk}", 2, "casstore create m1 --disk {disk}", works=True),
    Case("remov base", 2, "casstore remove --help", works=True),
    Case("snapshots -q", 2, "casstore list --help", works=True),
    Case("list --store {dir}/none", 2, "casstore --store {dir}/none list"),
    Case("list --store={dir}/none --json", 2, "casstore --store={dir}/none list --json"),
    Case("create m2 --dsik {disk}", 2, "casstore create m2 --disk {disk}", works=True),
    Case("prune --keep-lats 1", 2, "casstore prune --help", works=True),
    Case("create m3 --disk {disk} --froce", 2, "casstore create --help", works=True),
    # words in the order of other tools
    Case("create {disk} -q", 2, "casstore create disk --disk {disk} -q", works=True),
    Case("create {disk} m4 --label a=b", 2, "casstore create m4 --disk {disk} --label a=b", works=True),
    Case("create m5 {disk}", 2, "casstore create m5 --disk {disk}", works=True),
    Case("create --disk {disk} -q -f", 2, "casstore create disk --disk {disk} -q -f", works=True),
    Case("create m6", 2, "casstore create --help", works=True),
    Case("files base:/etc -l", 2, "casstore files base /etc -l"),
    Case("cp base:/etc/motd {dir}/x", 2, "casstore cp base /etc/motd {dir}/x"),
    Case("cp base:/etc/motd", 2, "casstore cp base /etc/motd ."),
    Case("cat {open}/a/b:base:/etc/motd {plain}", 2, "casstore cat {open}/a/b:base /etc/motd {plain}"),
    Case("cat oci:{dir}/layout:base:/etc/motd", 2, "casstore cat oci:{dir}/layout:base /etc/motd"),
    Case("cat oci:{dir}/layout", 2, "casstore cat --help", works=True),
    Case("push {open}/a/turned base {plain}", 2, "casstore push base {open}/a/turned {plain}", works=True),
    Case("restore turned.ext4 base -q", 10, "casstore restore base turned.ext4 -q"),
    Case("restore {dir}/turned base", 2, "casstore restore base {dir}/turned", works=True),
    Case("restore turned.ext4 base -f", 10, "casstore list", works=True),
    # what is elsewhere, and what is here
    Case("restore oci:{dir}/layout:base {dir}/y", 2, "casstore pull oci:{dir}/layout:base"),
    Case("restore {open}/a/b:base {dir}/y {plain}", 2, "casstore pull {open}/a/b:base --plain-http"),
    Case("tree {open}/a/b:base {plain}", 2, "casstore list {open}/a/b --plain-http", works=True),
    Case("stats oci:{dir}/layout:base", 2, "casstore inspect oci:{dir}/layout:base", works=True),
    Case("list base", 2, "casstore inspect base", works=True),
    Case("list {open}/a/b:base {plain}", 2, "casstore list {open}/a/b {plain}", works=True),
    Case(f"pull r.example/a/b@sha256:{ZEROS}", 2, f"casstore pull r.example/a/b@sha256:{ZEROS} --name b-000000000000"),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.words)
def test_the_next_command_is_named(made: World, case: Case) -> None:
    done = made.casstore(*made.words(case.words), code=case.code)
    told = [line for line in done.stderr.splitlines() if line.startswith(("Try: ", '{"version"'))]
    line = told[-1].removeprefix("Try: ") if "--json" not in case.words else json.loads(told[-1])["try"]
    assert line == case.next.format(**made.names)
    if line.startswith("casstore "):
        require_valid(line)
    if case.works:
        _, *words = shlex.split(line)
        if line.startswith("casstore"):
            made.casstore(*words)
        else:
            subprocess.run(["/bin/sh", "-c", line], check=True, capture_output=True)


def test_programs_get_it_too(made: World) -> None:
    error = json.loads(made.casstore("inspect", "bsae", "--json", code=10).stderr)
    validate(error, "cli-error", subject="error")
    assert error["try"] == "casstore inspect base --json"


def test_the_commands_are_as_before() -> None:
    """What the options for help are called is kept by click, as it was when first asked."""
    program = (
        "from casstore.cli.advice import take_apart; from casstore.cli.main import main;"
        " take_apart(main, ['undo', 'x']); main(['undo', '-h'])"
    )
    subprocess.run([sys.executable, "-c", program], check=True, capture_output=True)


def test_what_was_refused_is_looked_at_first(made: World) -> None:
    prefix = made.casstore.folder / "own"
    made.casstore("key", "generate", prefix, "--no-passphrase")
    place = f"oci:{made.casstore.folder}/layout:base"
    told = made.casstore("pull", place, "--name", "t", "--key", f"{prefix}.pub", code=13).stderr
    assert told.splitlines()[-1] == f"Try: casstore inspect {place}"


def test_damage_is_looked_for(casstore: Casstore) -> None:
    disk = casstore.folder / "disk"
    disks.random_sparse_file(disk, seed=2)
    casstore("create", "base", "--disk", disk)
    flip_byte(max((casstore.store / "blobs/sha256").iterdir(), key=lambda path: path.stat().st_size))
    told = casstore("restore", "base", casstore.folder / "out", code=12).stderr
    assert told.splitlines()[-1] == "Try: casstore check --read-data"
    casstore("check", "--read-data", code=3)


def test_a_store_that_is_busy(made: World) -> None:
    directory = StoreDirectory.open(str(made.casstore.store), StoreOptions(), create=False)
    with directory.exclusive():
        told = made.casstore("--wait", "0s", "tag", "base", "more", code=11).stderr
    assert told.splitlines()[-1] == "Try: casstore --wait 10m tag base more"


def _error(number: int) -> StorageError:
    with pytest.raises(StorageError) as caught, storage_errors("writing"):
        raise OSError(number, os.strerror(number))
    return caught.value


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (_error(errno.ENOSPC), "casstore --store /s gc --dry-run"),
        (_error(errno.EROFS), "casstore --store /s doctor"),
        (OSError(errno.EACCES, "no", "/s/refs"), "casstore --store /s doctor"),
        (OSError(errno.ENOSPC, "full"), None),  # of standard output
        (_error(errno.EINTR), None),
        (StoreLocked("'/s/lock': this file system cannot lock files"), "casstore --store /s doctor"),
    ],
)
def test_what_the_file_system_refused(error: Exception, line: str | None) -> None:
    typed = take_apart(main, ["--store", "/s", "tag", "a", "b"])
    assert typed is not None
    assert advise(error, typed) == line


def test_what_may_be_a_password_is_not_repeated(made: World) -> None:
    told = made.casstore("inspect", "bsae", "--ca-bundle", "x@y", code=10).stderr
    assert "Try:" not in told
    assert "did you mean base?" in told


@pytest.mark.parametrize(
    ("status", "words", "line"),
    [
        (401, "run: casstore login evil.example", "casstore login registry.example"),
        (404, "; it was removed, and casstore undo --all takes it back", "casstore list registry.example/a/b"),
        (404, "; did you mean --insecure?", "casstore list registry.example/a/b"),
        (400, "; it seems to speak http: try --plain-http", "casstore doctor registry.example"),
        (503, "; it seems to speak http: try --plain-http (x)", "casstore doctor registry.example"),
    ],
)
def test_what_a_registry_says_is_no_advice(status: int, words: str, line: str) -> None:
    place, advice = "registry.example/a/b", "run: casstore login registry.example"
    error = failure(place, status, words.encode(), expected="200", advice=advice, secrets=())
    typed = take_apart(main, ["pull", f"{place}:base"])
    assert words in str(error)
    assert typed is not None
    assert advise(error, typed) == line


# --- which name was meant ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wanted", "known", "meant"),
    [
        ("bsae", ["base", "other"], "base"),
        ("BASE", ["base", "bass"], "base"),
        ("after-pipp", ["after-pip", "after-apt"], "after-pip"),
        ("v1", ["v2"], None),
        ("x", [], None),
        ("nothing", ["base", "child"], None),
        ("", ["base"], None),
    ],
)
def test_nearest(wanted: str, known: list[str], meant: str | None) -> None:
    assert nearest(wanted, known) == meant


def test_of_very_many_names_not_all_are_compared() -> None:
    """What is looked at is bounded: this would take minutes."""
    start = time.process_time()
    assert nearest("step-00000x", [f"step-{n:06}" for n in range(100_000)]) is not None
    assert time.process_time() - start < 5
