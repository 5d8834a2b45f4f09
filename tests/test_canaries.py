"""No secret gets out: every verb, with secrets in every place that they can come from, at servers that would have them.

Each secret is a canary: a string that occurs nowhere else. After each run they are looked for in what was written, in
logs, in exceptions and all that these hang on, in the arguments of every process, and in what servers saw that were
none of its business. Numbers are rows of docs/explanation/faults.md; row 106 is all of this file.
"""

from __future__ import annotations

import base64
import json
import logging
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from casstore.cli.failures import Report
from casstore.cli.main import main
from casstore.credentials import Credentials, DockerConfig
from casstore.errors import RegistryError
from casstore.registry import failures
from tests.support import disks
from tests.support.command import Casstore
from tests.support.registry_simulator import IDENTITY_TOKEN, PASSWORD, REGISTRY_TOKEN, USER, RegistrySimulator
from tests.support.servers import free_port

REPOSITORY = "team/disks"
PROXY_PASSWORD = "canary-proxy/p+w"
PRESIGNED = "presigned-secret"
"""What a registry puts into the URL of a redirect: the server behind it may see it, and nobody else."""


def encoded(secret: str, user: str = USER) -> str:
    """A password as Basic sends it, without its end, which depends on what follows."""
    return base64.b64encode(f"{user}:{secret}".encode()).decode().rstrip("=")[:-1]


NEEDLES = (
    *("canary-", PRESIGNED, encoded(PROXY_PASSWORD, "proxy-user")),
    *(encoded(secret) for secret in (PASSWORD, IDENTITY_TOKEN, REGISTRY_TOKEN)),
)


def chain(error: BaseException) -> Iterator[BaseException]:
    """An exception and all that hangs on it, suppressed or not."""
    waiting, known = [error], set()
    while waiting:
        each = waiting.pop()
        if id(each) not in known:
            known.add(id(each))
            yield each
            waiting += [linked for linked in (each.__cause__, each.__context__) if linked is not None]
            waiting += [argument for argument in each.args if isinstance(argument, BaseException)]


@dataclass
class Watch:
    """What a secret could be found in."""

    casstore: Casstore
    logs: pytest.LogCaptureFixture
    errors: list[BaseException]
    record: Path
    """Arguments and environment of every credential helper, and the arguments of what started it."""
    strangers: list[RegistrySimulator] = field(default_factory=list)
    """Servers that may see no secret but what a redirect to them says."""
    texts: list[tuple[str, str]] = field(default_factory=list)
    runs: int = 0

    def run(self, *args: object, stdin: bytes = b"", process: bool = False) -> int:
        """Run casstore, and keep all that it lets out; the exit code may be any."""
        words = ["--debug", "--durability", "none", *args]
        label = " ".join(map(str, words))
        if process:
            with self.casstore.start(*words) as started:
                out, err = started.communicate(stdin, timeout=60)
            code = started.returncode
        else:
            self.errors.clear()
            done = self.casstore.run(*words, stdin=stdin)
            code, out, err = done.code, done.out, done.err
            for error in [linked for top in self.errors for linked in chain(top)]:
                self.texts += [(f"exception of {label}", text) for text in (str(error), repr(error))]
        self.texts += [(f"stdout of {label}", out.decode()), (f"stderr of {label}", err.decode())]
        self.runs += 1
        return code

    def leaks(self) -> list[str]:
        """Where secrets were found."""
        found = list(self.texts)
        found += [
            ("log", f"{record.name}: {record.getMessage()}".replace(PRESIGNED, "")) for record in self.logs.records
        ]
        found += [
            ("log", str(error)) for record in self.logs.records if record.exc_info and (error := record.exc_info[1])
        ]
        if self.record.exists():
            found.append(("arguments or environment", self.record.read_text()))
        for server in self.strangers:
            for seen in server.requests:
                text = f"{seen.path} {dict(seen.headers)}".replace(PRESIGNED, "")
                found.append((f"stranger {server.host}", text))
                if seen.body:
                    found.append((f"stranger {server.host}", f"canary- maybe: a body of {seen.body} bytes"))
        return [f"{needle} in {where}: {text}" for where, text in found for needle in NEEDLES if needle in text]


@pytest.fixture
def watch(tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> Watch:
    """A store with one snapshot, `base`, and eyes everywhere."""
    caplog.set_level(logging.DEBUG)
    errors: list[BaseException] = []
    tell = Report.tell_error

    def remember(self: Report, error: BaseException) -> int:
        errors.append(error)
        return tell(self, error)

    monkeypatch.setattr(Report, "tell_error", remember)
    casstore = Casstore(tmp_path)
    casstore.env["CASSTORE_PASSPHRASE"] = "canary-passphrase"
    disks.random_sparse_file(tmp_path / "disk", seed=1)
    casstore("create", "base", "--disk", tmp_path / "disk", "-q")
    return Watch(casstore, caplog, errors, tmp_path / "record")


@pytest.fixture
def bearer() -> Iterator[RegistrySimulator]:
    with RegistrySimulator(auth="bearer") as server:
        yield server


@pytest.fixture
def stranger() -> Iterator[RegistrySimulator]:
    with RegistrySimulator() as server:
        server.faults.echo = True
        yield server


# --- the places


def docker(watch: Watch, host: str, credentials: Credentials | None = None) -> None:
    DockerConfig(str(watch.casstore.docker_config)).store(host, credentials or Credentials(USER, PASSWORD))


def podman(watch: Watch, host: str) -> None:
    folder = watch.casstore.folder / "run"
    DockerConfig(str(folder / "containers/auth.json")).store(host, Credentials(USER, PASSWORD))
    watch.casstore.env["XDG_RUNTIME_DIR"] = str(folder)


def auth_file(watch: Watch, host: str) -> None:
    path = str(watch.casstore.folder / "own.json")
    DockerConfig(path).store(host, Credentials(USER, PASSWORD))
    watch.casstore.env["REGISTRY_AUTH_FILE"] = path


def identity_token(watch: Watch, host: str) -> None:
    docker(watch, host, Credentials(USER, identity_token=IDENTITY_TOKEN))


def registry_token(watch: Watch, host: str) -> None:
    watch.casstore.docker_config.parent.mkdir()
    watch.casstore.docker_config.write_text(json.dumps({"auths": {host: {"registrytoken": REGISTRY_TOKEN}}}))


def helper(watch: Watch, host: str) -> None:
    """It tells its own arguments, those of its parent, and its environment, but for what came from outside."""
    folder = watch.casstore.folder
    (folder / "secret").write_text(json.dumps({"Username": USER, "Secret": PASSWORD}))
    program = folder / "docker-credential-canary"
    program.write_text(
        f"""#!/bin/sh
        for id in $$ $PPID; do tr '\\0' ' ' < /proc/$id/cmdline >> '{watch.record}'; done
        env >> '{watch.record}'
        case $1 in get) cat '{folder}/secret';; *) cat > '{folder}/given';; esac"""
    )
    program.chmod(0o755)
    watch.casstore.docker_config.parent.mkdir(exist_ok=True)
    watch.casstore.docker_config.write_text(json.dumps({"credHelpers": {host: "canary"}}))
    watch.casstore.env |= {"PATH": f"{folder}:/usr/bin:/bin", "CASSTORE_TOKEN": "canary-of-another-registry"}
    watch.casstore.env["CASSTORE_REGISTRY"] = "other.example"


def variables(watch: Watch, host: str) -> None:
    known = {"CASSTORE_USERNAME": USER, "CASSTORE_PASSWORD": PASSWORD, "CASSTORE_REGISTRY": f"{host}/team"}
    watch.casstore.env |= known


def token_variable(watch: Watch, host: str) -> None:
    watch.casstore.env |= {"CASSTORE_TOKEN": REGISTRY_TOKEN, "CASSTORE_REGISTRY": host}


def netrc(watch: Watch, host: str) -> None:
    path = watch.casstore.folder / "netrc"
    path.write_text(f"machine {host} login {USER} password {PASSWORD}\n")
    watch.casstore.env["CASSTORE_NETRC"] = str(path)


Place = Callable[[Watch, str], None]
PLACES: list[Place] = [
    *(docker, podman, auth_file, identity_token, registry_token, helper, variables, token_variable, netrc),
]


# --- the verbs


def remote_verbs(host: str, folder: Path) -> list[list[str]]:
    place = f"{host}/{REPOSITORY}"
    verbs = [
        ["push", "base", place],
        ["pull", f"{place}:base", "--name", "pulled", "-f"],
        ["copy", f"{place}:base", f"oci:{folder / 'layout'}"],
        ["list", place],
        ["inspect", f"{place}:base"],
        ["diff", "base", f"{place}:base"],
        ["files", f"{place}:base"],
        ["cat", f"{place}:base", "/file"],
        ["cp", f"{place}:base", "/", f"{folder / 'copied'}"],
        ["check", "--repair", "--from", place],
        ["remove", f"{place}:base"],
        ["doctor", place],
    ]
    return [[*verb, "--plain-http", "--retries", "0"] for verb in verbs]


def local_verbs(folder: Path) -> list[list[str]]:
    verbs = (
        "init; list; inspect base; verify base; tag base copy; remove copy; undo; prune --keep-last 9; check; adopt;"
        " stats; tree; diff base base; gc; reindex; completion bash"
    )
    made = [["create", "new", "--disk", str(folder / "disk"), "-f"], ["restore", "base", str(folder / "back"), "-f"]]
    made += [["export", "base", str(folder / "base.tar"), "-f"], ["import", str(folder / "base.tar"), "-f"]]
    made.append(["report", str(folder / "page.html"), "-f"])
    prefix = str(folder / "signer")
    made += [["key", "generate", prefix, "-f"], ["key", "show", f"{prefix}.key"], ["key", "public", f"{prefix}.key"]]
    made += [["sign", "base", "--key", f"{prefix}.key"], ["verify", "base", "--key", f"{prefix}.pub"]]
    return [verb.split() for verb in verbs.split("; ")] + made


def login(watch: Watch, host: str, password: str = PASSWORD) -> int:
    words = ["login", host, "-u", USER, "--password-stdin", "--plain-http", "--retries", "0"]
    return watch.run(*words, stdin=f"{password}\n".encode())


def run_all(watch: Watch, host: str) -> None:
    for verb in remote_verbs(host, watch.casstore.folder):
        watch.run(*verb)


def test_every_verb_is_run() -> None:
    run = {verb[0] for verb in [*remote_verbs("h", Path()), *local_verbs(Path()), ["login"], ["logout"]]}
    with main.make_context("casstore", []) as ctx:
        assert run == set(main.list_commands(ctx))


@pytest.mark.parametrize("place", PLACES)
def test_106_wherever_secrets_are(watch: Watch, bearer: RegistrySimulator, place: Place) -> None:
    """They are used, and none is seen: when all is well, and when the registry refuses and repeats what it got."""
    place(watch, bearer.host)
    codes = [watch.run(*verb) for verb in remote_verbs(bearer.host, watch.casstore.folder)[:5]]
    assert codes == [0] * 5
    assert bearer.sent_secrets()
    bearer.faults.echo, bearer.faults.refusals = True, 1000
    run_all(watch, bearer.host)
    login(watch, bearer.host)
    if place in {docker, helper, variables}:  # a process of its own has arguments of its own
        watch.run(*remote_verbs(bearer.host, watch.casstore.folder)[1], process=True)
    watch.run("logout", bearer.host)
    assert watch.leaks() == []
    assert watch.record.exists() is (place is helper)


def test_106_verbs_that_stay_here(watch: Watch) -> None:
    for place in PLACES:
        shutil.rmtree(watch.casstore.docker_config.parent, ignore_errors=True)
        place(watch, "r.example")
    watch.casstore.env |= {"HTTPS_PROXY": f"http://proxy-user:{PROXY_PASSWORD}@127.0.0.1:9"}
    for verb in local_verbs(watch.casstore.folder):
        assert watch.run(*verb) == 0, verb
    assert watch.leaks() == []


def test_106_login_through_a_helper(watch: Watch, bearer: RegistrySimulator) -> None:
    """The password goes from one standard input to the other, and into no file of ours."""
    helper(watch, bearer.host)
    assert login(watch, bearer.host) == 0
    given = json.loads((watch.casstore.folder / "given").read_text())
    assert given == {"ServerURL": bearer.host, "Username": USER, "Secret": PASSWORD}
    words = ["login", bearer.host, "-u", USER, "--password-stdin", "--plain-http"]
    assert watch.run(*words, stdin=f"{PASSWORD}\n".encode(), process=True) == 0
    assert watch.run("logout", bearer.host) == 0
    assert "docker-credential-canary" in (watch.texts[1][1])
    assert "auths" not in json.loads(watch.casstore.docker_config.read_text())
    assert "docker-credential-canary erase" in watch.record.read_text()
    assert watch.leaks() == []


def test_106_signing_elsewhere(watch: Watch, bearer: RegistrySimulator) -> None:
    """A passphrase opens a key, and goes nowhere: neither to the registry nor to a credential helper."""
    helper(watch, bearer.host)
    folder, place = watch.casstore.folder, f"{bearer.host}/{REPOSITORY}"
    assert watch.run("key", "generate", folder / "signer") == 0
    private = (folder / "signer.key").read_text().splitlines()
    where = ["--plain-http", "--retries", "0"]
    verbs = [
        ["push", "base", place, "--sign", folder / "signer.key", *where],
        ["sign", f"{place}:base", "--key", folder / "signer.key", *where],
        ["pull", f"{place}:base", "--name", "pulled", "--key", folder / "signer.pub", *where],
    ]
    assert [watch.run(*verb) for verb in verbs] == [0, 0, 0]
    assert watch.run(*verbs[1], process=True) == 0
    for passphrase in ("canary-another", None):
        watch.casstore.env["CASSTORE_PASSPHRASE"] = passphrase
        assert [watch.run(*verb) for verb in verbs[:2]] == [2, 2]
    (folder / "words").write_text("canary-passphrase\n")
    bearer.faults.echo, bearer.faults.refusals = True, 1000
    for words in ("words", "signer.key", "nowhere"):
        assert watch.run(*verbs[1], "--passphrase-file", folder / words) == (14 if words == "words" else 2)
    watch.texts.append(("registry", str([seen.path for seen in bearer.requests])))
    assert [line for line in private[1:-1] if any(line in text for _, text in watch.texts)] == []
    assert watch.leaks() == []


# --- the servers

Change = Callable[[RegistrySimulator, RegistrySimulator, str], None]
"""Makes a registry misbehave, to whom the last argument was sent."""


def echoing(status: int) -> Change:
    def change(server: RegistrySimulator, _: RegistrySimulator, __: str) -> None:
        server.faults.echo, server.faults.status = True, status
        server.faults.error_headers = {"WWW-Authenticate": f'Bearer realm="{server.url}/token"'}

    change.__name__ = f"echoing_{status}"
    return change


def redirecting(server: RegistrySimulator, stranger: RegistrySimulator, secret: str) -> None:
    """Row 90."""
    server.faults.redirect = f"{stranger.url}{{path}}?token={PRESIGNED}"


def redirecting_nowhere(server: RegistrySimulator, stranger: RegistrySimulator, secret: str) -> None:
    """Row 90."""
    server.faults.redirect = f"http://127.0.0.1:{free_port()}{{path}}?token={PRESIGNED}"


def redirecting_to_a_login(server: RegistrySimulator, stranger: RegistrySimulator, secret: str) -> None:
    """Row 90: the stranger asks who we are."""
    redirecting(server, stranger, secret)
    stranger.auth = "basic"


def foreign_location(server: RegistrySimulator, stranger: RegistrySimulator, secret: str) -> None:
    """Row 92."""
    server.faults.location = f"{stranger.url}{{path}}&token={PRESIGNED}"


def location_with_a_password(server: RegistrySimulator, stranger: RegistrySimulator, secret: str) -> None:
    """Row 92."""
    server.faults.location = f"http://{USER}:{secret}@{server.host}{{path}}&token={PRESIGNED}"


def location_that_echoes(server: RegistrySimulator, stranger: RegistrySimulator, secret: str) -> None:
    """Row 92."""
    server.faults.location = f"ftp://{server.host}/{secret}"


def foreign_realm(server: RegistrySimulator, stranger: RegistrySimulator, secret: str) -> None:
    """Row 91."""
    server.faults.challenge = f'Bearer realm="{stranger.url}/token",service="s"'
    server.tokens.clear()


def realm_that_echoes(server: RegistrySimulator, stranger: RegistrySimulator, secret: str) -> None:
    """Row 91."""
    server.faults.challenge = f'Bearer realm="http://10.0.0.1/{secret}",service="{secret}"'
    server.tokens.clear()


def token_server_that_refuses(server: RegistrySimulator, stranger: RegistrySimulator, secret: str) -> None:
    """Row 91."""
    server.faults.echo, server.faults.oauth, server.identity_token = True, 400, "another"


def token_that_is_none(server: RegistrySimulator, stranger: RegistrySimulator, secret: str) -> None:
    """Row 91."""
    server.faults.token = json.dumps({"token": f"{secret}\r\n", secret: [secret]}).encode()


def headers_that_echo(server: RegistrySimulator, stranger: RegistrySimulator, secret: str) -> None:
    server.faults.digest = server.faults.media_type = server.faults.encoding = f"x {secret}"


SERVERS: list[Change] = [
    *(echoing(status) for status in (400, 401, 403, 404, 429, 500)),
    *(redirecting, redirecting_nowhere, redirecting_to_a_login),
    *(foreign_location, location_with_a_password, location_that_echoes),
    *(foreign_realm, realm_that_echoes, token_server_that_refuses, token_that_is_none, headers_that_echo),
]
ABOUT_TOKENS = [foreign_realm, realm_that_echoes, token_server_that_refuses, token_that_is_none]


@pytest.mark.parametrize(
    ("change", "place"),
    [*((change, docker) for change in SERVERS), *((change, identity_token) for change in ABOUT_TOKENS)],
)
def test_106_whatever_the_server_does(
    watch: Watch, bearer: RegistrySimulator, stranger: RegistrySimulator, change: Change, place: Place
) -> None:
    place(watch, bearer.host)
    assert watch.run(*remote_verbs(bearer.host, watch.casstore.folder)[0]) == 0
    change(bearer, stranger, PASSWORD if place is docker else IDENTITY_TOKEN)
    watch.strangers.append(stranger)
    if bearer.faults.location is not None:
        bearer.contents.blobs.clear()
    run_all(watch, bearer.host)
    if place is docker:
        login(watch, bearer.host)
    assert watch.leaks() == []


def test_106_a_password_that_the_registry_refuses(watch: Watch, bearer: RegistrySimulator) -> None:
    bearer.faults.echo = True
    assert login(watch, bearer.host, "canary-wrong") == 14
    assert not watch.casstore.docker_config.exists()
    assert watch.leaks() == []


@pytest.mark.parametrize("status", [None, 407, 403, 500])
def test_106_a_proxy_with_a_password(
    watch: Watch, bearer: RegistrySimulator, stranger: RegistrySimulator, status: int | None
) -> None:
    """It sees its own password, and nobody else does."""
    docker(watch, bearer.host)
    watch.casstore.env["http_proxy"] = f"http://proxy-user:{PROXY_PASSWORD.replace('/', '%2F')}@{stranger.host}"
    stranger.faults.status = status
    run_all(watch, bearer.host)
    assert [seen for seen in stranger.requests if "canary" in str(seen.headers)] == []  # base64 hides it
    assert any("proxy-authorization" in seen.headers for seen in stranger.requests)
    assert bearer.requests == []
    stranger.requests.clear()
    watch.casstore.env["http_proxy"] = f"http://proxy-user:{PROXY_PASSWORD.replace('/', '%2F')}@127.0.0.1:{free_port()}"
    run_all(watch, bearer.host)
    assert watch.leaks() == []


WORDS = [
    ["push", "base", "alice:canary-ref@r.example/team/disks"],
    ["pull", "alice:canary-ref@r.example/team/disks:base"],
    ["copy", "alice:canary-ref@r.example/a:b", "oci:layout"],
    ["copy", "oci:layout:x", "alice:canary-ref@r.example/a"],
    ["list", "alice:canary-ref@r.example/team/disks"],
    ["inspect", "alice:canary-ref@r.example/team/disks:base"],
    ["remove", "alice:canary-ref@r.example/team/disks:base"],
    ["push", "base", "https://alice:canary-ref@r.example/team/disks"],
    ["pull", "https://alice:canary-ref@r.example/team/disks:base"],
    ["login", "alice:canary-ref@r.example", "-u", "x", "--password-stdin"],
    ["logout", "https://alice:canary-ref@r.example"],
    ["push", "base", "r.example/a", "--proxy", "socks5://u:canary-ref@r.example"],
    ["push", "base", "r.example/a", "--trust-realm", "https://u:canary-ref@r.example"],
]


@pytest.mark.parametrize("words", WORDS, ids=" ".join)
def test_106_a_password_in_the_words(watch: Watch, words: list[str]) -> None:
    """It does not belong there, and is not repeated."""
    assert watch.run(*words) == 2
    watch.texts = [(where.replace("canary-ref", "..."), text) for where, text in watch.texts]
    assert watch.leaks() == []


# --- that all of this can fail


def plant_in_output(watch: Watch, monkeypatch: pytest.MonkeyPatch) -> None:
    """Errors repeat what the server said."""
    monkeypatch.setattr(failures, "scrub", lambda text, _: text)


def plant_in_a_context(watch: Watch, monkeypatch: pytest.MonkeyPatch) -> None:
    """A suppressed exception has the secret."""

    def broken(*_: object) -> str:
        try:
            raise ValueError(PASSWORD)
        except ValueError:
            raise RegistryError("no") from None

    monkeypatch.setattr(failures, "scrub", broken)


def plant_in_a_log(watch: Watch, monkeypatch: pytest.MonkeyPatch) -> None:
    def logged(text: str, _: object) -> str:
        logging.getLogger("casstore").debug("said %s", text)
        return ""

    monkeypatch.setattr(failures, "scrub", logged)


def plant_in_arguments(watch: Watch, monkeypatch: pytest.MonkeyPatch) -> None:
    watch.record.write_text(f"docker-credential-x store {PASSWORD}\0")


def plant_in_an_encoding(watch: Watch, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(failures, "scrub", lambda text, _: base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode())


@pytest.mark.parametrize(
    ("plant", "where"),
    [
        (plant_in_output, "stderr of"),
        (plant_in_a_context, "exception of"),
        (plant_in_a_log, "log"),
        (plant_in_arguments, "arguments"),
        (plant_in_an_encoding, "stderr of"),
    ],
)
def test_106_a_planted_leak_is_found(
    watch: Watch,
    bearer: RegistrySimulator,
    monkeypatch: pytest.MonkeyPatch,
    plant: Callable[[Watch, pytest.MonkeyPatch], None],
    where: str,
) -> None:
    docker(watch, bearer.host)
    plant(watch, monkeypatch)
    bearer.faults.echo, bearer.faults.refusals = True, 1000
    watch.run(*remote_verbs(bearer.host, watch.casstore.folder)[1])
    assert any(f" in {where}" in leak for leak in watch.leaks())


def test_106_a_stranger_that_sees_something_is_found(
    watch: Watch, bearer: RegistrySimulator, stranger: RegistrySimulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Row 91, with a client that takes every host for one site."""
    monkeypatch.setattr("casstore.registry.auth.same_site", lambda *_: True)
    docker(watch, bearer.host)
    foreign_realm(bearer, stranger, PASSWORD)
    watch.strangers.append(stranger)
    watch.run(*remote_verbs(bearer.host, watch.casstore.folder)[1])
    assert any(f" in stranger {stranger.host}" in leak for leak in watch.leaks())
