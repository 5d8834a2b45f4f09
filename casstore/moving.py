"""A store that snapshots are pushed from and pulled into: what is copied, and that it stays stored meanwhile."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING

from casstore.content import Source
from casstore.digest import Digest
from casstore.graph import Plan
from casstore.names import DigestPrefix, parse_selector
from casstore.openstore import OpenStore
from casstore.places import as_reference, open_prober, open_source, open_target, require_bare
from casstore.progress import Progress, silent
from casstore.reference import Reference
from casstore.storedir import StoreDirectory
from casstore.survey import survey
from casstore.transfer import Job, TransferOptions, TransferReport, plan, pull_job, pull_name, push, push_name

if TYPE_CHECKING:
    from casstore.transaction import Transaction


class MovingStore(OpenStore):
    """A store, and its pushes and pulls."""

    def push(
        self,
        selector: str,
        reference: str | Reference,
        *,
        with_parents: bool = False,
        options: TransferOptions | None = None,
        progress: Progress = silent,
    ) -> TransferReport:
        """Copy a snapshot to a registry, an OCI layout or another store.

        With `with_parents` those of its ancestors that are here go first, each under the name that it was given first
        here; the report has them in `parents`.

        Raises:
            AlreadyExists: the name of an ancestor stands for something else there.
            RegistryError: the registry or the way to it failed.
            As `get` and `transfer.push_name`.
        """
        place, options = as_reference(reference), options or TransferOptions()
        jobs = self._jobs(selector, place, options, with_parents=with_parents)
        reports = _push_jobs(self._directory, jobs, place, options, progress)
        return replace(reports[-1], parents=tuple(reports[:-1]))

    def push_all(
        self,
        reference: str | Reference,
        *,
        options: TransferOptions | None = None,
        progress: Progress = silent,
    ) -> Sequence[TransferReport]:
        """Copy every snapshot, each under all its names, the oldest first. No blob is sent twice.

        Raises:
            UsageError: the reference has a tag or digest.
            As `push`; what was pushed before stays there.
        """
        place, options = as_reference(reference), options or TransferOptions()
        return _push_jobs(self._directory, self._all_jobs(place, options), place, options, progress)

    def plan_push(
        self,
        selector: str,
        reference: str | Reference,
        *,
        with_parents: bool = False,
        options: TransferOptions | None = None,
    ) -> Sequence[Plan]:
        """What `push` would move: the ancestors', then its own. The target is asked what it has; nothing is changed or
        made. A blob of several snapshots is counted as missing once. Whether a parent's tag is free is not asked.

        Raises:
            As `push`.
        """
        place, options = as_reference(reference), options or TransferOptions()
        jobs = self._jobs(selector, place, options, with_parents=with_parents)
        return _plan_jobs(self._directory, jobs, place, options)

    def plan_push_all(self, reference: str | Reference, *, options: TransferOptions | None = None) -> Sequence[Plan]:
        """What `push_all` would move, one plan per name; see `plan_push`."""
        place, options = as_reference(reference), options or TransferOptions()
        return _plan_jobs(self._directory, self._all_jobs(place, options), place, options)

    def plan_pull(
        self,
        reference: str | Reference,
        *,
        name: str | None = None,
        force: bool = False,
        options: TransferOptions | None = None,
    ) -> Plan:
        """What `pull` would move; nothing is changed. Where there is no store yet, `remote.plan_copy` tells it.

        Raises:
            As `pull`, but for what only the content can show.
        """
        place, options = as_reference(reference), options or TransferOptions()
        with open_source(place, options, self._directory.options) as source:
            job = _job_from(self._directory, source, place, name, options, force=force)
            return plan(self._directory, [job], options)[0]

    def pull(
        self,
        reference: str | Reference,
        *,
        name: str | None = None,
        force: bool = False,
        options: TransferOptions | None = None,
        workers: int = 0,
        progress: Progress = silent,
    ) -> TransferReport:
        """Copy a snapshot here from a registry, an OCI layout or another store, and verify every chunk of it.

        Raises:
            AlreadyExists: the name stands for another snapshot, and `force` is not set.
            CorruptContent: what came is damaged or hostile; the store is unchanged.
            RegistryError: the registry or the way to it failed; what came until then is kept for the next pull, or gc.
            As `transfer.pull_job`.
        """
        place, options = as_reference(reference), options or TransferOptions()
        pull_name(place, name)  # what makes no sense fails before anybody is asked
        with ExitStack() as stack:
            source = stack.enter_context(open_source(place, options, self._directory.options))
            job = _job_from(self._directory, source, place, name, options, force=force)
            change = stack.enter_context(self.transaction(force=force, workers=workers, keep=True))
            return push(source, change, [job], place, options=options, progress=progress, phase="pulling")[0]

    def transaction(self, *, force: bool = False, workers: int = 0, keep: bool = False) -> Transaction:
        """Start a change: the store as a Target, whose `tag` verifies and commits. For copies of your own; with `keep`
        what they received when they fail is there for the next one, or for gc.
        """
        self._directory.require_writable()
        from casstore.transaction import Transaction

        return Transaction(self._directory, self._catalog, force=force, workers=workers, keep=keep)

    def _jobs(
        self, selector: str, reference: Reference, options: TransferOptions, *, with_parents: bool
    ) -> Sequence[Job]:
        """What a push of a snapshot copies: its ancestors, if they are wanted, the oldest first, and itself."""
        digest, names = self._resolve(selector)
        wanted = parse_selector(selector)
        local = (wanted,) if not isinstance(wanted, DigestPrefix) else tuple(names)
        tag = push_name(reference, digest, local)
        jobs = [_job_of(self._directory, digest, tag, options)]
        for ancestor in self.lineage(selector) if with_parents else ():
            if not isinstance(ancestor, str):
                jobs.insert(0, _job_of(self._directory, ancestor.digest, ancestor.names[0], options, modest=True))
        return jobs

    def _all_jobs(self, reference: Reference, options: TransferOptions) -> Sequence[Job]:
        require_bare(reference, "push of all snapshots to")
        return [_job_of(self._directory, handle.digest, handle.name, options) for handle in reversed(self.list())]


def _job_of(
    directory: StoreDirectory, digest: Digest, tag: str, options: TransferOptions, *, modest: bool = False
) -> Job:
    """The push of a snapshot of the store, with its referrers if the options want them."""
    root = directory.resolve(str(digest))
    return Job(survey(directory, root, referrers=options.referrers), tag, modest)


def _push_jobs(
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


def _plan_jobs(
    directory: StoreDirectory, jobs: Sequence[Job], reference: Reference, options: TransferOptions
) -> Sequence[Plan]:
    """What `_push_jobs` would move."""
    with open_prober(reference, options, directory.options) as target:
        return plan(target, jobs, options)


def _job_from(
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
