"""Which packs a snapshot lists: few enough, and little in them that it does not use, however long the history."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from casstore import Snapshot, Store, locality, spec
from casstore.artifact import Artifact
from casstore.locality import Use, to_dissolve
from casstore.oci import Descriptor
from casstore.spec import BLOCK, KIB, MIB
from tests.support.artifacts import DELTA
from tests.support.disks import extents, write_mixed_file
from tests.support.edits import Edit, EditKind, frames, plain_chunks
from tests.support.stores import FAST, blob_path, require_sound

# --- the decision -----------------------------------------------------------------------------------------------------


def least_dissolved(packs: Sequence[Use], new: int, small: int, most_small: int) -> list[int]:
    """What `to_dissolve` promises, by trying."""
    emptiest = sorted(range(len(packs)), key=lambda n: (packs[n].needed / packs[n].size, n))
    needed = new + sum(pack.needed for pack in packs)
    for count in range(len(packs) + 1):
        gone = set(emptiest[:count])
        listed = new + sum(pack.needed if n in gone else pack.size for n, pack in enumerate(packs))
        if listed <= 1.5 * needed:
            break
    left = [n for n in range(len(packs)) if n not in gone and packs[n].size < small]
    if len(left) + bool(new or gone) > most_small:
        gone |= set(left)
    return sorted(gone)


@given(
    sizes=st.lists(st.tuples(st.integers(1, 60), st.integers(0, 60)), max_size=30),
    new=st.just(0) | st.integers(1, 200),
    most_small=st.integers(1, 12),
)
def test_the_emptiest_packs_go_and_no_more_than_needed(sizes: list[tuple[int, int]], new: int, most_small: int) -> None:
    packs = [Use(size, min(size, needed)) for size, needed in sizes]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(locality, "SMALL", 20)
        patch.setattr(locality, "MOST_SMALL", most_small)
        gone = to_dissolve(packs, new)
    assert gone == least_dissolved(packs, new, 20, most_small)
    needed = new + sum(pack.needed for pack in packs)
    copied = sum(packs[n].needed for n in gone)
    kept = [pack for n, pack in enumerate(packs) if n not in gone]
    assert new + copied + sum(pack.size for pack in kept) <= 1.5 * needed
    assert sum(pack.size < 20 for pack in kept) + bool(new or gone) <= most_small


def test_packs_that_are_used_stay() -> None:
    large, small = Use(32 * MIB, 30 * MIB), Use(100 * KIB, 90 * KIB)
    assert to_dissolve([large] * 1000 + [small] * 64, 0) == []
    assert to_dissolve([large] + [small] * 64, 1) == list(range(1, 65))
    assert to_dissolve([large] + [small] * 64 + [Use(200 * MIB, 1)], 0) == list(range(1, 66)), "what is copied is one"
    assert to_dissolve([], 5) == []
    assert to_dissolve([Use(32 * MIB, MIB)], 0) == [0], "one that is hardly used goes"


# --- a long history ---------------------------------------------------------------------------------------------------

TARGET = MIB
WORK: tuple[EditKind, ...] = ("patch", "patch", "patch", "patch", "patch", "write", "punch", "move")


@pytest.fixture
def small_packs(monkeypatch: pytest.MonkeyPatch) -> None:
    """About the proportions of real ones, but for the chunks: what a step adds has to be small beside SMALL."""
    monkeypatch.setattr(spec, "PACK_TARGET", TARGET)
    monkeypatch.setattr(spec, "FRAME_PLAIN", 128 * KIB)
    monkeypatch.setattr(locality, "SMALL", TARGET // 6)
    monkeypatch.setattr(locality, "MOST_SMALL", 8)


class History:
    """A disk that is edited and captured again and again."""

    def __init__(self, folder: Path, size: int, seed: int) -> None:
        self.path, self.rng = folder / "disk", random.Random(seed)
        self.root = folder / "store"
        self.store = Store.init(self.root, options=FAST)
        self.contents: dict[str, bytes] = {}
        self.written: set[str] = set()
        self.bytes_written = self.bytes_new = self.copied = 0
        write_mixed_file(self.path, size, seed=seed)

    def edit(self, count: int, kinds: Sequence[EditKind]) -> None:
        blocks = self.path.stat().st_size // BLOCK
        for _ in range(count):
            place, other = (self.rng.randrange(blocks - 4) for _ in range(2))
            Edit(self.rng.choice(kinds), place, other, self.rng.randint(1, 4), self.rng.getrandbits(32)).apply(
                self.path
            )

    def capture(self, name: str) -> Artifact:
        made = Snapshot.builder(self.path).name(name).create(self.store)
        self.contents[name] = self.path.read_bytes()
        artifact = made.artifact()
        new = [pack for pack in artifact.manifest.packs if str(pack.digest) not in self.written]
        self.written |= {str(pack.digest) for pack in new}
        self.bytes_written += sum(pack.size for pack in new)
        assert made.cost is not None
        stored = sum(len(frame[2]) for pack in new for frame in frames(self.pack(pack)))
        self.copied = made.cost.stats.copied
        self.bytes_new += stored - self.copied
        return artifact

    def pack(self, pack: Descriptor) -> bytes:
        return blob_path(self.root, pack.digest).read_bytes()


def used_bytes(history: History, artifact: Artifact) -> int:
    """Stored bytes of the frames that the disk needs, the bases of deltas included."""
    runs = artifact.map.disks[0].runs
    wanted = {
        (pack, chunk)
        for pack, first, count in zip(runs.pack.tolist(), runs.first.tolist(), runs.count.tolist(), strict=True)
        for chunk in range(first, first + count)
    }
    used, bases, others = 0, set(), []
    for n, pack in enumerate(artifact.manifest.packs):
        at = 0
        for kind, chunks, stored, base in frames(history.pack(pack)):
            ids = {chunk_id for chunk_id, _ in chunks}
            if any((n, at + k) in wanted for k in range(len(chunks))):
                used += len(stored)
                bases |= {base} - {b""}
                others.append((ids, 0))
            elif kind != DELTA:
                others.append((ids, len(stored)))
            at += len(chunks)
    for ids, size in sorted(others, key=lambda other: other[1]):
        if bases & ids:
            used += size
            bases -= ids
    return used


def require_order(history: History, artifact: Artifact, before: set[str]) -> None:
    """The map, the packs that runs name, those of older snapshots in the order of their use first; then the others."""
    packs = [str(pack.digest) for pack in artifact.manifest.packs]
    assert artifact.manifest.children[:2] == (artifact.manifest.config, artifact.manifest.map)
    named = list(dict.fromkeys(artifact.map.disks[0].runs.pack.tolist()))
    assert sorted(named) == list(range(len(named)))
    old = [n for n in named if packs[n] in before]
    assert old == list(range(len(old)))
    assert packs[len(named) :] == sorted(packs[len(named) :])


@pytest.mark.usefixtures("small_packs")
@pytest.mark.parametrize(
    ("steps", "size", "edits", "kinds"),
    [
        pytest.param(20, 2 * MIB, 8, WORK, id="busy"),
        pytest.param(20, MIB, 2, ("patch",), id="quiet"),
        pytest.param(60, 16 * MIB, 4, WORK, id="long", marks=pytest.mark.long),
    ],
)
def test_the_invariants_hold_on_every_step_of_a_chain(
    tmp_path: Path, steps: int, size: int, edits: int, kinds: Sequence[EditKind]
) -> None:
    history, dissolved, merged = History(tmp_path, size, seed=steps + edits), 0, 0
    listed = 0
    with history.store as store:
        for n in range(steps):
            history.edit(edits if n else 0, kinds)
            before = set(history.written)
            artifact = history.capture(f"s{n}")
            used = used_bytes(history, artifact)
            assert sum(pack.size for pack in artifact.manifest.packs) <= 1.6 * used
            assert len(artifact.manifest.packs) <= 2 * -(-used // TARGET) + 12
            assert history.bytes_written <= 1.5 * history.bytes_new
            require_order(history, artifact, before)
            merged += len(artifact.manifest.packs) < listed - 4
            listed = len(artifact.manifest.packs)
            dissolved += history.copied > 0
            plain_chunks(map(history.pack, artifact.manifest.packs))
            if n >= 3:
                gone = f"s{n - 3}"
                store.remove(gone, force=True)
                del history.contents[gone]
            if n % 5 == 4:
                store.gc()
            back = Path(store.restore(f"s{n}", tmp_path / "back", force=True))
            assert back.read_bytes() == history.contents[f"s{n}"]
            assert extents(back) == extents(history.path)
    assert dissolved
    assert merged or kinds == WORK
    require_sound(history.root, contents=history.contents)
