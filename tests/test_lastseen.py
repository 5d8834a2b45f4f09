"""What names led to when they were last pulled (row 103: a replayed old tag), and how that is kept."""

from __future__ import annotations

import json
import multiprocessing
import os
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from casstore import lastseen
from casstore.checking.check import check
from casstore.checking.findings import Finding, Kind, Severity
from casstore.digest import Digest
from casstore.errors import CorruptContent, DocumentError, StorageError, StoreLocked, UnsupportedVersion, UsageError
from casstore.jsondoc import dump
from casstore.lastseen import AHEAD, MAX_EARLIER, MAX_REFS, LastSeen, Sighting
from casstore.schema import validate
from casstore.store import Store
from casstore.storedir import StoreDirectory
from tests.support.stores import FAST

NAME = "registry.example/team/disks:latest"
START = datetime(2026, 5, 1, 12, tzinfo=UTC)
DAY = timedelta(days=1)


def digest(n: int) -> Digest:
    return Digest.of(b"%d" % n)


def sighting(n: int, day: int, *, signed: int | None = None, created: int | None = None) -> Sighting:
    times = [None if each is None else START + each * DAY for each in (signed, created)]
    return Sighting(digest=digest(n), seen=START + day * DAY, signed=times[0], created=times[1])


@pytest.fixture
def directory(tmp_path: Path) -> StoreDirectory:
    return StoreDirectory.open(str(tmp_path / "store"), FAST, create=True)


def text_of(directory: StoreDirectory) -> Path:
    return Path(directory.path) / "state/last-seen.json"


def test_what_was_recorded_is_found(directory: StoreDirectory) -> None:
    record = LastSeen(directory)
    assert record.find(NAME) is None
    record.record(NAME, sighting(1, 0, signed=0, created=-1))
    assert record.find(NAME) == sighting(1, 0, signed=0, created=-1)
    assert record.find(NAME.replace("latest", "v1")) is None
    assert StoreDirectory.open(directory.path, FAST, create=False).path == directory.path


def test_the_file_is_what_its_schema_says(directory: StoreDirectory) -> None:
    record = LastSeen(directory)
    record.record(NAME, sighting(1, 0, signed=0, created=-1))
    record.record(NAME, sighting(2, 1))  # tells no time after one that did: no step on
    record.record(NAME, sighting(3, 1, signed=1))
    assert lastseen._USUAL.fullmatch(text_of(directory).read_bytes()), "the slow way is not needed"
    document = json.loads(text_of(directory).read_bytes())
    validate(document, "last-seen", subject="test")
    assert document["refs"][NAME] == {
        "digest": str(digest(3)),
        "seen": "2026-05-02T12:00:00Z",
        "signed": "2026-05-02T12:00:00Z",
        "created": None,
        "earlier": [str(digest(1))],
    }
    mode = os.stat(text_of(directory)).st_mode & 0o7777
    assert (mode, os.stat(text_of(directory).parent).st_mode & 0o7777) == (0o644, 0o755)


def test_a_first_sight_is_no_step_back() -> None:
    assert sighting(1, 0).why_older(digest(1), signed=None, created=None) is None


STEPS = st.tuples(st.integers(1, 4), st.none() | st.integers(0, 5), st.none() | st.integers(0, 5))


@given(st.lists(STEPS, max_size=30))
def test_a_step_back_is_what_the_definition_says(steps: list[tuple[int, int | None, int | None]]) -> None:
    """Against a model that keeps all that was ever let on: (digest, signed, created), the last one last."""
    line: list[tuple[int, int | None, int | None]] = []
    seen: Sighting | None = None
    for day, (n, signed, created) in enumerate(steps):
        new = sighting(n, day, signed=signed, created=created)
        if line:
            last, then_signed, then_created = line[-1]
            if n == last:
                expected = False
            elif n in {each for each, _, _ in line}:
                expected = True  # it was superseded
            elif signed is not None and then_signed is not None:
                expected = signed < then_signed
            elif created is not None and then_created is not None:
                expected = created < then_created
            else:
                expected = then_signed is not None or then_created is not None
            assert seen is not None
            assert (seen.why_older(new.digest, signed=new.signed, created=new.created) is not None) == expected
            if not expected:
                line.append(
                    (n, max((each for each in (signed, then_signed) if each is not None), default=None), created)
                )
        else:
            line.append((n, signed, created))
        seen = new if seen is None else seen.followed_by(new)
        assert seen.digest == digest(line[-1][0])
        assert digest(line[-1][0]) not in seen.earlier
        assert set(seen.earlier) == {digest(each) for each, _, _ in line} - {seen.digest}


def test_a_step_back_is_told_until_the_name_leads_on() -> None:
    """Whoever lets one through once has not blessed it."""
    seen = sighting(1, 0, signed=0).followed_by(sighting(2, 1, signed=1))
    for _ in range(3):
        assert "superseded" in (seen.why_older(digest(1), signed=START, created=None) or "")
        seen = seen.followed_by(sighting(1, 2, signed=0))
    assert seen.why_older(digest(2), signed=START + DAY, created=None) is None
    assert seen.why_older(digest(3), signed=START + 2 * DAY, created=None) is None


def test_what_is_unsigned_makes_no_room_for_an_older_signature() -> None:
    seen = sighting(1, 0, signed=5, created=0).followed_by(sighting(2, 1, created=1))
    assert seen.digest == digest(2)
    assert "signed" in (seen.why_older(digest(3), signed=START + 4 * DAY, created=START + 9 * DAY) or "")
    assert seen.why_older(digest(3), signed=START + 5 * DAY, created=None) is None


def test_only_so_many_earlier_digests_are_kept() -> None:
    seen = sighting(0, 0)
    for n in range(1, MAX_EARLIER + 10):
        seen = seen.followed_by(sighting(n, n))
    assert seen.earlier == tuple(digest(n) for n in range(9, MAX_EARLIER + 9))


def test_times_from_the_future_are_not_believed(directory: StoreDirectory) -> None:
    """Else all that comes later would be older, for ever."""
    record = LastSeen(directory)
    record.record(NAME, sighting(1, 0, signed=9000, created=9000))
    assert record.find(NAME) == sighting(1, 0)
    ahead = Sighting(digest=digest(2), seen=START, signed=START + AHEAD)
    record.record(NAME, ahead)
    assert (found := record.find(NAME)) is not None
    assert found.signed == ahead.signed


def test_a_lost_file_is_a_first_sight(directory: StoreDirectory) -> None:
    record = LastSeen(directory)
    record.record(NAME, sighting(1, 0))
    text_of(directory).unlink()
    assert record.find(NAME) is None
    record.record(NAME, sighting(2, 1))
    text_of(directory).unlink()
    text_of(directory).parent.rmdir()
    assert record.find(NAME) is None


ENTRY: dict[str, Any] = {
    "digest": str(digest(1)),
    "seen": "2026-05-01T12:00:00Z",
    "signed": None,
    "created": None,
    "earlier": [],
}


def document(**changes: object) -> bytes:
    return dump({"version": 1, "refs": {NAME: {**ENTRY, **changes}}})


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b"\xff",
        document()[:-1],
        document() + b"x",
        dump({"version": 1}),
        dump({"version": 0, "refs": {}}),
        dump({"version": True, "refs": {}}),
        dump({"version": 1, "refs": {}, "more": 1}),
        dump({"version": 1, "refs": {"": ENTRY}}),
        dump({"version": 1, "refs": {"x" * 1025: ENTRY}}),
        document(digest="sha256:../x"),
        document(digest=str(digest(1)) + "\n"),
        document(seen=None),
        document(seen="2026-05-01 12:00:00Z"),
        document(seen="2026-02-30T12:00:00Z"),
        document(signed="0000-05-01T12:00:00Z"),
        document(created=1),
        document(earlier=[str(digest(1))] * 65),
        document(earlier=[1]),
        document(more=1),
        document().replace(b'"version":1', b'"version":1,"version":1'),
    ],
)
def test_a_damaged_file_is_told_and_left(directory: StoreDirectory, raw: bytes) -> None:
    """Rows 51, 53, 57, 62: it must not pass for a first sight."""
    record = LastSeen(directory)
    text_of(directory).parent.mkdir()
    text_of(directory).write_bytes(raw)
    acts: list[Callable[[], object]] = [lambda: record.find(NAME), lambda: record.record(NAME, sighting(2, 1))]
    for act in acts:
        with pytest.raises(DocumentError, match=r"last-seen\.json: .*remove it"):
            act()
    assert text_of(directory).read_bytes() == raw


def test_a_later_version_is_told_and_left(directory: StoreDirectory) -> None:
    text_of(directory).parent.mkdir()
    text_of(directory).write_bytes(dump({"version": 2, "places": {}}))
    with pytest.raises(UnsupportedVersion, match="expected version 1, got 2: use a newer casstore"):
        LastSeen(directory).find(NAME)


def test_another_form_of_the_same_is_read(directory: StoreDirectory) -> None:
    text_of(directory).parent.mkdir()
    text_of(directory).write_text(json.dumps({"version": 1, "refs": {NAME: ENTRY}}, indent=1))
    assert LastSeen(directory).find(NAME) == sighting(1, 0)


def _symlink(path: Path) -> None:
    path.symlink_to(path.parent)


@pytest.mark.parametrize("make", [_symlink, Path.touch], ids=["symlink", "file"])
def test_something_else_in_the_place_of_its_directory(
    directory: StoreDirectory, make: Callable[[Path], object]
) -> None:
    make(text_of(directory).parent)
    record = LastSeen(directory)
    acts: list[Callable[[], object]] = [lambda: record.find(NAME), lambda: record.record(NAME, sighting(1, 0))]
    for act in acts:
        with pytest.raises(CorruptContent, match="expected a directory"):
            act()


def test_a_name_must_be_one(directory: StoreDirectory) -> None:
    for name in ("", "x" * 1025):
        with pytest.raises(UsageError, match="expected 1 to 1024"):
            LastSeen(directory).record(name, sighting(1, 0))


def test_the_names_seen_longest_ago_make_room(directory: StoreDirectory) -> None:
    text_of(directory).parent.mkdir()
    refs = {f"registry.example/x:{n}": {**ENTRY, "seen": f"2025-{1 + n % 12:02}-01T00:00:00Z"} for n in range(MAX_REFS)}
    refs["registry.example/x:77"]["seen"] = "2024-01-01T00:00:00Z"
    text_of(directory).write_bytes(dump({"version": 1, "refs": refs}))
    record = LastSeen(directory)
    record.record(NAME, sighting(1, 0))
    assert record.find(NAME) is not None
    assert record.find("registry.example/x:77") is None
    assert record.find("registry.example/x:78") is not None
    assert len(json.loads(text_of(directory).read_bytes())["refs"]) == MAX_REFS


def test_the_file_stays_small(directory: StoreDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where names led to very much, those seen longest ago make room, too."""
    monkeypatch.setattr(lastseen, "MAX_FILE", 20_000)
    record = LastSeen(directory)
    for n in range(30):
        for step in range(20):
            record.record(f"registry.example/x:{n}", sighting(n * 100 + step, n))
        assert text_of(directory).stat().st_size <= 20_000
    kept = sorted(json.loads(text_of(directory).read_bytes())["refs"], key=lambda name: int(name.rpartition(":")[2]))
    assert 8 <= len(kept) < 13
    assert kept == [f"registry.example/x:{n}" for n in range(30 - len(kept), 30)]


def test_a_read_only_store_remembers_nothing_and_checks(directory: StoreDirectory) -> None:
    LastSeen(directory).record(NAME, sighting(1, 0))
    before = text_of(directory).read_bytes()
    looked = LastSeen(StoreDirectory.looked_at(directory.path, FAST))
    looked.record(NAME, sighting(2, 1))
    assert text_of(directory).read_bytes() == before
    assert looked.find(NAME) == sighting(1, 0)


def test_it_is_written_under_the_lock_of_the_refs(directory: StoreDirectory) -> None:
    hasty = StoreDirectory.open(directory.path, type(FAST)(durability=FAST.durability, wait=0), create=False)
    with directory.holding_refs(), pytest.raises(StoreLocked):
        LastSeen(hasty).record(NAME, sighting(1, 0))
    LastSeen(hasty).record(NAME, sighting(1, 0))


def test_a_full_disk_leaves_the_old_record(directory: StoreDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Row 1."""
    LastSeen(directory).record(NAME, sighting(1, 0))

    def full(fd: int, data: bytes) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as context:
        context.setattr("casstore.durable.write_all", full)
        with pytest.raises(StorageError, match="No space left"):
            LastSeen(directory).record(NAME, sighting(2, 1))
    assert LastSeen(directory).find(NAME) == sighting(1, 0)
    assert os.listdir(text_of(directory).parent) == ["last-seen.json"]


_EACH = 12


def _write_many(path: str, writer: int) -> None:
    record = LastSeen(StoreDirectory.open(path, FAST, create=False))
    for n in range(_EACH):
        record.record(f"registry.example/{writer}:{n}", sighting(n, n))
        record.record(NAME, sighting(writer * 1000 + n, n))


def test_writers_at_the_same_time_lose_nothing(directory: StoreDirectory) -> None:
    """Also of one name: what each of them saw is known as seen."""
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=_write_many, args=(directory.path, n)) for n in (1, 2)]
    for each in writers:
        each.start()
    for each in writers:
        each.join(60)
    assert [each.exitcode for each in writers] == [0, 0]
    record = LastSeen(directory)
    for writer in (1, 2):
        for n in range(_EACH):
            assert record.find(f"registry.example/{writer}:{n}") == sighting(n, n)
    shared = record.find(NAME)
    assert shared is not None
    everything = {digest(writer * 1000 + n) for writer in (1, 2) for n in range(_EACH)}
    assert {shared.digest, *shared.earlier} == everything


def findings(path: Path) -> list[Finding]:
    return [each for each in check(str(path), FAST).findings if each.kind is not Kind.STALE_CATALOG]


def test_the_record_and_a_policy_are_no_findings(tmp_path: Path) -> None:
    with Store.open(tmp_path / "store", create=True, options=FAST):
        pass
    directory = StoreDirectory.open(str(tmp_path / "store"), FAST, create=False)
    LastSeen(directory).record(NAME, sighting(1, 0))
    (tmp_path / "store/casstore.policy.toml").write_text('version = 1\ndefault = "accept"\n')
    assert findings(tmp_path / "store") == []
    text_of(directory).write_text("{")
    (tmp_path / "store/state/notes").touch()
    (tmp_path / "store/state/.last-seen.json.0123456789ab.tmp").touch()
    told = {each.subject: each for each in findings(tmp_path / "store")}
    assert {name: each.kind for name, each in told.items()} == {
        "state/last-seen.json": Kind.DAMAGED_RECORD,
        "state/notes": Kind.UNKNOWN_FILE,
        "state/.last-seen.json.0123456789ab.tmp": Kind.TEMPORARY,
    }
    assert told["state/last-seen.json"].severity is Severity.NOTICE
    directory.clear_temporaries()
    assert sorted(os.listdir(tmp_path / "store/state")) == ["last-seen.json", "notes"]
