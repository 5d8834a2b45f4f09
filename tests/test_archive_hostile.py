"""Archives that lie: every one is refused, and the store is as it was. Both families: microsandbox's, and OCI's.

Numbers are rows of docs/explanation/faults.md; those of the tar format itself are in test_tar_hostile.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from casstore import Store
from casstore.archive import importing, layouts, payloads
from casstore.archive.inventoried import kind_of
from casstore.archive.inventory import Entry, Inventory
from casstore.archive.transport import Transport
from casstore.dialects.v07 import Manifest07
from casstore.digest import Digest
from casstore.errors import CasstoreError, CorruptContent, DocumentError, SourceError, UnsupportedVersion
from casstore.manifest import Dialect
from casstore.oci import AnyManifest
from tests.support import archives, tars
from tests.support.stores import FAST, content

Members = list[tuple[str, bytes]]
FORMS = ("0.4", "0.6", "0.7", "oci")
DIALECTS = {"0.4": Dialect.V04, "0.6": Dialect.V06, "0.7": Dialect.V07, "oci": Dialect.V04}


@dataclass
class Attack:
    """A store, and a sound archive of each form to change."""

    store: Store
    folder: Path
    sound: dict[str, Members]

    def refused(self, data: bytes, match: str, error: type[Exception] = CorruptContent) -> None:
        """Import must fail, and leave nothing."""
        path = self.folder / "attack.tar"
        path.write_bytes(data)
        before = archives.unchanged(self.store)
        with pytest.raises(error, match=match):
            self.store.import_(path, name="x")
        assert archives.unchanged(self.store) == before

    def changed(self, form: str, change: Callable[[Members], Members | None]) -> bytes:
        """An archive of changed members."""
        members = list(self.sound[form])
        return tars.of_files(change(members) or members)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Members]:
    """An archive of two snapshots in each form, without holes."""
    sound = {}
    for form in FORMS:
        folder = tmp_path_factory.mktemp(form)
        with Store.open(folder / "store", create=True, options=FAST) as store:
            snapshots = archives.line(2, DIALECTS[form])
            for n, (manifest, disk) in enumerate(snapshots):  # dense, so that members can be changed as files
                where = folder / f"s{n}"
                (where / "layers").mkdir(parents=True)
                (where / manifest.filename).write_bytes(manifest.to_bytes())
                name = manifest.disks[0].name
                file = where / "layers" / name if manifest.dialect is Dialect.V07 else where / name
                file.write_bytes(disk)
                store.import_directory(where, name=f"s{n}")
            archives.export(store, "s1", folder / "a.tar", form, with_parents=True, compress=False)
        sound[form] = tars.unpacked(folder / "a.tar")
    return sound


@pytest.fixture
def attack(store: Store, tmp_path: Path, made: dict[str, Members]) -> Attack:
    return Attack(store, tmp_path, made)


@pytest.mark.parametrize("form", ["0.6", "0.7"])
def test_an_inventory_may_have_any_order_and_white_space(attack: Attack, form: str) -> None:
    n = name_of(attack.sound[form], "archive.json")
    document = json.loads(attack.sound[form][n][1])
    data = json.dumps(dict(reversed(document.items())), indent=1).encode()
    path = attack.folder / "disordered.tar"
    path.write_bytes(replaced(attack, form, n, data))
    assert len(attack.store.import_(path, name="x").parents) == 1


def name_of(members: Members, ending: str) -> int:
    return next(n for n, (name, _) in enumerate(members) if name.endswith(ending))


def payload(members: Members) -> int:
    """The last disk, or the largest blob."""
    return max(range(len(members)), key=lambda n: (len(members[n][1]), n))


@pytest.mark.parametrize("form", FORMS)
def test_the_archives_that_are_changed_here_are_sound(attack: Attack, form: str) -> None:
    path = attack.folder / "sound.tar"
    path.write_bytes(tars.of_files(attack.sound[form]))
    assert len(attack.store.import_(path, name="x").parents) == 1


# --- row 69: names ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    "name",
    [
        *("../evil", "/etc/evil", "a/../../evil", "blobs//sha256/" + "0" * 64, "C:\\evil", "blobs\\sha256\\x", "a\nb"),
        *("blobs/sha256/" + "0" * 63 + "/", "blobs/sha256/../../../evil", "files/" + "0" * 64 + "/../evil"),
    ],
)
def test_69_members_that_lead_elsewhere(attack: Attack, form: str, name: str) -> None:
    outside = attack.folder.parent
    before = sorted(outside.iterdir())
    attack.refused(attack.changed(form, lambda members: [*members, (name, b"evil")]), "expected")
    assert sorted(outside.iterdir()) == before


@pytest.mark.parametrize("form", ["0.6", "0.7", "oci"])
@pytest.mark.parametrize(
    "name",
    [
        "README",
        "blobs/sha256/" + "A" * 64,
        "blobs/sha512/" + "0" * 128,
        "files/x",
        "layers/x.raw",
        "oci-layout2",
        "blobs/x",
    ],
)
def test_69_members_without_a_place(attack: Attack, form: str, name: str) -> None:
    attack.refused(attack.changed(form, lambda members: [*members, (name, b"x")]), "expected")


@pytest.mark.parametrize("form", FORMS)
def test_69_one_leading_dot_is_no_harm(attack: Attack, form: str) -> None:
    path = attack.folder / "dots.tar"
    path.write_bytes(attack.changed(form, lambda members: [(f"./{name}", data) for name, data in members]))
    assert len(attack.store.import_(path, name="x").parents) == 1


# --- row 70: links ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", [b"1", b"2", b"3", b"4", b"6"])
@pytest.mark.parametrize("first", [True, False])
def test_70_links_and_devices(attack: Attack, form: str, kind: bytes, first: bool) -> None:
    members = [tars.member(name, data) for name, data in attack.sound[form]]
    name = attack.sound[form][-1][0]
    link = tars.header(name, 0, kind=kind, link=str(attack.folder).encode())
    parts = [link, *members[:-1]] if first else [*members[:-1], link]
    attack.refused(tars.archive(*parts), "expected a regular file or directory", UnsupportedVersion)


# --- row 71: sparse members -------------------------------------------------------------------------------------------


def sparse(name: str, size: int) -> bytes:
    return tars.header(name, 512, kind=b"S", sparse=tars.slots((0, 512), (size, 0), size=size)) + bytes(512)


def test_71_a_blob_with_holes_is_none(attack: Attack) -> None:
    for name in ("blobs/sha256/" + "0" * 64, "index.json", "oci-layout"):
        members = [tars.member(*each) for each in attack.sound["oci"] if each[0] != name]
        attack.refused(tars.archive(*members, sparse(name, 64 << 30)), "without holes")


@pytest.mark.parametrize("form", ["0.4", "0.6", "0.7"])
def test_71_a_document_with_holes_is_none(attack: Attack, form: str) -> None:
    ending = "/manifest.json" if form == "0.4" else "/snapshot.json"
    n = name_of(attack.sound[form], ending)
    members = [tars.member(*each) for each in attack.sound[form]]
    members[n] = sparse(attack.sound[form][n][0], 2000)
    attack.refused(tars.archive(*members), "without holes")


@pytest.mark.parametrize("form", ["0.4", "0.6", "0.7"])
@pytest.mark.parametrize("size", [64 << 30, 1 << 60])
def test_71_a_disk_that_claims_to_be_huge(attack: Attack, form: str, size: int) -> None:
    """It costs no memory and no time to find out that the document says another size, or the inventory."""
    n = payload(attack.sound[form])
    members = [tars.member(*each) for each in attack.sound[form]]
    members[n] = sparse(attack.sound[form][n][0], size)
    attack.refused(tars.archive(*members), "expected")


# --- rows 72 and 73 are the tar format's alone: see test_tar_hostile --------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("extra", [tars.header("x", 2 << 30, kind=b"x"), tars.header("a", b"\xff" * 12)])
def test_72_and_73_reach_no_family(attack: Attack, form: str, extra: bytes) -> None:
    members = [tars.member(*each) for each in attack.sound[form]]
    attack.refused(tars.archive(*members, extra), "expected")


# --- row 74: members that are missing, or come twice ------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
def test_74_every_member_is_needed(attack: Attack, form: str) -> None:
    for n, (name, _) in enumerate(attack.sound[form]):
        data = attack.changed(form, lambda members, n=n: members[:n] + members[n + 1 :])  # type: ignore[misc]
        if form == "0.4" and name.endswith(".json"):
            continue  # then it is one of the other snapshot, with a file that nobody needs
        attack.refused(data, "expected|neither in the archive|is listed", CasstoreError)


@pytest.mark.parametrize("form", FORMS)
def test_74_no_member_comes_twice(attack: Attack, form: str) -> None:
    for each in attack.sound[form]:
        attack.refused(attack.changed(form, lambda members, each=each: [*members, each]), "got it twice")  # type: ignore[misc]


@settings(max_examples=6, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.data())
@pytest.mark.parametrize("form", ["0.6", "0.7", "oci"])
def test_74_the_order_means_nothing(
    made: dict[str, Members], tmp_path_factory: pytest.TempPathFactory, form: str, data: st.DataObject
) -> None:
    members = data.draw(st.permutations(made[form]))
    folder = tmp_path_factory.mktemp("order")
    (folder / "a.tar").write_bytes(tars.of_files(members))
    with Store.open(folder / "store", create=True, options=FAST) as store:
        assert len(store.import_(folder / "a.tar", name="x").parents) == 1


@pytest.mark.parametrize("form", ["0.4", "0.6", "0.7"])
def test_74_several_heads_or_none(attack: Attack, form: str) -> None:
    """Two snapshots of which neither comes from the other: 0.4 does not say which one is meant."""
    if form == "0.4":
        other = archives.folder("q", archives.manifest("other", b""), b"")
        attack.refused(attack.changed(form, lambda members: [*members, *other]), "expected one snapshot that no other")
        attack.refused(tars.of_files([("p/readme.txt", b"x")]), "got no snapshot")
        return
    inventory = name_of(attack.sound[form], "archive.json")
    head = json.loads(attack.sound[form][inventory][1])
    head["head"] = head["head"][:-1] + ("0" if head["head"][-1] != "0" else "1")
    text = json.dumps(head, separators=(",", ":"), ensure_ascii=False).encode()
    attack.refused(replaced(attack, form, inventory, text), "expected a head")


def replaced(attack: Attack, form: str, n: int, data: bytes) -> bytes:
    members = list(attack.sound[form])
    members[n] = (members[n][0], data)
    return tars.of_files(members)


# --- row 75: contents that are not what they should be ----------------------------------------------------------------


@pytest.mark.parametrize("form", ["0.6", "0.7", "oci"])
def test_75_a_changed_byte_is_noticed_in_every_member(attack: Attack, form: str) -> None:
    for n, (name, data) in enumerate(attack.sound[form]):
        at = len(data) // 2
        changed = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
        if name in {"index.json", "oci-layout"}:
            continue  # these have no digest
        attack.refused(replaced(attack, form, n, changed), r"\w", CasstoreError)


def test_75_a_changed_byte_of_0_4_is_noticed_where_its_integrity_is_recorded(attack: Attack) -> None:
    data = archives.disk(1)
    manifest = archives.with_sha256(archives.manifest("a", data), data)
    attack.refused(tars.of_files(archives.folder("p", manifest, data[:-1] + b"x")), "upper digest mismatch")
    attack.refused(tars.of_files(archives.folder("p", manifest, data[:-1])), "bytes, got")


@pytest.mark.parametrize("form", ["0.6", "0.7"])
@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda entry: entry.update(kind="image-object"), "expected a image-object"),
        (lambda entry: entry.update(apparent_size=1), "expected a file-payload of"),
        (lambda entry: entry.update(encoded_size=1), "expected a file-payload of"),
        (lambda entry: entry.update(included=False), "is not listed"),
        (lambda entry: entry.update(transport_integrity=None), "a transport integrity for every member"),
        (lambda entry: entry["transport_integrity"].update(digest="blake3:" + "0" * 64), "expected digest blake3:0"),
        (lambda entry: entry.update(path="files/other"), "is listed, and missing|is not listed"),
        (
            lambda entry: entry.update(integrity={"algorithm": "sha256", "digest": "sha256:" + "0" * 64}),
            "a document records",
        ),
        (lambda entry: entry.update(extra=1), "xtra"),
        (lambda entry: entry.update(encoded_size=-1), "-1 is less"),
        (lambda entry: entry.update(encoded_size=1.0), "expected an integer|float|1.0"),
    ],
)
def test_75_an_inventory_that_lies(
    attack: Attack, form: str, change: Callable[[dict[str, object]], None], match: str
) -> None:
    n = name_of(attack.sound[form], "archive.json")
    document = json.loads(attack.sound[form][n][1])
    change(next(entry for entry in document["entries"] if entry["kind"] == "file-payload"))
    text = json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode()
    attack.refused(replaced(attack, form, n, text), match)


@pytest.mark.parametrize("form", ["0.6", "0.7"])
@pytest.mark.parametrize(
    ("field", "value", "match"),
    [
        ("requires", ["msb-archive-member-blake3-v1", "msb-new-v9"], "unsupported archive"),
        ("completeness", "partial", "unsupported archive"),
        ("schema", 7, "expected the schema"),
        ("entries", [], "is not listed"),
        ("snapshots", [], "entr|required|should be non-empty|not allowed|too short|Additional"),
    ],
)
def test_75_an_inventory_of_another_kind(attack: Attack, form: str, field: str, value: object, match: str) -> None:
    n = name_of(attack.sound[form], "archive.json")
    document = json.loads(attack.sound[form][n][1])
    document[field] = value
    attack.refused(replaced(attack, form, n, json.dumps(document).encode()), match)


def dependent(sound: Members) -> tuple[Members, str]:
    """The archive of the child alone, without its disk, as `msb snapshot export --since` makes them; and that disk."""
    members = dict(sound)
    document = json.loads(members.pop("archive.json"))
    layer = next(entry for entry in document["entries"] if entry["kind"] == "file-payload")
    document["entries"].remove(layer)
    document["completeness"] = "dependent"
    document["requires"].append("msb-snapshot-dependencies-v1")
    document["extensions"]["msb-snapshot-dependencies-v1"] = {"disks": [{"path": layer["path"]}], "memory": []}
    del members[layer["path"]]
    members["archive.json"] = json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode()
    return list(members.items()), layer["path"]


def test_75_an_archive_that_relies_on_another(attack: Attack) -> None:
    """Clearly refused where nobody has what it leaves out, and complete where a snapshot here has it."""
    members, path = dependent(attack.sound["0.7"])
    attack.refused(tars.of_files(members), f"relies on {path}, which neither", CasstoreError)
    whole = attack.folder / "whole.tar"
    whole.write_bytes(tars.of_files(attack.sound["0.7"]))
    first = attack.store.import_(whole)
    (attack.folder / "attack.tar").write_bytes(tars.of_files(members))
    report = attack.store.import_(attack.folder / "attack.tar", name="y")
    assert report.head.snapshot.root == first.head.snapshot.root
    assert content(attack.store, "y") == archives.disk(1)


def test_75_an_archive_that_relies_on_one_of_two(attack: Attack) -> None:
    """A layer's name is no digest: where two snapshots here have it, and other bytes, nobody knows which is meant."""
    members, path = dependent(attack.sound["0.7"])
    made = next(made for made, _ in archives.line(2, Dialect.V07) if path.endswith(made.disks[0].name))
    archives.fill(attack.store, attack.folder, [(made, archives.disk(1))], name="one")
    archives.fill(attack.store, attack.folder, [(made, archives.disk(7))], name="two")
    attack.refused(tars.of_files(members), "expected one content of it here, got 2 that differ", SourceError)
    attack.store.remove("two0")
    (attack.folder / "attack.tar").write_bytes(tars.of_files(members))
    attack.store.import_(attack.folder / "attack.tar", name="y")
    assert content(attack.store, "y") == archives.disk(1)


def test_75_a_checkpoint_of_a_machine(attack: Attack) -> None:
    data = attack.changed("0.7", lambda members: [*members, ("checkpoints/snap_" + "0" * 32 + "/ram", b"x")])
    attack.refused(data, "a checkpoint of a running machine", UnsupportedVersion)


@pytest.mark.parametrize("other", ["1", "2"])
def test_75_snapshots_that_come_from_each_other(attack: Attack, other: str) -> None:
    """In 0.7 a snapshot may say of its parent what it likes: its name is no digest."""
    names = [f"snap_{digit * 32}" for digit in ("1", other)]
    members: Members = []
    listed = []
    for name, parent in zip(names, reversed(names), strict=True) if other != "1" else [(names[0], names[0])]:
        made = archives.line(1, Dialect.V07)[0][0]
        assert isinstance(made, Manifest07)
        text = made.to_bytes().replace(b'"parent":null', b'"parent":"%s"' % parent.encode())
        text = text.replace(made.snapshot_id.encode(), name.encode())
        path = f"snapshots/{name}/snapshot.json"
        members.append((path, text))
        listed.append({"snapshot_id": name, "descriptor_path": path, "descriptor_digest": str(Digest.of(text))})
    members.append((f"layers/{made.disks[0].name}", archives.disk(0)))
    entries = []
    for path, data in members:
        kind = kind_of(path) or ""
        entries.append(Entry(path, None, kind, len(data), len(data), (), None, Transport.of(kind, path, data)))
    inventory = Inventory(Dialect.V07, names[0], None, [], entries)
    document = {**json.loads(inventory.to_bytes()), "members": listed}
    members.append(("archive.json", json.dumps(document).encode()))
    attack.refused(tars.of_files(members), "from itself|another snapshot than itself")


# --- row 76: too much of everything -----------------------------------------------------------------------------------


def test_76_too_many_disks_documents_or_snapshots(attack: Attack, monkeypatch: pytest.MonkeyPatch) -> None:
    many = [(f"p/{n}.raw", b"x") for n in range(4)]
    monkeypatch.setattr(payloads, "MAX_DISKS", 3)
    attack.refused(tars.of_files(many), "at most 3 disks")
    monkeypatch.setattr(importing, "MAX_SNAPSHOTS", 1)
    attack.refused(tars.of_files(attack.sound["0.4"]), "at most 1 snapshots")
    monkeypatch.setattr(payloads, "MAX_DOCUMENTS", 100)
    attack.refused(tars.of_files(attack.sound["0.4"]), "documents of at most 100 bytes together")


def test_76_an_index_of_a_million_entries(attack: Attack, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is named again is not read again; and there is an end to what is read."""
    n = name_of(attack.sound["oci"], "index.json")
    index = json.loads(attack.sound["oci"][n][1])
    whole = json.dumps({**index, "manifests": index["manifests"] * 10_000}).encode()
    attack.refused(replaced(attack, "oci", n, whole), f"at most {4 << 20} bytes")
    read: list[str] = []
    parse = AnyManifest.parse

    def counted(raw: bytes, media_type: str, *, subject: str) -> AnyManifest:
        read.append(subject)
        return parse(raw, media_type, subject=subject)

    monkeypatch.setattr(AnyManifest, "parse", counted)
    repeated = {**index, "manifests": index["manifests"] * 100}
    path = attack.folder / "repeated.tar"
    path.write_bytes(replaced(attack, "oci", n, json.dumps(repeated).encode()))
    assert len(attack.store.import_(path, name="x").parents) == 1
    assert len(read) <= 2 * len(index["manifests"])
    for limit, error in (("MAX_SNAPSHOTS", "at most 1 snapshots"), ("MAX_DOCUMENTS", "manifests of at most 1 bytes")):
        with monkeypatch.context() as patched:
            patched.setattr(layouts, limit, 1)
            attack.refused(tars.of_files(attack.sound["oci"]), error)


@pytest.mark.parametrize("form", FORMS)
def test_76_a_document_of_gigabytes(attack: Attack, form: str) -> None:
    name = {"0.4": "p/manifest.json", "oci": "index.json"}.get(form, "archive.json")
    compressor = zstandard.ZstdCompressor().compressobj()
    data = compressor.compress(tars.header(name, 1 << 30)) + compressor.compress(bytes(10 << 20)) + compressor.flush()
    attack.refused(data, "at most")


def test_76_a_blob_that_grows_does_not_fill_the_disk(attack: Attack, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which blobs are needed is known at the end only, and what they are when they are there."""
    monkeypatch.setattr(layouts, "FREE_OF_RATIO", 1 << 20)
    compressor = zstandard.ZstdCompressor().compressobj()
    parts = [compressor.compress(tars.header(f"blobs/sha256/{'0' * 64}", 64 << 20))]
    parts += [compressor.compress(bytes(1 << 20)) for _ in range(64)]
    attack.refused(b"".join(parts) + compressor.flush(), "at most 100 times the bytes of the archive")
    members = attack.sound["oci"]
    monkeypatch.setattr(layouts, "FREE_OF_RATIO", 0)
    sound = attack.folder / "sound.tar.zst"
    sound.write_bytes(zstandard.ZstdCompressor().compress(tars.of_files(members)))
    assert attack.store.import_(sound, name="sound").head.name == "sound"


# --- row 77: the end --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
def test_77_an_archive_that_ends_too_early(attack: Attack, form: str) -> None:
    whole = tars.of_files(attack.sound[form])
    for cut in (100, len(whole) // 3, len(whole) // 2, len(whole) - 1025, len(whole) - 1024, len(whole) - 1):
        attack.refused(whole[:cut], "truncated")
    packed = zstandard.ZstdCompressor().compress(whole)
    for cut in (3, 100, len(packed) // 2, len(packed) - 1):
        attack.refused(packed[:cut], "truncated|checksum|ustar")
    attack.refused(whole + b"junk", "zeros after the end")


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.sampled_from(FORMS), st.data())
def test_damage_anywhere_leaves_nothing_or_the_right_thing(
    made: dict[str, Members], tmp_path_factory: pytest.TempPathFactory, form: str, data: st.DataObject
) -> None:
    raw = bytearray(tars.of_files(made[form]))
    at = data.draw(st.integers(0, len(raw) - 1))
    raw[at] ^= data.draw(st.integers(1, 255))
    folder = tmp_path_factory.mktemp("damage")
    (folder / "a.tar").write_bytes(bytes(raw))
    with Store.open(folder / "store", create=True, options=FAST) as store:
        before = archives.unchanged(store)
        try:
            report = store.import_(folder / "a.tar", name="x")
        except CasstoreError:
            assert archives.unchanged(store) == before
        else:
            names: Sequence[str] = [report.head.name, *(each.name for each in report.parents)]
            for name in names:
                store.verify(name)
            if form != "0.4":  # whose documents say nothing of the bytes, nor anything of the documents
                assert {content(store, name) for name in names} == {archives.disk(0), archives.disk(1)}


def test_a_symlink_in_the_way_is_not_followed(attack: Attack) -> None:
    """Members are no files: what is named like one in the working directory means nothing."""
    (attack.folder / "p").symlink_to("/etc")
    assert attack.store.path.startswith(str(attack.folder))
    attack.refused(tars.of_files([("p/passwd", b"x")]), "got no snapshot", DocumentError)
