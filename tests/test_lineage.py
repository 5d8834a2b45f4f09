"""Which snapshot a disk is compared with: it costs or saves bytes, and never changes what the disk is."""

from __future__ import annotations

import json
import os
import random
import shutil
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from casstore import Snapshot, Store, create
from casstore.artifact import Artifact
from casstore.binding import Created
from casstore.catalog import Catalog
from casstore.config import DiskInput, SnapshotBuilder
from casstore.digest import Digest
from casstore.lineage import choose_base
from casstore.manifest import SCRATCH, ImageRef
from casstore.spec import KIB, MIB
from tests.support.stores import blob_path, content, require_sound

IMAGE = ("example.org/base", str(Digest.of(b"image")))


class Chosen:
    """Creates snapshots, and tells what each was compared with."""

    def __init__(self, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
        self.store, self.bases = store, dict[str, str]()
        self._base: Artifact | None = None
        real = create.build

        def build(*arguments: Any, base: Artifact | None = None, **options: Any) -> Created:
            self._base = base
            return real(*arguments, base=base, **options)

        monkeypatch.setattr(create, "build", build)

    def __call__(self, name: str, builder: SnapshotBuilder) -> str | None:
        made = builder.name(name).create(self.store)
        assert made.manifest.parent is None or builder.build().parent
        self.bases[str(made.digest)] = name
        return None if self._base is None else self.bases[str(self._base.digest)]


@pytest.fixture
def chosen(store: Store, monkeypatch: pytest.MonkeyPatch) -> Chosen:
    return Chosen(store, monkeypatch)


def disk(path: Path, seed: int, size: int = 2 * MIB) -> SnapshotBuilder:
    """A disk of its own for each seed."""
    path.write_bytes(random.Random(seed).randbytes(size))
    return Snapshot.builder(path)


def edited(path: Path, source: Path) -> SnapshotBuilder:
    """A disk elsewhere, which is another one with a small edit."""
    data = bytearray(source.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    return Snapshot.builder(path)


def test_the_nearest_relation_is_chosen(chosen: Chosen, tmp_path: Path) -> None:
    a, b, c = (tmp_path / name for name in "abc")
    assert chosen("a", disk(a, 1)) is None, "there is nothing yet"
    assert chosen("b", disk(b, 2).image(*IMAGE)) is None, "nothing is like it"
    assert chosen("a2", Snapshot.builder(a)) == "a", "the same source"
    assert chosen("a3", disk(a, 3)) == "a2", "whatever it holds now"
    assert chosen("c", edited(c, b)) == "b", "the same content"
    assert chosen("c2", Snapshot.builder(c).parent("a").image(*IMAGE)) == "a", "the parent before all"
    assert chosen("b2", Snapshot.builder(b).image(*IMAGE)) == "b", "the source before the image"
    assert chosen("d", disk(tmp_path / "d", 4).image(*IMAGE)) == "b2", "the newest of an image"
    assert chosen("e", disk(tmp_path / "e", 5).image("other", str(Digest.of(b"other")))) is None
    assert {name: content(chosen.store, name) for name in "de"} == {n: (tmp_path / n).read_bytes() for n in "de"}


def test_a_base_is_no_parent(chosen: Chosen, tmp_path: Path) -> None:
    chosen("a", disk(tmp_path / "a", 1))
    assert chosen("b", Snapshot.builder(tmp_path / "a")) == "a"
    assert chosen.store.get("b").parent_digest is None
    assert chosen("c", Snapshot.builder(tmp_path / "a").parent("b")) == "b"
    assert chosen.store.get("c").parent_digest == str(chosen.store.get("b").id)


def test_a_disk_through_a_pipe_is_compared_with_its_parent_only(chosen: Chosen, tmp_path: Path) -> None:
    path = tmp_path / "a"
    chosen("a", disk(path, 1, 40 * KIB))
    for n, parent in enumerate([None, "a"]):
        reading, writing = os.pipe()
        with open(writing, "wb") as out:
            out.write(path.read_bytes())
        builder = SnapshotBuilder(DiskInput(fd=reading))
        if parent:
            builder.parent(parent)
        assert chosen(f"p{n}", builder) == parent
        assert content(chosen.store, f"p{n}") == path.read_bytes()


@pytest.mark.parametrize("gone", ["removed", "collected", "a blob is lost", "a blob is short", "no record"])
def test_a_base_that_cannot_be_used_is_done_without(chosen: Chosen, tmp_path: Path, gone: str) -> None:
    path, store = tmp_path / "a", chosen.store
    chosen("a", disk(path, 1))
    pack = store.open_snapshot("a").artifact().manifest.packs[0].digest
    if gone in {"removed", "collected"}:
        store.remove("a")
    if gone == "collected":
        store.gc()
    if gone == "no record":
        shutil.rmtree(Path(store.path, "cache"))
    if gone == "a blob is lost":
        blob_path(Path(store.path), pack).unlink()
    if gone == "a blob is short":
        os.truncate(blob_path(Path(store.path), pack), 1000)
    expected = "a" if gone == "no record" else None
    assert chosen("b", edited(path, path)) == expected
    assert content(store, "b") == path.read_bytes()
    if gone in {"removed", "collected", "no record"}:
        require_sound(Path(store.path), contents={"b": path.read_bytes()})


@pytest.mark.parametrize("says", ["another snapshot", "no snapshot", "no digest", "nonsense"])
def test_a_record_of_a_source_is_a_hint(chosen: Chosen, tmp_path: Path, says: str) -> None:
    path, store = tmp_path / "a", chosen.store
    chosen("other", disk(tmp_path / "other", 2))
    chosen("a", disk(path, 1))
    (record,) = (
        file
        for file in Path(store.path, "cache/sources").iterdir()
        if json.loads(file.read_bytes())["path"] == str(path)
    )
    fields = json.loads(record.read_bytes())
    fields["artifact"] = {
        "another snapshot": str(store.get("other").digest),
        "no snapshot": str(Digest.of(b"")),
    }.get(says, "sha256:..")
    record.write_bytes(b"\0" if says == "nonsense" else json.dumps(fields).encode())
    assert chosen("b", edited(path, path)) == ("other" if says == "another snapshot" else "a")
    assert content(store, "b") == path.read_bytes()


@pytest.mark.parametrize("size", [0, 1, 100 * KIB, MIB + 1, 5 * MIB])
def test_a_parent_of_another_size(chosen: Chosen, tmp_path: Path, size: int) -> None:
    chosen("a", disk(tmp_path / "a", 1, 3 * MIB))
    data = ((tmp_path / "a").read_bytes() * 2)[:size]
    (tmp_path / "b").write_bytes(data)
    assert chosen("b", Snapshot.builder(tmp_path / "b").parent("a")) == "a"
    assert content(chosen.store, "b") == data
    assert chosen("c", Snapshot.builder(tmp_path / "a").parent("b")) == "b"
    assert content(chosen.store, "c") == (tmp_path / "a").read_bytes()
    assert Path(chosen.store.restore("c", tmp_path / "back")).read_bytes() == (tmp_path / "a").read_bytes()


def test_another_disk_under_the_same_path(chosen: Chosen, tmp_path: Path) -> None:
    """Both ways: deltas of the wrong disk are not kept, the right bytes are."""
    path, first, second = (tmp_path / name for name in ("path", "first", "second"))
    disk(first, 1), disk(second, 2)
    for n in range(4):
        (first, second)[n % 2].replace(path) if n < 2 else None
        if n >= 2:
            path.write_bytes(content(chosen.store, f"s{n - 2}"))
        base = chosen(f"s{n}", Snapshot.builder(path))
        assert base == (f"s{n - 1}" if n else None)
        assert content(chosen.store, f"s{n}") == path.read_bytes()
    stats = [chosen.store.open_snapshot(f"s{n}").artifact().manifest.packs for n in range(4)]
    assert stats[2] == stats[0], "what is stored already is found, whatever it is compared with"
    assert stats[3] == stats[1]


def test_a_store_without_snapshots_samples_nothing() -> None:
    with closing(Catalog(None)) as catalog:
        digest = choose_base(
            catalog,
            parent=Digest.of(b"gone"),
            same_source=Digest.of(b"gone too"),
            image=ImageRef(ref="x", manifest_digest=str(Digest.of(b"x"))),
            sample=lambda: pytest.fail("the disk was read for nothing"),
        )
        assert digest is None
        assert choose_base(catalog, parent=None, same_source=None, image=SCRATCH, sample=list) is None
