"""prune: letting old snapshots go."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeVar

import click

from casstore import units
from casstore.cli import render
from casstore.cli.options import gathered, json_option, label_filters, quiet_option, read_as, verb
from casstore.cli.session import Session

if TYPE_CHECKING:
    from casstore.removal import PruneReport
    from casstore.retention import Decision, Policy

F = TypeVar("F", bound=Callable[..., object])

_ACTIONS = {True: "keep", False: "remove"}


@dataclass(frozen=True, slots=True)
class Rules:
    """The --keep-... options."""

    keep_last: int | None
    keep_hourly: int | None
    keep_daily: int | None
    keep_weekly: int | None
    keep_monthly: int | None
    keep_yearly: int | None
    keep_within: float | None
    keep_label: tuple[str, ...]

    def policy(self) -> Policy:
        """What they come to.

        Raises:
            click.UsageError: they keep nothing.
        """
        from casstore.retention import Policy

        policy = Policy(
            last=self.keep_last or 0,
            hourly=self.keep_hourly or 0,
            daily=self.keep_daily or 0,
            weekly=self.keep_weekly or 0,
            monthly=self.keep_monthly or 0,
            yearly=self.keep_yearly or 0,
            within=self.keep_within,
            labels=tuple(label_filters(self.keep_label, "--keep-label")),
        )
        if policy.is_empty:
            raise click.UsageError("expected at least one --keep-... rule, got none; casstore rm removes by name")
        return policy


def _keep(rule: str, text: str) -> Callable[[F], F]:
    return click.option(f"--keep-{rule}", type=click.IntRange(1), metavar="N", help=text)


@verb(
    "prune",
    examples="""
    casstore prune --keep-last 5 --dry-run
    casstore prune --keep-daily 7 --keep-weekly 4 --keep-monthly 12 --keep-label release
    casstore prune --keep-within 2w --group-by label:branch --label ci""",
)
@gathered(
    Rules,
    "rules",
    _keep("last", "The newest N."),
    _keep("hourly", "The newest of each of the latest N hours that have snapshots."),
    _keep("daily", "The same for days."),
    _keep("weekly", "The same for weeks, which begin on Monday."),
    _keep("monthly", "The same for months."),
    _keep("yearly", "The same for years."),
    click.option(
        "--keep-within",
        metavar="DURATION",
        callback=read_as(units.parse_age),
        help="All that are younger, as 36h, 2w, 6mo (of 30 days) or 1y.",
    ),
    click.option(
        "--keep-label", multiple=True, metavar="K[=V]", help="All with this label; may be given several times."
    ),
)
@click.option(
    "--group-by",
    default="source",
    show_default=True,
    metavar="WHAT",
    help="Which snapshots are looked at together: those of one source (the sandbox), image, none (all of them), or"
    " label:KEY.",
)
@click.option("--label", "labels", multiple=True, metavar="K[=V]", help="Look only at those with this label.")
@click.option("--allow-none", is_flag=True, help="Also if the rules keep none of the snapshots that are there.")
@click.option("--dry-run", is_flag=True, help="Only say what would be removed.")
@json_option
@quiet_option
@click.pass_obj
def prune(
    session: Session, rules: Rules, group_by: str, labels: tuple[str, ...], allow_none: bool, dry_run: bool
) -> None:
    """Remove the snapshots that no rule keeps, with all their names.

    What one rule keeps stays, whatever the others say. The rules count in each group for itself, and times are in UTC.
    A rule for periods that could keep more than there is keeps the oldest snapshot, too. A snapshot that others come
    from may go: they have their data. Damaged ones are left alone, and count for no rule. The space is freed by the
    next casstore gc; until then casstore undo takes all of it back.

    Snapshots without a --source-sandbox are one group, so that --keep-last 1 keeps one of them all. Where they are of
    several disks, say what belongs together, as with --group-by label:KEY.

    With -q: the removed names only.
    """
    policy, only = rules.policy(), dict(label_filters(labels))
    with session.open_store() as store:
        report = store.prune(
            policy, now=datetime.now(UTC), grouping=group_by, labels=only, dry_run=dry_run, allow_none=allow_none
        )
    if session.as_json:
        session.emit_document(**_prune_document(report, group_by))
    elif session.quiet:
        for name in report.removed:
            session.emit(name)
    else:
        _show_decisions(session, report)
    _warn(session, report, group_by)


def _warn(session: Session, report: PruneReport, group_by: str) -> None:
    """What people may not have meant, or should know."""
    for label in report.unmatched:
        session.warn(f"--keep-label {label}: no snapshot that was looked at has it")
    for broken in report.broken:
        session.warn(f"snapshot {broken.name}: left alone: {broken.problem}")
    if group_by == "source" and len(lost := [each for each in report.decisions if _is_stray(each)]) > 0:
        verb = "would go" if report.dry_run else "went"
        session.say(
            f"{render.count(len(lost), 'snapshot')} without a source sandbox {verb}: all of these count as one group,"
            " whatever disks they are of; --group-by label:KEY or --group-by image tells them apart"
        )
    session.warn_of_loss(report.for_good)


def _is_stray(decision: Decision) -> bool:
    return not decision.keep and decision.group is None


def _show_decisions(session: Session, report: PruneReport) -> None:
    if not report.decisions:
        session.say("No snapshots.")
        return
    grouped = len({each.group for each in report.decisions}) > 1
    head = ("", "NAME", "CREATED (UTC)", *(("GROUP",) if grouped else ()), "WHY")
    rows = [_row(each, grouped=grouped) for each in report.decisions]
    first, *lines = render.table(head, rows)
    session.emit(click.style(first, bold=True))
    session.emit("\n".join(lines))
    gone = [each for each in report.decisions if not each.keep]
    text = f"{render.count(len(gone), 'snapshot')}, {len(report.decisions) - len(gone)} kept"
    if report.dry_run:
        session.say(f"would remove {text}")
        return
    session.say(f"removed {text}")
    if len(report.removed) > len(report.for_good):
        back = render.them(len(report.removed) - len(report.for_good))
        session.say(f"casstore gc frees what nothing else needs; casstore undo takes {back} back until then")


def _row(decision: Decision, *, grouped: bool) -> tuple[str, ...]:
    entry = decision.entry
    group = ("-" if decision.group is None else decision.group,) if grouped else ()
    names, time = ", ".join(entry.names), render.created(entry.manifest)
    return (_ACTIONS[decision.keep], names, time, *group, "; ".join(decision.reasons))


def _prune_document(report: PruneReport, grouping: str) -> dict[str, Any]:
    return {
        "dry_run": report.dry_run,
        "group_by": grouping,
        "snapshots": [
            {
                "digest": str(each.entry.digest),
                "id": str(each.entry.id),
                "names": list(each.entry.names),
                "created_at": each.entry.manifest.created_at,
                "group": each.group,
                "keep": each.keep,
                "reasons": list(each.reasons),
            }
            for each in report.decisions
        ],
        "removed": list(report.removed),
        "removed_for_good": list(report.for_good),
        "broken": [{"name": each.name, "problem": each.problem} for each in report.broken],
        "unmatched_labels": list(report.unmatched),
    }
