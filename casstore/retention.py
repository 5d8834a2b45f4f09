"""Which snapshots a policy keeps, and why. Pure: nothing is read or removed here.

A rule keeps snapshots, and what no rule keeps may go: so another rule never removes more. The rules look at the
snapshots of one group, the newest first:

    last N                   the newest N
    hourly, daily, weekly,   of each of the latest N hours, days, ISO weeks (from Monday), months or years that have
    monthly, yearly N        snapshots, the newest one; and the oldest of all, as long as there are fewer than N
    within                   all that are younger; what is from the future is
    label                    all that have it

Times are in UTC, as snapshots record them. A snapshot whose time cannot be read, or that is damaged, is kept, and
counts in no rule.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from casstore.catalog import Entry
from casstore.digest import Digest
from casstore.errors import UsageError
from casstore.manifest import created_time


def _day(time: datetime) -> str:
    return time.date().isoformat()


_PERIODS: dict[str, Callable[[datetime], str]] = {
    "hourly": lambda time: f"{_day(time)} {time.hour:02}:00",
    "daily": _day,
    "weekly": lambda time: f"{time.isocalendar().year:04}-W{time.isocalendar().week:02}",
    "monthly": lambda time: _day(time)[:7],
    "yearly": lambda time: _day(time)[:4],
}
NO_RULE = "no rule keeps it"
NO_TIME = "its time cannot be read"
DAMAGED = "it is damaged"


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What to keep. 0, None and no labels keep nothing."""

    last: int = 0
    hourly: int = 0
    daily: int = 0
    weekly: int = 0
    monthly: int = 0
    yearly: int = 0
    within: float | None = None
    """Seconds until now."""
    labels: tuple[tuple[str, str | None], ...] = ()
    """(key, value); None stands for any value."""

    @property
    def is_empty(self) -> bool:
        """Whether it keeps nothing."""
        counts = (self.last, self.hourly, self.daily, self.weekly, self.monthly, self.yearly)
        return not any(counts) and self.within is None and not self.labels


@dataclass(frozen=True, slots=True)
class Decision:
    """What a policy says of one snapshot."""

    entry: Entry
    group: str | None
    """What the snapshots of its group have in common; None where they have no such thing, or all are one group."""
    keep: bool
    reasons: tuple[str, ...]
    """The rules that keep it, as `daily 2026-11-22`; else why it goes."""
    by_rule: bool = True
    """False where it is kept because a rule cannot judge it."""


def group_by(what: str) -> Callable[[Entry], str | None]:
    """How `source` (the sandbox), `image`, `none` or `label:KEY` groups snapshots.

    Raises:
        UsageError: none of these.
    """
    if what == "source":
        return lambda entry: entry.manifest.source_sandbox
    if what == "image":
        return lambda entry: entry.manifest.image.ref
    if what == "none":
        return lambda _: None
    kind, _, key = what.partition(":")
    if kind == "label" and key:
        return lambda entry: entry.manifest.labels.get(key)
    raise UsageError(f"grouping {what!r}: expected source, image, none or label:KEY")


def decide(
    entries: Sequence[Entry],
    policy: Policy,
    *,
    now: datetime,
    grouping: str = "source",
    damaged: Collection[Digest] = (),
) -> list[Decision]:
    """What `policy` says of each snapshot: group by group, the newest snapshot of a group first, and before them those
    without a time, and the `damaged` ones.

    Raises:
        UsageError: the policy is empty, so it would remove everything; a number below 0; or an unknown grouping.
    """
    if policy.is_empty:
        raise UsageError("policy: expected a rule that keeps something, got none; rm removes snapshots by name")
    if min(policy.last, *(getattr(policy, period) for period in _PERIODS), policy.within or 0) < 0:
        raise UsageError("policy: expected no number below 0")
    common = group_by(grouping)
    groups: dict[str | None, list[Entry]] = {}
    for entry in entries:
        groups.setdefault(common(entry), []).append(entry)
    order = sorted(groups, key=lambda group: (group is None, group or ""))
    return [each for group in order for each in _decide_group(groups[group], policy, now, group, damaged)]


def require_some(decisions: Sequence[Decision]) -> None:
    """Raise UsageError when no rule keeps anything, as where one has a slip of the pen."""
    going = sum(not each.keep for each in decisions)
    if going and not any(each.keep and each.by_rule for each in decisions):
        raise UsageError(
            f"policy: expected rules that keep something, got ones that keep none of {going} snapshots: look whether"
            " they say what you mean; --allow-none removes all of them"
        )


def unmatched(decisions: Sequence[Decision], policy: Policy) -> tuple[str, ...]:
    """The labels of the policy that none of the snapshots has, as `key` or `key=value`."""
    wanted = [key if value is None else f"{key}={value}" for key, value in policy.labels]
    found = {label for each in decisions for label in _labels(each.entry, policy)}
    return tuple(label for label in wanted if f"label {label}" not in found)


def _decide_group(
    every: Sequence[Entry], policy: Policy, now: datetime, group: str | None, damaged: Collection[Digest]
) -> list[Decision]:
    decisions = [Decision(entry, group, True, (DAMAGED,), by_rule=False) for entry in every if entry.digest in damaged]
    entries = [entry for entry in every if entry.digest not in damaged]
    timed = [(time, entry) for entry in entries if (time := created_time(entry.manifest.created_at)) is not None]
    timed.sort(key=lambda each: each[1].digest)
    timed.sort(key=lambda each: each[0], reverse=True)
    kept = [["last"] if place < policy.last else [] for place in range(len(timed))]
    times = [time for time, _ in timed]
    for period, bucket in _PERIODS.items():
        for place, name in _newest_of_each([bucket(time) for time in times], getattr(policy, period)):
            kept[place].append(f"{period} {name}")
    untimed = [entry for entry in entries if created_time(entry.manifest.created_at) is None]
    for entry in untimed:
        labels = _labels(entry, policy)
        decisions.append(Decision(entry, group, True, (NO_TIME, *labels), by_rule=bool(labels)))
    for rules, (time, entry) in zip(kept, timed, strict=True):
        within = policy.within is not None and now - time <= timedelta(seconds=policy.within)
        reasons = [*rules, *(["within"] if within else []), *_labels(entry, policy)]
        decisions.append(Decision(entry, group, bool(reasons), tuple(reasons) or (NO_RULE,)))
    return decisions


def _newest_of_each(buckets: Sequence[str], count: int) -> list[tuple[int, str]]:
    """The place and name of the first of each of the first `count` buckets; of the very last where there are fewer."""
    found: dict[str, int] = {}
    for place, bucket in enumerate(buckets):
        if len(found) < count:
            found.setdefault(bucket, place)
    chosen = [(place, bucket) for bucket, place in found.items()]
    if buckets and len(found) < count and len(buckets) - 1 not in found.values():
        chosen.append((len(buckets) - 1, f"{buckets[-1]}, the oldest"))
    return chosen


def _labels(entry: Entry, policy: Policy) -> list[str]:
    has = entry.manifest.labels
    return [
        f"label {key}" + ("" if value is None else f"={value}")
        for key, value in policy.labels
        if key in has and value in (None, has[key])
    ]
