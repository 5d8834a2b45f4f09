"""What refers to a snapshot, as signatures: copied if it is wanted, kept while its subject is, never listed as one."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from casstore import Snapshot, Store, spec
from casstore.digest import Digest
from casstore.errors import AlreadyExists, CorruptContent, DocumentError, NotFound, UnsupportedVersion
from casstore.layout import LayoutTarget
from casstore.memory import MemoryTarget
from casstore.names import (
    attachment_name,
    fits,
    is_attachment,
    is_reserved,
    parse_name,
    referrer_name,
    referrer_subject,
)
from casstore.oci import Descriptor
from casstore.storedir import StoreDirectory
from casstore.streams import BytesSource, fetch_all
from tests.support.manifests import SIGNATURE, image_manifest, index_manifest, put, sign
from tests.support.registry_simulator import RegistrySimulator
from tests.support.stores import (
    FAST,
    blob_path,
    blobs,
    capture,
    content,
    disk_bytes,
    index_entries,
    leftovers,
    link_refs,
    names,
)
from tests.support.transfers import REGISTRY, Memory, over, through


def directory(store: Store) -> StoreDirectory:
    return store._directory


def closure(source: MemoryTarget | StoreDirectory | LayoutTarget, root: Descriptor) -> set[Digest]:
    """The digests of all that refers to `root`, directly or not."""
    found = {each.digest: each for each in source.referrers(root)}
    return set(found).union(*(closure(source, each) for each in found.values()))


Signed = tuple[Snapshot, Memory, set[Digest]]


@pytest.fixture
def signed(store: Store, tmp_path: Path) -> Signed:
    """A snapshot in a registry with two signatures, of which one is signed; their digests."""
    made = capture(store, tmp_path, "one", 1, 2)
    memory = Memory()
    store.push("one", f"{REGISTRY}:one", options=through(memory))
    first, second = sign(memory, made.root, b"first", who="alice"), sign(memory, made.root, b"second")
    third = sign(memory, first, b"third")
    return made, memory, {first.digest, second.digest, third.digest}


# --- names ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("artifact_type", "kind"),
    [
        (None, "ref"),
        (SIGNATURE, "ref"),
        ("application/vnd.dev.sigstore.bundle.v0.3+json", "sig"),
        ("application/vnd.dev.sigstore.bundle.v0.4+json", "sig"),
        ("application/vnd.dev.sigstore.bundle.v1.0+json", "ref"),
        ("application/vnd.dev.sigstore.bundle.v0.3+json\n", "ref"),
    ],
)
def test_the_name_of_a_referrer_tells_its_subject(artifact_type: str | None, kind: str) -> None:
    subject = Digest.of(b"subject")
    referrer = replace(Descriptor.of(b"referrer", spec.MEDIA_MANIFEST), artifact_type=artifact_type)
    name = referrer_name(subject, referrer)
    assert name == f"sha256-{subject.hex}.{kind}-{referrer.digest.hex[:16]}"
    assert is_reserved(name)
    assert not is_attachment(name)
    assert referrer_subject(name) == subject
    assert fits(name, referrer.digest)
    assert not fits(name, subject)
    for text in ("base", f"sha256-{subject.hex}", f"{name}0", f"{name}\n", name.upper(), f"sha256-{subject.hex}.sig2"):
        assert referrer_subject(text) is None
        assert not fits(text, referrer.digest)


def test_the_name_of_an_attachment_tells_what_it_is_about() -> None:
    subject = Digest.of(b"subject")
    name = attachment_name(subject)
    assert name == f"sha256-{subject.hex}.sig"
    assert is_reserved(name)
    assert is_attachment(name)
    assert referrer_subject(name) == subject
    assert fits(name, Digest.of(b"whatever"))


# --- there and back ---------------------------------------------------------------------------------------------------


def test_without_the_option_nothing_comes_along(store: Store, other: Store, signed: Signed) -> None:
    made, memory, _ = signed
    assert other.pull(f"{REGISTRY}:one", options=through(memory)).copy.referrers == 0
    assert closure(directory(other), made.root) == set()


@pytest.mark.parametrize("api", [True, False], ids=["api", "tag"])
def test_signatures_keep_their_digests_through_registries_stores_and_layouts(
    store: Store, other: Store, signed: Signed, tmp_path: Path, api: bool
) -> None:
    made, memory, digests = signed
    report = other.pull(f"{REGISTRY}:one", options=through(memory, referrers=True)).copy
    assert report.referrers == 3
    assert closure(directory(other), made.root) == digests
    with RegistrySimulator() as registry:
        registry.faults.referrers_api = api
        options = over(registry, referrers=True)
        assert other.push("one", f"{registry.host}/a/b", options=options).copy.referrers == 3
        assert {f"sha256-{made.digest.hex}" in tag for _, tag in registry.contents.tags if tag != "one"} in (
            [{True, False}, set()][api],
            {True, False},
        )
        again = other.push("one", f"{registry.host}/a/b", options=options).copy
        assert (again.copied, again.referrers) == (0, 3)
        with Store.init(tmp_path / "third", options=FAST) as third:
            third.pull(f"{registry.host}/a/b:one", options=options)
            assert closure(directory(third), made.root) == digests
            third.push("one", f"oci:{tmp_path}/layout", options=options)
    layout = LayoutTarget(str(tmp_path / "layout"))
    assert closure(layout, made.root) == digests
    with Store.init(tmp_path / "fourth", options=FAST) as fourth:
        fourth.pull(f"oci:{tmp_path}/layout:one", options=through(memory, referrers=True))
        assert closure(directory(fourth), made.root) == digests
        fourth.push("one", f"oci:{other.path}:two", options=through(memory, referrers=True))
        for found in directory(fourth).referrers(made.root):
            assert found.artifact_type == SIGNATURE
            assert fetch_all(directory(fourth), found, limit=spec.MIB) == memory._contents[found.digest][1]
        assert {"who": "alice"} in [dict(each.annotations) for each in directory(fourth).referrers(made.root)]


def test_what_was_signed_later_comes_with_the_next_pull(store: Store, other: Store, signed: Signed) -> None:
    made, memory, digests = signed
    options = through(memory, referrers=True)
    other.pull(f"{REGISTRY}:one", options=options)
    later = sign(memory, made.root, b"later")
    report = other.pull(f"{REGISTRY}:one", options=options).copy
    assert (report.referrers, report.copied) == (4, 2)
    assert closure(directory(other), made.root) == digests | {later.digest}


# --- in the store -----------------------------------------------------------------------------------------------------


def test_referrers_are_no_snapshots_but_other_tools_see_them(store: Store, other: Store, signed: Signed) -> None:
    made, memory, digests = signed
    other.pull(f"{REGISTRY}:one", options=through(memory, referrers=True))
    assert names(other) == ["one"]
    assert other.problems() == []
    assert other.foreign() == []
    refs = link_refs(Path(other.path))
    assert sorted(map(is_reserved, refs)) == [False, True, True, True]
    entries = {entry["annotations"][spec.ANNOTATION_REF_NAME]: entry for entry in index_entries(Path(other.path))}
    assert {name: entry["digest"] for name, entry in entries.items()} == refs
    assert {entry["digest"] for name, entry in entries.items() if is_reserved(name)} == {str(each) for each in digests}
    assert {entry.get("artifactType") for entry in entries.values()} == {spec.ARTIFACT_TYPE, None}
    with pytest.raises(NotFound):
        other.get(str(next(iter(digests))))
    assert made.digest == other.get("one").digest


def test_an_index_json_that_lost_a_referrer_is_derived_again(store: Store, other: Store, signed: Signed) -> None:
    """A process may die after it changed the refs; or another tool rewrites the file."""
    _, memory, _ = signed
    other.pull(f"{REGISTRY}:one", options=through(memory, referrers=True))
    root = Path(other.path)
    before = (root / "index.json").read_bytes()
    document = json.loads(before)
    document["manifests"] = [each for each in document["manifests"] if "artifactType" in each]
    (root / "index.json").write_text(json.dumps(document))
    Store.open(root, options=FAST).close()
    assert (root / "index.json").read_bytes() == before
    referrer = next(name for name in link_refs(root) if is_reserved(name))
    os.unlink(root / "refs" / referrer)  # behind the store's back
    Store.open(root, options=FAST).close()
    assert referrer not in (root / "index.json").read_text()
    Store.open(root, options=FAST).close()
    assert len(index_entries(root)) == 3


def test_gc_keeps_referrers_while_their_subject_is_and_takes_them_with_it(
    store: Store, other: Store, signed: Signed, tmp_path: Path
) -> None:
    made, memory, digests = signed
    other.pull(f"{REGISTRY}:one", options=through(memory, referrers=True))
    other.tag("one", "two")
    capture(other, tmp_path, "unrelated", 5)
    root = Path(other.path)
    everything = blobs(root)
    other.remove("one")
    assert other.gc().removed == ()
    assert blobs(root) == everything
    other.remove("two")
    assert len(link_refs(root)) == 4  # remove leaves them to gc
    assert len(other.gc(dry_run=True).removed) == len(other.gc().removed) == len(made.needs) + 3 + 3 + 1
    assert list(link_refs(root)) == ["unrelated"]
    assert [entry["annotations"][spec.ANNOTATION_REF_NAME] for entry in index_entries(root)] == ["unrelated"]
    assert not blobs(root) & {digest.hex for digest in digests}
    assert leftovers(root) == []
    assert other.problems() == []
    assert content(other, "unrelated") == disk_bytes(5)


def test_a_snapshot_that_comes_back_before_gc_finds_its_referrers(store: Store, other: Store, signed: Signed) -> None:
    made, memory, digests = signed
    other.pull(f"{REGISTRY}:one", options=through(memory, referrers=True))
    other.remove("one")
    other.pull(f"{REGISTRY}:one", options=through(memory))
    other.gc()
    assert closure(directory(other), made.root) == digests


def test_a_broken_referrer_hurts_nothing_and_goes_with_its_subject(store: Store, other: Store, signed: Signed) -> None:
    made, memory, _ = signed
    other.pull(f"{REGISTRY}:one", options=through(memory, referrers=True))
    root = Path(other.path)

    def named_after(digit: str) -> str:
        return f"sha256-{made.digest.hex}.ref-{digit * 16}"

    (root / "refs" / named_after("0")).symlink_to("/etc/passwd")
    (root / "refs" / named_after("1")).symlink_to(f"../blobs/sha256/{'1' * 64}")
    with Store.open(root, options=FAST) as again:
        assert again.problems() == []
        assert len(directory(again).referrers(made.root)) == 2
        again.gc()
        assert names(again) == ["one"]
        again.remove("one")
        again.gc()
    left = list(link_refs(root))
    assert left in ([], [named_after("0")])


def test_gc_does_not_go_on_when_a_referrer_is_damaged(store: Store, other: Store, signed: Signed) -> None:
    """What it needs cannot be known."""
    made, memory, _ = signed
    other.pull(f"{REGISTRY}:one", options=through(memory, referrers=True))
    bad = directory(other).referrers(made.root)[0]
    path = blob_path(Path(other.path), bad.digest)
    path.chmod(0o644)
    path.write_bytes(bytes(bad.size))
    before = blobs(Path(other.path))
    with pytest.raises(CorruptContent, match=r"referrer sha256-.*pull what it refers to again, with --referrers -f"):
        other.gc()
    assert blobs(Path(other.path)) == before


# --- a transaction that attaches --------------------------------------------------------------------------------------


def test_what_is_attached_gets_its_name_with_the_commit_only(store: Store, tmp_path: Path) -> None:
    made = capture(store, tmp_path, "one", 1)
    with store.transaction() as change:
        referrer = sign(change, made.root)
        assert link_refs(Path(store.path)).keys() == {"one"}
        assert directory(store).referrers(made.root) == []
        change.commit(parse_name("one"), made.root)
    assert [each.digest for each in directory(store).referrers(made.root)] == [referrer.digest]
    assert not directory(store).referrers(referrer)
    with store.transaction() as change:
        sign(change, made.root, b"never committed")
    assert len(directory(store).referrers(made.root)) == 1
    store.gc()
    assert leftovers(Path(store.path)) == []


def test_what_cannot_be_attached_is_refused(store: Store, tmp_path: Path) -> None:
    made = capture(store, tmp_path, "one", 1)

    def attach(raw: bytes, media_type: str = spec.MEDIA_MANIFEST) -> None:
        with store.transaction() as change:
            change.attach(Descriptor.of(raw, media_type), made.root, BytesSource(raw))

    with pytest.raises(UnsupportedVersion, match="expected an image manifest"):
        attach(index_manifest([], subject=made.root), spec.MEDIA_INDEX)
    with pytest.raises(DocumentError, match="expected it to refer to"):
        attach(image_manifest([]))
    layer = Descriptor.of(b"nowhere", "text/plain")
    with pytest.raises(NotFound, match="neither stored nor staged"):
        attach(image_manifest([layer], subject=made.root))
    assert link_refs(Path(store.path)).keys() == {"one"}


def test_a_name_that_another_referrer_has_is_not_taken(store: Store, tmp_path: Path) -> None:
    """Names hold 16 digits of a digest: two may share them, if somebody wants that."""
    made = capture(store, tmp_path, "one", 1)
    with store.transaction() as change:
        referrer = sign(change, made.root)
        change.commit(parse_name("one"), made.root)
    name = referrer_name(made.digest, referrer)
    path = Path(store.path, "refs", name)
    path.unlink()
    path.symlink_to(f"../blobs/sha256/{made.digest.hex}")
    with store.transaction() as change:
        sign(change, made.root)
        with pytest.raises(AlreadyExists):
            change.commit(parse_name("two"), made.root)
    assert names(store) == ["one"]


def test_a_store_that_an_index_is_attached_to_elsewhere_refuses_the_pull(
    store: Store, other: Store, signed: Signed
) -> None:
    made, memory, _ = signed
    part = put(memory, image_manifest([]), spec.MEDIA_MANIFEST)
    raw = index_manifest([part], subject=made.root)
    memory.attach(Descriptor.of(raw, spec.MEDIA_INDEX), made.root, BytesSource(raw))
    with pytest.raises(UnsupportedVersion, match="which is all a store takes"):
        other.pull(f"{REGISTRY}:one", options=through(memory, referrers=True))
    assert names(other) == []


# --- plain layouts ----------------------------------------------------------------------------------------------------


def test_a_layout_keeps_referrers_under_reserved_names(tmp_path: Path) -> None:
    layout = LayoutTarget(str(tmp_path / "layout"), create=True)
    root = put(layout, image_manifest([]), spec.MEDIA_MANIFEST)
    layout.tag(root, "one")
    referrer = sign(layout, root, who="alice")
    assert sorted(layout.tags()) == ["one", referrer_name(root.digest, replace(referrer, artifact_type=SIGNATURE))]
    (found,) = layout.referrers(root)
    assert (found, found.artifact_type, found.annotations["who"]) == (referrer, SIGNATURE, "alice")
    layout.untag("one")
    assert layout.exists(root)
    with pytest.raises(NotFound):
        layout.untag("one")
    with pytest.raises(NotFound):
        layout.resolve("one")
    assert layout.referrers(root) == [referrer]
