"""login and logout: what is checked, where a password is kept, and what people are told."""

from __future__ import annotations

import base64
import json
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pytest

from casstore.credentials import Credentials, DockerConfig
from tests.support.command import Casstore, Result
from tests.support.registry_simulator import PASSWORD, USER, RegistrySimulator

ALICE = Credentials(USER, PASSWORD)


@pytest.fixture
def server() -> Iterator[RegistrySimulator]:
    with RegistrySimulator(auth="bearer") as running:
        yield running


def login(casstore: Casstore, host: str, *options: str, code: int = 0) -> Result:
    words = ["login", host, "-u", USER, "--password-stdin", "--plain-http", *options]
    return casstore(*words, code=code, stdin=f"{PASSWORD}\n".encode())


def test_the_file_is_made_private_and_people_are_told(casstore: Casstore, server: RegistrySimulator) -> None:
    """Also one that others could read before; what else is in it stays."""
    casstore.docker_config.parent.mkdir()
    casstore.docker_config.write_text('{"psFormat": "x"}')
    casstore.docker_config.chmod(0o644)
    done = login(casstore, server.host)
    place = f"the password is in {casstore.docker_config}, not encrypted"
    assert done.stderr == f"logged in to {server.host} as {USER}; {place}\n"
    assert stat.S_IMODE(casstore.docker_config.stat().st_mode) == 0o600
    assert json.loads(casstore.docker_config.read_text())["psFormat"] == "x"
    assert server.sent_secrets()


def test_registry_auth_file_is_followed(casstore: Casstore, server: RegistrySimulator, tmp_path: Path) -> None:
    casstore.env["REGISTRY_AUTH_FILE"] = str(tmp_path / "own" / "auth.json")
    login(casstore, server.host)
    assert DockerConfig(str(tmp_path / "own/auth.json")).lookup(server.host) == ALICE
    assert stat.S_IMODE((tmp_path / "own/auth.json").stat().st_mode) == 0o600
    assert not casstore.docker_config.exists()
    assert casstore("logout", server.host).stderr == f"logged out of {server.host}\n"


@pytest.mark.parametrize("key", ["credHelpers", "credsStore"])
def test_a_helper_keeps_it_where_there_is_one(
    casstore: Casstore, server: RegistrySimulator, tmp_path: Path, key: str
) -> None:
    program = tmp_path / "docker-credential-kept"
    program.write_text(
        f"""#!/bin/sh
        case $1 in
        get) cat {tmp_path}/kept 2>/dev/null || {{ echo credentials not found in native keychain; exit 1; }};;
        store) cat > {tmp_path}/kept;;
        erase) rm {tmp_path}/kept;;
        esac"""
    )
    program.chmod(0o755)
    old = {"auths": {server.host: {"auth": base64.b64encode(b"old:secret").decode()}}}
    named = {key: {server.host: "kept"} if key == "credHelpers" else "kept"}
    casstore.docker_config.parent.mkdir()
    casstore.docker_config.write_text(json.dumps({**old, **named}))
    casstore.env["PATH"] = f"{tmp_path}:/usr/bin:/bin"
    assert login(casstore, server.host).stderr.endswith("; the password is kept by docker-credential-kept\n")
    assert json.loads(casstore.docker_config.read_text()) == {"auths": {}, **named}
    casstore("list", f"{server.host}/a/b", "--plain-http")
    assert "authorization" in server.seen("GET", "/token")[-1].headers
    assert casstore("logout", server.host).stderr == f"logged out of {server.host}\n"
    assert casstore("logout", server.host).stderr == f"there was no password for {server.host}\n"


def test_a_helper_that_is_missing_is_told_before_the_password_goes_anywhere(
    casstore: Casstore, server: RegistrySimulator
) -> None:
    casstore.docker_config.parent.mkdir()
    casstore.docker_config.write_text(json.dumps({"credsStore": "../bad"}))
    assert "credential helper" in login(casstore, server.host, code=14).stderr
    assert server.requests == []


def test_what_is_asked_before_the_file_is_told(casstore: Casstore, server: RegistrySimulator, tmp_path: Path) -> None:
    podman = tmp_path / "containers" / "auth.json"
    DockerConfig(str(podman)).store(server.host, Credentials("bob", "old"))
    casstore.env |= {"XDG_RUNTIME_DIR": str(tmp_path), "CASSTORE_REGISTRY": server.host, "CASSTORE_TOKEN": "t"}
    told = login(casstore, server.host).stderr.splitlines()[1:]
    assert told == [
        f"warning: {other} has credentials for {server.host} too, and is asked first"
        for other in ("the environment", podman)
    ]
    told = casstore("logout", server.host).stderr.splitlines()[1:]
    assert told == [
        f"warning: {other} has credentials for {server.host} still" for other in ("the environment", podman)
    ]


def test_91_a_token_server_elsewhere_must_be_told(casstore: Casstore, server: RegistrySimulator) -> None:
    with RegistrySimulator() as tokens:
        tokens.tokens = server.tokens
        server.faults.challenge = f'Bearer realm="{tokens.url}/token",service="s"'
        refused = login(casstore, server.host, code=14).stderr
        assert f"--trust-realm {tokens.host}" in refused
        assert not casstore.docker_config.exists()
        login(casstore, server.host, "--trust-realm", tokens.host)
    assert DockerConfig(str(casstore.docker_config)).lookup(server.host) == ALICE


@pytest.mark.parametrize("auth", ["basic", "bearer"])
def test_a_wrong_password_is_called_that(casstore: Casstore, auth: Literal["basic", "bearer"]) -> None:
    with RegistrySimulator(auth=auth) as server:
        words = ["login", server.host, "-u", USER, "--password-stdin", "--plain-http"]
        told = casstore(*words, code=14, stdin=b"canary\n").stderr
    assert "wrong user name or password" in told
    assert "casstore login" not in told
    assert "canary" not in told


def test_refused_credentials_are_told_with_their_place(
    casstore: Casstore, server: RegistrySimulator, tmp_path: Path
) -> None:
    """Login could not help: what is refused is asked for first, or stands where it would write."""
    listing = ["list", f"{server.host}/a/b", "--plain-http"]
    DockerConfig(str(casstore.docker_config)).store(server.host, Credentials(USER, "canary"))
    assert f"the credentials from {casstore.docker_config} were refused" in casstore(*listing, code=14).stderr
    casstore.env |= {"CASSTORE_USERNAME": USER, "CASSTORE_PASSWORD": "canary", "CASSTORE_REGISTRY": server.host}
    told = casstore(*listing, code=14).stderr
    assert "the credentials from $CASSTORE_USERNAME were refused" in told
    assert "casstore login" not in told
    assert "canary" not in told
    casstore.env["CASSTORE_PASSWORD"] = ""
    told = casstore(*listing, code=2).stderr
    assert "CASSTORE_USERNAME: expected CASSTORE_PASSWORD" in told
    (tmp_path / "disk").write_bytes(bytes(4096))
    casstore("create", "base", "--disk", tmp_path / "disk")
    assert len(casstore("list").lines) == 2  # here they mean nothing


def test_variables_that_contradict_each_other_are_told_first(casstore: Casstore, server: RegistrySimulator) -> None:
    casstore.env["CASSTORE_TOKEN"] = "canary"
    assert "CASSTORE_REGISTRY" in login(casstore, server.host, code=2).stderr
    assert server.requests == []
