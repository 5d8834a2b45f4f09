"""What is read of an artifact: its chunks in columns, deltas and their bases, and how often anything is read."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from blake3 import blake3
from hypothesis import given, settings
from hypothesis import strategies as st

from casstore import directories
from casstore.artifact import Artifact
from casstore.contents import hash_disk, plain_bytes
from casstore.errors import CorruptContent, DocumentError
from casstore.frame import FrameKind
from casstore.integrity import hasher
from casstore.progress import Meter, silent
from casstore.restore import write_disk
from casstore.soundness import verify_chunks
from casstore.spec import MIB
from tests.support.artifacts import DELTA, RAW, ZSTD, Disk, HandMade, frame, pack_bytes
from tests.support.deltas import mixed

METER = Meter(silent, "test", None)


def written(artifact: Artifact, path: Path, *, workers: int = 2) -> bytes:
    """The disk's bytes as they are restored into a file."""
    with path.open("w+b") as target:
        write_disk(artifact, artifact.map.disks[0], target.fileno(), workers=workers, meter=METER)
        target.seek(0)
        return target.read()


def chunk_bytes(artifact: Artifact, pack: int, chunk: int) -> memoryview:
    """One chunk's plain bytes."""
    return artifact.frames.chunks(artifact.directories.locate(np.array([pack]), np.array([chunk])))[0]


@settings(max_examples=40)
@given(seed=st.integers(0, 2**32), window=st.sampled_from([1, 7, 16384]), kept=st.sampled_from([0, 5000, MIB]))
def test_any_mixture_of_deltas(tmp_path_factory: pytest.TempPathFactory, seed: int, window: int, kept: int) -> None:
    """Restored, streamed, verified and looked at chunk by chunk, with room for few directories and frames."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("casstore.artifact._WINDOW", window)
        patch.setattr("casstore.directories._KEPT", kept)
        patch.setattr("casstore.decoding._DECODED", kept)
        patch.setattr("casstore.decoding._JOB", window * 10_000)
        made = mixed(seed)
        artifact, disk = made.artifact, made.artifact.map.disks[0]
        path = tmp_path_factory.mktemp("disk") / "back"
        assert written(artifact, path) == made.content
        assert b"".join(plain_bytes(artifact, disk, workers=2)) == made.content
        assert verify_chunks(artifact, known=lambda _: (), workers=2) == sum(map(len, made.chunks))
        covered, end = bytearray(len(made.content)), 0
        for placed in artifact.chunks(disk):
            rows = placed.located
            for n, offset in enumerate(placed.offset.tolist()):
                pack, chunk = int(rows.pack[n]), int(rows.chunk[n])
                plain = made.chunks[pack][chunk]
                assert rows.ids[n].tobytes() == blake3(plain).digest()
                assert rows.length[n] == len(plain)
                assert made.content[offset : offset + len(plain)] == plain
                assert artifact.directories[pack].frame_of(chunk) == rows.frame[n]
                assert artifact.directories[pack].stored[rows.frame[n]] == rows.stored[n]
                assert offset >= end
                end = offset + len(plain)
                covered[offset:end] = b"x" * len(plain)
        gaps = disk.size - int(disk.runs.length.sum())
        assert covered.count(0) == gaps


@settings(max_examples=40)
@given(seed=st.integers(0, 2**32))
def test_chunks_and_their_bases(seed: int) -> None:
    made = mixed(seed)
    artifact = made.artifact
    places = [(pack, chunk) for pack, chunks in enumerate(made.chunks) for chunk in range(len(chunks))]
    pack_column, chunk_column = (np.array(column, np.int64) for column in zip(*places, strict=True))
    packs, chunks = artifact.directories.base_places(pack_column, chunk_column)
    for (pack, chunk), base in zip(places, zip(packs.tolist(), chunks.tolist(), strict=True), strict=True):
        directory = artifact.directories[pack]
        base_id = directory.base_of(directory.frame_of(chunk))
        if base_id is None:
            assert base == (pack, chunk)
        else:
            its = artifact.directories[base[0]]
            assert its.chunk_id(base[1]) == base_id
            assert its.kinds[its.frame_of(base[1])] != FrameKind.DELTA
    with ThreadPoolExecutor(4) as pool:
        for (pack, chunk), data in zip(
            places, pool.map(partial(chunk_bytes, artifact), *zip(*places, strict=True)), strict=True
        ):
            assert data == made.chunks[pack][chunk]


def test_a_chunk_with_the_bytes_of_another_is_not_given_out() -> None:
    right, wrong = b"right" * 1000, b"wrong" * 1000
    base = frame(ZSTD, right)
    lies = [frame(RAW, wrong), frame(DELTA, wrong, base=right), frame(DELTA, right, base=right)]
    lying = [type(each)(each.kind, each.stored, [(blake3(b"else").digest(), 5000)], each.base) for each in lies]
    made = HandMade([pack_bytes([base, *lying])], [Disk(0)])
    artifact = Artifact.load(made.blobs, made.store())
    assert chunk_bytes(artifact, 0, 0) == right
    for chunk in (1, 2, 3):
        with pytest.raises(CorruptContent, match=f"frame {chunk}"):
            chunk_bytes(artifact, 0, chunk)


# --- how often -------------------------------------------------------------------------------------------------------


def many_packs(count: int) -> HandMade:
    """A disk of small packs, each used at the front and at the back."""
    packs = [pack_bytes([frame(RAW, b"%d" % n * 2000), frame(RAW, b"x%d" % n * 3000)]) for n in range(count)]
    length = [(len(b"%d" % n * 2000), len(b"x%d" % n * 3000)) for n in range(count)]
    runs = [(0, length[n][0], n, 0, 1) for n in range(count)] + [(0, length[n][1], n, 1, 1) for n in range(count)]
    return HandMade(packs, [Disk(sum(map(sum, length)), [(0, sum(map(sum, length)))], runs)])


def test_directories_are_read_again_but_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory for few of them: once per window each, however the disk's chunks are spread over them."""
    monkeypatch.setattr(directories, "_KEPT", 20_000)
    made = many_packs(100)
    root = made.store()
    artifact = Artifact.load(made.blobs, root)
    assert artifact.directories._bytes <= 20_000
    assert len(artifact.directories._kept) < 10
    made.blobs.reads.clear()
    content = written(artifact, tmp_path / "back")
    assert content == b"".join(b"%d" % n * 2000 for n in range(100)) + b"".join(b"x%d" % n * 3000 for n in range(100))
    ends = {pack.digest: pack.size for pack in artifact.manifest.packs}
    again = Counter(digest for digest, offset, length in made.blobs.reads if offset + length == ends.get(digest))
    assert max(again.values()) == 1
    assert artifact.directories._bytes <= 20_000


def test_documents_alone_are_read_without_check() -> None:
    made = many_packs(3)
    root = made.store()
    artifact = Artifact.load(made.blobs, root, check=False)
    assert not {digest for digest, _, _ in made.blobs.reads} & {pack.digest for pack in artifact.manifest.packs}
    wrong = HandMade(made.packs, [Disk(4096, [], [(0, 4096, 2, 0, 1)])])
    root = wrong.store()
    assert Artifact.load(wrong.blobs, root, check=False).map.disks[0].size == 4096
    with pytest.raises(DocumentError):
        Artifact.load(wrong.blobs, root)


def with_deltas() -> tuple[Artifact, bytes]:
    """A disk of ten chunks in two full frames, every second one replaced by a delta in another pack."""
    chunks = [bytes([n]) * 5000 for n in range(10)]
    changed = [b"changed" + chunk[7:] for chunk in chunks[::2]]
    deltas = pack_bytes([frame(DELTA, new, base=old) for new, old in zip(changed, chunks[::2], strict=True)])
    full = pack_bytes([frame(ZSTD, *chunks[:5]), frame(ZSTD, *chunks[5:])])
    runs = [(0, 5000, 1, n, 1) if n % 2 else (0, 5000, 0, n // 2, 1) for n in range(10)]
    made = HandMade([deltas, full], [Disk(50_000, [(0, 50_000)], runs)])
    content = b"".join(chunk if n % 2 else changed[n // 2] for n, chunk in enumerate(chunks))
    return Artifact.load(made.blobs, made.store()), content


def test_each_frame_is_decoded_once(tmp_path: Path, decodes: Counter[str]) -> None:
    """Whichever of its chunks and of their deltas are wanted, and by whichever threads."""
    artifact, content = with_deltas()
    disk = artifact.map.disks[0]
    assert written(artifact, tmp_path / "back") == content
    assert (len(decodes), max(decodes.values())) == (7, 1)
    decodes.clear()
    assert verify_chunks(artifact, known=lambda _: (), workers=3) == 15
    assert (len(decodes), max(decodes.values())) == (7, 1)
    decodes.clear()
    digester = hasher("sha256", disk.size)
    hash_disk(artifact, disk, [digester], workers=5, meter=METER)
    assert (len(decodes), max(decodes.values())) == (7, 1)
    decodes.clear()
    assert b"".join(plain_bytes(artifact, disk, workers=5)) == content
    assert max(decodes.values()) == 1


def test_frames_are_decoded_once_for_all_who_wait(decodes: Counter[str]) -> None:
    artifact, _ = with_deltas()
    with ThreadPoolExecutor(8) as pool:
        got = [bytes(data) for data in pool.map(lambda n: chunk_bytes(artifact, 1, n % 10), range(200))]
    assert got[:10] == [bytes([n]) * 5000 for n in range(10)]
    assert (len(decodes), max(decodes.values())) == (2, 1)


def test_a_frame_that_fails_fails_for_all_and_is_tried_again() -> None:
    made = HandMade([pack_bytes([frame(ZSTD, b"x" * 5000)])], [Disk(0)])
    artifact = Artifact.load(made.blobs, made.store())
    pack = artifact.manifest.packs[0].digest
    data = made.blobs.contents[pack]
    made.blobs.contents[pack] = data[:8] + bytes(20) + data[28:]
    for _ in range(2):
        with pytest.raises(CorruptContent):
            chunk_bytes(artifact, 0, 0)
    made.blobs.contents[pack] = data
    assert chunk_bytes(artifact, 0, 0) == b"x" * 5000
