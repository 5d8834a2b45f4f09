"""Pushes and pulls of one store: what they copy, and that it stays stored meanwhile."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack

from casstore.content import Source
from casstore.digest import Digest
from casstore.graph import Plan
from casstore.places import open_prober, open_target
from casstore.progress import Progress
from casstore.reference import Reference
from casstore.storedir import StoreDirectory
from casstore.survey import survey
from casstore.transfer import Job, TransferOptions, TransferReport, plan, pull_job, pull_name, push


def job_of(
    directory: StoreDirectory, digest: Digest, tag: str, options: TransferOptions, *, modest: bool = False
) -> Job:
    """The push of a snapshot of the store, with its referrers if the options want them."""
    root = directory.resolve(str(digest))
    return Job(survey(directory, root, referrers=options.referrers), tag, modest)


def push_jobs(
    directory: StoreDirectory,
    jobs: Sequence[Job],
    reference: Reference,
    options: TransferOptions,
    progress: Progress,
) -> Sequence[TransferReport]:
    """Push snapshots of the store; gc keeps all of them until the last has gone."""
    needs = {digest: size for job in jobs for digest, size in job.graph.needs.items()}
    with ExitStack() as stack:
        stack.enter_context(directory.relying_on(needs))
        target = stack.enter_context(open_target(reference, options, directory.options))
        return push(directory, target, jobs, reference, options=options, progress=progress)


def plan_jobs(
    directory: StoreDirectory, jobs: Sequence[Job], reference: Reference, options: TransferOptions
) -> Sequence[Plan]:
    """What `push_jobs` would move."""
    with open_prober(reference, options, directory.options) as target:
        return plan(target, jobs, options)


def job_from(
    directory: StoreDirectory,
    source: Source,
    reference: Reference,
    name: str | None,
    options: TransferOptions,
    *,
    force: bool,
) -> Job:
    """The pull of `reference` into the store; a name that is taken is refused before more than the digest is known."""
    wanted = pull_name(reference, name)

    def admit(digest: Digest) -> None:
        if not force:
            directory.refs.require_free(wanted, unless=digest)

    return pull_job(source, reference, name=wanted, admit=admit, referrers=options.referrers)
