"""Packs that are verified one by one as they come: together with the rest it is what verifying all at once finds."""

from __future__ import annotations

import contextlib
import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from casstore.artifact import Artifact
from casstore.errors import CasstoreError, CorruptContent, DocumentError, NotFound
from casstore.oci import Descriptor
from casstore.soundness import verify_chunks, verify_pack
from casstore.spec import MEDIA_PACK
from tests.support.artifacts import DELTA, RAW, ZSTD, MemoryBlobs, frame, pack_bytes
from tests.support.deltas import Mixed, mixed


def one_by_one(made: Mixed) -> int:
    """Each pack by itself, then what is left; how many chunks that was."""
    proven = set()
    for pack in made.artifact.manifest.packs:
        with contextlib.suppress(CasstoreError):
            verify_pack(made.made.blobs, pack)
            proven.add(pack.digest)
    return verify_chunks(made.artifact, known=lambda _: (), proven=proven, workers=2)


@settings(max_examples=40)
@given(seed=st.integers(0, 2**32), read=st.sampled_from([1, 20_000, 1 << 22]))
def test_only_deltas_are_left_when_all_packs_were_verified(seed: int, read: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("casstore.decoding._READ", read)
        made = mixed(seed)
        deltas = sum(int(table.deltas().sum()) for table in made.artifact.directories.tables())
        assert one_by_one(made) == deltas
        assert verify_chunks(made.artifact, known=lambda _: (), workers=2) == sum(map(len, made.chunks))


@settings(max_examples=60)
@given(seed=st.integers(0, 2**32))
def test_a_changed_byte_is_found_in_both_ways_or_in_neither(seed: int) -> None:
    rng, made = random.Random(seed), mixed(seed)
    blobs, pack = made.made.blobs, rng.choice(made.artifact.manifest.packs)
    content = bytearray(blobs.contents[pack.digest])
    content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    blobs.contents[pack.digest] = bytes(content)
    found: list[type[CasstoreError] | None] = []
    for check in (one_by_one, lambda made: verify_chunks(made.artifact, known=lambda _: (), workers=2)):
        artifact = Artifact.assemble(
            blobs, made.artifact.manifest, made.artifact.config, made.artifact.map, check=False
        )
        try:
            check(made._replace(artifact=artifact))
        except CasstoreError as error:
            found.append(type(error))
        else:
            found.append(None)
    assert found[0] == found[1]


RIGHT, WRONG = b"right" * 1000, b"wrong" * 1000


@pytest.mark.parametrize("kind", [RAW, ZSTD])
@pytest.mark.parametrize("place", [0, 1])
def test_a_wrong_chunk_of_a_pack_that_came(kind: int, place: int) -> None:
    right = frame(kind, RIGHT, RIGHT)
    frames = [right, right]
    frames[place] = replace(frame(kind, RIGHT, WRONG), chunks=right.chunks)
    blobs = MemoryBlobs()
    pack = blobs.add(pack_bytes(frames), MEDIA_PACK)
    with pytest.raises(CorruptContent, match=f"pack {pack.digest} frame {place}: chunk"):
        verify_pack(blobs, pack)


@pytest.mark.parametrize("content", [b"", b"x" * 23, b"x" * 100, pack_bytes([frame(RAW, RIGHT)])[:-1]])
def test_what_is_no_pack(content: bytes) -> None:
    blobs = MemoryBlobs()
    with pytest.raises(DocumentError):
        verify_pack(blobs, blobs.add(content, MEDIA_PACK))


def test_deltas_need_other_packs_and_are_not_looked_at() -> None:
    blobs = MemoryBlobs()
    verify_pack(blobs, blobs.add(pack_bytes([frame(DELTA, WRONG, base=b"elsewhere" * 999)]), MEDIA_PACK))
    with pytest.raises(NotFound):
        verify_pack(blobs, Descriptor.of(b"gone" * 100, MEDIA_PACK))
