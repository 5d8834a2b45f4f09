"""Artifacts in which every kind of frame, delta included, is used in every order."""

from __future__ import annotations

import random
from itertools import pairwise
from typing import NamedTuple

from casstore.artifact import Artifact
from casstore.spec import BLOCK
from tests.support.artifacts import DELTA, RAW, ZSTD, Disk, Frame, HandMade, frame, pack_bytes


class Mixed(NamedTuple):
    """An artifact, its disk's bytes, and the plain bytes of each chunk of each pack."""

    made: HandMade
    artifact: Artifact
    content: bytes
    chunks: list[list[bytes]]


def mixed(seed: int, *, packs: int = 3, frames: int = 6, runs: int = 30) -> Mixed:
    """Of `packs` packs with some full frames and some deltas of chunks anywhere, a disk uses random runs."""
    rng = random.Random(seed)
    full = [[_chunk(rng) for _ in range(rng.randint(1, 5))] for _ in range(packs * frames)]
    made: list[list[Frame]] = [[] for _ in range(packs)]
    chunks: list[list[bytes]] = [[] for _ in range(packs)]
    deltas = [rng.choice(rng.choice(full)) for _ in range(packs * frames)]
    for kind, group in rng.sample([*((0, g) for g in full), *((1, [base]) for base in deltas)], 2 * len(full)):
        pack = rng.randrange(packs)
        if kind == 0:
            made[pack].append(frame(rng.choice([RAW, ZSTD]), *group))
            chunks[pack] += group
        else:
            at = rng.randrange(len(group[0]))
            changed = group[0][:at] + rng.randbytes(20) + group[0][at + rng.randint(0, 30) :]
            made[pack].append(frame(DELTA, changed, base=group[0]))
            chunks[pack].append(changed)
    rows, extents, content, end = [], [0], b"", 0
    for _ in range(runs):
        pack = rng.choice([n for n in range(packs) if chunks[n]])
        first = rng.randrange(len(chunks[pack]))
        plain = b"".join(chunks[pack][first : first + rng.randint(1, 12)][:1])
        count = 1
        while rng.random() < 0.8 and first + count < len(chunks[pack]):
            plain += chunks[pack][first + count]
            count += 1
        gap = rng.choice([0, 0, 0, 1, 7777, 20_000])
        rows.append((gap, len(plain), pack, first, count))
        if gap > 10_000:
            extents += [end + 5000, end + gap]
        content += bytes(gap) + plain
        end = len(content)
    content += bytes(rng.choice([0, 12_345]))
    extents.append(end)
    pairs = [(a, b) for a, b in zip(extents[::2], extents[1::2], strict=True) if b > a]
    gaps = [a - before for (_, before), (a, _) in pairwise([(0, 0), *pairs])]
    disk = Disk(len(content), [(gap, b - a) for gap, (a, b) in zip(gaps, pairs, strict=True)], rows)
    hand = HandMade([pack_bytes(each) for each in made], [disk])
    return Mixed(hand, Artifact.load(hand.blobs, hand.store()), content, chunks)


def _chunk(rng: random.Random) -> bytes:
    """A block or more, half of it compressible."""
    length = rng.randint(BLOCK, 3 * BLOCK)
    return rng.randbytes(length // 2) + bytes([rng.randrange(256)]) * (length - length // 2)
