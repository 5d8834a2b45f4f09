"""Push and pull: what a reference stands for, and one copy_graph between the store and there."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

from casstore import graph
from casstore.content import Source, Target
from casstore.digest import Digest
from casstore.durable import Durability
from casstore.errors import DigestMismatch, InvalidName, UsageError
from casstore.graph import CopyReport, copy_graph
from casstore.layout import LayoutTarget
from casstore.names import SnapshotName, parse_name
from casstore.oci import ArtifactManifest, Descriptor
from casstore.progress import Meter, Progress, silent
from casstore.reference import LayoutReference, Reference, RegistryReference

Registries = Callable[[RegistryReference], AbstractContextManager[Target]]
"""Opens a repository of a registry."""


@dataclass(frozen=True, slots=True)
class TransferOptions:
    """How to transfer. `registries` opens registries; None reaches them anonymously, over HTTPS."""

    registries: Registries | None = None
    concurrency: int = graph.DEFAULT_CONCURRENCY


@dataclass(frozen=True, slots=True)
class TransferReport:
    """What was transferred: the name or tag it has there, where, and what moved."""

    reference: str
    """The place with the digest: what to pull to get just this."""
    name: str
    copy: CopyReport

    @property
    def digest(self) -> Digest:
        """The artifact digest."""
        return self.copy.root.digest


@contextmanager
def open_target(
    reference: Reference, options: TransferOptions, *, create: bool, durability: Durability
) -> Iterator[Target]:
    """The registry or plain layout that a reference names.

    Raises:
        NotFound: there is no layout, and `create` is not set.
    """
    if isinstance(reference, LayoutReference):
        yield LayoutTarget(reference.path, create=create, durability=durability)
        return
    if options.registries is not None:
        with options.registries(reference) as target:
            yield target
        return
    from casstore.registry import RegistryTarget  # slow to import, and only needed here

    with RegistryTarget(reference) as target:
        yield target


def push(
    source: Source,
    root: Descriptor,
    target: Target,
    reference: Reference,
    *,
    tag: str,
    options: TransferOptions,
    progress: Progress = silent,
) -> TransferReport:
    """Copy the artifact `root` to `target`, which `reference` names, under `tag`."""
    manifest = graph.read_manifest(source, root)
    meter = Meter(progress, "pushing", _total(manifest))
    report = copy_graph(source, target, manifest, tag=tag, meter=meter, concurrency=options.concurrency)
    return TransferReport(f"{reference.name}@{root.digest}", tag, report)


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


def pull(
    source: Source,
    target: Target,
    reference: Reference,
    *,
    name: SnapshotName,
    admit: Callable[[Digest], object],
    options: TransferOptions,
    progress: Progress = silent,
) -> TransferReport:
    """Copy what `reference` stands for to `target`, under `name`; `admit` may refuse its digest before the work.

    Raises:
        NotFound: there is no such tag or manifest.
        DigestMismatch: what came is not what the reference pins.
    """
    root = source.resolve(str(reference.digest or reference.tag))
    if reference.digest is not None and root.digest != reference.digest:
        raise DigestMismatch(f"pull of {reference}", expected=str(reference.digest), got=str(root.digest))
    admit(root.digest)
    manifest = graph.read_manifest(source, root)
    meter = Meter(progress, "pulling", _total(manifest))
    report = copy_graph(source, target, manifest, tag=name, meter=meter, concurrency=options.concurrency)
    return TransferReport(f"{reference.name}@{root.digest}", name, report)


def pull_name(reference: Reference, name: str | None) -> SnapshotName:
    """The local name that a pull of `reference` gives.

    Raises:
        UsageError: there is none, or the reference does not say what to pull.
    """
    if reference.tag is None and reference.digest is None:
        raise UsageError(f"pull of {reference}: expected a tag or digest, got neither; add :TAG or @sha256:...")
    if name is not None:
        return parse_name(name)
    if reference.tag is None:
        raise UsageError(f"pull of {reference}: expected a name, for a digest says none; give one with --name")
    try:
        return parse_name(reference.tag)
    except InvalidName as error:
        raise UsageError(f"pull of {reference}: its tag cannot be a name here: {error}; give one with --name") from None


def _total(manifest: ArtifactManifest) -> int:
    return sum(blob.size for blob in dict.fromkeys(manifest.children))
