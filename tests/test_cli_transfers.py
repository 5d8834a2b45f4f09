"""push, pull, login and logout on the command line."""

from __future__ import annotations

import json
import re
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from casstore.credentials import Credentials, DockerConfig
from tests.support import disks
from tests.support.certificates import Authority
from tests.support.command import Casstore
from tests.support.servers import PASSWORD, USER, RunningRegistry, free_port, registry

needs_registry = pytest.mark.needs("docker-registry")


@pytest.fixture
def disk(casstore: Casstore, tmp_path: Path) -> Path:
    """A disk that is kept as `base`."""
    path = tmp_path / "disk.ext4"
    disks.unpack_fixture("base", path)
    casstore("create", "base", "--disk", path, "-q")
    return path


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RunningRegistry]:
    (tmp_path / "registry").mkdir()
    with registry(tmp_path / "registry") as running:
        yield running


@pytest.fixture
def secured(tmp_path: Path) -> Iterator[RunningRegistry]:
    """A registry with TLS and a password."""
    (tmp_path / "registry").mkdir()
    with registry(tmp_path / "registry", auth="htpasswd", tls=Authority()) as running:
        yield running


def test_push_and_pull_through_a_layout(casstore: Casstore, there: Casstore, disk: Path, tmp_path: Path) -> None:
    layout = tmp_path / "layout"
    digest = casstore.json("inspect", "base")["digest"]
    pushed = casstore("push", "base", f"oci:{layout}:v1")
    assert pushed.stdout == f"oci:{layout}@{digest}\n"
    said = rf"pushed oci:{layout}:v1: 4 blobs moved, \S+ KiB; 0 there already, 0 B; \S+ s\n"
    assert re.fullmatch(said, pushed.stderr)
    again = casstore.json("push", "base", f"oci:{layout}:v1")
    assert (again["moved_blobs"], again["present_blobs"]) == (0, 4)
    pulled = there("pull", pushed.stdout.strip(), "--name", "mine")
    assert pulled.stdout == pushed.stdout
    assert pulled.stderr.startswith("pulled mine: 4 blobs moved, ")
    there("restore", "mine", tmp_path / "back")
    assert disks.same_bytes(disk, tmp_path / "back")


def test_pull_names_by_the_tag_and_replaces_only_by_force(
    casstore: Casstore, there: Casstore, disk: Path, tmp_path: Path
) -> None:
    casstore("push", "base", f"oci:{tmp_path}/layout", "-q")
    other = tmp_path / "other"
    disks.random_sparse_file(other, seed=2)
    there("create", "base", "--disk", other)
    there("pull", f"oci:{tmp_path}/layout:base", code=15)
    document = there.json("pull", f"oci:{tmp_path}/layout:base", "-f")
    assert document["name"] == "base"
    assert there.json("inspect", "base")["digest"] == document["digest"]


def test_the_other_store_may_be_the_place(casstore: Casstore, there: Casstore, disk: Path) -> None:
    there("create", "x", "--disk", disk)
    casstore("push", "base", f"oci:{there.store}:copied")
    assert {each["name"] for each in there.json("list")["snapshots"]} == {"x", "copied"}


@needs_registry
def test_push_and_pull_through_a_registry(
    casstore: Casstore, there: Casstore, disk: Path, server: RunningRegistry, tmp_path: Path
) -> None:
    pushed = casstore("push", "base", f"{server.host}/team/disks", "--plain-http", "--concurrency", "2")
    pinned = pushed.stdout.strip()
    assert re.fullmatch(rf"{server.host}/team/disks@sha256:[0-9a-f]{{64}}", pinned)
    assert there("pull", f"{server.host}/team/disks:base", "--plain-http").stdout.strip() == pinned
    there("pull", pinned, "--name", "pinned", "--plain-http", "--workers", "1")
    there("restore", "pinned", tmp_path / "back")
    assert disks.extents(disk) == disks.extents(tmp_path / "back")
    there("pull", f"{server.host}/team/disks:nothing", "--plain-http", code=10)


@needs_registry
def test_plain_http_is_never_assumed(casstore: Casstore, disk: Path, server: RunningRegistry) -> None:
    casstore("push", "base", f"{server.host}/disks", code=14)


@needs_registry
def test_login_keeps_a_password_that_the_registry_takes(
    casstore: Casstore, disk: Path, secured: RunningRegistry
) -> None:
    bundle = secured.options.ca_bundle
    place = f"{secured.host}/disks"
    refused = casstore("push", "base", place, "--ca-bundle", bundle, code=14)
    assert f"casstore login {secured.host}" in refused.stderr
    login = ["login", secured.host, "-u", USER, "--password-stdin", "--ca-bundle", bundle]
    wrong = casstore(*login, code=14, stdin=b"canary-secret\n")
    assert "canary-secret" not in wrong.stderr
    assert not casstore.docker_config.exists()
    casstore(*login, code=14, stdin=b"canary-secret\n")
    done = casstore(*login, stdin=f"{PASSWORD}\n".encode())
    assert done.stderr.startswith(f"logged in to {secured.host} as {USER}; ")
    assert stat.S_IMODE(casstore.docker_config.stat().st_mode) == 0o600
    casstore("push", "base", place, "--ca-bundle", bundle)
    casstore("push", "base", place, "--insecure")
    casstore("push", "base", place, code=14)
    assert casstore("logout", secured.host).stderr == f"logged out of {secured.host}\n"
    assert casstore("logout", secured.host).stderr == f"there was no password for {secured.host}\n"
    casstore("push", "base", place, "--ca-bundle", bundle, code=14)


@needs_registry
def test_no_secret_is_shown_even_with_debug(casstore: Casstore, disk: Path, secured: RunningRegistry) -> None:
    config = DockerConfig(str(casstore.docker_config))
    config.store(secured.host, Credentials(USER, "canary-secret"))
    stored = json.loads(casstore.docker_config.read_text())["auths"][secured.host]["auth"]
    result = casstore(
        "--debug", "push", "base", f"{secured.host}/disks", "--ca-bundle", secured.options.ca_bundle, code=14
    )
    assert "Traceback" in result.stderr
    assert "canary-secret" not in result.stderr
    assert stored not in result.stderr


def test_login_without_a_terminal_needs_both_words(casstore: Casstore) -> None:
    for words in ([], ["-u", USER], ["--password-stdin"]):
        assert "--password-stdin" in casstore("login", "localhost", *words, code=2).stderr


def test_a_registry_that_is_not_there_exits_with_14(casstore: Casstore, disk: Path) -> None:
    assert "error: " in casstore("push", "base", f"127.0.0.1:{free_port()}/disks", "--plain-http", code=14).stderr
