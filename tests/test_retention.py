"""Which snapshots a policy keeps: against the sentences that say it, for any set of snapshots."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from casstore.catalog import Entry
from casstore.digest import Digest
from casstore.errors import UsageError
from casstore.manifest import SCRATCH, ImageRef, Manifest, SnapshotFormat, UpperLayer, created_time
from casstore.retention import NO_RULE, NO_TIME, Decision, Policy, decide

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
PERIODS: dict[str, Callable[[datetime], object]] = {
    "hourly": lambda time: (time.date(), time.hour),
    "daily": lambda time: time.date(),
    "weekly": lambda time: time.date() - timedelta(days=time.weekday()),
    "monthly": lambda time: (time.year, time.month),
    "yearly": lambda time: time.year,
}


def entry(
    created: datetime | str,
    number: int = 0,
    *,
    source: str | None = None,
    image: str = "scratch",
    labels: dict[str, str] | None = None,
) -> Entry:
    manifest = Manifest(
        format=SnapshotFormat.RAW,
        fstype="ext4",
        image=SCRATCH if image == "scratch" else ImageRef(ref=image, manifest_digest=f"sha256:{'0' * 64}"),
        parent=None,
        created_at=created if isinstance(created, str) else created.isoformat(),
        labels=labels or {},
        upper=UpperLayer(file="disk.raw", size_bytes=1),
        source_sandbox=source,
    )
    digest = Digest(f"{number:064x}")
    return Entry(digest, (f"n{number}",), manifest, *(0,) * 6)


def kept(decisions: Sequence[Decision]) -> list[int]:
    return [int(each.entry.digest.hex, 16) for each in decisions if each.keep]


def only(rule: str, count: int) -> Policy:
    """A policy of this one rule."""
    rules: dict[str, Any] = {rule: count}
    return Policy(**rules)


def keeps(entries: Sequence[Entry], policy: Policy, grouping: str = "none") -> list[int]:
    return kept(decide(entries, policy, now=NOW, grouping=grouping))


TIMES = st.one_of(
    st.integers(0, 1100 * 24).map(lambda hours: NOW + timedelta(days=50, hours=-hours)),
    st.integers(0, 200).map(lambda hours: NOW - timedelta(minutes=17 * hours)),  # close together, and often equal
)
ENTRIES = st.lists(TIMES, max_size=30).map(lambda times: [entry(time, n) for n, time in enumerate(times)])
LABELED = st.lists(
    st.tuples(TIMES, st.sampled_from(["a", "b", None]), st.dictionaries(st.sampled_from("kl"), st.sampled_from("12"))),
    max_size=25,
).map(lambda each: [entry(time, n, source=source, labels=labels) for n, (time, source, labels) in enumerate(each)])
COUNTS = st.sampled_from([0, 0, 0, 1, 2, 3, 7, 100])
POLICIES = st.builds(
    Policy,
    last=COUNTS,
    hourly=COUNTS,
    daily=COUNTS,
    weekly=COUNTS,
    monthly=COUNTS,
    yearly=COUNTS,
    within=st.none() | st.integers(0, 60 * 86400),
    labels=st.lists(st.tuples(st.sampled_from("klm"), st.sampled_from(["1", "2", None])), max_size=2).map(tuple),
).filter(lambda policy: not policy.is_empty)
GROUPINGS = st.sampled_from(["none", "source", "image", "label:k"])


@given(ENTRIES, st.integers(1, 40))
def test_the_last_n_are_the_newest_n(entries: list[Entry], count: int) -> None:
    decisions = decide(entries, Policy(last=count), now=NOW, grouping="none")
    times = [created_time(each.entry.manifest.created_at) or NOW for each in decisions if each.keep]
    assert len(times) == min(count, len(entries))
    assert times == sorted((created_time(each.manifest.created_at) or NOW for each in entries), reverse=True)[:count]


@given(ENTRIES, st.sampled_from(sorted(PERIODS)), st.integers(1, 40))
def test_of_each_of_the_latest_periods_the_newest_is_kept(entries: list[Entry], period: str, count: int) -> None:
    """And nothing else, but for the oldest of all where there are fewer periods."""
    bucket = PERIODS[period]
    decisions = decide(entries, only(period, count), now=NOW, grouping="none")
    ordered = [created_time(each.entry.manifest.created_at) or NOW for each in decisions]
    assert ordered == sorted(ordered, reverse=True)
    there = list(dict.fromkeys(map(bucket, ordered)))
    newest = {next(n for n, time in enumerate(ordered) if bucket(time) == each) for each in there[:count]}
    oldest = {len(ordered) - 1} if ordered and len(there) < count else set()
    assert {n for n, each in enumerate(decisions) if each.keep} == newest | oldest


@given(LABELED, POLICIES, POLICIES, GROUPINGS)
def test_another_rule_never_removes_more(entries: list[Entry], one: Policy, two: Policy, grouping: str) -> None:
    """Nor does a larger number: what two policies keep is kept by that with the larger of all their numbers."""
    both = Policy(
        **{name: max(getattr(one, name), getattr(two, name)) for name in ("last", *PERIODS)},
        within=max((each for each in (one.within, two.within) if each is not None), default=None),
        labels=one.labels + two.labels,
    )
    assert set(keeps(entries, one, grouping)) | set(keeps(entries, two, grouping)) <= set(
        keeps(entries, both, grouping)
    )


@given(LABELED, POLICIES, GROUPINGS)
def test_what_was_kept_is_kept_again(entries: list[Entry], policy: Policy, grouping: str) -> None:
    first = decide(entries, policy, now=NOW, grouping=grouping)
    again = decide([each.entry for each in first if each.keep], policy, now=NOW, grouping=grouping)
    assert [each.entry for each in again] == [each.entry for each in first if each.keep]
    assert all(each.keep for each in again)


@given(LABELED, POLICIES, GROUPINGS, st.randoms(use_true_random=False))
def test_it_is_decided_about_every_one_in_whatever_order_they_come(
    entries: list[Entry], policy: Policy, grouping: str, random: object
) -> None:
    decisions = decide(entries, policy, now=NOW, grouping=grouping)
    assert sorted(each.entry.digest for each in decisions) == [each.digest for each in entries]
    assert all(each.reasons for each in decisions)
    assert all(each.keep != (each.reasons == (NO_RULE,)) for each in decisions)
    shuffled = list(entries)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert decide(shuffled, policy, now=NOW, grouping=grouping) == decisions


@given(LABELED, POLICIES, st.sampled_from(["source", "label:k"]))
def test_a_group_is_decided_about_as_if_there_were_no_other(
    entries: list[Entry], policy: Policy, grouping: str
) -> None:
    decisions = decide(entries, policy, now=NOW, grouping=grouping)
    groups = {each.group for each in decisions}
    for group in groups:
        own = [each for each in decisions if each.group == group]
        alone = decide([each.entry for each in own], policy, now=NOW, grouping="none")
        assert [replace(each, group=None) for each in own] == alone
        assert {each.entry.manifest.source_sandbox for each in own} == {group} or grouping != "source"


@given(LABELED, st.integers(0, 60 * 86400))
def test_what_is_young_enough_is_kept_and_what_is_from_the_future(entries: list[Entry], seconds: int) -> None:
    limit = NOW - timedelta(seconds=seconds)
    young = {n for n, each in enumerate(entries) if (created_time(each.manifest.created_at) or NOW) >= limit}
    assert set(keeps(entries, Policy(within=seconds))) == young


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [(("k", None), [0, 1]), (("k", "1"), [0]), (("k", "3"), []), (("other", None), []), (("l", ""), [2])],
)
def test_labels(wanted: tuple[str, str | None], expected: list[int]) -> None:
    entries = [entry(NOW, n, labels=labels) for n, labels in enumerate([{"k": "1"}, {"k": "2"}, {"l": ""}, {}])]
    assert keeps(entries, Policy(labels=(wanted,))) == expected
    decisions = decide(entries, Policy(labels=(wanted,)), now=NOW)
    text = "label " + wanted[0] + ("" if wanted[1] is None else f"={wanted[1]}")
    assert {each.reasons for each in decisions if each.keep} == ({(text,)} if expected else set())


def test_the_reasons() -> None:
    times = [NOW, NOW - timedelta(hours=1), NOW - timedelta(days=1), NOW - timedelta(days=400)]
    policy = Policy(last=1, hourly=1, daily=2, weekly=1, monthly=1, yearly=3, within=3600)
    decisions = decide([entry(time, n) for n, time in enumerate(times)], policy, now=NOW)
    assert [each.reasons for each in decisions] == [
        (
            *("last", "hourly 2026-11-22 12:00", "daily 2026-11-22", "weekly 2026-W47", "monthly 2026-11"),
            *("yearly 2026", "within"),
        ),
        ("within",),
        ("daily 2026-11-21",),
        ("yearly 2025",),
    ]


def test_the_oldest_is_kept_while_the_periods_are_not_used_up() -> None:
    """Else the history would stay as short as it is, and never come to a second year."""
    entries = [entry(NOW - timedelta(days=days), days) for days in (0, 1, 2, 300)]
    assert keeps(entries, Policy(yearly=1)) == [0]
    assert keeps(entries, Policy(yearly=2)) == [0, 300]
    (oldest,) = [each for each in decide(entries, Policy(yearly=2), now=NOW) if each.entry is entries[-1]]
    assert oldest.reasons == ("yearly 2026, the oldest",)


@pytest.mark.parametrize("weeks", [1, 2, 3])
def test_weeks_begin_on_monday_and_go_across_the_turn_of_a_year(weeks: int) -> None:
    """2026-12-28, a Monday, to 2027-01-03 is one week; so is 2020-12-28 to 2021-01-03, with number 53."""
    days = [datetime(2027, 1, 4, tzinfo=UTC), datetime(2027, 1, 3, tzinfo=UTC), datetime(2026, 12, 28, tzinfo=UTC)]
    days += [datetime(2026, 12, 27, tzinfo=UTC), datetime(2026, 12, 20, tzinfo=UTC)]
    entries = [entry(day, n) for n, day in enumerate(days)]
    assert keeps(entries, Policy(weekly=weeks)) == [0, 1, 3][:weeks]
    decisions = decide(entries, Policy(weekly=3), now=NOW)
    assert [each.reasons[0] for each in decisions if each.keep] == [
        "weekly 2027-W01",
        "weekly 2026-W53",
        "weekly 2026-W52",
    ]


def test_times_are_compared_in_utc() -> None:
    """Whatever zone they were written with: 01:00 at +02:00 is the day before."""
    here = timezone(timedelta(hours=2))
    entries = [
        entry(datetime(2026, 11, 22, 1, tzinfo=here), 0),
        entry("2026-11-21T12:00:00Z", 1),
        entry("2026-11-21T11:00:00", 2),
    ]
    decisions = decide(entries, Policy(daily=1), now=NOW.astimezone(here))
    assert [(each.keep, each.reasons[0]) for each in decisions] == [
        (True, "daily 2026-11-21"),
        (False, NO_RULE),
        (False, NO_RULE),
    ]


@pytest.mark.parametrize("text", ["", "yesterday", "2026-13-01T00:00:00Z", "99999-01-01", "0001-01-01T00:00:00+23:00"])
def test_a_snapshot_without_a_time_is_kept_and_counts_in_no_rule(text: str) -> None:
    """Row 36: nothing is removed because of a time that nobody can read."""
    decisions = decide([entry(text, 1), entry(NOW, 2), entry(NOW - timedelta(1), 3)], Policy(last=1), now=NOW)
    assert kept(decisions) == [1, 2]
    assert decisions[0].reasons == (NO_TIME,)


def test_groups_of_images() -> None:
    images = ["alpine:3", "debian:12", "alpine:3", "scratch", "scratch"]
    entries = [entry(NOW - timedelta(n), n, image=image) for n, image in enumerate(images)]
    assert sorted(keeps(entries, Policy(last=1), "image")) == [0, 1, 3]


@pytest.mark.parametrize("what", ["", "sources", "label", "label:", "none:", "label=k"])
def test_an_unknown_grouping_is_refused(what: str) -> None:
    with pytest.raises(UsageError, match="expected source, image, none or label:KEY"):
        decide([], Policy(last=1), now=NOW, grouping=what)


def test_an_empty_policy_is_refused() -> None:
    """It would remove everything."""
    with pytest.raises(UsageError, match="expected a rule that keeps something"):
        decide([], Policy(), now=NOW)


@pytest.mark.parametrize("rule", ["last", *PERIODS, "within"])
def test_a_number_below_zero_is_refused(rule: str) -> None:
    with pytest.raises(UsageError, match="below 0"):
        decide([], only(rule, -1), now=NOW)
