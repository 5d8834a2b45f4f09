"""list, inspect, tag and remove: what is kept, and under which names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from casstore.cli import remotes, render
from casstore.cli.connection import Connection, connection_options
from casstore.cli.damage import with_next_step
from casstore.cli.options import (
    complete_names,
    complete_places,
    force_option,
    json_option,
    label_filters,
    progress_option,
    quiet_option,
    selector,
    verb,
)
from casstore.cli.session import Session
from casstore.cli.signatures import signature_fields, signatures_document
from casstore.cli.trust import Trusted, trust_of, trust_options
from casstore.cli.verification import exit_code, report_document, verified
from casstore.errors import CasstoreError

if TYPE_CHECKING:
    from casstore.catalog import Entry
    from casstore.digest import Digest
    from casstore.manifest import Manifest
    from casstore.oci import Descriptor
    from casstore.snapshot import Snapshot, SnapshotHandle
    from casstore.verify import VerifyReport

_HEAD = ("NAME", "IMAGE", "SIZE", "ALLOCATED", "UNIQUE", "CREATED (UTC)", "DIGEST")


@verb(
    "list",
    examples="""
    casstore list
    casstore ls --label step=pip
    casstore ls --json
    casstore ls --dir /var/lib/snapshots
    casstore ls registry.example/team/disks
    casstore ls oci:/media/backup --json""",
)
@click.argument("reference", required=False, metavar="[HOST/REPO|oci:DIR]", shell_complete=complete_places)
@click.option("--label", "labels", multiple=True, metavar="K[=V]", help="Only those with this label; several: all.")
@click.option("--dir", "directory", metavar="DIR", help="What lies in the stores and layouts in DIR, instead.")
@click.option("--referrers", is_flag=True, help="Elsewhere: also the tags that signatures are kept under.")
@json_option
@quiet_option
@connection_options
@click.pass_obj
def list_snapshots(
    session: Session,
    reference: str | None,
    labels: tuple[str, ...],
    directory: str | None,
    referrers: bool,
    connection: Connection,
) -> None:
    """Show what is kept, newest first; or the tags of a repository or OCI layout.

    SIZE is the disk's length, ALLOCATED what of it is in use; UNIQUE is what no other snapshot here needs, so what
    removing it would free. With -q: digests only.

    Elsewhere STORED is what all its blobs take there, and nothing but manifests and configs is fetched to tell.
    """
    if reference is not None:
        if labels or directory is not None:
            raise click.UsageError("--label and --dir: expected no reference with them, got one")
        remotes.show_list(session, reference, connection, referrers=referrers)
        return
    if referrers:
        raise click.UsageError("--referrers: expected a HOST/REPO or oci:DIR with it, got none")
    wanted = dict(label_filters(labels))
    if directory is not None:
        _list_directory(session, directory, wanted)
        return
    with session.open_store() as store:
        handles = store.list(wanted)
        problems, foreign = store.problems(), store.foreign()
    if session.as_json:
        session.emit_document(
            snapshots=[_handle_document(handle) for handle in handles],
            problems=[{"name": problem.name, "problem": problem.problem} for problem in problems],
            foreign=list(foreign),
        )
        return
    _show(session, [_row(handle.name, handle.manifest, handle.entry, handle.digest) for handle in handles])
    for problem in problems:
        session.warn(f"snapshot {problem.name}: {problem.problem}")
    for digest in foreign:
        session.warn(f"index.json: another tool added {digest}; gc keeps what it needs; see casstore adopt")


def _list_directory(session: Session, directory: str, wanted: dict[str, str | None]) -> None:
    from casstore.listing import list_dir

    problems: list[tuple[str, CasstoreError]] = []
    found = [
        snapshot
        for snapshot in list_dir(directory, report=lambda path, error: problems.append((path, error)))
        if all(key in snapshot.labels and value in (None, snapshot.labels[key]) for key, value in wanted.items())
    ]
    found.sort(key=lambda snapshot: snapshot.created_at, reverse=True)
    if session.as_json:
        session.emit_document(
            snapshots=[_snapshot_document(snapshot) for snapshot in found],
            problems=[{"name": path, "problem": str(error)} for path, error in problems],
            foreign=[],
        )
        return
    _show(session, [_row(snapshot.names[0], snapshot.manifest, None, snapshot.digest) for snapshot in found])
    for path, error in problems:
        session.warn(f"{path}: skipped: {error}")


def _row(name: str, manifest: Manifest, entry: Entry | None, digest: Digest) -> tuple[Sequence[str], str]:
    cells = (
        name,
        manifest.image.ref,
        render.size(manifest.upper.size_bytes),
        "-" if entry is None else render.size(entry.allocated),
        "-" if entry is None else render.size(entry.unique),
        render.created(manifest),
        digest.short,
    )
    return cells, str(digest)


def _show(session: Session, rows: Sequence[tuple[Sequence[str], str]]) -> None:
    if session.quiet:
        for digest in dict.fromkeys(digest for _, digest in rows):
            session.emit(digest)
    elif not rows:
        session.say("No snapshots.")
    else:
        head, *lines = render.table(_HEAD, [cells for cells, _ in rows])
        session.emit(click.style(head, bold=True))
        session.emit("\n".join(lines))


def _handle_document(handle: SnapshotHandle) -> dict[str, Any]:
    entry = handle.entry
    return {
        "name": handle.name,
        "digest": str(handle.digest),
        "id": str(handle.id),
        "path": handle.path,
        **render.manifest_document(handle.manifest),
        "allocated_bytes": entry.allocated,
        "stored_bytes": entry.stored,
        "unique_bytes": entry.unique,
    }


def _snapshot_document(snapshot: Snapshot) -> dict[str, Any]:
    return {
        "name": snapshot.names[0],
        "digest": str(snapshot.digest),
        "id": str(snapshot.id),
        "path": snapshot.path,
        **render.manifest_document(snapshot.manifest),
        "allocated_bytes": None,
        "stored_bytes": snapshot.stored_bytes,
        "unique_bytes": None,
    }


@verb(
    "inspect",
    examples="""
    casstore inspect base
    casstore inspect sha256:1f00a2 --verify
    casstore inspect base --json
    casstore inspect registry.example/team/disks:base --key release.pub""",
)
@click.argument("snapshot", metavar="SNAPSHOT|REFERENCE", shell_complete=complete_names)
@click.option("--verify", "verify_too", is_flag=True, help="Verify it as well; the exit code is that of verify.")
@trust_options()
@json_option
@quiet_option
@progress_option
@connection_options
@click.pass_obj
def inspect(session: Session, snapshot: str, verify_too: bool, trusted: Trusted, connection: Connection) -> None:
    """Show all that is known of a snapshot.

    Of one that is elsewhere, manifest, map and signatures are fetched, and no pack. With --key, or a policy, it is told
    which signatures are by whom; nothing is refused, as verify would.
    """
    trust = trust_of(session, trusted)
    if remotes.is_reference(snapshot):
        if verify_too:
            raise click.UsageError("--verify: expected a snapshot of the store, got a reference; pull verifies it")
        remotes.show(session, snapshot, connection, trust)
        return
    with session.open_store() as store:
        found = store.open_snapshot(snapshot)
        # By its digest: the name may stand for another one by now, whose signatures say nothing about this one.
        digest = str(found.digest)
        entry, lineage = store.entry(digest), store.lineage(digest)
        referrers, signatures = store.referrers(digest), store.signatures(digest, trust)
        report = None
        if verify_too:
            with session.progress() as progress:
                report = found.verify(progress=progress)
    if session.as_json:
        document = _inspect_document(found, entry, lineage, referrers, report)
        session.emit_document(**document, **signatures_document(signatures, trust))
    else:
        pairs = _inspect_fields(found, entry, lineage, referrers, report)
        session.emit("\n".join(render.fields([*pairs, *signature_fields(signatures, trust)])))
    if report is not None:
        click.get_current_context().exit(exit_code(report))


def _inspect_fields(
    snapshot: Snapshot,
    entry: Entry,
    lineage: Sequence[Entry | str],
    referrers: Sequence[Descriptor],
    report: VerifyReport | None,
) -> list[tuple[str, str]]:
    manifest, recorded = snapshot.manifest, snapshot.manifest.upper.integrity
    pairs = [
        ("Digest", str(snapshot.digest)),
        ("ID", str(snapshot.id)),
        ("Path", snapshot.path),
        ("Names", ", ".join(entry.names)),
        ("Image", manifest.image.ref),
        ("Image Manifest", manifest.image.manifest_digest),
        ("Format", manifest.format.value),
        ("Filesystem", manifest.fstype),
        ("Parent", manifest.parent or "-"),
        ("Lineage", " <- ".join(_ancestor(each) for each in lineage) or "-"),
        ("Created", f"{render.created(manifest)} UTC"),
        ("Upper File", manifest.upper.file),
        ("Upper Size", render.size(manifest.upper.size_bytes)),
        ("Allocated", render.size(entry.allocated)),
        ("Stored", render.size(entry.stored)),
        ("Unique", render.size(entry.unique)),
        ("Packs", str(len(snapshot.artifact_manifest.packs))),
        ("Integrity", f"{recorded.algorithm} {recorded.digest}" if recorded else "not recorded"),
        ("Referrers", str(len(referrers))),
    ]
    if report is not None:
        pairs.append(("Verification", verified(report)))
    if manifest.source_sandbox is not None:
        pairs.append(("Source Sandbox", manifest.source_sandbox))
    if manifest.labels:
        pairs.append(("Labels", ", ".join(f"{key}={value}" for key, value in manifest.labels.items())))
    pairs += render.form_fields(manifest)
    pairs.append(("Media Type", snapshot.root.media_type))
    return pairs


def _ancestor(ancestor: Entry | str) -> str:
    return f"{ancestor} (not here)" if isinstance(ancestor, str) else (ancestor.names or (ancestor.digest.short,))[0]


def _inspect_document(
    snapshot: Snapshot,
    entry: Entry,
    lineage: Sequence[Entry | str],
    referrers: Sequence[Descriptor],
    report: VerifyReport | None,
) -> dict[str, Any]:
    manifest = snapshot.manifest
    return {
        "digest": str(snapshot.digest),
        "id": str(snapshot.id),
        "path": snapshot.path,
        "names": list(entry.names),
        **render.manifest_document(manifest),
        "lineage": [
            {"id": each, "digest": None, "names": []}
            if isinstance(each, str)
            else {"id": str(each.id), "digest": str(each.digest), "names": list(each.names)}
            for each in lineage
        ],
        "children": entry.children,
        "source_sandbox": manifest.source_sandbox,
        "upper_file": manifest.upper.file,
        "integrity": render.integrity_document(manifest.upper.integrity),
        "disks": render.disk_documents(manifest),
        "allocated_bytes": entry.allocated,
        "stored_bytes": entry.stored,
        "unique_bytes": entry.unique,
        "packs": len(snapshot.artifact_manifest.packs),
        "media_type": snapshot.root.media_type,
        "referrers": remotes.referrer_documents(referrers),
        "verification": None if report is None else report_document(report),
    }


@verb("tag", examples="casstore tag base stable")
@selector()
@click.argument("name")
@force_option("Take the name away from another snapshot.")
@quiet_option
@click.pass_obj
@with_next_step()
def tag(session: Session, snapshot: str, name: str, force: bool) -> None:
    """Give a snapshot one more name.

    By its whole digest also one that has no name, as long as gc has not freed it.
    """
    with session.open_store() as store:
        store.tag(snapshot, name, force=force)
        session.say(f"{name} stands for {store.get(name).digest}")
        session.tell_taken_over(store)


@verb(
    "remove",
    examples="""
    casstore remove after-pip
    casstore rm sha256:1f00a2
    casstore rm registry.example/team/disks:after-pip""",
)
@click.argument("snapshots", metavar="SNAPSHOT|REFERENCE...", nargs=-1, required=True, shell_complete=complete_names)
@force_option("Also if other snapshots name it as their parent; they keep their data.")
@quiet_option
@connection_options
@click.pass_context
def remove(ctx: click.Context, snapshots: tuple[str, ...], force: bool, connection: Connection) -> None:
    """Remove a name, or by digest all names of a snapshot; or one tag of a repository or OCI layout.

    One that cannot be removed does not keep the others. The space is freed by the next casstore gc; until then casstore
    undo takes back what was removed.

    Elsewhere the tag alone goes: what it stands for stays, with all its other tags. Not every registry can do that.
    """
    session: Session = ctx.obj
    places = [wanted for wanted in snapshots if remotes.is_reference(wanted)]
    failed = _remove_names(session, [wanted for wanted in snapshots if wanted not in places], force=force)
    failed += [error for place in places if (error := remotes.remove_tag(session, place, connection))]
    for error in failed:
        session.fail(str(error))
    ctx.exit(failed[0].exit_code if failed else 0)


def _remove_names(session: Session, names: Sequence[str], *, force: bool) -> list[CasstoreError]:
    """The errors of those that cannot be removed."""
    if not names:
        return []
    with session.open_store() as store:
        removed, failed = store.remove_all(names, force=force)
        there = {ref.name for ref in store.removed()} if removed else set()
    for each in removed:
        rest = f"; it is still there as {render.some(each.remaining)}" if each.remaining else ""
        session.say(f"removed {render.some(each.names)}{rest}")
    session.warn_of_loss([name for each in removed for name in each.for_good])
    back = sum(name in there for each in removed for name in each.names if name not in each.for_good)
    if back:
        session.say(f"casstore undo takes {render.them(back)} back, until casstore gc")
    return list(failed)
