"""Files that look like credentials: found, told without what is in them, and not seen where there are none."""

from __future__ import annotations

import os
import random
import re
import string
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from casstore import Snapshot, Store, secrets
from casstore.config import DiskInput, SnapshotConfig, SnapshotDestination
from casstore.disk import DiskSource
from casstore.errors import SecretsFound, SourceError, UnreadableFilesystem, UsageError
from casstore.filesystem.bounds import Bounds
from casstore.filesystem.directory import Entry
from casstore.filesystem.ext import Found
from casstore.filesystem.inode import Kind, Node
from casstore.secretpatterns import PASSED_OVER, PATTERNS, candidates
from casstore.secrets import Finding, OnSecrets, Scan, scan, scan_source
from tests.support.command import Casstore
from tests.support.disks import MIB
from tests.support.filesystems import make_image, write_files
from tests.support.sandboxes import SandboxHome, config
from tests.support.stores import FAST, leftovers, names

DOCS = Path(__file__).parents[1] / "docs/how-to/secrets.md"
CANARY = "Zq9vT3mKw7pLx2sRb8nYd4fHj6gCa1eUo5iW"
"""Stands for what is secret: must never be seen in an output."""


def letters(count: int, seed: int = 1, alphabet: str = string.ascii_letters + string.digits) -> str:
    """As random as a token; made here, so that nobody takes it for a real one."""
    return "".join(random.Random(seed).choices(alphabet, k=count))


PEM = "-----BEGIN {}PRIVATE KEY-----\n{}\n"
EXAMPLES: dict[str, list[tuple[str, str]]] = {
    "private-key": [
        ("root/.ssh/id_ed25519", PEM.format("OPENSSH ", letters(64))),
        ("etc/ssl/private/server.key", PEM.format("", letters(64))),
        ("app/tls.pem", PEM.format("RSA ", "Proc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,00\n\n" + letters(64))),
        ("app/account.json", '{"private_key": "' + PEM.format("", letters(64)).replace("\n", "\\n") + '"}'),
        ("home/a/key.ppk", "PuTTY-User-Key-File-3: ssh-ed25519\n"),
    ],
    "keystore": [("srv/app.p12", "\x30\x82" + letters(20)), ("root/.vault-token", letters(24))],
    "netrc": [("root/.netrc", f"machine a.example\n  login me\n  password {letters(12)}\n")],
    "docker-auth": [("root/.docker/config.json", f'{{"auths": {{"a.example": {{"auth": "{letters(24)}"}}}}}}')],
    "aws-credentials": [("root/.aws/credentials", f"[default]\naws_secret_access_key = {letters(40)}\n")],
    "gcloud": [
        ("root/.config/gcloud/application_default_credentials.json", f'{{"refresh_token": "{letters(40)}"}}'),
        ("root/.config/gcloud/credentials.db", f'SQLite format 3\0 {{"refresh_token": "{letters(40)}"}}'),
    ],
    "azure": [("root/.azure/msal_token_cache.json", f'{{"secret": "{letters(40)}"}}')],
    "kubeconfig": [("root/.kube/config", f"users:\n- user:\n    client-key-data: {letters(80)}\n")],
    "git-credentials": [
        ("root/.git-credentials", f"https://me:{letters(20)}@git.example\n"),
        ("work/.git/config", f'[remote "origin"]\n\turl = https://me:{letters(20)}@git.example/a\n'),
    ],
    "npm-token": [("root/.npmrc", f"//registry.example/:_authToken={letters(36)}\n")],
    "pypirc": [("root/.pypirc", f"[pypi]\nusername = me\npassword = {letters(16)}\n")],
    "cargo-token": [("root/.cargo/credentials.toml", f'[registry]\ntoken = "{letters(32)}"\n')],
    "database-password": [
        ("root/.pgpass", f"db:5432:*:me:{letters(9)}\n"),
        ("root/.my.cnf", f"[client]\npassword={letters(9)}\n"),
    ],
    "env-secret": [
        ("app/.env", f"DEBUG=1\nDJANGO_SECRET_KEY='{letters(40)}'\n"),
        ("root/.bash_history", f"ls\nexport API_TOKEN={letters(20)}\n"),
    ],
    "shadow": [("etc/shadow", f"root:$y$j9T${letters(22)}${letters(43)}:19000:0:99999:7:::\n")],
    "github-token": [
        ("app/config.yaml", f"t: ghp_{letters(36)}\n"),
        ("root/.zsh_history", f"x github_pat_{letters(82)}\n"),
    ],
    "gitlab-token": [("app/ci.yml", f"t: glpat-{letters(20)}\n")],
    "slack-token": [
        ("app/bot.py", f"T = 'xoxb-{letters(12, alphabet='123456789')}-{letters(24)}'\n"),
        ("app/hook.sh", f"curl https://hooks.slack.com/services/T{letters(8)}/B{letters(8)}/{letters(24)}\n"),
    ],
    "aws-access-key": [("app/s3.ini", f"id = AKIA{letters(16, 5, string.ascii_uppercase)}\n")],
    "anthropic-key": [("app/settings.toml", f'key = "sk-ant-api03-{letters(80)}"\n')],
    "openai-key": [
        ("app/run.sh", f"KEY=sk-proj-{letters(60)}\n"),
        ("app/old.js", f"'sk-{letters(20)}T3BlbkFJ{letters(20, 2)}'"),
    ],
    "google-api-key": [("app/maps.ts", f"'AIza{letters(35)}'")],
    "package-token": [("app/hub.json", f'"hf_{letters(34)}"'), ("app/pub.yml", f"t: npm_{letters(36)}")],
    "stripe-key": [("app/pay.rb", f"'sk_live_{letters(24)}'")],
}
INNOCENT = {
    "root/.ssh/id_ed25519.pub": f"ssh-ed25519 {letters(68)} me",
    "root/.ssh/authorized_keys": f"ssh-ed25519 {letters(68)} me",
    "etc/certificate.pem": f"-----BEGIN CERTIFICATE-----\n{letters(64)}\n",
    "etc/public.pem": f"-----BEGIN PUBLIC KEY-----\n{letters(64)}\n",
    "etc/ssl/private/ssl-cert-snakeoil.key": PEM.format("", letters(64)),
    "app/words.json": '"a file that begins with -----BEGIN PRIVATE KEY----- is a key"',
    "etc/shadow": "root:*:19000:0:99999:7:::\nbin:!:19000::::::\nme:!!:1::::::\nx::0:0:::::\n",
    "root/.docker/config.json": '{"auths": {"a.example": {}}, "credsStore": "pass"}',
    "root/.aws/config": "[default]\nregion = eu-west-1\n",
    "root/.aws/credentials": "aws_access_key_id = AKIAIOSFODNN7EXAMPLE\n"
    "aws_secret_access_key = wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY\n",
    "root/.npmrc": "//registry.example/:_authToken=${NPM_TOKEN}\nregistry=https://registry.example/\n",
    "root/.netrc": "machine a.example login me password ${PASSWORD}\n",
    "root/.git-credentials": "https://me:${TOKEN}@git.example\n",
    "work/.git/config": '[remote "origin"]\n\turl = https://git.example/a\n\turl = git@git.example:a\n',
    "root/.kube/config": "users: []\npreferences: {}\n",
    "app/.env": "DEBUG=1\nDB_PASSWORD=\nAPI_KEY=changeme\nTOKEN=your-token-here\nSECRET=xxxxxxxxxxxx\nPASSWORD=${DB}\n",
    "app/.env.example": f"SECRET_KEY={letters(30)}\n",
    "app/readme.py": "t = 'ghp_xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx'; u = 'sk-ant-...'; v = 'AKIAIOSFODNN7EXAMPLE'\n",
    "root/.bash_history": "ls\necho $TOKEN\ngit clone https://git.example/a\n",
    "usr/share/doc/x/examples/server.key": PEM.format("", letters(64)),
    "usr/lib/python3.11/test/keycert.pem": PEM.format("", letters(64)),
    "root/.pyenv/versions/3.11.7/lib/python3.11/test/ssl_key.pem": PEM.format("", letters(64)),
    "app/node_modules/x/test/key.pem": PEM.format("", letters(64)),
    "venv/lib/python3/site-packages/x/key.pem": PEM.format("", letters(64)),
    "etc/ssl/certs/ca.pem": f"-----BEGIN CERTIFICATE-----\n{letters(64)}\n",
    "app/notes.md": f"ghp_{letters(36)}",
}


def node(inode: int, size: int, kind: Kind = Kind.FILE, *, is_encrypted: bool = False) -> Node:
    return Node(
        inode=inode,
        kind=kind,
        mode=0o600,
        uid=0,
        gid=0,
        links=1,
        size=size,
        mtime_ns=0,
        is_encrypted=is_encrypted,
        has_extents=False,
        mapping=b"",
        inline=None,
    )


class Tree:
    """Files in memory, as a scan sees them."""

    def __init__(self, files: dict[bytes, bytes], broken: tuple[bytes, ...] = ()) -> None:
        self.files, self.broken, self.read_bytes = list(files.items()), broken, 0

    def walk(
        self, *, enter: Callable[[bytes], bool], unreadable: Callable[[UnreadableFilesystem], None]
    ) -> Iterator[Found]:
        for number, (path, _) in enumerate(self.files):
            folders = [path[:at] for at in range(1, len(path)) if path[at : at + 1] == b"/"]
            if all(map(enter, folders)):
                yield Found(path, Entry(path.rpartition(b"/")[2], number, Kind.FILE))
        for path in self.broken:
            unreadable(UnreadableFilesystem(f"disk: directory {path!r} is damaged"))

    def node(self, inode: int, /) -> Node:
        return node(inode, len(self.files[inode][1]))

    def read(self, of: Node, offset: int, length: int, /) -> bytes:
        self.read_bytes += length
        return self.files[of.inode][1][offset : offset + length]


def found_in(files: dict[str, str]) -> list[tuple[str, str]]:
    tree = Tree({b"/" + path.encode(): content.encode("latin-1") for path, content in files.items()})
    return [(finding.text, finding.pattern) for finding in scan(tree, subject="disk").findings]


# --- patterns --------------------------------------------------------------------------------------------------------


def test_every_pattern_has_an_example() -> None:
    assert [pattern.id for pattern in PATTERNS] == list(EXAMPLES)


@pytest.mark.parametrize(("pattern", "path", "content"), [(i, *one) for i, all_ in EXAMPLES.items() for one in all_])
def test_a_pattern_finds_its_example_wherever_the_root_is(pattern: str, path: str, content: str) -> None:
    for root in ("", "upper/", "some/where/"):
        assert (f"/{root}{path}", pattern) in found_in({root + path: content})


@pytest.mark.parametrize("path", INNOCENT)
def test_what_is_no_secret_is_not_found(path: str) -> None:
    assert found_in({path: INNOCENT[path]}) == []


@pytest.mark.parametrize("where", [glob.replace("*", "3") for glob in PASSED_OVER])
def test_what_packages_bring_is_passed_over(where: str) -> None:
    assert found_in({f"{where}/a/key.pem": PEM.format("", letters(64)), f"x/{where}/key.pem": ""}) == []


def test_only_files_of_certain_names_are_read() -> None:
    tree = Tree({b"/a/data.bin": b"x" * 1000, b"/a/readme.md": b"x" * 1000})
    assert scan(tree, subject="disk") == Scan(subject="disk", names=2)
    assert tree.read_bytes == 0
    assert candidates(b"/.env")
    assert not candidates(b"/environment.txt")


def test_the_documentation_has_every_pattern() -> None:
    rows = dict(re.findall(r"(?m)^\| `([a-z-]+)` \| (.*) \|$", DOCS.read_text()))
    assert rows == {pattern.id: f"{pattern.description} | {pattern.spared}" for pattern in PATTERNS}
    for directory in PASSED_OVER:
        assert f"`{directory}`" in DOCS.read_text()


# --- the scan --------------------------------------------------------------------------------------------------------


@given(st.dictionaries(st.sampled_from([b"/.env", b"/a/id_x", b"/a/.netrc", b"/b.json", b"/etc/shadow"]), st.binary()))
def test_any_content_is_looked_at(files: dict[bytes, bytes]) -> None:
    for finding in scan(Tree(files), subject="disk").findings:
        assert files[finding.path]


def test_of_a_large_file_the_beginning_is_looked_at() -> None:
    token = f" ghp_{letters(36)} "
    assert found_in({"a.json": token + "x" * MIB}) == [("/a.json", "github-token")]
    assert found_in({"a.json": "x" * MIB + token}) == []


def test_findings_and_content_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(secrets, "MOST_FINDINGS", 3)
    files = {b"/%d.json" % number: b"ghp_" + letters(36).encode() for number in range(10)}
    found = scan(Tree(files), subject="disk")
    assert (len(found.findings), found.more, found.files, found.not_scanned) == (3, 7, 10, None)
    monkeypatch.setattr(secrets, "MOST_CONTENT", 100)
    found = scan(Tree(files), subject="disk")
    assert found.files == 2
    assert found.not_scanned is not None
    assert "at most 100 bytes in files" in found.not_scanned


def test_what_could_not_be_read_is_told_and_refused() -> None:
    found = scan(Tree({b"/a/.env": b""}, broken=(b"/b", b"/c")), subject="disk")
    assert found.not_scanned == "disk: directory b'/b' is damaged"
    with pytest.raises(SecretsFound, match="got one that was not scanned: directory b'/b' is damaged"):
        found.require_none()


def test_a_refusal_names_files_and_no_content() -> None:
    findings = tuple(Finding(b"/a\xff\x1b[2J%d" % number, "netrc") for number in range(12))
    with pytest.raises(SecretsFound) as caught:
        Scan(subject="disk", findings=findings).require_none()
    assert "and 2 more" in str(caught.value)
    assert str(caught.value).isprintable()
    assert len(caught.value.findings) == 12
    Scan(subject="disk").require_none()


# --- disks -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def leaky(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """An image with two secrets."""
    folder = tmp_path_factory.mktemp("leaky")
    tree = write_files(
        folder / "tree",
        {
            "root/.netrc": f"machine a.example login me password {CANARY}\n".encode(),
            "app/x\x1b[31m.json": f"ghp_{CANARY}".encode(),
            "usr/share/doc/key.pem": PEM.format("", letters(64)).encode(),
        },
    )
    return make_image(folder / "image", tree, size=4 * MIB).read_bytes()


@pytest.fixture
def disk(tmp_path: Path, leaky: bytes) -> Path:
    (tmp_path / "disk").write_bytes(leaky)
    return tmp_path / "disk"


@pytest.fixture
def casstore(tmp_path: Path) -> Casstore:
    return Casstore(tmp_path)


FOUND = [("/app/x\x1b[31m.json", "github-token"), ("/root/.netrc", "netrc")]


@pytest.mark.needs("mke2fs")
def test_by_default_nothing_is_looked_for(casstore: Casstore, disk: Path) -> None:
    assert casstore.json("create", "base", "--disk", disk)["secrets"] is None


@pytest.mark.needs("mke2fs")
@pytest.mark.parametrize("option", ["--scan-secrets", "--scan-secrets=warn"])
def test_warnings_name_the_files(casstore: Casstore, disk: Path, option: str) -> None:
    before = (disk.read_bytes(), disk.stat().st_mtime_ns, disk.stat().st_ctime_ns)
    result = casstore("create", "base", "--disk", disk, option, "-q")
    assert "warning: /root/.netrc on the disk looks like credentials (netrc)" in result.stderr
    assert "/app/x\\u001b[31m.json on the disk looks like" in result.stderr
    assert "\x1b[31m" not in result.stderr
    assert CANARY not in result.stdout + result.stderr
    assert (disk.read_bytes(), disk.stat().st_mtime_ns, disk.stat().st_ctime_ns) == before


@pytest.mark.needs("mke2fs")
def test_json_has_the_findings(casstore: Casstore, disk: Path) -> None:
    document = casstore.json("create", "base", "--disk", disk, "--scan-secrets")
    assert [(one["path"], one["pattern"]) for one in document["secrets"].pop("findings")] == FOUND
    assert document["secrets"] == {"more": 0, "names": 7, "files": 2, "not_scanned": None}
    assert CANARY not in str(document)


@pytest.mark.needs("mke2fs")
@pytest.mark.parametrize("destination", ["base", "./base.snapshot"])
def test_a_refused_disk_becomes_no_snapshot(
    casstore: Casstore, disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, destination: str
) -> None:
    monkeypatch.chdir(tmp_path)
    casstore("init")
    before = sorted(path.name for path in tmp_path.iterdir())
    result = casstore("create", destination, "--disk", disk, "--scan-secrets=refuse", code=16)
    assert "'/root/.netrc' (netrc)" in result.stderr
    assert "\x1b[31m" not in result.stderr
    assert CANARY not in result.stdout + result.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == before
    assert leftovers(casstore.store) == []
    assert not os.listdir(casstore.store / "refs")


@pytest.mark.needs("mke2fs")
def test_a_clean_disk_is_not_refused(casstore: Casstore, tmp_path: Path) -> None:
    tree = write_files(tmp_path / "tree", {path: text.encode() for path, text in INNOCENT.items()})
    make_image(tmp_path / "clean", tree, size=8 * MIB)
    document = casstore.json("create", "base", "--disk", tmp_path / "clean", "--scan-secrets=refuse")
    assert document["secrets"]["findings"] == []
    assert document["secrets"]["not_scanned"] is None
    told = casstore("create", "again", "--disk", tmp_path / "clean", "--scan-secrets").stderr
    assert "no credentials found: looked at " in told


@pytest.mark.parametrize("kind", ["zeros", "qcow2", "pipe"])
def test_a_disk_that_cannot_be_looked_into_is_told_or_refused(casstore: Casstore, tmp_path: Path, kind: str) -> None:
    data = (b"QFI\xfb" if kind == "qcow2" else b"").ljust(64 * 1024, b"\0")
    (tmp_path / "disk").write_bytes(data)
    source, stdin = ("-", data) if kind == "pipe" else (tmp_path / "disk", b"")
    run = casstore.process if kind == "pipe" else casstore
    refused = run("create", "base", "--disk", source, "--scan-secrets=refuse", stdin=stdin, code=16)
    assert "got one that was not scanned" in refused.stderr
    warned = run("create", "base", "--disk", source, "--scan-secrets", stdin=stdin)
    assert "warning: not scanned for credentials, or not wholly:" in warned.stderr


@pytest.mark.needs("mke2fs")
def test_a_disk_that_changes_after_it_was_looked_at_is_not_captured(
    tmp_path: Path, disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = disk.read_bytes()
    real = scan_source

    def then_change(source: DiskSource, *, bounds: Bounds | None = None) -> Scan:
        found = real(source, bounds=bounds)
        with disk.open("r+b") as file:
            file.seek(MIB)
            file.write(b"a secret that came too late")
        return found

    monkeypatch.setattr(secrets, "scan_source", then_change)
    with Store.init(tmp_path / "store", options=FAST) as store:
        try:
            Snapshot.builder(disk).name("base").scan_secrets().create(store)
        except SourceError as error:
            assert "changed while it was read" in str(error)  # noqa: PT017
            assert names(store) == []
        else:  # a clone of it was looked at and captured
            store.open_snapshot("base").restore(str(tmp_path / "out"))
            assert (tmp_path / "out").read_bytes() == old


@pytest.mark.needs("mke2fs")
def test_a_disk_that_is_not_read_again_is_looked_at_all_the_same(casstore: Casstore, disk: Path) -> None:
    casstore("create", "base", "--disk", disk)
    document = casstore.json("create", "again", "--disk", disk, "--trust-mtime", "--scan-secrets")
    assert [(one["path"], one["pattern"]) for one in document["secrets"]["findings"]] == FOUND


@pytest.mark.needs("mke2fs")
def test_sandboxes_are_looked_at(casstore: Casstore, tmp_path: Path, leaky: bytes) -> None:
    home = SandboxHome(tmp_path / ".microsandbox", "0.7")
    casstore.env["MSB_HOME"] = str(home.folder)
    home.add("box", upper=leaky)
    home.add("chain", upper=leaky)
    home.add_layer("chain", "upper-restore-1.qcow2")
    home.add("flat", upper=leaky, file="rootfs.raw", config_text=config("0.7", kind="flat", size_mib=4))
    before = home.listing()
    for name in ("box", "flat"):
        refused = casstore("create", "--from", name, "--scan-secrets=refuse", code=16)
        assert "'/root/.netrc' (netrc)" in refused.stderr
    result = casstore("create", "--from", "box", "--from", "chain", "--scan-secrets")
    assert "/root/.netrc on the disk looks like credentials" in result.stderr
    assert "not scanned for credentials, or not wholly: it is a chain of several files" in result.stderr
    casstore("create", "other", "--from", "chain", "--scan-secrets=refuse", code=16)
    documents = casstore.json(
        "create", "--from", "box", "--from", "chain", "--scan-secrets", "-f", schema="cli-create-all"
    )
    assert [one["secrets"]["names"] for one in documents["snapshots"]] == [7, 0]
    assert home.listing() == before
    home.close()


@pytest.mark.needs("mke2fs")
def test_the_library_has_the_findings(tmp_path: Path, disk: Path) -> None:
    with Store.init(tmp_path / "store", options=FAST) as store:
        made = Snapshot.builder(disk).name("base").scan_secrets("warn").create(store)
        assert made.cost is not None
        assert made.cost.secrets is not None
        assert [(finding.text, finding.pattern) for finding in made.cost.secrets.findings] == FOUND
        refusing = SnapshotConfig(
            source=DiskInput(path=str(disk)),
            destination=SnapshotDestination(name="refused"),
            scan_secrets=OnSecrets.REFUSE,
        )
        with pytest.raises(SecretsFound) as caught:
            store.create(refusing)
        assert list(caught.value.findings) == FOUND
    with pytest.raises(UsageError, match="expected warn or refuse, got 'ignore'"):
        Snapshot.builder(disk).scan_secrets("ignore")


def test_an_artifact_directory_is_not_scanned(casstore: Casstore, tmp_path: Path) -> None:
    casstore("create", "base", "--from-artifact", tmp_path, "--scan-secrets", code=2)
