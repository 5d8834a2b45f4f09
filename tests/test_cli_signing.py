"""casstore sign, push --sign, and what verify, pull, copy, import and inspect say of signatures. What is refused, and
why, is in test_trust_attacks.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest

from casstore import spec
from casstore.digest import Digest
from casstore.jsondoc import load_object
from casstore.oci import Descriptor
from casstore.schema import validate
from casstore.signatures.reasons import Reason
from tests.support import disks
from tests.support.command import Casstore
from tests.support.registry_simulator import RegistrySimulator
from tests.support.seed import make_artifact
from tests.support.signing import key
from tests.support.stores import all_files, disk_bytes
from tests.test_cli_errors import HOSTILE

WORDS = b"open sesame"
REMOTE = "cli-inspect-remote"


@pytest.fixture
def signer(casstore: Casstore) -> Casstore:
    """A store with one snapshot, `base`, and keys in files."""
    disks.random_sparse_file(casstore.folder / "disk", seed=1)
    casstore("create", "base", "--disk", casstore.folder / "disk", "--label", "step=pip", "-q")
    keep_keys(casstore)
    return casstore


def keep_keys(casstore: Casstore) -> None:
    for name in ("alice", "bob"):
        (casstore.folder / f"{name}.pub").write_bytes(key(name).public.to_pem())
        (casstore.folder / f"{name}.key").write_bytes(key(name).to_pem(None))


@pytest.fixture
def elsewhere(there: Casstore) -> Casstore:
    """Another machine, which knows the same keys."""
    keep_keys(there)
    return there


@pytest.fixture
def registry() -> Iterator[RegistrySimulator]:
    with RegistrySimulator() as server:
        yield server


def words(casstore: Casstore, *names: str, option: str = "--key", ending: str = "pub") -> list[str]:
    """The option for each of these keys."""
    return [word for name in names for word in (option, str(casstore.folder / f"{name}.{ending}"))]


def keys(casstore: Casstore, *names: str, option: str = "--key") -> list[str]:
    """The option for each of these private keys."""
    return words(casstore, *names, option=option, ending="key")


def fingerprint(name: str) -> str:
    return str(key(name).public.fingerprint)


def digest_of(casstore: Casstore, name: str = "base") -> str:
    digest: str = casstore.json("inspect", name)["digest"]
    return digest


# --- in the store -----------------------------------------------------------------------------------------------------


def test_what_is_signed_verifies(signer: Casstore) -> None:
    digest = digest_of(signer)
    done = signer("sign", "base", *keys(signer, "alice"))
    assert done.stdout.split()[:2] == [fingerprint("alice"), digest]
    assert "for any repository" in done.stderr
    verified = signer("verify", "base", *words(signer, "alice")).stdout
    assert "chunks verified" in verified
    assert (
        f"Signature:       verified: by {signer.folder}/alice.pub ({key('alice').public.fingerprint.short}) at "
        in verified
    )
    assert "for any repository" in verified


def test_where_a_signature_is_told_to_be_there_it_is(signer: Casstore) -> None:
    """As a reference, which any tool for OCI can follow."""
    (line,) = signer("sign", "base", *keys(signer, "alice")).lines
    where = line.split()[2]
    document = signer.json("sign", "base", *keys(signer, "alice", "bob"))
    assert document["reference"] == f"oci:{signer.store}@{digest_of(signer)}"
    assert [each["fingerprint"] for each in document["signatures"]] == [fingerprint("alice"), fingerprint("bob")]
    signer("copy", where, f"oci:{signer.folder}/layout:signature")
    for each in document["signatures"]:
        assert (signer.store / "blobs/sha256" / each["digest"].removeprefix("sha256:")).exists()


def test_verify_says_in_json_what_it_found(signer: Casstore) -> None:
    signer("sign", "base", *keys(signer, "alice"), "-a", "reviewed-by=ann")
    (found,) = signer.json("verify", "base", *words(signer, "alice"))["snapshots"]
    (signature,) = found["signatures"]
    assert found["ok"]
    assert signature["status"] == "verified"
    assert (signature["form"], signature["fingerprint"]) == ("bundle", fingerprint("alice"))
    said = signature["annotations"]
    assert (said["reviewed-by"], said["io.casstore.label.step"]) == ("ann", "pip")
    assert said["io.casstore.id"] == signer.json("inspect", "base")["id"]
    assert found["trust"] == {"policy": None, "rules": found["trust"]["rules"], "ok": True, "reasons": []}


def test_a_wrong_key_is_not_enough_and_content_is_read_all_the_same(signer: Casstore) -> None:
    signer("sign", "base", *keys(signer, "alice"))
    document = signer.json("verify", "base", *words(signer, "bob"), code=13)
    (found,) = document["snapshots"]
    assert not document["ok"]
    assert found["verification"]["chunks"]
    assert [each["reason"] for each in found["trust"]["reasons"]] == ["unknown-key"]
    done = signer("verify", "base", *words(signer, "bob"), code=13)
    assert "chunks verified" in done.stdout
    assert "unknown-key" in done.stdout
    assert "not signed as it must be" in done.stderr


def test_damage_is_worse_than_a_missing_signature(signer: Casstore) -> None:
    signer("tag", "base", "same")
    (pack,) = [blob for blob in (signer.store / "blobs/sha256").iterdir() if blob.stat().st_size > 5000]
    pack.chmod(0o644)
    pack.write_bytes(pack.read_bytes()[:-1] + b"x")
    signer("verify", "--all", *words(signer, "alice"), code=12)
    signer("verify", "--all", "--signatures-only", *words(signer, "alice"), code=13)


def test_signatures_only_reads_no_content(signer: Casstore) -> None:
    signer("sign", "base", *keys(signer, "alice"))
    for blob in (signer.store / "blobs/sha256").iterdir():
        if blob.stat().st_size > 5000:
            blob.unlink()
            blob.symlink_to("nowhere")
    found = signer.json("verify", "base", "--signatures-only", *words(signer, "alice"))["snapshots"][0]
    assert found["ok"]
    assert found["verification"] is None


def test_several_here_and_elsewhere(signer: Casstore) -> None:
    """In the order of the words; what fails keeps none of the others."""
    layout = f"oci:{signer.folder}/layout:base"
    signer("push", "base", layout, *keys(signer, "alice", option="--sign"))
    wanted = (layout, "base", f"oci:{signer.folder}/layout:nothing", "nothing")
    found = signer.json("verify", *wanted, *words(signer, "alice"), code=10)["snapshots"]
    assert [(each["snapshot"], each["ok"]) for each in found] == [*((each, True) for each in wanted[:2])] + [
        (each, False) for each in wanted[2:]
    ]
    assert [each["verification"] is None for each in found] == [True, False, True, True]
    signer("verify", *wanted, *words(signer, "bob"), code=13)


def test_verify_without_a_key_is_what_it_was(signer: Casstore) -> None:
    signer("sign", "base", *keys(signer, "alice"))
    assert "Signature" not in signer("verify", "base").stdout
    (found,) = signer.json("verify", "base")["snapshots"]
    assert (found["signatures"], found["trust"]) == ([], None)


def test_so_many_of_the_keys(signer: Casstore) -> None:
    signer("sign", "base", *keys(signer, "alice"))
    both = words(signer, "alice", "bob")
    signer("verify", "base", *both)
    signer("verify", "base", *both, "--threshold", "2", code=13)
    signer("sign", "base", *keys(signer, "bob"), "--repository", "registry.example/a", "--cosign-tag")
    signer("verify", "base", *both, "--threshold", "2")
    forms = [each["form"] for each in signer.json("verify", "base", *both)["snapshots"][0]["signatures"]]
    assert sorted(forms) == ["bundle", "bundle", "cosign"]


def test_a_repository_counts_where_it_is_asked_for(signer: Casstore) -> None:
    signer("sign", "base", *keys(signer, "alice"), "--repository", "registry.example/team/disks")
    signer("verify", "base", *words(signer, "alice"))
    signer("verify", "base", *words(signer, "alice"), "--signed-for", "registry.example/team")
    signer("verify", "base", *words(signer, "alice"), "--signed-for", "registry.example/other", code=13)


def test_signatures_are_removed_with_what_they_are_about(signer: Casstore) -> None:
    signer("sign", "base", *keys(signer, "alice"), "--repository", "registry.example/a", "--cosign-tag")
    signer("rm", "base")
    signer("gc")
    assert list((signer.store / "refs").iterdir()) == []
    assert list((signer.store / "blobs/sha256").iterdir()) == []


# --- keys and passphrases ---------------------------------------------------------------------------------------------


def locked(signer: Casstore, *names: str) -> None:
    for name in names:
        (signer.folder / f"{name}.key").write_bytes(key(name).to_pem(WORDS))


def test_a_passphrase_from_the_environment_or_a_file(signer: Casstore) -> None:
    locked(signer, "alice")
    path = signer.folder / "words"
    path.write_bytes(WORDS + b"\n")
    both = keys(signer, "alice", "bob")
    signer("sign", "base", *both, "--passphrase-file", path)
    assert "passphrase" in signer("sign", "base", *both, code=2).stderr
    signer.env["CASSTORE_PASSPHRASE"] = "wrong"
    told = signer("sign", "base", *both, code=2).stderr
    assert "wrong passphrase" in told
    signer.env["CASSTORE_PASSPHRASE"] = WORDS.decode()
    signer("sign", "base", *both)


def test_a_passphrase_is_asked_for_once_for_each_key(signer: Casstore, monkeypatch: pytest.MonkeyPatch) -> None:
    locked(signer, "alice", "bob")
    asked: list[str] = []

    def ask(question: str, **_: Any) -> str:
        asked.append(question)
        return WORDS.decode()

    monkeypatch.setattr(click, "prompt", ask)
    monkeypatch.setattr("casstore.cli.env._is_terminal", lambda _: True)
    signer("sign", "base", *keys(signer, "alice", "bob", "alice"), "--repository", "registry.example/a", "--cosign-tag")
    assert asked == [f"Passphrase of {signer.folder}/{name}.key" for name in ("alice", "bob")]


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (["sign", "base"], "--key"),
        (["sign", "base", "--key", "alice.pub"], "expected a private key, got a public one"),
        (["sign", "base", "--key", "nowhere"], "nowhere"),
        (["sign", "base", "--key", "alice.key", "-a", "x"], "expected K=V"),
        (["sign", "base", "--key", "alice.key", "-a", "io.casstore.id=x"], "casstore's own"),
        (["sign", "base", "--key", "alice.key", "--repository", "nowhere"], "nowhere"),
        (["sign", "base", "--key", "alice.key", "--repository", "r.example/a:b"], "expected HOST[:PORT]/REPO"),
        (["sign", "base", "--key", "alice.key", "--repository", "r.example/a", "--any-repository"], "either"),
        (["sign", "base", "--key", "alice.key", "--cosign-tag"], "say which (--repository)"),
        (["push", "base", "oci:layout", "--any-repository"], "expected --sign with it"),
        (["verify", "base", "--threshold", "1"], "expected --key with it"),
        (["verify", "base", "--key", "alice.pub", "--threshold", "2"], "expected as many --key, got 1"),
        (["verify", "base", "--key", "alice.pub", "--key", "alice.pub", "--threshold", "2"], "different keys"),
        (["verify", "base", "--signed-for", "r.example/a"], "expected --key with it"),
        (["verify", "base", "--key", "alice.pub", "--signed-for", "a/b"], "expected HOST"),
        (["verify", "base", "--key", "alice.key"], "expected a public key, got a private one"),
        (["verify", "base", "--signatures-only"], "expected --key or a policy"),
        (["verify", "r.example/a:b"], "expected --key or a policy"),
        (["verify", "r.example/a", "--key", "alice.pub"], "error: signatures of r.example/a: expected a tag or digest"),
        (["verify", "base", "--key", "alice.pub", "--signed-for", "r.example/a:b"], "repository 'r.example/a:b': "),
    ],
)
def test_words_that_make_no_sense(
    signer: Casstore, monkeypatch: pytest.MonkeyPatch, args: list[str], told: str
) -> None:
    monkeypatch.chdir(signer.folder)
    before = all_files(signer.store)
    assert told in signer(*args, code=2).stderr
    assert all_files(signer.store) == before


def test_what_nobody_has_cannot_be_signed(signer: Casstore) -> None:
    signer("sign", "nothing", *keys(signer, "alice"), code=10)
    signer("sign", f"oci:{signer.folder}/nowhere:base", *keys(signer, "alice"), code=10)
    assert not (signer.folder / "nowhere").exists()


# --- elsewhere --------------------------------------------------------------------------------------------------------


def test_signing_in_a_registry(signer: Casstore, elsewhere: Casstore, registry: RegistrySimulator) -> None:
    """For that repository alone, and just what the tag stood for; nothing of the content is fetched."""
    place = f"{registry.host}/team/disks"
    signer("push", "base", place, "--plain-http")
    registry.requests.clear()
    done = elsewhere("sign", f"{place}:base", *keys(elsewhere, "alice"), "--plain-http")
    digest = digest_of(signer)
    assert f"signed {place}:base ({Digest.parse(digest).short}) with " in done.stderr
    assert f"for {place}" in done.stderr
    assert done.stdout.split()[1] == digest
    manifest = load_object(registry.contents.manifests["team/disks", digest][1], subject="it", limit=spec.MAX_MANIFEST)
    packs = {layer["digest"] for layer in manifest["layers"]}
    assert not [seen for seen in registry.seen("GET", "/blobs/") if seen.path.rpartition("/")[2] in packs]
    verified = elsewhere("verify", f"{place}:base", *words(elsewhere, "alice"), "--plain-http").stdout
    assert f", for {place}" in verified
    assert not elsewhere.store.exists()
    elsewhere("copy", f"{place}:base", f"{registry.host}/mirror/disks", "--referrers", "--plain-http")
    mirror = ["verify", f"{registry.host}/mirror/disks:base", *words(elsewhere, "alice"), "--plain-http"]
    elsewhere(*mirror, code=13)
    elsewhere(*mirror, "--signed-for", place)


def test_signing_in_a_layout_and_in_another_store(signer: Casstore) -> None:
    signer("push", "base", f"oci:{signer.folder}/layout")
    other = Casstore(signer.folder / "other")
    other("init")
    signer("copy", f"oci:{signer.store}:base", f"oci:{other.store}:base")
    for place in (f"oci:{signer.folder}/layout:base", f"oci:{other.store}:base"):
        signer("verify", place, *words(signer, "alice"), code=13)
        signer("sign", place, *keys(signer, "alice"))
        signer("verify", place, *words(signer, "alice"))
    other("verify", "base", *words(signer, "alice"))
    signer("verify", "base", *words(signer, "alice"), code=13)


def test_only_snapshots_are_signed(signer: Casstore, registry: RegistrySimulator) -> None:
    config = b"{}"
    registry.put_blob("team/disks", config)
    image = {
        "schemaVersion": 2,
        "mediaType": spec.MEDIA_MANIFEST,
        "config": Descriptor.of(config, "application/vnd.oci.image.config.v1+json").to_dict(),
        "layers": [],
    }
    registry.put_manifest("team/disks", json.dumps(image).encode(), tag="image")
    known = dict(registry.contents.tags)
    place = f"{registry.host}/team/disks:image"
    done = signer("sign", place, *keys(signer, "alice"), "--plain-http", code=12)
    assert "vnd.casstore.snapshot" in done.stderr
    assert registry.contents.tags == known


@pytest.mark.parametrize("api", [True, False])
def test_push_signs_before_the_tag_moves(signer: Casstore, registry: RegistrySimulator, api: bool) -> None:
    registry.faults.referrers_api = api
    place = f"{registry.host}/team/disks"
    done = signer("push", "base", place, *keys(signer, "alice", "bob", option="--sign"), "--plain-http")
    assert f"signed base with {signer.folder}/alice.key, {signer.folder}/bob.key, for {place}\n" in done.stderr
    puts = [seen.path.rpartition("/")[2] for seen in registry.seen("PUT", "/manifests/")]
    assert puts[-1] == "base"
    assert len([put for put in puts if ".sig-" in put]) == 2
    found = signer.json("inspect", f"{place}:base", *words(signer, "alice", "bob"), "--plain-http", schema=REMOTE)
    assert {each["fingerprint"] for each in found["signatures"]} == {fingerprint("alice"), fingerprint("bob")}
    assert {each["repository"] for each in found["signatures"]} == {place}
    assert {each["repository"] for each in signer.json("inspect", "base", *words(signer, "alice"))["signatures"]} == {
        place,
        None,  # bob's, whom nobody trusts here
    }


def test_push_takes_along_no_other_signature(signer: Casstore, registry: RegistrySimulator) -> None:
    signer("sign", "base", *keys(signer, "alice"))
    place = f"{registry.host}/team/disks"
    bob = keys(signer, "bob", option="--sign")
    pushed = signer.json("push", "base", place, *bob, "--any-repository", "--plain-http", schema="cli-transfer")
    assert [(each["fingerprint"], each["form"]) for each in pushed["signed"]] == [(fingerprint("bob"), "bundle")]
    (found,) = signer.json("inspect", f"{place}:base", *words(signer, "alice", "bob"), "--plain-http", schema=REMOTE)[
        "signatures"
    ]
    assert (found["fingerprint"], found["repository"]) == (fingerprint("bob"), None)
    staying = "2 signatures of base stayed here; push --referrers takes all along"
    assert staying in signer("push", "base", place, "--plain-http").stderr
    assert "stayed here" not in signer("push", "base", place, "--referrers", "--plain-http").stderr
    assert len(signer.json("inspect", f"{place}:base", "--plain-http", schema=REMOTE)["signatures"]) == 2


def test_push_signs_all_that_it_pushes(signer: Casstore, registry: RegistrySimulator) -> None:
    signer("create", "child", "--disk", signer.folder / "disk", "--parent", "base", "-q")
    signer("tag", "child", "same")
    options = [*keys(signer, "alice", option="--sign"), "--cosign-tag", "--plain-http"]
    signer("push", "child", f"{registry.host}/team/line", "--with-parents", *options)
    signer("push", "--all", f"{registry.host}/team/all", *options)
    for place in ("line:base", "line:child", "all:base", "all:child", "all:same"):
        found = signer.json("verify", f"{registry.host}/team/{place}", *words(signer, "alice"), "--plain-http")
        verified = [each for each in found["snapshots"][0]["signatures"] if each["status"] == "verified"]
        assert [each["form"] for each in verified] == ["bundle", "cosign"]


def test_a_dry_run_signs_nothing(signer: Casstore) -> None:
    before = all_files(signer.store)
    signer("push", "base", f"oci:{signer.folder}/layout", "--sign", "nowhere", "--dry-run")
    assert all_files(signer.store) == before


# --- coming in --------------------------------------------------------------------------------------------------------


def test_signatures_that_count_come_along(signer: Casstore, elsewhere: Casstore, registry: RegistrySimulator) -> None:
    place = f"{registry.host}/team/disks:base"
    signer("push", "base", place, *keys(signer, "alice", "bob", option="--sign"), "--plain-http")
    done = elsewhere("pull", place, *words(elsewhere, "alice"), "--plain-http")
    assert "with 1 referrer" in done.stderr
    assert f"signed by {elsewhere.folder}/alice.pub ({key('alice').public.fingerprint.short})" in done.stderr
    elsewhere("verify", "base", *words(elsewhere, "alice"))
    elsewhere("verify", "base", *words(elsewhere, "bob"), code=13)
    again = elsewhere.json("pull", place, *words(elsewhere, "bob"), "--plain-http")
    assert [each["fingerprint"] for each in again["signatures"]] == [fingerprint("bob")]
    elsewhere("verify", "base", *words(elsewhere, "bob"))


def test_copies_take_along_what_counts(signer: Casstore, registry: RegistrySimulator) -> None:
    place, layout = f"{registry.host}/team/disks:base", f"oci:{signer.folder}/layout:base"
    signer("push", "base", place, *keys(signer, "alice", "bob", option="--sign"), "--plain-http")
    planned = signer.json("copy", place, layout, *words(signer, "bob"), "--plain-http", "--dry-run", schema="cli-plan")
    assert planned["missing_blobs"] == 7  # four of the snapshot, three of the signature
    copied = signer.json("copy", place, layout, *words(signer, "bob"), "--plain-http")
    assert copied["referrers"] == 1
    assert [each["fingerprint"] for each in copied["signatures"]] == [fingerprint("bob")]
    assert copied["trust"]["rules"]
    (found,) = signer.json("verify", layout, *words(signer, "alice", "bob"))["snapshots"][0]["signatures"]
    assert found["fingerprint"] == fingerprint("bob")


def test_a_pull_that_trusts_everybody_asks_for_nothing(
    signer: Casstore, elsewhere: Casstore, registry: RegistrySimulator
) -> None:
    place = f"{registry.host}/team/disks:base"
    signer("push", "base", place, *keys(signer, "alice", option="--sign"), "--plain-http")
    registry.requests.clear()
    document = elsewhere.json("pull", place, "--plain-http")
    assert (document["signatures"], document["trust"]) == ([], None)
    assert not registry.seen("GET", "referrers")
    assert not registry.seen("GET", "sha256-")


def test_what_a_tag_led_to_is_remembered(signer: Casstore, elsewhere: Casstore, registry: RegistrySimulator) -> None:
    """Of every pull by tag, whoever is trusted; a first one is told if that counts."""
    place = f"{registry.host}/team/disks"
    signer("push", "base", place, "--plain-http")
    path = elsewhere.store / "state/last-seen.json"
    elsewhere("pull", f"{place}@{digest_of(signer)}", "--name", "x", "--plain-http")
    assert not path.exists()
    done = elsewhere("pull", f"{place}:base", "--plain-http", "--no-rollback")
    assert f"warning: {place}:base was never pulled here before" in done.stderr
    assert list(json.loads(path.read_bytes())["refs"]) == [f"{place}:base"]
    done = elsewhere("pull", f"{place}:base", "--plain-http", "--no-rollback")
    assert "warning" not in done.stderr
    signer("push", "base", f"oci:{signer.folder}/layout")
    (signer.folder / "link").symlink_to("layout")
    for name, told in (("layout", True), ("link", False)):  # one place by two names
        done = elsewhere("pull", f"oci:{signer.folder}/{name}:base", "--no-rollback")
        assert ("was never pulled here before" in done.stderr) is told


def test_a_path_that_is_too_long_to_be_remembered(signer: Casstore, elsewhere: Casstore) -> None:
    folder = signer.folder
    for _ in range(5):
        folder /= "x" * 250
    folder.mkdir(parents=True)
    signer("push", "base", f"oci:{folder}")
    assert "expected at most 1024 characters" in elsewhere("pull", f"oci:{folder}:base", "--no-rollback", code=2).stderr
    elsewhere("pull", f"oci:{folder}:base")
    assert not (elsewhere.store / "state/last-seen.json").exists()


def test_archives_keep_signatures_and_are_asked_for_them(signer: Casstore, elsewhere: Casstore) -> None:
    signer("sign", "base", *keys(signer, "alice"))
    archive = signer.folder / "base.tar"
    signer("export", "base", archive, "--as", "oci")
    before = all_files(elsewhere.store) if elsewhere.store.exists() else {}
    done = elsewhere("import", archive, *words(elsewhere, "bob"), "--json", code=13)
    assert json.loads(done.stderr.splitlines()[-1])["reasons"] == ["unknown-key"]
    assert not [path for path in all_files(elsewhere.store) if path.startswith(("refs/", "blobs/sha256/"))], before
    done = elsewhere("import", archive, *words(elsewhere, "alice"))
    assert f"base is signed by {elsewhere.folder}/alice.pub ({key('alice').public.fingerprint.short})" in done.stderr
    elsewhere("verify", "base", *words(elsewhere, "alice"))
    (imported,) = elsewhere.json("import", archive, *words(elsewhere, "alice"))["snapshots"]
    (relied_on,) = imported["signatures"]
    assert (relied_on["status"], relied_on["fingerprint"]) == ("verified", str(key("alice").public.fingerprint))
    assert imported["trust"]["ok"]
    (imported,) = elsewhere.json("import", archive)["snapshots"]
    assert (imported["signatures"], imported["trust"]) == ([], None)


@pytest.mark.parametrize("form", ["0.4", "0.7"])
def test_archives_and_directories_of_microsandbox_have_no_signatures(
    signer: Casstore, elsewhere: Casstore, form: str
) -> None:
    archive = signer.folder / "base.tar.zst"
    signer("export", "base", archive, "--as", form)
    make_artifact(signer.folder / "tree", "one", disk_bytes(1))
    for wanted in (archive, signer.folder / "tree/one", signer.folder / "tree"):
        elsewhere("import", wanted, *words(elsewhere, "alice"), code=13)
    assert elsewhere.json("list")["snapshots"] == []
    for wanted, name in ((archive, "base"), (signer.folder / "tree/one", "one")):
        elsewhere("import", wanted)
        elsewhere("sign", name, *keys(elsewhere, "alice"))
        done = elsewhere("import", wanted, *words(elsewhere, "alice"))  # it is here, and signed by now
        assert f"{name} is signed by" in done.stderr


# --- the policy -------------------------------------------------------------------------------------------------------

POLICY = """
version = 1
default = "refuse"
[keys]
alice = "alice.pub"
[[rules]]
scope = "oci"
require = "signed"
keys = ["alice"]
[[rules]]
scope = "store"
require = "unsigned"
"""


def test_where_the_policy_is_looked_for(signer: Casstore, elsewhere: Casstore) -> None:
    """The option, else the variable, else the store's own, which counts for everybody who uses the store."""
    layout = f"oci:{signer.folder}/layout:base"
    signer("push", "base", layout)
    strict, lax, own = (elsewhere.folder / name for name in ("strict.toml", "lax.toml", "store/casstore.policy.toml"))
    strict.write_text(POLICY)
    lax.write_text('version = 1\ndefault = "accept"')
    elsewhere("init")
    own.write_text(POLICY.replace('"alice.pub"', '"../alice.pub"'))
    refused = ["pull", layout, "--dry-run"]
    elsewhere(*refused, code=13)
    elsewhere.env["CASSTORE_POLICY"] = str(lax)
    elsewhere(*refused)
    elsewhere(*refused, "--policy", strict, code=13)
    own.unlink()
    del elsewhere.env["CASSTORE_POLICY"]
    elsewhere(*refused)
    signer("sign", layout, *keys(signer, "alice"))
    elsewhere(*refused, "--policy", strict)
    elsewhere(*refused, "--policy", strict, *words(elsewhere, "bob"), code=13)  # both must hold


def test_the_policy_of_a_store_holds_for_copies_into_it(signer: Casstore, elsewhere: Casstore) -> None:
    layout = f"oci:{signer.folder}/layout:base"
    signer("push", "base", layout)
    elsewhere("init")
    (elsewhere.store / "casstore.policy.toml").write_text(POLICY.replace('"alice.pub"', '"../alice.pub"'))
    signer("copy", layout, f"oci:{elsewhere.store}", code=13)
    signer("copy", layout, f"oci:{signer.folder}/other")
    elsewhere("copy", layout, f"oci:{signer.folder}/another", code=13)
    assert elsewhere.json("list")["snapshots"] == []
    assert elsewhere("check").stdout == "" or "casstore.policy.toml" not in elsewhere("check").stdout


def test_what_a_policy_does_not_ask_for_is_said(signer: Casstore) -> None:
    (signer.store / "casstore.policy.toml").write_text(POLICY.replace('"alice.pub"', '"../alice.pub"'))
    told = signer("verify", "base").stdout
    assert "Trust:           the policy asks nothing of what is in the store" in told
    (found,) = signer.json("verify", "base")["snapshots"]
    assert found["trust"]["ok"]
    assert found["trust"]["policy"] == str(signer.store / "casstore.policy.toml")


def test_a_policy_without_a_rule_for_the_store_says_what_to_do(signer: Casstore) -> None:
    (signer.store / "casstore.policy.toml").write_text('version = 1\ndefault = "refuse"\n')
    assert 'nothing from the store is let in; a rule with scope = "store"' in signer("verify", "base", code=13).stdout


def test_a_new_store_may_begin_with_its_policy(signer: Casstore, elsewhere: Casstore) -> None:
    layout = f"oci:{signer.folder}/layout:base"
    signer("push", "base", layout, *keys(signer, "alice", option="--sign"))
    elsewhere.store.mkdir()
    (elsewhere.store / "casstore.policy.toml").write_text(POLICY.replace('"alice.pub"', '"../alice.pub"'))
    elsewhere("pull", layout)
    (elsewhere.store / "casstore.policy.toml").write_text('version = 1\ndefault = "refuse"')
    elsewhere("pull", layout, code=13)


# --- what is shown ----------------------------------------------------------------------------------------------------


def test_inspect_shows_nothing_that_nobody_vouches_for(signer: Casstore) -> None:
    """Whoever may add a referrer writes what is in it."""
    signer(
        "sign",
        "base",
        *keys(signer, "alice"),
        "-a",
        "canary=canary",
        "--repository",
        "canary.example/a",
        "--cosign-tag",
    )
    for options in ([], words(signer, "bob")):
        done = signer("inspect", "base", *options)
        found = signer.json("inspect", "base", *options)
        assert "canary" not in done.stdout + json.dumps(found)
        assert [each["status"] for each in found["signatures"]] == ["refused" if options else "unverified"] * 2
        assert done.stdout.count("Signature:") == 2
    assert found["trust"]["reasons"]
    assert not found["trust"]["ok"]
    done = signer("inspect", "base", *words(signer, "alice"))
    assert done.stdout.count("verified: by ") == 2
    assert "nothing was asked" not in done.stdout
    assert "Trust:           nothing was asked: --key or a policy" in signer("inspect", "base").stdout
    assert signer.json("inspect", "base", *words(signer, "alice"))["signatures"][0]["annotations"]["canary"] == "canary"


def test_inspect_shows_a_few_of_many(signer: Casstore) -> None:
    for _ in range(3):
        signer("sign", "base", *keys(signer, "alice", "bob"), "--repository", "r.example/a", "--cosign-tag")
    assert "and 2 more" in signer("inspect", "base").stdout
    shown = [line.split()[1] for line in signer("inspect", "base", *words(signer, "bob")).lines if "Signature:" in line]
    assert shown == ["verified:"] * 6 + ["refused:"] * 4 + ["and"], "good ones first"
    assert len(signer.json("inspect", "base")["signatures"]) == 12


def test_64_what_is_signed_is_escaped(signer: Casstore) -> None:
    """Row 64, with names and annotations from outside."""
    odd = signer.folder / f"{HOSTILE.replace('/', '')}.pub"
    odd.write_bytes(key("alice").public.to_pem())
    (signer.folder / "odd.key").write_bytes(key("alice").to_pem(None))
    signer("sign", "base", "--key", signer.folder / "odd.key", "-a", f"{HOSTILE}={HOSTILE}", "--any-repository")
    (signer.folder / "odd.toml").write_text(json.dumps(HOSTILE))
    runs = [
        signer("inspect", "base", "--key", odd),
        signer("verify", "base", "--key", odd),
        signer("inspect", "base", "--policy", signer.folder / "odd.toml", code=2),
        signer("verify", "base", "--key", f"{odd}x", code=2),
    ]
    for done in runs:
        assert (done.stdout + done.stderr).replace("\n", "").isprintable()


def test_reasons_are_those_of_the_library() -> None:
    schema = json.loads((Path(spec.__file__).parent / "schemas/cli-common.schema.json").read_bytes())
    assert schema["$defs"]["reason"]["enum"] == [reason.value for reason in Reason]


def test_errors_have_their_reasons_in_json(signer: Casstore) -> None:
    signer("push", "base", f"oci:{signer.folder}/layout")
    done = signer("pull", f"oci:{signer.folder}/layout:base", *words(signer, "alice"), "--json", code=13)
    document = json.loads(done.stderr.splitlines()[-1])
    validate(document, "cli-error", subject="error")
    assert document["reasons"] == ["no-signatures"]
    done = signer("pull", f"oci:{signer.folder}/layout:base", *words(signer, "alice"), code=13)
    assert "no-signatures" in done.stderr
    assert "casstore sign" in done.stderr
