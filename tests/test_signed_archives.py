"""Signatures in archives: they come along, are left out, or are refused. Numbers are rows of the fault list."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from casstore import Snapshot, Store, spec
from casstore.archive.importing import import_archive
from casstore.archiving import ExportOptions, opened_archive
from casstore.content import Source
from casstore.digest import Digest
from casstore.errors import CorruptContent, NotFound, UntrustedContent
from casstore.layout import LayoutTarget
from casstore.oci import Descriptor
from casstore.signatures.bundle import MEDIA_TYPE
from casstore.trust.admission import Admission
from casstore.trust.gate import Gate
from tests.support import tars
from tests.support.manifests import image_manifest, index_manifest, sign
from tests.support.signing import BOTH, capture_signed, found, good, sign_in, signatures
from tests.support.stores import blobs, capture, leftovers, link_refs, names, require_sound
from tests.support.tools import run


@pytest.fixture
def signed(store: Store, tmp_path: Path) -> Snapshot:
    """A snapshot in `store` with two signatures in each form."""
    return capture_signed(store, tmp_path)


def export(store: Store, path: Path, name: str = "one", **more: object) -> Path:
    store.export(name, str(path), options=ExportOptions(form="oci", **more))  # type: ignore[arg-type]
    return path


def test_signatures_survive_an_archive(signed: Snapshot, store: Store, other: Store, tmp_path: Path) -> None:
    sign(store_change := store.transaction(), signed.root, b"something else that refers to it")
    with store_change:
        store_change.commit_all({})
    report = other.import_(str(export(store, tmp_path / "a.tar")))
    assert report.warnings == ()
    assert found(other, signed.root) == BOTH
    assert signatures(other) == signatures(store)
    assert blobs(Path(other.path)) == blobs(Path(store.path))
    require_sound(Path(other.path))
    assert other.import_(str(tmp_path / "a.tar")).head.snapshot.root.digest == signed.digest
    assert export(other, tmp_path / "b.tar").read_bytes() == (tmp_path / "a.tar").read_bytes()


@pytest.mark.needs("skopeo")
def test_skopeo_reads_a_signed_archive(signed: Snapshot, store: Store, tmp_path: Path) -> None:
    export(store, tmp_path / "a.tar")
    for name, digest in link_refs(Path(store.path)).items():
        run("skopeo", "copy", f"oci-archive:{tmp_path}/a.tar:{name}", f"oci:{tmp_path}/layout:{name}")
        assert str(LayoutTarget(str(tmp_path / "layout")).resolve(name).digest) == digest
    assert found(LayoutTarget(str(tmp_path / "layout")), signed.root) == BOTH


class Tar:
    """A tar of a layout, to be changed."""

    def __init__(self, path: Path) -> None:
        self._path, self._files = path, dict(tars.unpacked(path))
        self.entries = json.loads(self._files.pop("index.json"))["manifests"]

    def blob(self, data: bytes) -> Digest:
        digest = Digest.of(data)
        self._files[f"blobs/sha256/{digest.hex}"] = data
        return digest

    def manifest(self, raw: bytes, name: str | None, media_type: str = spec.MEDIA_MANIFEST) -> Descriptor:
        self.blob(raw)
        descriptor = Descriptor.of(raw, media_type)
        named = {} if name is None else {"annotations": {spec.ANNOTATION_REF_NAME: name}}
        self.entries.append({**descriptor.to_dict(), **named})
        return descriptor

    def referrer(self, subject: Descriptor, name: str | None = None, **annotations: str) -> Descriptor:
        raw = image_manifest([], subject=subject, artifact_type=MEDIA_TYPE, **annotations)
        return self.manifest(raw, name)

    def without(self, *digests: Digest) -> None:
        gone = {str(digest) for digest in digests}
        self.entries = [entry for entry in self.entries if entry["digest"] not in gone]
        for digest in digests:
            self._files.pop(f"blobs/sha256/{digest.hex}", None)

    def written(self) -> str:
        index = {"schemaVersion": 2, "mediaType": spec.MEDIA_INDEX, "manifests": self.entries}
        self.blob(b"{}")
        self._path.write_bytes(tars.of_files({"index.json": json.dumps(index).encode(), **self._files}))
        return str(self._path)


@pytest.fixture
def tar(signed: Snapshot, store: Store, tmp_path: Path) -> Tar:
    return Tar(export(store, tmp_path / "a.tar"))


NOWHERE = Descriptor.of(b"nowhere", spec.MEDIA_MANIFEST)


def test_what_is_about_nothing_that_is_here_is_left_out_and_told(tar: Tar, signed: Snapshot, other: Store) -> None:
    tar.referrer(NOWHERE, f"sha256-{NOWHERE.digest.hex}.sig")
    lost = tar.referrer(NOWHERE)
    tar.referrer(lost)
    report = other.import_(tar.written())
    (warning,) = report.warnings
    assert "3 manifests were left out that are about something neither in the archive nor in the store" in warning
    assert str(NOWHERE.digest) in warning
    assert len(signatures(other)) == 3
    assert found(other, signed.root) == BOTH
    require_sound(Path(other.path))


def test_a_signature_finds_what_it_is_about_in_the_store(
    tar: Tar, signed: Snapshot, store: Store, other: Store, tmp_path: Path
) -> None:
    """As it was signed after the snapshot had been sent; and the signature of a signature."""
    late = tar.referrer(signed.root, note="late")
    late_again = tar.referrer(late, note="about the late one")
    made = capture(store, tmp_path, "two", 3)
    mixed = Tar(export(store, tmp_path / "two.tar", "two"))
    other.import_(tar.written())
    assert {str(late.digest), str(late_again.digest)} <= set(signatures(other).values())
    other.gc()
    third = mixed.referrer(late_again, note="about that")
    fourth = mixed.referrer(signed.root, note="another")
    assert other.import_(mixed.written()).head.snapshot.root.digest == made.digest
    assert {str(third.digest), str(fourth.digest)} <= set(signatures(other).values())
    other.gc()
    require_sound(Path(other.path))
    assert {str(third.digest), str(fourth.digest)} <= set(signatures(other).values())


def test_attachments_are_merged_with_those_that_the_store_has(tar: Tar, signed: Snapshot, other: Store) -> None:
    path = tar.written()
    other.import_(path)
    sign_in(other, signed.root, "carol")
    other.import_(path)
    assert good(other._directory, signed.root, "carol", "alice", "ed-bob") == {
        **BOTH,
        "bundle:carol": 1,
        "cosign:carol": 1,
    }


def lies(tar: Tar, root: Descriptor) -> None:
    tar.referrer(root, f"sha256-{NOWHERE.digest.hex}.sig-{'0' * 16}")


def lies_of_itself(tar: Tar, root: Descriptor) -> None:
    tar.referrer(root, f"sha256-{root.digest.hex}.sig-{'0' * 16}")


def says_nothing(tar: Tar, root: Descriptor) -> None:
    raw = image_manifest([])
    tar.manifest(raw, f"sha256-{root.digest.hex}.sig-{Digest.of(raw).hex[:16]}")


def lacks_a_blob(tar: Tar, root: Descriptor) -> None:
    tar.manifest(image_manifest([Descriptor.of(b"missing", MEDIA_TYPE)], subject=root), None)


def too_many(tar: Tar, root: Descriptor) -> None:
    for n in range(1001):
        tar.referrer(root, n=str(n))


def ten_thousand(tar: Tar, root: Descriptor) -> None:
    for n in range(10_000):
        tar.referrer(NOWHERE, n=str(n))


def too_deep(tar: Tar, root: Descriptor) -> None:
    for _ in range(9):
        root = tar.referrer(root)


def too_much(tar: Tar, root: Descriptor) -> None:
    for n in range(17):
        tar.referrer(root, n=str(n), much="x" * (4 * spec.MIB - 10_000))


def is_an_attachment_of_nothing(tar: Tar, root: Descriptor) -> None:
    tar.manifest(b"{}", f"sha256-{root.digest.hex}.sig")


@pytest.mark.parametrize(
    ("attack", "told"),
    [
        (lies, "expected a manifest that refers to"),
        (lies_of_itself, "expected a manifest that refers to"),
        (says_nothing, "expected a manifest that refers to .* about None"),
        (lacks_a_blob, "neither in the archive nor in the store"),
        (too_many, "expected at most 1000 manifests about sha256"),
        (ten_thousand, "expected at most 1000 manifests about sha256"),
        (too_deep, "at most 8 deep"),
        (too_much, "expected manifests of at most 67108864 bytes together"),
        (is_an_attachment_of_nothing, "expected a descriptor"),
    ],
)
def test_76_103_hostile_signatures_in_an_archive_are_refused(
    tar: Tar, signed: Snapshot, other: Store, attack: Callable[[Tar, Descriptor], None], told: str
) -> None:
    attack(tar, signed.root)
    with pytest.raises((CorruptContent, NotFound), match=told):
        other.import_(tar.written())
    assert link_refs(Path(other.path)) == {}
    other.gc()
    assert blobs(Path(other.path)) == set()
    assert leftovers(Path(other.path)) == []


def test_an_index_or_an_image_about_a_snapshot_is_left_out(tar: Tar, signed: Snapshot, other: Store) -> None:
    """A registry's list of referrers, as skopeo copies it; and an index that refers to the snapshot."""
    listed = tar.manifest(index_manifest([NOWHERE]), f"sha256-{signed.digest.hex}", spec.MEDIA_INDEX)
    index = tar.manifest(index_manifest([], subject=signed.root), None, spec.MEDIA_INDEX)
    image = tar.manifest(image_manifest([]), "image")
    report = other.import_(tar.written())
    assert report.unused == 3
    assert not {each.hex for each in (listed.digest, index.digest, image.digest)} & blobs(Path(other.path))
    assert found(other, signed.root) == BOTH


@pytest.mark.parametrize("form", ["oci", "0.7"])
def test_an_archive_is_gated_before_anything_has_a_name(
    signed: Snapshot, store: Store, other: Store, tmp_path: Path, form: str
) -> None:
    """The gate is asked for every snapshot, and sees the signatures that the archive has."""
    path = tmp_path / "a.tar"
    capture(store, tmp_path, "two", 1, 3, parent="one")
    store.export("two", str(path), options=ExportOptions(form=form, with_parents=True))
    asked: list[tuple[Digest, dict[str, int]]] = []

    def gate(change: Source, root: Descriptor, raw: bytes) -> Admission:
        assert Digest.of(raw) == root.digest
        asked.append((root.digest, good(change, root, "alice", "ed-bob")))
        if len(asked) == 2:
            raise UntrustedContent("no")
        return Admission()

    def import_(gate: Gate) -> None:
        with opened_archive(str(path)) as source:
            import_archive(other._directory, other._catalog, source, gate=gate)

    with pytest.raises(UntrustedContent):
        import_(gate)
    assert len(asked) == 2
    if form == "oci":
        assert dict(asked)[signed.digest] == BOTH
    assert link_refs(Path(other.path)) == {}
    other.gc()
    assert blobs(Path(other.path)) == set()
    import_(lambda *_: Admission())
    assert len(names(other)) == 2
