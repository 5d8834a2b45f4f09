"""A hostile artifact wants its own bytes to be stored under the id of a chunk that many honest disks have.

If it could, a snapshot that is made later would find that chunk here, would not store it, and could never be restored.
So each way into a store is tried with each lie; and after it an honest disk must come back, also from a catalog that
was made anew. Numbers are rows of docs/explanation/faults.md.
"""

from __future__ import annotations

import io
import json
import random
import tarfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

import pytest
from blake3 import blake3

from casstore import Snapshot, Store, spec
from casstore.content import Reader
from casstore.errors import CorruptContent, NotFound
from casstore.oci import Descriptor
from casstore.streams import BytesSource
from tests.support.artifacts import (
    DELTA,
    RAW,
    ZSTD,
    Disk,
    Frame,
    HandMade,
    MemoryBlobs,
    frame,
    pack_bytes,
    read_directory,
)
from tests.support.stores import FAST, blob_path, content, disk_bytes, index_entries, names
from tests.support.transfers import REGISTRY, Memory, SourceBroke, through
from tests.test_dialects_store import bring, write_07

HONEST = disk_bytes(1, 2, 3, 4, 5)
OWN = random.Random(99).randbytes(30_000)
"""What the attacker's disk has, rightly."""


@dataclass(frozen=True)
class Popular:
    """A chunk of the honest disk, and its neighbours."""

    id: bytes
    plain: bytes
    before: bytes
    after: bytes

    def claimed_by(self, made: Frame) -> Frame:
        """A frame with other bytes that claims to be it."""
        return Frame(made.kind, made.stored, [(self.id, len(self.plain))], made.base)

    @property
    def wrong(self) -> bytes:
        """Other bytes of its length."""
        return random.Random(7).randbytes(len(self.plain))


@pytest.fixture(scope="module")
def popular(tmp_path_factory: pytest.TempPathFactory) -> Popular:
    """As casstore itself cuts that disk."""
    path = tmp_path_factory.mktemp("honest") / "disk"
    path.write_bytes(HONEST)
    blobs = MemoryBlobs()
    [pack] = blobs.create(path)[1].packs
    directory = read_directory(blobs.contents[pack.digest])
    ends = list(accumulate(directory.lengths.tolist()))
    return Popular(directory.chunk_id(1), HONEST[ends[0] : ends[1]], HONEST[: ends[0]], HONEST[ends[1] : ends[2]])


def own_disk(*, chunk: int = 0, pack: int = 0, length: int = len(OWN)) -> Disk:
    """A disk of one chunk."""
    return Disk(length, [(0, length)], [(0, length, pack, chunk, 1)])


def used(popular: Popular) -> HandMade:
    lie = popular.claimed_by(frame(RAW, popular.wrong))
    return HandMade([pack_bytes([lie])], [own_disk(length=len(popular.plain))])


def unused(popular: Popular) -> HandMade:
    lie = popular.claimed_by(frame(ZSTD, popular.wrong))
    return HandMade([pack_bytes([frame(ZSTD, OWN), lie])], [own_disk()])


def beside_a_right_one(popular: Popular) -> HandMade:
    """In one frame with a chunk that is used, and right."""
    both = frame(ZSTD, OWN, popular.wrong)
    lie = Frame(ZSTD, both.stored, [both.chunks[0], (popular.id, len(popular.plain))])
    return HandMade([pack_bytes([lie])], [own_disk()])


def in_a_pack_of_its_own(popular: Popular) -> HandMade:
    lie = popular.claimed_by(frame(RAW, popular.wrong))
    return HandMade([pack_bytes([frame(RAW, OWN)]), pack_bytes([lie])], [own_disk()])


def as_a_delta(popular: Popular) -> HandMade:
    lie = popular.claimed_by(frame(DELTA, popular.wrong, base=OWN))
    return HandMade([pack_bytes([lie]), pack_bytes([frame(RAW, OWN)])], [own_disk(pack=1)])


def cut_short(popular: Popular) -> HandMade:
    """The right bytes, but not all."""
    part = popular.plain[:4096]
    lie = Frame(RAW, part, [(popular.id, len(part))])
    return HandMade([pack_bytes([frame(RAW, OWN), lie])], [own_disk()])


LIES: Mapping[str, Callable[[Popular], HandMade]] = {
    lie.__name__: lie for lie in (used, unused, beside_a_right_one, in_a_pack_of_its_own, as_a_delta, cut_short)
}


# --- the ways in


def offer(memory: Memory, made: HandMade, root: Descriptor) -> None:
    """Let a registry have it."""
    for digest, data in made.blobs.contents.items():
        kind = spec.MEDIA_MANIFEST if digest == root.digest else spec.MEDIA_PACK
        memory.push(Descriptor.of(data, kind), BytesSource(data))
    memory.tag(root, "evil")


def pull(store: Store, folder: Path, made: HandMade, root: Descriptor, *, name: str = "evil") -> None:
    memory = Memory()
    offer(memory, made, root)
    store.pull(f"{REGISTRY}:evil", name=name, options=through(memory))


class Ending(Memory):
    """Breaks once a pack has come."""

    def __init__(self, staging: Path) -> None:
        super().__init__()
        self._staging = staging

    def staged(self) -> list[Path]:
        """The blobs that have come."""
        return [path for path in self._staging.glob("op-*/*") if len(path.name) == 64]

    def fetch(self, descriptor: Descriptor) -> Reader:
        if descriptor.media_type == spec.MEDIA_MAP:
            end = time.monotonic() + 60
            while not self.staged() and time.monotonic() < end:
                time.sleep(0.001)
            raise SourceBroke
        return super().fetch(descriptor)


def pull_that_was_interrupted(store: Store, folder: Path, made: HandMade, root: Descriptor) -> None:
    """The packs are there from the first time."""
    memory = Ending(Path(store.path, "tmp"))
    offer(memory, made, root)
    with pytest.raises(SourceBroke):
        store.pull(f"{REGISTRY}:evil", options=through(memory))
    assert memory.staged()
    pull(store, folder, made, root)


def import_an_archive(store: Store, folder: Path, made: HandMade, root: Descriptor) -> None:
    entry = {**root.to_dict(), "annotations": {spec.ANNOTATION_REF_NAME: "evil"}}
    index = {"schemaVersion": 2, "mediaType": spec.MEDIA_INDEX, "manifests": [entry]}
    members = {"oci-layout": b'{"imageLayoutVersion":"1.0.0"}', "index.json": json.dumps(index).encode()}
    members |= {f"blobs/sha256/{digest.hex}": data for digest, data in made.blobs.contents.items()}
    with tarfile.open(folder / "evil.tar", "w") as tar:
        for name, data in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    store.import_(str(folder / "evil.tar"), name="evil")


def put_files(store: Store, made: HandMade) -> None:
    """As another tool does."""
    for digest, data in made.blobs.contents.items():
        blob_path(Path(store.path), digest).write_bytes(data)


def write_entry(store: Store, root: Descriptor, **annotations: str) -> None:
    path = Path(store.path, "index.json")
    document = json.loads(path.read_bytes())
    document["manifests"].append({**root.to_dict(), "annotations": {spec.ANNOTATION_REF_NAME: "evil"} | annotations})
    path.write_text(json.dumps(document))


def adopt(store: Store, folder: Path, made: HandMade, root: Descriptor) -> None:
    put_files(store, made)
    write_entry(store, root)
    report = store.adopt()
    if report.left:
        raise CorruptContent(report.left[0].reason)


def tag_what_another_tool_put_there(store: Store, folder: Path, made: HandMade, root: Descriptor) -> None:
    put_files(store, made)
    write_entry(store, root)
    store.tag(str(root.digest), "evil")


def repair_of_a_name_that_never_was(store: Store, folder: Path, made: HandMade, root: Descriptor) -> None:
    """As if it were a name of the store's own that was lost: annotations can be copied."""
    put_files(store, made)
    marks = {spec.ANNOTATION_STORE_REF: "evil", spec.ANNOTATION_STORE_DIGEST: str(root.digest)}
    write_entry(store, root, **marks)
    report = Store.repair(store.path, options=FAST)
    assert not report.ok
    raise CorruptContent("; ".join(report.problems))


WAYS = {
    way.__name__: way
    for way in (
        *(pull, pull_that_was_interrupted, import_an_archive, adopt),
        *(tag_what_another_tool_put_there, repair_of_a_name_that_never_was),
    )
}


def require_clean(store: Store, folder: Path) -> None:
    """An honest disk that is kept now comes back; also with a catalog that is made anew."""
    path = folder / "honest"
    path.write_bytes(HONEST)
    Snapshot.builder(path).name("honest").create(store)
    assert content(store, "honest") == HONEST
    store.verify("honest")
    store.reindex()
    Snapshot.builder(path).name("again").create(store)
    assert content(store, "again") == HONEST


@pytest.mark.parametrize("lie", LIES)
@pytest.mark.parametrize("way", WAYS)
def test_68_no_lie_about_a_chunk_gets_in(store: Store, tmp_path: Path, popular: Popular, way: str, lie: str) -> None:
    """Rows 55, 68 and 75."""
    made = LIES[lie](popular)
    root = made.store()
    with pytest.raises(CorruptContent):
        WAYS[way](store, tmp_path, made, root)
    assert names(store) == []
    require_clean(store, tmp_path)


@pytest.mark.parametrize("way", [pull, import_an_archive, tag_what_another_tool_put_there])
@pytest.mark.parametrize("lie", [unused, as_a_delta])
def test_the_lies_would_work_if_nobody_looked(
    store: Store,
    tmp_path: Path,
    popular: Popular,
    monkeypatch: pytest.MonkeyPatch,
    way: Callable[..., None],
    lie: Callable[[Popular], HandMade],
) -> None:
    """Else the test above shows nothing."""
    made = lie(popular)
    root = made.store()
    with monkeypatch.context() as patch:
        patch.setattr("casstore.transaction.verify_chunks", lambda *_, **__: 0)
        way(store, tmp_path, made, root)
        with pytest.raises(CorruptContent):
            require_clean(store, tmp_path)


# --- lies that cannot be seen through yet, as what would show them is missing


def without_its_base(popular: Popular, *, base: bytes) -> HandMade:
    """The first chunk of the honest disk, rightly, and a delta that nobody can decode without that base."""
    lie = popular.claimed_by(frame(DELTA, popular.wrong, base=popular.after))
    lie = Frame(DELTA, lie.stored, lie.chunks, base)
    length = len(popular.before)
    return HandMade([pack_bytes([frame(RAW, popular.before), lie])], [own_disk(length=length)])


def half_right(popular: Popular) -> bytes:
    """An id that has the half that the catalog keeps of another one."""
    return blake3(popular.after).digest()[:16] + bytes(16)


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("first", [True, False])
def test_68_a_delta_whose_base_comes_later_is_looked_at_then(
    store: Store, tmp_path: Path, popular: Popular, whole: bool, first: bool
) -> None:
    """Nobody can say that it is a lie when it comes. But the honest disk shares the pack, and brings the base, with
    which the delta would count; so it is decoded before that, and the pack is not shared.
    """
    made = without_its_base(popular, base=blake3(popular.after).digest() if whole else half_right(popular))
    if first:
        (tmp_path / "base").write_bytes(popular.after)
        Snapshot.builder(tmp_path / "base").name("base").create(store)
    pull(store, tmp_path, made, made.store())
    assert content(store, "evil") == popular.before
    require_clean(store, tmp_path)
    store.remove("evil")
    store.gc()
    assert content(store, "again") == HONEST


@pytest.mark.parametrize("way", WAYS)
def test_68_a_later_artifact_does_not_make_it_count(store: Store, tmp_path: Path, popular: Popular, way: str) -> None:
    """One that has the base is refused, as it lets the lie be seen."""
    made = without_its_base(popular, base=blake3(popular.after).digest())
    pull(store, tmp_path, made, made.store(), name="first")
    later = HandMade([*made.packs, pack_bytes([frame(RAW, popular.after)])], made.disks)
    root = later.store()
    with pytest.raises(CorruptContent):
        WAYS[way](store, tmp_path, later, root)
    assert names(store) == ["first"]
    require_clean(store, tmp_path)


# --- what is in a store, and has no name


def test_26_an_artifact_of_another_tool_is_no_parent_and_no_source(
    store: Store, tmp_path: Path, popular: Popular
) -> None:
    """As long as nobody has adopted it, it is not looked at, whoever asks for it by its digest."""
    made = unused(popular)
    root = made.store()
    put_files(store, made)
    write_entry(store, root)
    path = tmp_path / "disk"
    path.write_bytes(OWN)
    for selector in (str(root.digest), str(root.digest)[:20]):
        with pytest.raises(NotFound):
            Snapshot.builder(path).name("child").parent(selector).create(store)
        with pytest.raises(NotFound):
            store.restore(selector, str(tmp_path / "out"))
    require_clean(store, tmp_path)
    assert [entry["digest"] for entry in index_entries(Path(store.path))].count(str(root.digest)) == 1
    store.gc()
    assert blob_path(Path(store.path), root.digest).exists()


def test_75_a_repair_takes_right_bytes_only(store: Store, tmp_path: Path, popular: Popular) -> None:
    """The source has the pack that is wanted by name, and another one by content."""
    path = tmp_path / "honest"
    path.write_bytes(HONEST)
    made = Snapshot.builder(path).name("honest").create(store)
    [pack] = made.artifact_manifest.packs
    store.push("honest", f"oci:{tmp_path}/source:honest")
    lie = unused(popular).packs[0].ljust(pack.size, b"x")[: pack.size]
    for root in (Path(store.path), tmp_path / "source"):
        blob = blob_path(root, pack.digest)
        blob.unlink()
        if root.name == "source":
            blob.write_bytes(lie)
    report = Store.repair(store.path, sources=[f"oci:{tmp_path}/source"], options=FAST)
    assert not report.ok
    assert not blob_path(Path(store.path), pack.digest).exists()
    blob_path(tmp_path / "source", pack.digest).unlink()
    assert Store.repair(store.path, sources=[str(path)], options=FAST).ok
    assert content(store, "honest") == HONEST


def chunks_of(path: Path) -> list[bytes]:
    """As casstore cuts a file."""
    blobs, data, parts = MemoryBlobs(), path.read_bytes(), []
    [pack] = blobs.create(path)[1].packs
    for length in read_directory(blobs.contents[pack.digest]).lengths.tolist():
        parts.append(data[:length])
        data = data[length:]
    return parts


def test_68_two_disks_together_may_bring_what_shows_a_lie(store: Store, tmp_path: Path, popular: Popular) -> None:
    """The one shares the pack, and the other brings the base; each alone is well."""
    chain = write_07(tmp_path / "chain", 31, layers=2)
    head, raw = (chunks_of(next(chain.glob(f"layers/*.{kind}")))[0] for kind in ("qcow2", "raw"))
    assert head.startswith(b"QFI")
    lie = popular.claimed_by(frame(DELTA, popular.wrong, base=head))
    made = HandMade([pack_bytes([frame(RAW, raw), lie])], [own_disk(length=len(raw))])
    pull(store, tmp_path, made, made.store())
    with pytest.raises(CorruptContent, match="remove the snapshots here that list the pack"):
        bring(store, chain)
    require_clean(store, tmp_path)
    store.remove("evil")
    bring(store, chain).verify()


@pytest.mark.parametrize("lie", [used, unused, as_a_delta])
def test_a_store_that_was_brought_as_a_directory_can_be_verified(
    store: Store, tmp_path: Path, popular: Popular, lie: Callable[[Popular], HandMade]
) -> None:
    """Its refs are believed, as they are those of its owner; whoever got it from somebody else asks first."""
    made = lie(popular)
    root = made.store()
    put_files(store, made)
    Path(store.path, "refs/evil").symlink_to(f"../blobs/sha256/{root.digest.hex}")
    with pytest.raises(CorruptContent):
        store.verify("evil")
    with Store.init(tmp_path / "mine", options=FAST) as mine:
        with pytest.raises(CorruptContent):
            mine.pull(f"oci:{store.path}:evil")
        assert names(mine) == []
        require_clean(mine, tmp_path)
