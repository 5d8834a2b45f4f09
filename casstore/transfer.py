"""Push and pull: what a reference stands for, and copies between the store and there."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from casstore import graph
from casstore.content import Prober, Source, Target
from casstore.digest import Digest
from casstore.errors import AlreadyExists, DigestMismatch, InvalidName, NotFound, UsageError
from casstore.graph import Copier, CopyReport, Plan
from casstore.names import SnapshotName, parse_name
from casstore.oci import Descriptor
from casstore.progress import Meter, Progress, silent
from casstore.reference import Reference, RegistryReference
from casstore.survey import Graph, read_manifest, survey

if TYPE_CHECKING:
    from casstore.signatures.claims import Signed
    from casstore.trust.decision import Verdict
    from casstore.trust.gate import Gate
    from casstore.trust.trust import Trust

Registries = Callable[[RegistryReference], AbstractContextManager[Target]]
"""Opens a repository of a registry."""


@dataclass(frozen=True, slots=True)
class TransferOptions:
    """How to transfer. `registries` opens registries; None reaches them anonymously, over HTTPS."""

    registries: Registries | None = None
    concurrency: int = graph.DEFAULT_CONCURRENCY
    """Blobs moved at the same time."""
    referrers: bool = False
    """Copy what refers to the snapshot, too, as signatures, and what refers to that."""
    trust: Trust | None = None
    """Whose signatures what is pulled or copied must have; None: nothing is asked."""


@dataclass(frozen=True, slots=True)
class TransferReport:
    """What was transferred: the name or tag it has there, where, and what moved."""

    reference: str
    """The place with the digest: what to pull to get just this."""
    name: str
    copy: CopyReport
    parents: tuple[TransferReport, ...] = ()
    """What was pushed before it because it comes from there, oldest first."""
    verdicts: tuple[Verdict, ...] = ()
    """Of a pull or copy: what was asked of its signatures, and which ones it relied on."""
    signed: tuple[Signed, ...] = ()
    """Of a push: the signatures that were made for it."""
    warnings: tuple[str, ...] = ()
    """What people should know, as that a name was led back."""

    @property
    def digest(self) -> Digest:
        """The artifact digest."""
        return self.copy.root.digest


@dataclass(frozen=True, slots=True)
class Job:
    """An artifact to push, and the tag that it gets."""

    graph: Graph
    tag: str
    modest: bool = False
    """The tag was not asked for by name: it is refused where it stands for something else."""
    verdicts: tuple[Verdict, ...] = ()
    """What was decided about its signatures."""
    signed: tuple[Signed, ...] = ()
    """The signatures that were made of it."""


def push(
    source: Source,
    target: Target,
    jobs: Sequence[Job],
    reference: Reference,
    *,
    options: TransferOptions,
    progress: Progress = silent,
    phase: str = "pushing",
) -> list[TransferReport]:
    """Copy artifacts to `target`, which `reference` names, one after the other. What one brought, the next has there.

    Raises:
        AlreadyExists: a modest job's tag is taken; nothing was copied.
    """
    for job in jobs:
        if job.modest:
            _require_free(target, job, reference)
    blobs = {blob.digest: blob.size for job in jobs for blob in job.graph.blobs}
    meter = Meter(progress, phase, sum(blobs.values()))
    copier = Copier(source, target, concurrency=options.concurrency)
    return [
        TransferReport(
            f"{reference.name}@{job.graph.root.digest}",
            job.tag,
            copier.copy(job.graph, tag=job.tag, meter=meter),
            verdicts=job.verdicts,
            signed=job.signed,
        )
        for job in jobs
    ]


def plan(target: Prober, jobs: Iterable[Job], options: TransferOptions) -> list[Plan]:
    """What `push` would move; what one job brings, the next has there."""
    plans: list[Plan] = []
    coming: set[Digest] = set()
    for job in jobs:
        plans.append(
            graph.plan(target, job.graph, name=job.tag, concurrency=options.concurrency, assumed=frozenset(coming))
        )
        coming.update(job.graph.needs)
    return plans


def _require_free(target: Target, job: Job, reference: Reference) -> None:
    try:
        found = target.resolve(job.tag).digest
    except NotFound:
        return
    if found != job.graph.root.digest:
        raise AlreadyExists(
            f"push to {reference.name}: expected the tag {job.tag} to be free for the parent"
            f" {job.graph.root.digest.short}, got one that stands for {found.short}; push the parent by itself, under"
            " another tag, and then this without its parents"
        )


def push_name(reference: Reference, digest: Digest, names: tuple[str, ...]) -> str:
    """The tag that a push of `digest` to `reference` gives: the reference's, else the one local name.

    Raises:
        DigestMismatch: the reference pins another digest.
        UsageError: there is no tag, and no single local name.
    """
    if reference.digest is not None and reference.digest != digest:
        raise DigestMismatch(f"push to {reference}", expected=str(reference.digest), got=str(digest))
    if reference.tag is not None:
        return reference.tag
    if len(names) != 1:
        raise UsageError(f"push to {reference}: expected a tag, for the snapshot has {len(names)} names here")
    return names[0]


def require_tag_or_digest(reference: Reference, verb: str) -> None:
    """Raise UsageError where a reference names a place only."""
    if reference.tag is None and reference.digest is None:
        raise UsageError(f"{verb} {reference}: expected a tag or digest, got neither; add :TAG or @sha256:...")


def find(source: Source, reference: Reference, verb: str) -> Descriptor:
    """What `reference` stands for at `source`, now: whatever becomes of the tag meanwhile, this is what is copied.

    Raises:
        NotFound: there is no such tag or manifest.
        DigestMismatch: it is not what the reference pins.
    """
    root = source.resolve(str(reference.digest or reference.tag))
    if reference.digest is not None and root.digest != reference.digest:
        raise DigestMismatch(f"{verb} {reference}", expected=str(reference.digest), got=str(root.digest))
    return root


def pull_job(
    source: Source,
    reference: Reference,
    *,
    name: SnapshotName,
    admit: Callable[[Digest], object],
    referrers: bool,
    gate: Gate | None = None,
) -> Job:
    """What a pull of `reference` copies; `admit` may refuse its digest before more than that is read, and `gate` the
    manifest before anything that it names is. The signatures that the gate relied on come along.

    Raises:
        As `find`; UnsupportedVersion: it is no snapshot.
        UntrustedContent: by the gate.
    """
    root = find(source, reference, "pull of")
    admit(root.digest)
    manifest = read_manifest(source, root)
    return admitted_job(source, root, manifest.raw, name, referrers=referrers, gate=gate)


def admitted_job(source: Source, root: Descriptor, raw: bytes, tag: str, *, referrers: bool, gate: Gate | None) -> Job:
    """What a copy of the manifest `root` copies, if the gate lets it through; with the signatures that it relied on.

    Raises:
        UntrustedContent: by the gate.
        As `survey`.
    """
    if gate is None:
        return Job(survey(source, root, raw, referrers=referrers), tag)
    admission = gate(source, root, raw)
    graph = survey(source, root, raw, referrers=referrers, also=admission.accepted)
    return Job(graph, tag, verdicts=admission.verdicts)


def pull_name(reference: Reference, name: str | None) -> SnapshotName:
    """The local name that a pull of `reference` gives.

    Raises:
        UsageError: there is none, or the reference does not say what to pull.
    """
    require_tag_or_digest(reference, "pull of")
    if name is not None:
        return parse_name(name)
    if reference.tag is None:
        raise UsageError(f"pull of {reference}: expected a name, for a digest says none; give one with --name")
    try:
        return parse_name(reference.tag)
    except InvalidName as error:
        raise UsageError(f"pull of {reference}: its tag cannot be a name here: {error}; give one with --name") from None
