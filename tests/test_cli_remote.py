"""list, inspect, rm, copy and the many ways to push, on the command line: what is elsewhere, without pulling it."""

from __future__ import annotations

import json
import os
import re
import signal
import ssl
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from casstore import graph, spec
from casstore.cli.connection import DEFAULTS
from casstore.cli.remotes import is_reference
from casstore.cli.transfers import DEFAULT_CONCURRENCY
from casstore.digest import Digest
from casstore.jsondoc import dump
from casstore.registry import RegistryOptions
from casstore.schema import validate
from tests.support import disks
from tests.support.certificates import Authority
from tests.support.command import Casstore
from tests.support.registry_simulator import RegistrySimulator
from tests.support.servers import PASSWORD, USER, RunningRegistry, registry

needs_registry = pytest.mark.needs("docker-registry")


@pytest.fixture
def disk(casstore: Casstore, tmp_path: Path) -> Path:
    """A disk that is kept as `base`, and after an edit as its child `edited`."""
    path = tmp_path / "disk.ext4"
    disks.unpack_fixture("base", path)
    casstore("create", "base", "--disk", path, "-q", "--label", "step=1")
    disks.unpack_fixture("edited", tmp_path / "edited.ext4")
    casstore("create", "edited", "--disk", tmp_path / "edited.ext4", "--parent", "base", "-q")
    return path


@pytest.fixture(scope="module")
def unchanged(tmp_path_factory: pytest.TempPathFactory) -> Casstore:
    """A store with `base`, for what changes nothing."""
    folder = tmp_path_factory.mktemp("unchanged")
    (folder / "disk").write_bytes(bytes(range(256)) * 64)
    casstore = Casstore(folder)
    casstore("create", "base", "--disk", folder / "disk", "-q")
    return casstore


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RunningRegistry]:
    (tmp_path / "registry").mkdir()
    with registry(tmp_path / "registry") as running:
        yield running


@pytest.fixture
def simulator() -> Iterator[RegistrySimulator]:
    with RegistrySimulator() as running:
        yield running


@pytest.fixture(params=["layout", pytest.param("registry", marks=needs_registry)])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """Where snapshots can be, and the options to reach it: an OCI layout, and a docker-registry."""
    if request.param == "layout":
        return Place(f"oci:{tmp_path}/layout")
    server: RunningRegistry = request.getfixturevalue("server")
    return Place(f"{server.host}/team/disks", "--plain-http")


class Place:
    """A repository, and the options that reach it."""

    def __init__(self, name: str, *options: str) -> None:
        self.name, self.options = name, options


def _digest(casstore: Casstore, name: str) -> str:
    return str(casstore.json("inspect", name)["digest"])


# --- list ------------------------------------------------------------------------------------------------------------


def test_list_shows_the_tags_of_a_place(casstore: Casstore, there: Casstore, disk: Path, place: Place) -> None:
    for name, tag in (("base", "base"), ("base", "again"), ("edited", "edited")):
        casstore("push", name, f"{place.name}:{tag}", *place.options)
    document = there.json("list", place.name, *place.options, schema="cli-tags")
    assert document["reference"] == place.name
    tags = {tag["name"]: tag for tag in document["tags"]}
    assert list(tags) == ["again", "base", "edited"]
    known = casstore.json("inspect", "base")
    for field in ("digest", "id", "size_bytes", "created_at", "image_ref", "stored_bytes"):
        assert tags["base"][field] == tags["again"][field] == known[field]
    assert {tag["kind"] for tag in tags.values()} == {"snapshot"}
    shown = there("list", place.name, *place.options).lines
    assert shown[0].split() == ["TAG", "KIND", "IMAGE", "SIZE", "STORED", "CREATED", "(UTC)", "DIGEST"]
    assert [line.split()[:2] for line in shown[1:]] == [[name, "snapshot"] for name in tags]
    quiet = there("list", place.name, "-q", *place.options).lines
    assert sorted(quiet) == sorted({_digest(casstore, "base"), _digest(casstore, "edited")})
    assert not there.store.exists()


@pytest.mark.parametrize("manifest", [False, True])
def test_a_source_that_speaks_http_is_named_once(
    casstore: Casstore, disk: Path, simulator: RegistrySimulator, manifest: bool
) -> None:
    place = f"{simulator.host}/team/disks"
    root = (casstore.store / "refs/base").resolve()
    lost = root if manifest else max(root.parent.iterdir(), key=lambda blob: blob.stat().st_size)
    lost.unlink()
    done = casstore("check", "--repair", "--from", place, code=3)
    told = [line for line in (done.stdout + done.stderr).splitlines() if "try --plain-http" in line]
    assert told
    assert [line.count(place) for line in told] == [1] * len(told)


def test_list_of_a_place_with_nothing_in_it(casstore: Casstore, simulator: RegistrySimulator) -> None:
    done = casstore("list", f"{simulator.host}/nothing", "--plain-http")
    assert (done.stdout, done.stderr) == ("", f"No tags: {simulator.host}/nothing is empty, or not there.\n")
    casstore("list", "oci:/nowhere/at/all", code=10)


def test_list_shows_what_is_no_snapshot_as_that(casstore: Casstore, simulator: RegistrySimulator) -> None:
    config = simulator.put_blob("odd", b"{}")
    document = {
        "schemaVersion": 2,
        "mediaType": spec.MEDIA_MANIFEST,
        "config": {"mediaType": "application/vnd.oci.empty.v1+json", "digest": config, "size": 2},
        "layers": [],
        "artifactType": "application/vnd.example",
    }
    simulator.put_manifest("odd", dump(document), tag="image")
    simulator.put_manifest("odd", dump({**document, "artifactType": spec.ARTIFACT_TYPE}), tag="broken")
    listed = casstore.json("list", f"{simulator.host}/odd", "--plain-http", schema="cli-tags")
    broken, image = listed["tags"]
    assert (image["name"], image["kind"], image["problem"]) == ("image", "other", None)
    assert (broken["name"], broken["kind"]) == ("broken", "unreadable")
    assert broken["problem"]
    done = casstore("list", f"{simulator.host}/odd", "--plain-http")
    assert re.search(r"^image +other ", done.stdout, re.MULTILINE)
    assert f"warning: {simulator.host}/odd:broken: " in done.stderr


@pytest.mark.parametrize(
    ("args", "text"),
    [
        (["list", "oci:x", "--label", "a"], "--label and --dir"),
        (["list", "oci:x", "--dir", "y"], "--label and --dir"),
        (["list", "--referrers"], "--referrers: expected"),
        (["list", "base"], "no registry host in it"),
        (["inspect", "oci:x:base", "--verify"], "--verify: expected a snapshot of the store"),
        (["inspect", "localhost/x"], "expected a tag or digest"),
        (["push", "base"], "expected SNAPSHOT and REFERENCE"),
        (["push", "--all", "base", "oci:x"], "--all: expected only a REFERENCE with it, got a SNAPSHOT too"),
        (["push", "--all", "oci:x", "--with-parents"], "leave out --with-parents"),
        (["push", "base", "docker://canary.example/x"], "leave out docker://"),
        (["list", "https://canary:word@localhost/x"], "no user name or password"),
        (["login", "https://canary:word@localhost"], "leave out https://"),
        (["push", "--all", "oci:x:tag"], "tag"),
        (["copy", "localhost/x", "oci:y"], "expected a tag or digest"),
        (["rm", f"localhost/x@sha256:{64 * 'a'}"], "expected a tag, got a digest: to delete a manifest would take all"),
        (["rm", "localhost/x"], "expected a tag, got none"),
        (["push", "base", "localhost/x", "--limit-rate", "fast"], "expected a rate above 0"),
        (["push", "base", "localhost/x", "--deadline", "0"], "expected more than 0"),
        (["push", "base", "localhost/x", "--max-requests", "often"], "expected a frequency"),
        (["push", "base", "localhost/x", "--retries", "-1"], "--retries"),
        (["push", "base", "localhost/x", "--client-key", "/dev/null"], "expected a client certificate with it"),
        (["push", "base", "localhost/x", "--ca-bundle", "/nowhere"], "found nothing there"),
        (["push", "base", "localhost/x", "--proxy", "socks5://canary:word@x"], "another URL"),
        (
            ["push", "base", "localhost/x", "--client-cert", "/dev/null", "--plain-http"],
            "--plain-http: http has no certificates; leave out --client-cert",
        ),
        (
            ["copy", "localhost/x:y", "localhost:1/x", "--src-plain-http", "--dst-plain-http", "--ca-bundle", "/x"],
            "--src-plain-http and --dst-plain-http: http has no certificates; leave out --ca-bundle",
        ),
        (["copy", "oci:x:y", "localhost/x", "--dst-plain-http", "--insecure"], "leave out --insecure"),
        (["copy", "localhost:1/x:y", "localhost/x", "--plain-http", "--dst-insecure"], "leave out --dst-insecure"),
        (["copy", "localhost:1/x:y", "localhost/x", "--src-plain-http", "--src-insecure"], "leave out --src-insecure"),
    ],
)
def test_words_that_make_no_sense(unchanged: Casstore, args: list[str], text: str) -> None:
    done = unchanged(*args, code=2)
    assert text in done.stderr
    assert "canary" not in done.stderr
    assert not done.out


@pytest.mark.parametrize("text", ["host/repo", "localhost:5000", "oci:DIR", "host/repo@sha256:1", "a/b", "./oci"])
def test_references(text: str) -> None:
    assert is_reference(text)


@pytest.mark.parametrize("text", ["base", "v1.0_x-y", "sha256:123456", f"sha256:{64 * 'a'}", "localhost"])
def test_names_and_digests_are_no_references(text: str) -> None:
    assert not is_reference(text)


# --- inspect ---------------------------------------------------------------------------------------------------------


def test_inspect_reads_no_pack(casstore: Casstore, there: Casstore, disk: Path, simulator: RegistrySimulator) -> None:
    casstore("push", "edited", f"{simulator.host}/disks", "--plain-http")
    known = casstore.json("inspect", "edited")
    simulator.requests.clear()
    reference = f"{simulator.host}/disks:edited"
    seen = there.json("inspect", reference, "--plain-http", schema="cli-inspect-remote")
    same = set(known) & set(seen)
    assert {field: seen[field] for field in same} == {field: known[field] for field in same}
    assert len(same) > 12
    assert seen["reference"] == f"{simulator.host}/disks@{known['digest']}"
    packs = {blob["digest"] for blob in seen["blobs"] if blob["media_type"] == spec.MEDIA_PACK}
    assert len(packs) == seen["packs"] > 0
    assert not [request for request in simulator.seen("GET") if request.path.rpartition("/")[2] in packs]
    text = there("inspect", reference, "--plain-http").stdout
    assert f"Digest:          {known['digest']}" in text
    assert "Referrers:       -" in text


def test_inspect_and_list_of_a_layout(casstore: Casstore, disk: Path, tmp_path: Path) -> None:
    layout = f"oci:{tmp_path}/layout"
    casstore("push", "base", layout)
    seen = casstore.json("inspect", f"{layout}:base", schema="cli-inspect-remote")
    assert seen["labels"] == {"step": "1"}
    pinned = casstore.json("inspect", seen["reference"], schema="cli-inspect-remote")
    assert pinned == seen


# --- rm --------------------------------------------------------------------------------------------------------------


def test_rm_takes_one_tag_and_never_its_siblings(casstore: Casstore, there: Casstore, disk: Path, place: Place) -> None:
    """Both tags stand for the same manifest, and the registry deletes no tags."""
    for tag in ("one", "two"):
        casstore("push", "base", f"{place.name}:{tag}", *place.options)
    done = casstore("rm", f"{place.name}:one", *place.options)
    assert done.stderr == f"removed the tag one of {place.name}; it stood for {_digest(casstore, 'base')}\n"
    listed = casstore.json("list", place.name, *place.options, schema="cli-tags")
    assert [(tag["name"], tag["kind"]) for tag in listed["tags"]] == [("two", "snapshot")]
    there("pull", f"{place.name}:two", *place.options)
    there("verify", "two")
    casstore("rm", f"{place.name}:one", *place.options, code=10)


def test_rm_goes_on_after_one_that_fails(casstore: Casstore, disk: Path, tmp_path: Path) -> None:
    layout = f"oci:{tmp_path}/layout"
    casstore("push", "--all", layout)
    done = casstore("rm", "nothing", "edited", f"{layout}:none", f"{layout}:base", code=10)
    assert done.stderr.count("error: ") == 2
    assert [tag["name"] for tag in casstore.json("list", layout, schema="cli-tags")["tags"]] == ["edited"]
    assert [each["name"] for each in casstore.json("list")["snapshots"]] == ["base"]


def test_rm_of_a_tag_needs_no_store(there: Casstore, casstore: Casstore, disk: Path, tmp_path: Path) -> None:
    casstore("push", "base", f"oci:{tmp_path}/layout")
    there("rm", f"oci:{tmp_path}/layout:base")
    assert not there.store.exists()


def test_rm_says_when_the_registry_cannot(casstore: Casstore, disk: Path, tmp_path: Path) -> None:
    """The tag is as it was."""
    with RegistrySimulator() as running:
        reference = f"{running.host}/disks:base"
        casstore("push", "base", reference, "--plain-http")
        running.faults.deletes = False
        done = casstore("rm", reference, "--plain-http", code=14)
        assert "the tag is as it was" in done.stderr
        casstore("inspect", reference, "--plain-http")


# --- push ------------------------------------------------------------------------------------------------------------


def test_push_with_parents(casstore: Casstore, there: Casstore, disk: Path, place: Place) -> None:
    pushed = casstore("push", "edited", f"{place.name}:latest", "--with-parents", *place.options)
    base, edited = _digest(casstore, "base"), _digest(casstore, "edited")
    assert pushed.lines == [f"{place.name}@{base}", f"{place.name}@{edited}"]
    assert re.fullmatch(
        rf"pushed {re.escape(place.name)}:base: [^\n]*\npushed {re.escape(place.name)}:latest: [^\n]*\n", pushed.stderr
    )
    again = casstore.json("push", "edited", f"{place.name}:latest", "--with-parents", *place.options)
    assert [parent["name"] for parent in again["parents"]] == ["base"]
    assert again["moved_blobs"] == again["parents"][0]["moved_blobs"] == 0


def test_push_all(casstore: Casstore, there: Casstore, disk: Path, place: Place) -> None:
    casstore("tag", "base", "stable")
    planned = casstore.json("push", "--all", place.name, "--dry-run", *place.options, schema="cli-plan")
    assert {each["name"] for each in planned["artifacts"]} == {"base", "stable", "edited"}
    pushed = casstore.json("push", "--all", place.name, *place.options, schema="cli-transfers")
    names = {transfer["name"]: transfer for transfer in pushed["transfers"]}
    assert set(names) == {"base", "stable", "edited"}
    assert sum(each["moved_bytes"] for each in names.values()) == planned["missing_bytes"]
    assert sum(each["moved_blobs"] for each in names.values()) == planned["missing_blobs"]
    there("pull", f"{place.name}:stable", *place.options)
    shown = casstore("push", "--all", place.name, *place.options)
    assert len(shown.lines) == 3
    assert "0 blobs moved, 0 B" in shown.stderr


def test_push_all_of_nothing(casstore: Casstore, disk: Path, tmp_path: Path) -> None:
    casstore("rm", "edited", "base")
    assert casstore("push", "--all", f"oci:{tmp_path}/layout").stderr == "No snapshots.\n"
    assert casstore.json("push", "--all", f"oci:{tmp_path}/layout", schema="cli-transfers")["transfers"] == []


def test_push_mounts_from_a_neighbour(casstore: Casstore, disk: Path, simulator: RegistrySimulator) -> None:
    casstore("push", "base", f"{simulator.host}/team/one", "--plain-http")
    simulator.requests.clear()
    pushed = casstore.json(
        "push", "base", f"{simulator.host}/team/two", "--plain-http", "--mount-from", "team/one", schema="cli-transfer"
    )
    assert (pushed["mounted_blobs"], pushed["moved_blobs"]) == (3, 1)
    assert not simulator.seen("PUT", "/blobs/")


# --- dry runs --------------------------------------------------------------------------------------------------------


def test_a_dry_run_of_push_changes_nothing_and_tells_the_truth(casstore: Casstore, disk: Path, place: Place) -> None:
    planned = casstore.json("push", "edited", place.name, "--dry-run", *place.options, schema="cli-plan")
    assert (planned["present_blobs"], planned["artifacts"][0]["name"]) == (0, "edited")
    kinds = [blob["kind"] for blob in planned["blobs"]]
    assert {"config", "map", "pack", "manifest"} == set(kinds)
    assert sum(blob["bytes"] for blob in planned["blobs"]) == planned["missing_bytes"]
    shown = casstore("push", "edited", place.name, "--dry-run", *place.options)
    *blobs, total = shown.lines
    assert sorted(line.split()[0] for line in blobs) == sorted(blob["digest"] for blob in planned["blobs"])
    assert total.startswith(f"would move {len(blobs)} blobs, ")
    if place.options:
        assert casstore("list", place.name, *place.options).stderr.startswith("No tags: ")
    else:
        assert not Path(place.name.removeprefix("oci:")).exists()
    pushed = casstore.json("push", "edited", place.name, *place.options)
    assert (pushed["moved_blobs"], pushed["moved_bytes"]) == (planned["missing_blobs"], planned["missing_bytes"])
    after = casstore.json("push", "edited", place.name, "--dry-run", *place.options, schema="cli-plan")
    assert (after["missing_blobs"], after["blobs"]) == (0, [])
    assert (after["present_blobs"], after["present_bytes"]) == (planned["missing_blobs"], planned["missing_bytes"])


def test_a_dry_run_of_pull_makes_no_store(casstore: Casstore, there: Casstore, disk: Path, place: Place) -> None:
    casstore("push", "--all", place.name, *place.options)
    planned = there.json("pull", f"{place.name}:base", "--dry-run", *place.options, schema="cli-plan")
    assert not there.store.exists()
    pulled = there.json("pull", f"{place.name}:base", *place.options)
    assert (pulled["moved_blobs"], pulled["moved_bytes"]) == (planned["missing_blobs"], planned["missing_bytes"])
    planned = there.json("pull", f"{place.name}:edited", "--dry-run", *place.options, schema="cli-plan")
    pulled = there.json("pull", f"{place.name}:edited", *place.options)
    assert (pulled["moved_blobs"], pulled["moved_bytes"]) == (planned["missing_blobs"], planned["missing_bytes"])
    assert pulled["present_blobs"] == planned["present_blobs"] > 0


# --- copy ------------------------------------------------------------------------------------------------------------


@needs_registry
def test_copy_between_registry_and_layout(
    casstore: Casstore, there: Casstore, disk: Path, server: RunningRegistry, tmp_path: Path
) -> None:
    """An air gap: registry -> layout -> another repository, with no store between."""
    casstore("push", "base", f"{server.host}/one", "--plain-http")
    digest = _digest(casstore, "base")
    first = there("copy", f"{server.host}/one:base", f"oci:{tmp_path}/usb", "--src-plain-http")
    assert first.stdout == f"oci:{tmp_path}/usb@{digest}\n"
    assert first.stderr.startswith(f"copied to oci:{tmp_path}/usb:base: 4 blobs moved, ")
    there("copy", f"oci:{tmp_path}/usb:base", f"{server.host}/two:moved", code=14)  # https
    planned = there.json(
        *("copy", f"oci:{tmp_path}/usb:base", f"{server.host}/two:moved", "--dst-plain-http", "--dry-run"),
        schema="cli-plan",
    )
    copied = there.json("copy", f"oci:{tmp_path}/usb:base", f"{server.host}/two:moved", "--dst-plain-http")
    assert (copied["digest"], copied["name"]) == (digest, "moved")
    assert copied["moved_bytes"] == planned["missing_bytes"] > 0
    assert not there.store.exists()
    there("pull", f"{server.host}/two:moved", "--plain-http")
    there("verify", "moved")


@needs_registry
def test_the_sides_of_a_copy_are_reached_each_in_its_way(
    casstore: Casstore, disk: Path, server: RunningRegistry, tmp_path: Path
) -> None:
    """Fault row 105: --insecure holds for the side that is named, and for no other host."""
    (tmp_path / "secured").mkdir()
    with registry(tmp_path / "secured", auth="htpasswd", tls=Authority()) as secured:
        login = ["login", secured.host, "-u", USER, "--password-stdin", "--ca-bundle", secured.options.ca_bundle]
        casstore(*login, stdin=f"{PASSWORD}\n".encode())
        casstore("push", "base", f"{server.host}/one", "--plain-http")
        words = ["copy", f"{server.host}/one:base", f"{secured.host}/two", "--src-plain-http"]
        casstore(*words, code=14)
        casstore(*words, "--src-insecure", code=2)  # http has no certificate
        casstore(*words, "--dst-insecure")
        casstore("copy", f"{secured.host}/two:base", f"oci:{tmp_path}/layout", "--src-insecure")
        casstore("copy", f"{secured.host}/two:base", f"oci:{tmp_path}/layout", code=14)


def test_referrers_go_along_when_they_are_asked_for(
    casstore: Casstore, there: Casstore, disk: Path, place: Place, tmp_path: Path
) -> None:
    casstore("push", "base", place.name, *place.options)
    subject = casstore.json("inspect", f"{place.name}:base", *place.options, schema="cli-inspect-remote")
    assert subject["referrers"] == []
    source = _with_referrer(casstore, tmp_path, subject["digest"])
    casstore("copy", f"{source}:base", place.name, "--referrers", *place.options)
    seen = casstore.json("inspect", f"{place.name}:base", *place.options, schema="cli-inspect-remote")
    assert [each["artifact_type"] for each in seen["referrers"]] == ["application/vnd.example.signature"]
    pulled = there.json("pull", f"{place.name}:base", "--referrers", *place.options)
    assert pulled["referrers"] == 1
    pushed = there("push", "base", f"oci:{tmp_path}/last", "--referrers")
    assert "with 1 referrer" in pushed.stderr
    listed = there.json("list", f"oci:{tmp_path}/last", "--referrers", schema="cli-tags")
    assert [tag["name"][:7] for tag in listed["tags"]] == ["base", "sha256-"]
    assert len(there.json("list", f"oci:{tmp_path}/last", schema="cli-tags")["tags"]) == 1


def _with_referrer(casstore: Casstore, tmp_path: Path, digest: str) -> str:
    """A layout with `base` and something that refers to it."""
    layout = tmp_path / "signed"
    casstore("push", "base", f"oci:{layout}", "-q")
    blobs = layout / "blobs" / "sha256"
    subject = blobs / digest.removeprefix("sha256:")
    empty = {"mediaType": "application/vnd.oci.empty.v1+json", "digest": str(Digest.of(b"{}")), "size": 2}
    raw = dump(
        {
            "schemaVersion": 2,
            "mediaType": spec.MEDIA_MANIFEST,
            "artifactType": "application/vnd.example.signature",
            "config": empty,
            "layers": [empty],
            "subject": {"mediaType": spec.MEDIA_MANIFEST, "digest": digest, "size": subject.stat().st_size},
        }
    )
    referrer = Digest.of(raw)
    (blobs / Digest.of(b"{}").hex).write_bytes(b"{}")
    (blobs / referrer.hex).write_bytes(raw)
    index = json.loads((layout / "index.json").read_bytes())
    index["manifests"].append(
        {
            "mediaType": spec.MEDIA_MANIFEST,
            "digest": str(referrer),
            "size": len(raw),
            "artifactType": "application/vnd.example.signature",
            "annotations": {
                "org.opencontainers.image.ref.name": f"sha256-{digest.removeprefix('sha256:')}.ref-{referrer.hex[:16]}"
            },
        }
    )
    (layout / "index.json").write_bytes(dump(index))
    return f"oci:{layout}"


def test_copy_between_http_and_https(
    casstore: Casstore, disk: Path, simulator: RegistrySimulator, tmp_path: Path
) -> None:
    """What is for https goes to the side that speaks it, whichever that is."""
    authority = Authority()
    bundle = authority.write_bundle(tmp_path / "ca.pem")
    (tmp_path / "client").mkdir()
    certificate, key = authority.issue("somebody", folder=tmp_path / "client", usage="client")
    context = authority.server_context("127.0.0.1", folder=tmp_path)
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(bundle)
    client = ["--client-cert", certificate, "--client-key", key]
    casstore("push", "base", f"{simulator.host}/one", "--plain-http", "-q")
    with RegistrySimulator(tls=context) as secure:
        there = ["copy", f"{simulator.host}/one:base", f"{secure.host}/two", "--src-plain-http", "-q", *client]
        back = ["copy", f"{secure.host}/two:base", f"{simulator.host}/three", "--dst-plain-http", "-q", *client]
        casstore(*there, code=14)
        casstore(*there, "--ca-bundle", bundle)
        casstore(*back, "--ca-bundle", bundle)
        casstore(*there, "--dst-insecure")
        casstore(*back, "--src-insecure")
        casstore(*back, "--insecure", "--dry-run")


# --- how registries are reached --------------------------------------------------------------------------------------


def test_the_defaults_in_the_help_are_those_of_the_library() -> None:
    options = RegistryOptions()
    assert {
        "timeout": options.read_timeout,
        "min_rate": options.min_rate,
        "retries": options.attempts - 1,
    } == DEFAULTS
    assert options.deadline is None
    assert options.limit_rate is None
    assert options.max_requests is None
    assert DEFAULT_CONCURRENCY == graph.DEFAULT_CONCURRENCY


def test_every_option_reaches_the_library(
    casstore: Casstore, disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[dict[str, Any]] = []

    class Spy:
        def __init__(self, reference: object, options: RegistryOptions, *_: object, **settings: Any) -> None:
            seen.append({name: getattr(options, name) for name in RegistryOptions.__slots__} | settings)
            raise RuntimeError("seen")

    monkeypatch.setattr("casstore.registry.RegistryTarget", Spy)
    pem = str(Authority().write_bundle(tmp_path / "pem"))
    casstore.env["https_proxy"] = "http://environment:1"
    casstore.env["NO_PROXY"] = "a.example, b.example"
    casstore("push", "base", "localhost/x", code=1)
    casstore(
        *("push", "base", "localhost/x", "--insecure", "--ca-bundle", pem, "--client-cert", pem, "--client-key", pem),
        *("--proxy", "http://proxy:3128", "--trust-realm", "auth.example", "--trust-realm", "b.example:5"),
        *("--timeout", "5s", "--min-rate", "0", "--deadline", "1h", "--retries", "0", "--limit-rate", "1MiB/s"),
        *("--max-requests", "30/m", "--mount-from", "other/repo"),
        code=1,
    )
    casstore("push", "base", "localhost/x", "--proxy", "none", "--plain-http", code=1)
    given = [
        {name: value for name, value in each.items() if value != getattr(RegistryOptions(), name, None)}
        for each in seen
    ]
    for each in given:
        assert each.pop("pace") is not None
        assert each.pop("on_warning") is not None
    assert given == [
        {"proxy": "http://environment:1", "no_proxy": ("a.example", "b.example"), "mount_from": ()},
        {
            "insecure": True,
            "ca_bundle": pem,
            "client_certificate": pem,
            "client_key": pem,
            "proxy": "http://proxy:3128",
            "trusted_realms": ("auth.example", "b.example:5"),
            "read_timeout": 5,
            "min_rate": 0,
            "deadline": 3600,
            "attempts": 1,
            "limit_rate": 1 << 20,
            "max_requests": 0.5,
            "mount_from": ("other/repo",),
        },
        {"plain_http": True, "mount_from": ()},
    ]


def test_all_repositories_of_a_host_share_one_pace(
    casstore: Casstore, disk: Path, simulator: RegistrySimulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    from casstore.registry import RegistryTarget

    paces = []
    original = RegistryTarget.__init__

    def init(self: RegistryTarget, *args: Any, pace: Any, **settings: Any) -> None:
        paces.append(pace)
        original(self, *args, pace=pace, **settings)

    monkeypatch.setattr(RegistryTarget, "__init__", init)
    casstore("push", "base", f"{simulator.host}/one", "--plain-http")
    casstore("copy", f"{simulator.host}/one:base", f"{simulator.host}/two", "--plain-http")
    assert len(paces) == 3
    assert paces[0] is not paces[1]
    assert paces[1] is paces[2]


def test_a_netrc_file_is_read_only_when_it_is_named(casstore: Casstore, disk: Path, tmp_path: Path) -> None:
    with RegistrySimulator(auth="basic") as running:
        netrc = casstore.folder / ".netrc"
        netrc.write_text("machine 127.0.0.1 login alice password canary-pass/word\n")
        netrc.chmod(0o600)
        words = ["push", "base", f"{running.host}/disks", "--plain-http"]
        casstore(*words, code=14)
        assert running.sent_secrets() == []
        casstore(*words, "--netrc", netrc)
        assert running.sent_secrets()


def test_warnings_of_the_registry_are_told_once_each_and_escaped(
    casstore: Casstore, disk: Path, simulator: RegistrySimulator
) -> None:
    """Fault row 108."""
    simulator.faults.warnings = ('299 - "this repository moves\\u001b[31m to \\"b\\""', '299 - "read-only soon"')
    done = casstore("push", "base", f"{simulator.host}/disks", "--plain-http")
    told = [line for line in done.stderr.splitlines() if line.startswith("warning: ")]
    assert len(told) == 2
    assert f"warning: {simulator.host}: read-only soon" in told
    assert "\x1b" not in done.stderr
    done = casstore("push", "base", f"{simulator.host}/disks", "--plain-http", "--json")
    for line in done.stderr.splitlines():
        validate(json.loads(line), "cli-progress", subject="line")


# --- stopping --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("verb", "method", "advice"),
    [
        ("pull", "GET", "the blobs that were finished are kept for the next pull"),
        ("push", "POST", "finished blobs are not sent again by the next push"),
    ],
)
def test_an_interrupted_transfer_says_how_it_goes_on(
    casstore: Casstore, tmp_path: Path, simulator: RegistrySimulator, verb: str, method: str, advice: str
) -> None:
    """Ctrl-C ends it at once, with all its waits; the same again then completes."""
    disk = tmp_path / "big"
    disk.write_bytes(os.urandom(400_000))
    casstore("create", "big", "--disk", disk, "-q")
    reference = f"{simulator.host}/disks:big"
    words = ["push", "big", reference, "--plain-http"]
    if verb == "pull":
        casstore(*words)
        casstore("rm", "big")
        casstore("gc")
        words = ["pull", reference, "--plain-http"]
    simulator.requests.clear()
    with casstore.start(*words, "--limit-rate", "20k/s") as process:
        _wait_for_requests(simulator, method, "/blobs/")
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=30)
    assert err.decode() == f"error: stopped by SIGINT; {advice}\n"
    assert process.returncode == 130
    assert casstore.json(*words)["name"] == "big"
    casstore("verify", "big")


def _wait_for_requests(simulator: RegistrySimulator, method: str, part: str) -> None:
    deadline = time.monotonic() + 30
    while not simulator.seen(method, part):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    time.sleep(0.2)
