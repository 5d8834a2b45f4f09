"""A store that snapshots are pushed from and pulled into: what is copied, and that it stays stored meanwhile. What is
pulled passes a gate; see trust.gate.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING

from casstore.content import Source
from casstore.digest import Digest
from casstore.graph import Plan
from casstore.names import DigestPrefix, parse_selector
from casstore.openstore import OpenStore
from casstore.places import as_reference, open_judged, open_prober, open_target, require_bare
from casstore.progress import Progress, silent
from casstore.reference import Reference
from casstore.storedir import StoreDirectory
from casstore.survey import survey
from casstore.transfer import Job, TransferOptions, TransferReport, plan, pull_job, pull_name, push, push_name
from casstore.trust.gate import PullGate

if TYPE_CHECKING:
    from casstore.sign import Signing
    from casstore.signatures.claims import Signed
    from casstore.transaction import Transaction


class MovingStore(OpenStore):
    """A store, and its pushes and pulls."""

    def push(
        self,
        selector: str,
        reference: str | Reference,
        *,
        with_parents: bool = False,
        signing: Signing | None = None,
        options: TransferOptions | None = None,
        progress: Progress = silent,
    ) -> TransferReport:
        """Copy a snapshot to a registry, an OCI layout or another store.

        With `with_parents` those of its ancestors that are here go first, each under the name that it was given first
        here; the report has them in `parents`. With `signing` all that is pushed is signed here first, for the
        repository that it goes to, and these signatures are there before the tag is.

        Raises:
            AlreadyExists: the name of an ancestor stands for something else there.
            RegistryError: the registry or the way to it failed.
            As `get`, `sign` and `transfer.push_name`.
        """
        place, options = as_reference(reference), options or TransferOptions()
        jobs = self._jobs(selector, place, options, with_parents=with_parents, signing=signing)
        reports = _push_jobs(self._directory, jobs, place, options, progress)
        return replace(reports[-1], parents=tuple(reports[:-1]))

    def push_all(
        self,
        reference: str | Reference,
        *,
        signing: Signing | None = None,
        options: TransferOptions | None = None,
        progress: Progress = silent,
    ) -> Sequence[TransferReport]:
        """Copy every snapshot, each under all its names, the oldest first. No blob is sent twice. For `signing` see
        `push`.

        Raises:
            UsageError: the reference has a tag or digest.
            As `push`; what was pushed before stays there.
        """
        place, options = as_reference(reference), options or TransferOptions()
        return _push_jobs(self._directory, self._all_jobs(place, options, signing), place, options, progress)

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
        with open_judged(place, options, self._directory.options) as (source, where):
            gate = PullGate(self._directory, place, where, options.trust)
            job = _job_from(self._directory, source, place, name, options, gate, force=force)
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
        """Copy a snapshot here from a registry, an OCI layout or another store, and verify every chunk of it. Where the
        options trust not everybody, its signatures are asked for after its manifest, and nothing else is fetched before
        they are the wanted ones; those that count come along.

        Raises:
            AlreadyExists: the name stands for another snapshot, and `force` is not set.
            UntrustedContent: it is not signed as it must be, or the name was led back; the store is unchanged.
            CorruptContent: what came is damaged or hostile; the store is unchanged.
            RegistryError: the registry or the way to it failed; what came until then is kept for the next pull, or gc.
            As `transfer.pull_job`.
        """
        place, options = as_reference(reference), options or TransferOptions()
        pull_name(place, name)  # what makes no sense fails before anybody is asked
        with ExitStack() as stack:
            source, where = stack.enter_context(open_judged(place, options, self._directory.options))
            gate = PullGate(self._directory, place, where, options.trust)
            job = _job_from(self._directory, source, place, name, options, gate, force=force)
            change = stack.enter_context(self.transaction(force=force, workers=workers, keep=True))
            report = push(source, change, [job], place, options=options, progress=progress, phase="pulling")[0]
        gate.remember(report.digest)
        return replace(report, warnings=tuple(gate.warnings))

    def transaction(self, *, force: bool = False, workers: int = 0, keep: bool = False) -> Transaction:
        """Start a change: the store as a Target, whose `tag` verifies and commits. For copies of your own; with `keep`
        what they received when they fail is there for the next one, or for gc.
        """
        self._directory.require_writable()
        from casstore.transaction import Transaction

        return Transaction(self._directory, self._catalog, force=force, workers=workers, keep=keep)

    def _jobs(
        self,
        selector: str,
        reference: Reference,
        options: TransferOptions,
        *,
        with_parents: bool,
        signing: Signing | None = None,
    ) -> Sequence[Job]:
        """What a push of a snapshot copies: its ancestors, if they are wanted, the oldest first, and itself."""
        digest, names = self._resolve(selector)
        wanted = parse_selector(selector)
        local = (wanted,) if not isinstance(wanted, DigestPrefix) else tuple(names)
        named: list[tuple[Digest, str]] = [(digest, push_name(reference, digest, local))]
        for ancestor in self.lineage(selector) if with_parents else ():
            if not isinstance(ancestor, str):
                named.insert(0, (ancestor.digest, ancestor.names[0]))
        signed = self._signed(dict.fromkeys(each for each, _ in named), reference, signing)
        return [
            _job_of(self._directory, each, tag, options, signed.get(each, ()), modest=each != digest)
            for each, tag in named
        ]

    def _all_jobs(
        self, reference: Reference, options: TransferOptions, signing: Signing | None = None
    ) -> Sequence[Job]:
        require_bare(reference, "push of all snapshots to")
        handles = list(reversed(self.list()))
        signed = self._signed(dict.fromkeys(handle.digest for handle in handles), reference, signing)
        return [
            _job_of(self._directory, handle.digest, handle.name, options, signed.get(handle.digest, ()))
            for handle in handles
        ]

    def _signed(
        self, digests: Iterable[Digest], reference: Reference, signing: Signing | None
    ) -> Mapping[Digest, Sequence[Signed]]:
        """The signatures that are made of each snapshot now."""
        if signing is None:
            return {}
        from casstore.sign import sign_stored

        return {
            digest: sign_stored(self._directory, self._catalog, digest, signing, place=reference) for digest in digests
        }


def _job_of(
    directory: StoreDirectory,
    digest: Digest,
    tag: str,
    options: TransferOptions,
    signed: Sequence[Signed] = (),
    *,
    modest: bool = False,
) -> Job:
    """The push of a snapshot of the store, with the signatures that were made of it; or with all its referrers."""
    root = directory.resolve(str(digest))
    also = [each.descriptor for each in signed]
    graph = survey(directory, root, referrers=options.referrers, also=also)
    return Job(graph, tag, modest, signed=tuple(signed))


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
    gate: PullGate,
    *,
    force: bool,
) -> Job:
    """The pull of `reference` into the store; a name that is taken is refused before more than the digest is known."""
    wanted = pull_name(reference, name)

    def admit(digest: Digest) -> None:
        if not force:
            directory.refs.require_free(wanted, unless=digest)

    return pull_job(source, reference, name=wanted, admit=admit, referrers=options.referrers, gate=gate)
