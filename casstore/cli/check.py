"""check: whether the store is what it should be; and mending it."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import click

from casstore import units
from casstore.cli import render
from casstore.cli.connection import Connection, Registries, connection_options
from casstore.cli.failures import DAMAGED
from casstore.cli.options import BareOption, json_option, progress_option, quiet_option, read_as, verb, workers_option
from casstore.cli.session import Session

if TYPE_CHECKING:
    from casstore.checking import CheckReport, Finding, ReadData
    from casstore.health import RepairReport

_ALL = "all"
_SHOWN = 20  # findings of one kind
_HURT = 5  # names of one finding
_PART = re.compile(r"([1-9][0-9]{0,8})/([1-9][0-9]{0,8})\Z", re.ASCII)
_PERCENT = re.compile(r"([0-9]{1,3}(?:\.[0-9]{1,6})?)%\Z", re.ASCII)


def parse_subset(text: str) -> dict[str, Any]:
    """The field of a ReadData that `all`, `n/t`, `N%` or a size stands for.

    Raises:
        ValueError: it is none of these.
    """
    if text == _ALL:
        return {}
    part, percent = _PART.match(text), _PERCENT.match(text)
    if part is not None and int(part[1]) <= int(part[2]):
        return {"part": (int(part[1]), int(part[2]))}
    if percent is not None and 0 < float(percent[1]) <= 100:
        return {"share": float(percent[1]) / 100}
    try:
        return {"size": units.parse_size(text)}
    except ValueError:
        raise ValueError(f"expected all, a part as 1/7, a percentage as 10%, or a size as 2G, got {text!r}") from None


def _subset(_: click.Context, __: click.Parameter, value: str | None) -> dict[str, Any] | None:
    try:
        return None if value is None else parse_subset(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


@verb(
    "check",
    examples="""
    casstore check
    casstore check --read-data
    casstore check --read-data=1/7
    casstore check --read-data --max-duration 1h
    casstore check --read-data --repair --from registry.example/team/disks --from /media/backup""",
)
@click.option(
    "--read-data",
    "subset",
    cls=BareOption,
    bare=_ALL,
    metavar="SUBSET",
    callback=_subset,
    help="Read the bytes of all blobs, too; or of the n-th of t parts (n/t), by digest; or of whole blobs until they"
    " are at least a percentage (10%) or so many (2G).",
)
@click.option(
    "--max-duration",
    metavar="DURATION",
    callback=read_as(units.parse_duration),
    help="Begin no further blob after that time: 90s, 2h. The next one goes on where this one stopped.",
)
@click.option("--repair", is_flag=True, help="Mend what is damaged; the bad bytes are kept in quarantine/.")
@click.option(
    "--from",
    "sources",
    multiple=True,
    metavar="SOURCE",
    help="Where good bytes may be had: a repository of a registry, the directory of a store or OCI layout, or a file"
    " with the disk that was captured; may be given several times.",
)
@connection_options
@workers_option
@progress_option
@json_option
@quiet_option
@click.pass_context
def check(
    ctx: click.Context,
    subset: dict[str, Any] | None,
    max_duration: float | None,
    repair: bool,
    sources: tuple[str, ...],
    connection: Connection,
    workers: int | None,
) -> None:
    """Look at everything in the store: is it whole, what is damaged, which snapshots does that hurt?

    Without --read-data only the structure is looked at: names, documents, the sizes of all blobs. Without --repair
    nothing is changed. The exit code is 3 when something is damaged or, after a repair, still is.
    """
    session: Session = ctx.obj
    if sources and not repair:
        raise click.UsageError("--from: expected --repair with it")
    if max_duration is not None and subset is None:
        raise click.UsageError("--max-duration: expected --read-data with it")
    from casstore.checking import ReadData
    from casstore.health import check_store, repair_store
    from casstore.transfer import TransferOptions

    data = None if subset is None else ReadData(**subset, max_duration=max_duration)
    store, options = session.settings.store, session.store_options
    if not repair:
        with session.progress() as progress:
            report = check_store(store, data=data, options=options, workers=workers or 0, progress=progress)
        _tell(session, report, report, None, data)
        ctx.exit(0 if report.ok else DAMAGED)
    with session.progress() as progress:
        done = repair_store(
            store,
            sources=sources,
            data=data,
            options=options,
            transfer=TransferOptions(Registries(session, connection)),
            workers=workers or 0,
            progress=progress,
        )
    _tell(session, done.before, done.after, done, data)
    ctx.exit(0 if done.ok else DAMAGED)


def _tell(
    session: Session, first: CheckReport, now: CheckReport, done: RepairReport | None, data: ReadData | None
) -> None:
    """Say what `first` looked at, what `now` is left of what it found, and what was done; with -q of a sound store
    nothing.
    """
    if not first.kept_position and first.read < first.blobs:
        session.warn(
            "where this check stopped reading could not be noted in the store's cache/ (is it read-only, or full?): the"
            " next one begins where this one began; --read-data=1/7, 2/7 and so on come past everything"
        )
    if session.as_json:
        session.emit_document(
            ok=now.ok,
            store=session.settings.store,
            checked={
                "snapshots": first.snapshots,
                "blobs": first.blobs,
                "blob_bytes": first.blob_bytes,
                "read_blobs": first.read,
                "read_bytes": first.read_bytes,
                "finished": first.finished,
            },
            findings=[_document(finding) for finding in now.findings],
            repair=None
            if done is None
            else {
                "mended": [_document(finding) for finding in done.mended],
                "problems": list(done.problems),
                "sources": [dataclasses.asdict(source) for source in done.sources],
            },
        )
        return
    if session.quiet and now.ok:
        return
    for line in _lines(now.findings):
        session.emit(line)
    if done is not None:
        for finding in done.mended:
            session.emit(f"mended: {finding.kind.value} {render.printable(finding.subject)}")
        for problem in done.problems:
            session.warn(problem)
        for source in done.sources:
            gave = f"{render.count(source.blobs, 'blob')}, {render.size(source.bytes)}"
            session.say(f"from {source.source}: {gave if source.problem is None else f'nothing: {source.problem}'}")
    session.say(_summary(first, data))
    session.say(_advice(first, now, done, data))


def _document(finding: Finding) -> dict[str, Any]:
    return {
        "kind": finding.kind.value,
        "severity": finding.severity.value,
        "subject": finding.subject,
        "problem": finding.problem,
        "digest": None if finding.digest is None else str(finding.digest),
        "snapshots": list(finding.snapshots),
    }


def _lines(findings: Sequence[Finding]) -> Iterator[str]:
    """The findings, grouped; of many of one kind only some."""
    groups: dict[tuple[str, str], list[Finding]] = {}
    for finding in findings:
        groups.setdefault((finding.severity.value, finding.kind.value), []).append(finding)
    for (severity, kind), group in groups.items():
        for finding in group[:_SHOWN]:
            yield f"{severity}: {kind}: {render.printable(finding.subject)}: {render.printable(finding.problem)}"
            if finding.snapshots:
                yield f"    hurts {render.some(finding.snapshots, _HURT)}"
        if len(group) > _SHOWN:
            yield f"{severity}: {kind}: {len(group) - _SHOWN} more; --json lists all"


def _summary(report: CheckReport, data: ReadData | None) -> str:
    """What was looked at."""
    text = f"checked {render.count(report.snapshots, 'name')}, {render.count(report.blobs, 'blob')}"
    text += f", {render.size(report.blob_bytes)}"
    if data is None:
        return f"{text}; their bytes were not read"
    text += f"; read {report.read} of them, {render.size(report.read_bytes)}"
    if not report.finished:
        return f"{text}, until the time was over"
    return f"{text}: no blob is in this part" if report.blobs and not report.read and data.part else text


def _advice(first: CheckReport, now: CheckReport, done: RepairReport | None, data: ReadData | None) -> str:
    """What to do next."""
    kinds = {finding.severity.value for finding in now.findings}
    if not now.ok:
        if done is None:
            return "damaged: --repair mends what can be mended here, and with --from SOURCE what has a good copy there"
        return "still damaged: try another SOURCE with --from, or remove the names that are hurt and then casstore gc"
    if "stale" in kinds:
        return "nothing is lost; casstore check --repair makes anew what is stale"
    verdict = "sound"
    if data is None:
        verdict += ", as far as can be seen without reading the blobs, which --read-data does"
    elif (data.part or data.is_continued) and first.read < first.blobs:
        verdict += f", as far as it was read: {render.size(first.read_bytes)} of {render.size(first.blob_bytes)}"
    return f"{verdict}; casstore gc removes what is left over" if "leftover" in kinds else verdict
