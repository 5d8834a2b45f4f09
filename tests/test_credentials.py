"""Docker's config.json: what is read, what is written, what is left alone."""

from __future__ import annotations

import base64
import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from casstore.credentials import Anonymous, Credentials, CredentialSource, DockerConfig, HostCredentials
from casstore.errors import DocumentError, StorageError, UsageError

ALICE = Credentials("alice", "pass:word")


def encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "docker" / "config.json"


def write(path: Path, document: Any) -> DockerConfig:
    path.parent.mkdir(exist_ok=True)
    path.write_text(document if isinstance(document, str) else json.dumps(document))
    return DockerConfig(str(path))


def test_106_a_password_is_not_in_a_repr() -> None:
    assert repr(ALICE) == "Credentials(username='alice')"
    assert "pass:word" not in repr(HostCredentials("h", ALICE))


def test_sources_know_only_their_host() -> None:
    assert HostCredentials("a:5000", ALICE).lookup("a:5000") == ALICE
    assert HostCredentials("a:5000", ALICE).lookup("a") is None
    nobody: CredentialSource = Anonymous()
    assert nobody.lookup("a") is None


def test_a_password_may_have_colons_and_any_characters(path: Path) -> None:
    config = write(path, {"auths": {"r.example": {"auth": encoded("alice:pass:wörd")}}})
    assert config.lookup("r.example") == Credentials("alice", "pass:wörd")


def test_docker_s_padding_is_removed(path: Path) -> None:
    config = write(path, {"auths": {"r.example": {"auth": encoded("alice:secret\0\0")}}})
    assert config.lookup("r.example") == Credentials("alice", "secret")


@pytest.mark.parametrize(
    "host", ["r.example:443", "example", "R.example", "https://r.example", "r.example/", "sub.r.example"]
)
def test_only_the_exact_host_matches(path: Path, host: str) -> None:
    assert write(path, {"auths": {"r.example": {"auth": encoded("a:b")}}}).lookup(host) is None


def test_docker_io_has_its_old_name(path: Path) -> None:
    config = write(path, {"auths": {"https://index.docker.io/v1/": {"auth": encoded("alice:hub")}}})
    assert config.lookup("docker.io") == Credentials("alice", "hub")
    config.store("docker.io", ALICE)
    assert list(json.loads(path.read_text())["auths"]) == ["https://index.docker.io/v1/"]


@pytest.mark.parametrize(
    "document",
    [
        {},
        "",
        "\n",
        {"auths": {}},
        {"auths": {"r.example": {}}},
        {"auths": {"r.example": {"auth": ""}}},
        {"auths": {"r.example": {"identitytoken": "x", "auth": encoded("alice:")}}},
        {"auths": {"r.example": {}}, "credsStore": "desktop", "credHelpers": {"r.example": "pass"}},
    ],
)
def test_no_password_means_nobody(path: Path, document: Any) -> None:
    assert write(path, document).lookup("r.example") is None


def test_no_file_means_nobody(path: Path) -> None:
    config = DockerConfig(str(path))
    assert config.lookup("r.example") is None
    assert not config.erase("r.example")
    assert not path.exists()


@pytest.mark.parametrize(
    "document",
    [
        "[]",
        "{",
        '{"auths": {}, "auths": {}}',
        {"auths": []},
        {"auths": {"r.example": "x"}},
        {"auths": {"r.example": {"auth": 5}}},
        {"auths": {"r.example": {"auth": "canary!"}}},
        {"auths": {"r.example": {"auth": encoded("canary-without-colon")}}},
        {"auths": {"r.example": {"auth": encoded(":canary")}}},
        {"auths": {"r.example": {"auth": base64.b64encode(b"\xff:canary").decode()}}},
        " " * (1 << 20) + "{}",
    ],
)
def test_broken_files_are_named_but_not_quoted(path: Path, document: Any) -> None:
    config = write(path, document)
    with pytest.raises(DocumentError) as caught:
        config.lookup("r.example")
    assert str(path) in str(caught.value)
    assert "canary" not in str(caught.value)
    assert encoded("canary-without-colon") not in str(caught.value)


def test_storing_keeps_what_it_does_not_know(path: Path) -> None:
    others = {
        "psFormat": "x",
        "auths": {"other.example": {"auth": encoded("o:p"), "email": "e"}},
        "credHelpers": {"g": "h"},
    }
    config = write(path, others)
    config.store("r.example", ALICE)
    assert config.lookup("r.example") == ALICE
    document = json.loads(path.read_text())
    assert document["auths"].pop("r.example") == {"auth": encoded("alice:pass:word")}
    assert document == others
    assert config.erase("r.example")
    assert not config.erase("r.example")
    assert json.loads(path.read_text()) == others


def test_storing_makes_a_private_file(path: Path) -> None:
    old = os.umask(0)
    try:
        DockerConfig(str(path)).store("r.example", ALICE)
    finally:
        os.umask(old)
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert [entry.name for entry in path.parent.iterdir()] == ["config.json"]


def test_storing_makes_an_open_file_private(path: Path) -> None:
    config = write(path, {"auths": {}})
    path.chmod(0o644)
    config.store("r.example", ALICE)
    assert path.stat().st_mode & 0o777 == 0o600


def test_storing_through_a_symlink_keeps_it(path: Path, tmp_path: Path) -> None:
    path.parent.mkdir()
    path.symlink_to(tmp_path / "dotfiles.json")
    DockerConfig(str(path)).store("r.example", ALICE)
    assert path.is_symlink()
    assert DockerConfig(str(tmp_path / "dotfiles.json")).lookup("r.example") == ALICE


def test_a_broken_file_is_not_overwritten(path: Path) -> None:
    config = write(path, "{broken")
    with pytest.raises(DocumentError):
        config.store("r.example", ALICE)
    with pytest.raises(DocumentError):
        config.erase("r.example")
    assert path.read_text() == "{broken"


@pytest.mark.parametrize("credentials", [Credentials("", "p"), Credentials("a:b", "p"), Credentials("a", "")])
def test_what_the_file_cannot_say_is_refused(path: Path, credentials: Credentials) -> None:
    with pytest.raises(UsageError):
        DockerConfig(str(path)).store("r.example", credentials)
    assert not path.exists()


def test_a_directory_in_the_way_is_a_storage_error(path: Path) -> None:
    path.mkdir(parents=True)
    with pytest.raises(StorageError, match=str(path)):
        DockerConfig(str(path)).lookup("r.example")
    with pytest.raises(StorageError):
        DockerConfig(str(path)).store("r.example", ALICE)


@given(
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters=":"), min_size=1),
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1),
)
def test_what_was_stored_is_found(tmp_path_factory: pytest.TempPathFactory, username: str, password: str) -> None:
    config = DockerConfig(str(tmp_path_factory.mktemp("c") / "config.json"))
    config.store("r.example", Credentials(username, password))
    assert config.lookup("r.example") == Credentials(username, password)
