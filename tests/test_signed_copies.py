"""A signed snapshot goes anywhere and comes back, by our tools and by others', and its signatures are still there and
verify. The registry and the copying tools are real ones where a test says so. Numbers are rows of the fault list.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from casstore import Snapshot, Store, spec
from casstore.digest import Digest
from casstore.errors import RegistryError, UntrustedContent
from casstore.evidence import gather
from casstore.health import check_store, repair_store
from casstore.layout import LayoutTarget
from casstore.names import attachment_name, parse_name
from casstore.oci import Descriptor
from casstore.reference import parse_reference
from casstore.registry import RegistryOptions, RegistryTarget, referrers
from casstore.remote import copy as copy_between
from casstore.storedir import StoreDirectory
from casstore.transfer import TransferOptions, pull_job, push
from casstore.trust.admission import Admission
from tests.support.manifests import image_manifest, put, sign
from tests.support.needs import find_program
from tests.support.registry_simulator import RegistrySimulator
from tests.support.servers import RunningRegistry
from tests.support.servers import registry as running
from tests.support.signing import BOTH, capture_signed, found, good, sign_by, sign_in, signatures, verdicts
from tests.support.stores import FAST, blob_path, blobs, capture, leftovers, link_refs, reachable, require_sound
from tests.support.tools import skopeo
from tests.support.transfers import REGISTRY, Memory, over, through


@pytest.fixture(autouse=True)
def _no_rivals(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(referrers, "SECOND_LOOK", (0.0, 0.0))


@pytest.fixture
def signed(store: Store, tmp_path: Path) -> Snapshot:
    """A snapshot in `store` with two signatures in each form."""
    return capture_signed(store, tmp_path)


# --- real peers -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[RunningRegistry, Path]]:
    folder = tmp_path_factory.mktemp("registry")
    with running(folder) as server:
        yield server, folder


def options(server: RunningRegistry, *, referrers: bool = True) -> TransferOptions:
    return TransferOptions(
        registries=lambda reference: RegistryTarget(reference, server.options, server.credentials), referrers=referrers
    )


def in_registry(server: RunningRegistry, repository: str, root: Descriptor) -> dict[str, int]:
    with RegistryTarget(server.reference(repository), server.options, server.credentials) as target:
        return found(target, root)


@pytest.mark.needs("docker-registry")
def test_104_signatures_survive_a_registrys_garbage_collection(
    signed: Snapshot, store: Store, other: Store, real: tuple[RunningRegistry, Path]
) -> None:
    server, folder = real
    store.push("one", f"{server.host}/kept/disks", options=options(server))
    untagged = image_manifest([], subject=signed.root, note="untagged")
    with RegistryTarget(server.reference("kept/disks"), server.options, server.credentials) as target:
        put(target, b"{}", spec.MEDIA_EMPTY)
        lost = put(target, untagged, spec.MEDIA_MANIFEST)
        assert target.exists(lost)
    program = find_program("docker-registry")
    assert program is not None
    command = [program, "garbage-collect", "--delete-untagged", str(folder / "config.json")]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60)
    assert lost.digest.hex in done.stdout + done.stderr
    with running(folder) as again:  # one that remembers nothing of before
        with RegistryTarget(again.reference("kept/disks"), again.options, again.credentials) as target:
            assert not target.exists(lost)
        assert in_registry(again, "kept/disks", signed.root) == BOTH
        other.pull(f"{again.host}/kept/disks:one", options=options(again))
    assert found(other, signed.root) == BOTH
    other.verify("one")


@pytest.mark.needs("docker-registry", "skopeo")
def test_signatures_survive_a_copy_by_skopeo(
    signed: Snapshot, store: Store, other: Store, real: tuple[RunningRegistry, Path], tmp_path: Path
) -> None:
    """Tag by tag: with and without the list of referrers; into an OCI layout; and `sync`, which takes all tags."""
    server, _ = real
    store.push("one", f"{server.host}/mine/disks", options=options(server))
    with RegistryTarget(server.reference("mine/disks"), server.options, server.credentials) as target:
        tags = sorted(target.tags())
        before = target.resolve(attachment_name(signed.digest))
    listed = f"sha256-{signed.digest.hex}"
    assert [tag.partition(".")[2][:4] for tag in tags] == ["", "", "sig", "sig-", "sig-"]
    no_tls = ("--src-tls-verify=false", "--dest-tls-verify=false")
    for tag in tags:
        source = f"docker://{server.host}/mine/disks:{tag}"
        skopeo("copy", "--all", *no_tls, source, f"docker://{server.host}/theirs/disks:{tag}")
        if tag != listed:
            skopeo("copy", *no_tls, source, f"docker://{server.host}/unlisted/disks:{tag}")
            skopeo("copy", no_tls[0], source, f"oci:{tmp_path}/layout:{tag}")
    for repository in ("theirs/disks", "unlisted/disks"):
        assert in_registry(server, repository, signed.root) == BOTH
        with RegistryTarget(server.reference(repository), server.options, server.credentials) as target:
            assert target.resolve(attachment_name(signed.digest)) == before
    assert found(LayoutTarget(str(tmp_path / "layout")), signed.root) == BOTH
    other.pull(f"oci:{tmp_path}/layout:one", options=options(server))
    assert found(other, signed.root) == BOTH
    sync = ("sync", *no_tls, "--src", "docker", "--dest", "docker", f"{server.host}/mine/disks")
    skopeo(*sync, "--all", f"{server.host}/synced")
    assert in_registry(server, "synced/disks", signed.root) == BOTH
    skopeo(*sync, f"{server.host}/mangled")  # makes of the list one of those that it lists
    assert in_registry(server, "mangled/disks", signed.root) == {**BOTH, "bundle:malformed": 1}


@pytest.mark.needs("docker-registry")
def test_signatures_survive_copies_by_casstore(
    signed: Snapshot, store: Store, other: Store, real: tuple[RunningRegistry, Path], tmp_path: Path
) -> None:
    """Registry to registry, to a layout, to a store."""
    server, _ = real
    store.push("one", f"{server.host}/here/disks", options=options(server))
    report = copy_between(
        f"{server.host}/here/disks:one", f"{server.host}/there/disks:one", options=options(server)
    ).copy
    assert report.referrers == 3
    assert in_registry(server, "there/disks", signed.root) == BOTH
    again = copy_between(
        f"{server.host}/here/disks:one", f"{server.host}/there/disks:one", options=options(server)
    ).copy
    assert (again.copied, again.referrers) == (0, 3)
    copy_between(f"{server.host}/there/disks:one", f"oci:{tmp_path}/layout:one", options=options(server))
    assert found(LayoutTarget(str(tmp_path / "layout")), signed.root) == BOTH
    copy_between(f"oci:{tmp_path}/layout:one", f"oci:{other.path}:one", options=options(server))
    assert found(other, signed.root) == BOTH
    assert signatures(other) == signatures(store)
    require_sound(Path(other.path))
    assert check_store(other.path).findings == ()


@pytest.mark.needs("skopeo")
def test_what_skopeo_copied_into_a_store_is_adopted_with_its_signatures(
    signed: Snapshot, store: Store, other: Store
) -> None:
    tags = sorted(link_refs(Path(store.path)), reverse=True)  # the snapshot last or first: all the same
    lost = f"sha256-{'0' * 64}.sig"
    for tag in tags:
        skopeo("copy", f"oci:{store.path}:{tag}", f"oci:{other.path}:{tag}")
    skopeo("copy", f"oci:{store.path}:{attachment_name(signed.digest)}", f"oci:{other.path}:{lost}")
    assert found(other, signed.root) == {}
    foretold = other.adopt(dry_run=True)
    report = other.adopt(drop=True)
    assert report.adopted == foretold.adopted
    assert sorted(each.name for each in report.adopted) == sorted(tags)
    assert [each.name for each in report.left] == [lost]
    assert found(other, signed.root) == BOTH
    assert link_refs(Path(other.path)) == link_refs(Path(store.path))
    other.gc()
    require_sound(Path(other.path))
    assert check_store(other.path).findings == ()


# --- what a registry refuses ------------------------------------------------------------------------------------------


def refusing_tags(server: RegistrySimulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the registry take no tags of this form, as one with rules for tags does."""
    put_manifest = RegistryTarget.__init__.__globals__["Manifests"].put

    def put(self: object, manifest: object, reference: str, **more: object) -> object:
        if ".sig-" in reference:
            raise RegistryError(f"{reference}: expected 201, got 403 DENIED: tags are made by robots only")
        return put_manifest(self, manifest, reference, **more)

    monkeypatch.setattr(RegistryTarget.__init__.__globals__["Manifests"], "put", put)


def test_a_registry_that_lists_but_takes_no_tag_is_fine_and_that_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    with RegistrySimulator() as server:
        settings = RegistryOptions(plain_http=True, on_warning=told.append)
        refusing_tags(server, monkeypatch)
        with RegistryTarget(server.reference("some/disks"), settings) as target:
            put(target, b"{}", spec.MEDIA_EMPTY)
            subject = put(target, image_manifest([]), spec.MEDIA_MANIFEST)
            with pytest.raises(RegistryError, match="robots only"):  # nothing else tells of it
                sign_by(target, subject, "alice")
            assert told == []
            server.faults.referrers_api = True
            sign_by(target, subject, "alice")
            assert "bundle:alice" in verdicts(target, subject, "alice")
    (line,) = told
    assert "robots only; the signature is listed, but has no tag" in line


# --- between stores, registries and layouts ---------------------------------------------------------------------------


@pytest.mark.parametrize("api", [True, False], ids=["api", "tag"])
def test_signatures_go_along_and_keep_their_bytes(
    signed: Snapshot, store: Store, other: Store, tmp_path: Path, api: bool
) -> None:
    with RegistrySimulator() as registry:
        registry.faults.referrers_api = api
        all_of = over(registry, referrers=True)
        assert store.push("one", f"{registry.host}/a/b", options=all_of).copy.referrers == 3
        tags = {tag for _, tag in registry.contents.tags}
        assert tags == {"one", *signatures(store)} | (set() if api else {f"sha256-{signed.digest.hex}"})
        other.pull(f"{registry.host}/a/b:one", options=over(registry))
        assert found(other, signed.root) == {}
        other.pull(f"{registry.host}/a/b:one", options=all_of)
    assert found(other, signed.root) == BOTH
    assert signatures(other) == signatures(store)
    assert blobs(Path(other.path)) == blobs(Path(store.path))


def test_who_was_signed_by_others_meanwhile_loses_none(
    signed: Snapshot, store: Store, other: Store, tmp_path: Path
) -> None:
    """Both places have signatures that the other has not: each ends with all."""
    memory = Memory()
    store.push("one", f"{REGISTRY}:one", options=through(memory))
    sign_by(memory, signed.root, "alice", cosign_tag=True)
    sign_by(memory, signed.root, "carol", cosign_tag=True)
    store.push("one", f"{REGISTRY}:one", options=through(memory, referrers=True))
    keys = ("alice", "ed-bob", "carol")
    there = {"bundle:alice": 2, "bundle:ed-bob": 1, "bundle:carol": 1}
    there |= {"cosign:alice": 2, "cosign:ed-bob": 1, "cosign:carol": 1}
    assert good(memory, signed.root, *keys) == there
    store.pull(f"{REGISTRY}:one", options=through(memory, referrers=True))
    assert good(store._directory, signed.root, *keys) == there
    store.gc()
    require_sound(Path(store.path))
    assert leftovers(Path(store.path)) == []


def test_only_the_signatures_that_were_relied_on_come_with_a_gated_pull(
    signed: Snapshot, store: Store, other: Store
) -> None:
    memory = Memory()
    store.push("one", f"{REGISTRY}:one", options=through(memory, referrers=True))
    sign(memory, signed.root, b"junk")
    memory.fetched.clear()
    seen: list[Digest] = []
    chosen: list[bytes] = []

    def gate(source: object, root: Descriptor, raw: bytes) -> Admission:
        assert source is memory
        assert Digest.of(raw) == root.digest
        seen.extend(memory.fetched)
        everything = list(gather(memory, root))
        chosen.append(everything[1].raw)
        return Admission(accepted=(everything[1].manifest, everything[-1].manifest))

    place = parse_reference(f"{REGISTRY}:one")
    name = parse_name("one")
    job = pull_job(memory, place, name=name, admit=lambda _: None, referrers=False, gate=gate)
    assert seen == [signed.digest]  # nothing but the manifest
    with other.transaction() as change:
        push(memory, change, [job], place, options=TransferOptions())
    assert [each.raw for each in gather(other._directory, signed.root)][:-2] == chosen
    assert len(signatures(other)) == 2
    assert found(other, signed.root).keys() >= {"cosign:alice", "cosign:ed-bob"}

    def refuse(*_: object) -> Admission:
        raise UntrustedContent("no")

    memory.fetched.clear()
    with pytest.raises(UntrustedContent):
        pull_job(memory, place, name=name, admit=lambda _: None, referrers=True, gate=refuse)
    assert memory.fetched == [signed.digest]


# --- in the store -----------------------------------------------------------------------------------------------------


def test_signatures_live_while_their_subject_does(signed: Snapshot, store: Store) -> None:
    root = Path(store.path)
    everything, mine = blobs(root), signatures(store)
    assert len(mine) == 3
    store.remove("one")
    assert store.gc(keep_trash=3600).removed == ()
    store.undo()
    assert blobs(root) == everything
    assert found(store, signed.root) == BOTH
    store.remove("one")
    store.gc()
    assert link_refs(root) == {}
    assert blobs(root) == set()
    assert leftovers(root) == []


def test_31_a_signature_that_is_made_while_gc_marks_stays(
    signed: Snapshot, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = Path(store.path)
    capture(store, root.parent, "gone", 7)
    store.remove("gone")
    exclusive = StoreDirectory.exclusive

    def late(self: StoreDirectory) -> AbstractContextManager[None]:
        with monkeypatch.context() as patch, Store.open(root, options=FAST) as another:
            patch.setattr(StoreDirectory, "exclusive", exclusive)
            sign_in(another, signed.root, "carol")
        return exclusive(self)

    with monkeypatch.context() as patch:
        patch.setattr(StoreDirectory, "exclusive", late)
        assert store.gc().removed
    assert verdicts(store._directory, signed.root, "carol")[-1] == "cosign:carol"
    assert blobs(root) > reachable(root)  # what cosign's name stood for when gc began
    store.gc()
    assert verdicts(store._directory, signed.root, "carol")[-1] == "cosign:carol"
    assert blobs(root) == reachable(root)
    require_sound(root)


def test_check_knows_signatures_and_mends_them(signed: Snapshot, store: Store, other: Store) -> None:
    store.push("one", f"oci:{other.path}:one", options=TransferOptions(referrers=True))
    root = Path(store.path)
    assert check_store(root).findings == ()
    for name, digest in signatures(store).items():
        path = blob_path(root, digest)
        path.chmod(0o644)
        path.write_bytes(b"x" * path.stat().st_size)
        (finding,) = [each for each in check_store(root).findings if each.digest is not None]
        assert (str(finding.digest), finding.snapshots) == (digest, ("one",)), name
        report = repair_store(root, sources=[f"oci:{other.path}"])
        assert report.after.ok, name
    assert found(store, signed.root) == BOTH


def test_check_tells_a_signature_under_a_name_that_is_not_its_own(signed: Snapshot, store: Store) -> None:
    refs = Path(store.path, "refs")
    name = next(name for name in signatures(store) if ".sig-" in name)
    (refs / name).rename(refs / f"{name[:-16]}{'0' * 16}")
    (refs / f"sha256-{'1' * 64}.sig").symlink_to("../blobs/sha256/" + signed.digest.hex)
    kinds = {finding.subject: finding.kind.value for finding in check_store(store.path).findings}
    assert kinds[f"refs/{name[:-16]}{'0' * 16}"] == "broken-ref"
    assert kinds[f"refs/{name}"] == "lost-ref"


def test_a_forced_pull_mends_damaged_signatures(signed: Snapshot, store: Store) -> None:
    memory = Memory()
    store.push("one", f"{REGISTRY}:one", options=through(memory, referrers=True))
    root = Path(store.path)
    for digest in sorted(blobs(root) - {each.hex for each in signed.needs}):
        path = blob_path(root, Digest(digest))
        path.chmod(0o644)
        path.write_bytes(b"x" * path.stat().st_size)
        store.pull(f"{REGISTRY}:one", force=True, options=through(memory, referrers=True))
        assert check_store(root).findings == (), digest
    assert found(store, signed.root) == BOTH
