"""doctor: each check finds what it is for, on a real store, file system, Python and registry; and changes nothing."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from casstore.doctor import disks, machine, registries, stored
from casstore.doctor.findings import Level
from casstore.registry.failures import failure
from casstore.registry.options import RegistryOptions
from tests.support.certificates import Authority
from tests.support.command import Casstore
from tests.support.registry_simulator import PASSWORD, USER, RegistrySimulator
from tests.support.seed import make_artifact
from tests.support.stores import all_files

Found = dict[str, list[dict[str, Any]]]


def findings(casstore: Casstore, *args: object, code: int = 0) -> Found:
    """What doctor tells, by check."""
    found: Found = {}
    for each in casstore.json("doctor", *args, code=code)["findings"]:
        found.setdefault(each["check"], []).append(each)
    return found


def only(casstore: Casstore, check: str, *args: object, level: str) -> dict[str, Any]:
    """The one finding of a check that is not ok; the exit code fits it."""
    found = findings(casstore, *args, code=3 if level == "problem" else 0)
    [told] = [each for each in found[check] if each["level"] != "ok"]
    assert told["level"] == level
    assert told["fix"]
    return told


def disk(folder: Path) -> Path:
    path = folder / "disk"
    path.write_bytes(os.urandom(100_000) + bytes(31_072))
    return path


@pytest.fixture
def store(casstore: Casstore) -> Path:
    casstore("create", "base", "--disk", disk(casstore.folder))
    casstore("list")
    return casstore.store


# --- what is found ----------------------------------------------------------------------------------------------------


def test_a_sound_store_has_nothing_to_mend_and_is_not_changed(casstore: Casstore, store: Path) -> None:
    before = all_files(store)
    found = findings(casstore)
    told = [each for several in found.values() for each in several if each["level"] in {"warning", "problem"}]
    assert [each for each in told if each["check"] not in {"durability", "space", "inodes"}] == []
    assert [each["text"] for each in found["store"]] == ["a store with 1 name"]
    checks = {"python", "packages", "store", "names", "catalog", "leftovers", "permissions", "umask", "locks"}
    assert checks | {"reflinks", "holes", "space", "durability", "clock"} <= set(found)
    assert all_files(store) == before


def test_people_see_each_with_what_to_do(casstore: Casstore) -> None:
    done = casstore("doctor")
    assert "\nnote     store         " in done.stdout
    assert "-> casstore init makes one" in done.stdout
    assert "casstore init" not in casstore("doctor", "-q").stdout
    [line] = casstore("doctor", "--format", "{check}").stdout.split("\n")[2:3]
    assert line == "store"


def test_without_a_store_it_says_how_to_make_one_and_makes_none(casstore: Casstore) -> None:
    assert "casstore init" in only(casstore, "store", level="note")["fix"]
    assert not casstore.store.exists()
    casstore("init")
    assert findings(casstore)["store"][0]["level"] == "ok"


def test_what_is_no_store_is_a_problem(casstore: Casstore) -> None:
    casstore.store.write_text("a file")
    assert "got a file" in only(casstore, "store", level="problem")["text"]
    casstore.store.unlink()
    casstore.store.mkdir()
    (casstore.store / "letter").touch()
    assert "other files" in only(casstore, "store", level="problem")["text"]
    assert os.listdir(casstore.store) == ["letter"]


def test_a_store_of_a_later_version(casstore: Casstore, store: Path) -> None:
    (store / "casstore.json").write_text('{"version": 2, "features": {}}')
    assert "newer casstore" in only(casstore, "store", level="problem")["text"]


def test_a_directory_of_the_store_that_is_gone(casstore: Casstore, store: Path) -> None:
    (store / "blobs" / "sha256").rename(store.parent / "away")
    found = findings(casstore, code=3)
    assert [each["level"] for each in found["store"]] == ["problem"]
    assert "casstore check" in found["store"][0]["fix"]


def test_names_that_lead_nowhere(casstore: Casstore, store: Path) -> None:
    for n in range(5):
        (store / "refs" / f"lost{n}").symlink_to(f"../blobs/sha256/{n:064}")
    told = findings(casstore, code=3)["names"]
    assert [each["level"] for each in told] == ["problem"] * 4
    assert told[-1]["text"].startswith("2 more names")


def test_a_catalog_that_is_gone_or_garbage_is_made_again(casstore: Casstore, store: Path) -> None:
    (store / "catalog.sqlite").write_bytes(b"garbage" * 1000)
    told = only(casstore, "catalog", level="note")
    assert told["fix"] == "casstore reindex"
    casstore(*told["fix"].split()[1:])
    assert findings(casstore)["catalog"][0]["level"] == "ok"


def test_what_an_interrupted_command_left(casstore: Casstore, store: Path) -> None:
    (store / "tmp" / "op-0123456789abcdef").mkdir(parents=True)
    (store / "tmp" / "op-0123456789abcdef" / "lease").touch()
    (store / ".index.json.0123456789ab.tmp").touch()
    told = findings(casstore)["leftovers"]
    assert [(each["level"], each["fix"]) for each in told] == [("note", "casstore gc")] * 2
    casstore("gc")
    assert findings(casstore)["leftovers"][0]["level"] == "ok"


def test_a_store_that_others_may_write_to(casstore: Casstore, store: Path) -> None:
    (store / "refs").chmod(0o775)
    told = only(casstore, "permissions", level="warning")
    subprocess.run(["/bin/sh", "-c", told["fix"]], check=True)
    assert findings(casstore)["permissions"][0]["level"] == "ok"


def test_an_umask_that_closes_files_to_their_owner(casstore: Casstore, store: Path) -> None:
    before = os.umask(0o777)
    try:
        told = only(casstore, "umask", level="warning")
    finally:
        os.umask(before)
    assert told["text"].startswith("0777")


def test_a_snapshot_from_the_future(casstore: Casstore) -> None:
    later = datetime.now(UTC) + timedelta(hours=1)
    path, _ = make_artifact(casstore.folder / "artifacts", "later", b"later", created_at=later.isoformat())
    casstore("create", "later", "--from-artifact", path)
    told = only(casstore, "clock", level="warning")
    assert "snapshot later was made 60 minutes from now" in told["text"]


# --- the machine ------------------------------------------------------------------------------------------------------


def test_a_package_that_is_broken(casstore: Casstore) -> None:
    """Even what the store needs: the rest is looked at all the same."""
    (casstore.folder / "broken").mkdir()
    (casstore.folder / "broken" / "numpy.py").write_text("raise ImportError('no numpy for you')")
    casstore.env["PYTHONPATH"] = str(casstore.folder / "broken")
    document = json.loads(casstore.process("doctor", "--json", code=3).stdout)
    told = [each for each in document["findings"] if each["level"] == "problem" and each["check"] == "packages"]
    assert [(each["subject"], each["text"]) for each in told] == [
        ("numpy", "it cannot be imported: ImportError: no numpy for you")
    ]
    assert {"locks", "space", "umask"} <= {each["check"] for each in document["findings"]}


def test_packages_that_are_missing_or_old() -> None:
    told = list(machine.packages(["numpy>=99.1", "nosuchpackage>=1", "click", 'pytest; extra == "dev"']))
    assert [(each.subject, each.level) for each in told] == [
        ("numpy", Level.PROBLEM),
        ("nosuchpackage", Level.PROBLEM),
        ("casstore", Level.OK),
    ]
    assert told[0].fix == "python -m pip install --upgrade 'numpy>=99.1'"
    assert told[2].text.startswith("click 8.")


@pytest.mark.needs("strace")
@pytest.mark.parametrize(
    ("fault", "said"),
    [("error=ENOLCK", "cannot lock files"), ("retval=0", "expected a lock to keep others out, got it twice")],
)
def test_a_file_system_whose_locks_do_not_work(casstore: Casstore, fault: str, said: str) -> None:
    words = ["strace", "-qq", "-f", "-o", os.devnull, "-e", "trace=flock", "-e", f"inject=flock:{fault}"]
    env = {name: value for name, value in {**os.environ, **casstore.env}.items() if value is not None}
    command = [*words, sys.executable, "-m", "casstore", "doctor", "--json"]
    done = subprocess.run(command, env=env, capture_output=True, check=False)
    assert done.returncode == 3, done.stderr
    told = [each for each in json.loads(done.stdout)["findings"] if each["level"] == "problem"]
    assert [each["check"] for each in told] == ["locks"]
    assert said in told[0]["text"]
    assert casstore.folder.joinpath("store").exists() is False


@contextlib.contextmanager
def mounted(place: Path, options: str) -> Iterator[Path]:
    """A tmpfs."""
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", place], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", place], check=True)


@pytest.mark.needs("root", "loop")
def test_a_small_file_system_in_memory(casstore: Casstore) -> None:
    with mounted(casstore.store, "size=1m,nr_inodes=90"):
        casstore("init")
        found = findings(casstore, code=3)
        levels = {check: found[check][0]["level"] for check in ("space", "inodes", "durability", "locks")}
        assert levels == {"space": "problem", "inodes": "problem", "durability": "warning", "locks": "ok"}
        with (casstore.store / "filler").open("ab", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(bytes(4096))
        found = findings(casstore, code=3)
        assert [found[check][0]["level"] for check in ("locks", "reflinks")] == ["ok", "problem"]
        assert "casstore gc" in found["reflinks"][0]["fix"]
        assert os.listdir(casstore.store / "tmp") == []
    with mounted(casstore.folder / "roomy", "size=1g,nr_inodes=900"):
        found = findings(Casstore(casstore.folder / "roomy"))
        assert [found[check][0]["level"] for check in ("space", "inodes")] == ["warning", "warning"]


@pytest.mark.needs("root", "loop")
def test_a_store_that_can_only_be_read(casstore: Casstore, store: Path) -> None:
    subprocess.run(["mount", "--bind", store, store], check=True)
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", store], check=True)
        found = findings(casstore)
    finally:
        subprocess.run(["umount", store], check=True)
    assert [each["level"] for each in found["store"]] == ["ok", "note"]
    assert found["locks"][0]["text"].startswith("it cannot be written here")


# --- registries -------------------------------------------------------------------------------------------------------


@pytest.fixture
def registry() -> Iterator[RegistrySimulator]:
    with RegistrySimulator(auth="basic") as running:
        yield running


def passwords(casstore: Casstore, **hosts: str) -> None:
    """Let Docker's file know these passwords of USER, by host."""
    auths = {host: {"auth": base64.b64encode(f"{USER}:{word}".encode()).decode()} for host, word in hosts.items()}
    casstore.docker_config.parent.mkdir(exist_ok=True)
    casstore.docker_config.write_text(json.dumps({"auths": auths}))


def test_a_registry_that_takes_the_password_or_not(casstore: Casstore, registry: RegistrySimulator) -> None:
    host = registry.host
    told = only(casstore, "login", f"{host}/team/disks", "--plain-http", level="problem")
    assert told["fix"] == f"casstore login {host} --plain-http"
    words = [*told["fix"].split()[1:], "-u", USER, "--password-stdin"]
    casstore(*words, stdin=PASSWORD.encode())
    assert findings(casstore, f"{host}/team/disks", "--plain-http")["login"][0]["level"] == "ok"
    passwords(casstore, **{host: "wrong"})
    told = only(casstore, "login", host, "--plain-http", level="problem")
    assert "were refused" in told["text"]
    assert "wrong" not in told["text"]


def test_a_registry_that_lets_anybody_read(casstore: Casstore) -> None:
    with RegistrySimulator(auth="bearer") as running:
        assert only(casstore, "login", running.host, "--plain-http", level="note")["fix"].startswith("casstore login")
    with RegistrySimulator() as running:
        assert findings(casstore, running.host, "--plain-http")["login"][0]["level"] == "ok"


def test_all_registries_of_the_file_of_passwords_are_asked(casstore: Casstore, registry: RegistrySimulator) -> None:
    with RegistrySimulator(auth="basic") as other:
        passwords(casstore, **{registry.host: PASSWORD, f"http://{other.host}/v1/": "wrong"})
        told = findings(casstore, "--plain-http", code=3)["login"]
    assert {each["subject"]: each["level"] for each in told} == {registry.host: "ok", other.host: "problem"}


def test_what_a_registry_says_is_no_advice() -> None:
    for words in (b"try --plain-http", b"--ca-bundle --insecure"):
        error = failure("registry.example", 503, words, expected="200", advice="", secrets=())
        assert registries._reach(str(error), "registry.example", RegistryOptions()).startswith("curl ")


@pytest.mark.parametrize("option", ["--plain-http", "--insecure"])
def test_passwords_go_nowhere_unprotected_that_nobody_has_named(casstore: Casstore, option: str) -> None:
    passwords(casstore, **{"registry.invalid": PASSWORD})
    told = only(casstore, "registry", option, level="note")
    assert told["subject"] == "registry.invalid"
    assert "it was not asked" in told["text"]
    assert only(casstore, "registry", "registry.invalid", option, level="problem")["subject"] == "registry.invalid"


def test_http_and_https_taken_for_each_other(casstore: Casstore, registry: RegistrySimulator, tmp_path: Path) -> None:
    passwords(casstore, **{registry.host: PASSWORD})
    told = only(casstore, "registry", registry.host, level="problem")
    assert told["fix"] == f"casstore doctor {registry.host} --plain-http"
    casstore(*told["fix"].split()[1:])
    authority = Authority("doctor test CA")
    with RegistrySimulator(tls=authority.server_context("127.0.0.1", folder=tmp_path)) as secure:
        told = only(casstore, "registry", secure.host, level="problem")
        assert told["fix"] == f"casstore doctor {secure.host} --ca-bundle FILE"
        authority.write_bundle(tmp_path / "ca.pem")
        found = findings(casstore, *told["fix"].replace("FILE", str(tmp_path / "ca.pem")).split()[2:])
        assert found["registry"][0] == found["registry"][0] | {"level": "ok", "text": "it answers over https"}
        only(casstore, "registry", secure.host, "--insecure", level="warning")


def test_a_registry_that_is_not_there_or_ill(casstore: Casstore, registry: RegistrySimulator) -> None:
    told = only(casstore, "registry", "127.0.0.1:1", level="problem")
    assert told["text"].startswith("[Errno 111] Connection refused")
    registry.faults.status = 503
    assert "got 503" in only(casstore, "registry", registry.host, "--plain-http", level="problem")["text"]


@pytest.mark.parametrize(("ahead", "text"), [(-3600.0, "60 minutes ahead of"), (7200.0, "120 minutes behind")])
def test_a_clock_that_differs_from_the_registry(casstore: Casstore, ahead: float, text: str) -> None:
    with RegistrySimulator() as running:
        assert findings(casstore, running.host, "--plain-http")["clock"][0]["level"] == "ok"
        running.faults.clock = ahead
        found = findings(casstore, running.host, "--plain-http")["clock"][0]
    assert (found["level"], text in found["text"]) == ("warning", True)


def test_files_of_passwords_that_are_wrong(casstore: Casstore) -> None:
    casstore.docker_config.parent.mkdir()
    casstore.docker_config.write_text("{")
    assert only(casstore, "credentials", level="problem")["subject"] == str(casstore.docker_config)
    casstore.docker_config.write_text('{"credHelpers": {"r.example": "none-such"}, "credsStore": "kept"}')
    casstore.env["PATH"] = f"{casstore.folder}:/usr/bin:/bin"
    program = casstore.folder / "docker-credential-kept"
    program.write_text("#!/bin/sh\nexit 1\n")
    program.chmod(0o755)
    told = {each["subject"]: each["level"] for each in findings(casstore, "127.0.0.1:1", code=3)["helpers"]}
    assert told == {"docker-credential-kept": "ok", "docker-credential-none-such": "problem"}


def test_a_proxy_is_told_without_its_password(casstore: Casstore) -> None:
    casstore.env["https_proxy"] = "http://me:secret@proxy.example:3128"
    found = findings(casstore)["proxy"][0]
    assert (found["level"], found["subject"]) == ("note", "http://proxy.example:3128")
    assert "secret" not in json.dumps(found)


def test_a_layout_is_no_registry(casstore: Casstore) -> None:
    assert "casstore list oci:/x" in casstore("doctor", "oci:/x", code=2).stderr


# --- the documentation ------------------------------------------------------------------------------------------------


def test_the_checks_and_thresholds_are_those_in_the_text() -> None:
    root = Path(__file__).parents[1]
    page = (root / "docs/reference/doctor.md").read_text()
    schema = json.loads((root / "schemas/cli-doctor.schema.json").read_text())
    checks = schema["properties"]["findings"]["items"]["properties"]["check"]["enum"]
    assert sorted(re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE)) == sorted(checks)
    for number, unit in ((disks.LOW_BYTES >> 30, " GiB"), (disks.NO_BYTES >> 20, " MiB"), (disks.LOW_INODES, ";")):
        assert f"below {number:,}{unit}" in page
    assert f"below {disks.NO_INODES} |" in page
    assert f"{stored.FUTURE} s ahead; {registries.SKEW} s apart" in page
    assert f"up to {registries.MOST} that" in page
