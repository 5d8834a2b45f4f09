"""Where credentials come from: Docker's and Podman's files, the environment, netrc."""

from __future__ import annotations

import base64
import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from casstore.cli.env import Settings
from casstore.cli.identity import credential_source
from casstore.credentials import (
    Anonymous,
    Credentials,
    CredentialSource,
    DockerConfig,
    FirstOf,
    HostCredentials,
    NetrcFile,
)
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
    assert repr(ALICE) == "Credentials(username='alice', origin='')"
    assert "canary" not in repr(Credentials("a", "canary-1", "canary-2", "canary-3"))
    assert "pass:word" not in repr(HostCredentials("h", ALICE))


def test_sources_know_only_their_host() -> None:
    assert HostCredentials("a:5000", ALICE).lookup("a:5000") == ALICE
    assert HostCredentials("a:5000", ALICE).lookup("a") is None
    nobody: CredentialSource = Anonymous()
    assert nobody.lookup("a") is None
    scoped = HostCredentials("a", ALICE, path="team")
    found = {place: scoped.lookup("a", place) is not None for place in ("", "team", "team/x", "teams", "other/team")}
    assert found == {"": False, "team": True, "team/x": True, "teams": False, "other/team": False}


def test_the_first_answer_counts() -> None:
    bob = Credentials("bob", "p")
    chain = FirstOf([Anonymous(), HostCredentials("a", ALICE), HostCredentials("a", bob), HostCredentials("b", bob)])
    assert (chain.lookup("a"), chain.lookup("b"), chain.lookup("c")) == (ALICE, bob, None)


# --- netrc


def netrc(path: Path, text: str | bytes) -> NetrcFile:
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return NetrcFile(str(path))


def test_netrc_by_host_and_port_then_by_host(path: Path) -> None:
    source = netrc(
        path,
        """
        machine r.example login alice password pass:word
        machine r.example:5000 login bob password p
        machine half.example login alice
        default login anybody password canary
        """,
    )
    assert source.lookup("r.example") == ALICE
    assert source.lookup("r.example:81", "a/b") == ALICE
    assert source.lookup("r.example:5000") == Credentials("bob", "p")
    assert source.lookup("half.example") is None
    assert source.lookup("other.example") is None
    assert source.lookup("default") is None


@pytest.mark.parametrize("text", ["canary", "machine a login b canary c", b"machine \xff\xfe canary", " " * (2 << 20)])
def test_a_broken_netrc_is_named_but_not_quoted(path: Path, text: str | bytes) -> None:
    source = netrc(path, text)
    with pytest.raises(DocumentError) as caught:
        source.lookup("r.example")
    assert str(path) in str(caught.value)
    assert caught.value.__context__ is None  # netrc's own errors quote the file


def test_a_netrc_that_was_asked_for_must_be_there(path: Path) -> None:
    with pytest.raises(StorageError, match=str(path)):
        NetrcFile(str(path)).lookup("r.example")


# --- the order of the command line


def settings(tmp_path: Path, **environ: str) -> Settings:
    return Settings.read(environ={"DOCKER_CONFIG": str(tmp_path / "docker"), **environ})


def keep(path: Path, user: str, host: str = "r.example") -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    DockerConfig(str(path)).store(host, Credentials(user, "p"))
    return str(path)


def test_places_are_asked_in_order(tmp_path: Path) -> None:
    """Each one that is added comes before those that were there."""
    environ: dict[str, str] = {}

    def user() -> str | None:
        found = credential_source(settings(tmp_path, **environ)).lookup("r.example", "a/b")
        return found.username if found else None

    assert user() is None
    (tmp_path / "netrc").write_text("machine r.example login netrc password p")
    assert user() is None
    environ["CASSTORE_NETRC"] = str(tmp_path / "netrc")
    assert user() == "netrc"
    keep(tmp_path / "docker/config.json", "docker")
    assert user() == "docker"
    keep(tmp_path / "run/containers/auth.json", "podman")
    environ["XDG_RUNTIME_DIR"] = str(tmp_path / "run")
    assert user() == "podman"
    environ["REGISTRY_AUTH_FILE"] = str(tmp_path / "own.json")
    assert user() == "docker"  # it stands in Podman's place, and has nothing yet
    keep(tmp_path / "own.json", "own")
    assert user() == "own"
    environ |= {"CASSTORE_USERNAME": "ci", "CASSTORE_PASSWORD": "p", "CASSTORE_REGISTRY": "r.example/a"}
    assert user() == "ci"
    environ["CASSTORE_REGISTRY"] = "r.example/b/"
    assert user() == "own"


def test_a_token_from_the_environment(tmp_path: Path) -> None:
    source = credential_source(settings(tmp_path, CASSTORE_TOKEN="bearer", CASSTORE_REGISTRY="R.example"))
    assert source.lookup("r.example") == Credentials(registry_token="bearer")
    assert source.lookup("s.example") is None


@pytest.mark.parametrize(
    "environ",
    [
        {"CASSTORE_TOKEN": "canary"},
        {"CASSTORE_USERNAME": "u", "CASSTORE_PASSWORD": "canary"},
        {"CASSTORE_PASSWORD": "canary", "CASSTORE_REGISTRY": "r.example"},
        {"CASSTORE_USERNAME": "a:b", "CASSTORE_PASSWORD": "canary", "CASSTORE_REGISTRY": "r.example"},
        {"CASSTORE_USERNAME": "u", "CASSTORE_TOKEN": "canary", "CASSTORE_REGISTRY": "r.example"},
        {"CASSTORE_TOKEN": "t", "CASSTORE_REGISTRY": "u:canary@r.example"},
        {"CASSTORE_TOKEN": "canary", "CASSTORE_REGISTRY": "https://r.example"},
    ],
)
def test_106_secrets_in_the_environment_need_a_place(tmp_path: Path, environ: dict[str, str]) -> None:
    """So that none of them goes to whatever host is named on the command line."""
    with pytest.raises(UsageError) as caught:
        credential_source(settings(tmp_path, **environ))
    assert "canary" not in str(caught.value)


@pytest.mark.parametrize(
    ("environ", "problem"),
    [
        ({"REGISTRY": "r.example"}, "CASSTORE_REGISTRY: .*CASSTORE_USERNAME and CASSTORE_PASSWORD, or CASSTORE_TOKEN"),
        ({"REGISTRY": "r.example", "USERNAME": "u"}, "CASSTORE_USERNAME: expected CASSTORE_PASSWORD"),
        ({"REGISTRY": "r.example", "USERNAME": "u", "PASSWORD": ""}, "CASSTORE_USERNAME: expected CASSTORE_PASSWORD"),
        ({"USERNAME": "u"}, "CASSTORE_USERNAME: expected CASSTORE_PASSWORD"),
        ({"PASSWORD": "canary"}, "CASSTORE_PASSWORD: expected CASSTORE_USERNAME"),
        ({"USERNAME": "u", "PASSWORD": "canary"}, "CASSTORE_PASSWORD: expected CASSTORE_REGISTRY"),
        ({"PASSWORD": "canary", "REGISTRY": "r.example"}, "CASSTORE_PASSWORD: expected CASSTORE_USERNAME"),
        ({"TOKEN": "canary"}, "CASSTORE_TOKEN: expected CASSTORE_REGISTRY"),
        ({"TOKEN": "canary", "REGISTRY": "https://r.example"}, "CASSTORE_REGISTRY: .*leave out the scheme"),
        ({"TOKEN": "canary", "REGISTRY": "r.example:0"}, "CASSTORE_REGISTRY: .*expected host or host:port"),
    ],
)
def test_variables_that_lack_another_name_it(tmp_path: Path, environ: dict[str, str], problem: str) -> None:
    with pytest.raises(UsageError, match=problem) as caught:
        credential_source(settings(tmp_path, **{f"CASSTORE_{name}": text for name, text in environ.items()}))
    assert "canary" not in str(caught.value)


def test_credentials_know_where_they_come_from(tmp_path: Path) -> None:
    places = {"CASSTORE_REGISTRY": "r.example", "CASSTORE_TOKEN": "t", "CASSTORE_NETRC": str(tmp_path / "netrc")}
    (tmp_path / "netrc").write_text("machine s.example login netrc password p")
    keep(tmp_path / "docker/config.json", "docker", host="q.example")
    source = credential_source(settings(tmp_path, **places))
    found = [source.lookup(host) for host in ("r.example", "q.example", "s.example")]
    assert [each.origin for each in found if each is not None] == [
        "$CASSTORE_TOKEN",
        str(tmp_path / "docker/config.json"),
        str(tmp_path / "netrc"),
    ]
    del places["CASSTORE_TOKEN"]
    user = {"CASSTORE_USERNAME": "u", "CASSTORE_PASSWORD": "p"}
    known = credential_source(settings(tmp_path, **places, **user)).lookup("r.example")
    assert known is not None
    assert known.origin == "$CASSTORE_USERNAME"


def test_106_secrets_are_not_in_the_repr_of_the_settings(tmp_path: Path) -> None:
    environ = {
        "CASSTORE_PASSWORD": "canary-1",
        "CASSTORE_TOKEN": "canary-2",
        "HTTPS_PROXY": "http://u:canary-3@p",
        "http_proxy": "http://u:canary-4@p",
        "ELSE": "canary-5",
    }
    read = settings(tmp_path, **environ)
    assert "canary" not in repr(read)
    assert dict(read.helper_environment) == {
        name: value
        for name, value in {"DOCKER_CONFIG": str(tmp_path / "docker"), **environ}.items()
        if name[:3] != "CAS"
    }


@pytest.mark.parametrize(
    ("environ", "http", "https"),
    [
        ({}, None, None),
        ({"HTTP_PROXY": "http://p:1", "HTTPS_PROXY": "http://q:2"}, "http://p:1", "http://q:2"),
        ({"HTTP_PROXY": "http://p:1", "http_proxy": "http://l"}, "http://l", None),
        ({"HTTP_PROXY": "http://evil", "REQUEST_METHOD": "GET"}, None, None),
        ({"http_proxy": "http://l", "REQUEST_METHOD": "GET"}, "http://l", None),
        ({"ALL_PROXY": "p:1"}, "http://p:1", "http://p:1"),
        ({"ALL_PROXY": "http://p:1", "https_proxy": "http://q"}, "http://p:1", "http://q"),
        ({"https_proxy": ""}, None, None),
    ],
)
def test_106_proxies_come_from_the_environment(environ: dict[str, str], http: str | None, https: str | None) -> None:
    """HTTP_PROXY may be a visitor's header in a CGI program."""
    read = Settings.read(environ=environ)
    assert (read.http_proxy, read.https_proxy) == (http, https)


def test_certificates_and_exceptions_come_from_the_environment() -> None:
    read = Settings.read(environ={"NO_PROXY": " a.example,.b.example, ", "REQUESTS_CA_BUNDLE": "/r"})
    assert (read.no_proxy, read.ca_bundle) == (("a.example", ".b.example"), "/r")
    assert Settings.read(environ={"SSL_CERT_FILE": "/s", "REQUESTS_CA_BUNDLE": "/r"}).ca_bundle == "/s"


# --- Docker's file


def test_a_password_may_have_colons_and_any_characters(path: Path) -> None:
    config = write(path, {"auths": {"r.example": {"auth": encoded("alice:pass:wörd")}}})
    assert config.lookup("r.example") == Credentials("alice", "pass:wörd")


def test_docker_s_padding_is_removed(path: Path) -> None:
    config = write(path, {"auths": {"r.example": {"auth": encoded("alice:secret\0\0")}}})
    assert config.lookup("r.example") == Credentials("alice", "secret")


def test_tokens_are_read(path: Path) -> None:
    config = write(
        path,
        {
            "auths": {
                "i.example": {"auth": encoded("alice:"), "identitytoken": "refresh"},
                "r.example": {"registrytoken": "bearer"},
            }
        },
    )
    assert config.lookup("i.example") == Credentials("alice", identity_token="refresh")
    assert config.lookup("r.example") == Credentials(registry_token="bearer")


@pytest.mark.parametrize(
    ("repository", "user"),
    [
        ("", "host"),
        ("other/x", "host"),
        ("team", "team"),
        ("team/disks", "team"),
        ("teams", "host"),
        ("team/private", "private"),
        ("team/private/deep", "private"),
        ("team/private2", "team"),
    ],
)
def test_the_longest_path_wins(path: Path, repository: str, user: str) -> None:
    """As Podman keeps them; an entry without a secret says nothing."""
    keys = {"r.example": "host", "r.example/team": "team", "r.example/team/private": "private"}
    entries: dict[str, Any] = {key: {"auth": encoded(f"{name}:p")} for key, name in keys.items()}
    config = write(path, {"auths": {**entries, "r.example/team/private/deep": {}}})
    assert config.lookup("r.example", repository) == Credentials(user, "p")
    assert config.lookup("r.example:5000", repository) is None


@pytest.mark.parametrize(
    ("host", "key"),
    [
        ("r.example", "https://r.example"),
        ("r.example", "https://r.example/"),
        ("r.example:5000", "https://r.example:5000/v1/"),
        ("r.example", "https://r.example/v2/"),
        ("r.example", "https://r.example/v2"),
        ("docker.io", "docker.io"),
        ("docker.io", "index.docker.io"),
        ("docker.io", "https://index.docker.io/v1/"),
        ("docker.io", "docker.io/library"),
        ("docker.io", "index.docker.io/library/x"),
    ],
)
def test_spellings_of_old(path: Path, host: str, key: str) -> None:
    config = write(path, {"auths": {key: {"auth": encoded("a:b")}}})
    assert config.lookup(host, "library/x") == Credentials("a", "b")
    if "library" not in key:
        assert config.erase(host)
        assert json.loads(path.read_text()) == {"auths": {}}


def test_the_own_spelling_comes_before_those_of_old(path: Path) -> None:
    auths = {"https://r.example/v1/": {"auth": encoded("old:p")}, "r.example": {"auth": encoded("new:p")}}
    config = write(path, {"auths": auths})
    assert config.lookup("r.example") == Credentials("new", "p")
    config.store("r.example", ALICE)
    assert list(json.loads(path.read_text())["auths"]) == ["r.example"]


LABEL = st.text("ab", min_size=1, max_size=2)


@given(st.sets(st.lists(LABEL, max_size=3).map(tuple), min_size=1), st.lists(LABEL, max_size=4).map(tuple))
def test_what_is_found_is_the_longest_prefix(
    tmp_path_factory: pytest.TempPathFactory, places: set[tuple[str, ...]], repository: tuple[str, ...]
) -> None:
    """Against the definition, by whole components."""
    path = tmp_path_factory.mktemp("c") / "config.json"
    auths = {"/".join(("r.example", *place)): {"auth": encoded(f"u{'.'.join(place)}:p")} for place in places}
    path.write_text(json.dumps({"auths": auths}))
    fitting = [place for place in places if repository[: len(place)] == place]
    longest = max(fitting, key=len, default=None)
    expected = None if longest is None else Credentials(f"u{'.'.join(longest)}", "p")
    assert DockerConfig(str(path)).lookup("r.example", "/".join(repository)) == expected


@pytest.mark.parametrize(
    "host",
    ["r.example:443", "example", "R.example", "https://r.example", "r.example/", "sub.r.example", "r.example/v1/"],
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
        {"auths": {"r.example": {"auth": encoded("alice:")}}},
        {"auths": {"r.example": {"identitytoken": "", "registrytoken": None}}},
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
        {"auths": {"r.example": {"identitytoken": ["canary"]}}},
        {"auths": {"r.example": {"registrytoken": 7}}},
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


def test_an_identity_token_is_stored_as_docker_does(path: Path) -> None:
    config = DockerConfig(str(path))
    config.store("r.example", Credentials("alice", identity_token="refresh"))
    entry = {"auth": encoded("alice:"), "identitytoken": "refresh"}
    assert json.loads(path.read_text()) == {"auths": {"r.example": entry}}
    assert config.lookup("r.example") == Credentials("alice", identity_token="refresh")


@pytest.mark.parametrize(
    "credentials",
    [Credentials("", "p"), Credentials("a:b", "p"), Credentials("a", ""), Credentials(registry_token="t")],
)
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
