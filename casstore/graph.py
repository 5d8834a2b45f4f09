"""Copying an artifact between two places: push, pull and copy are this one thing.

What there is to copy was surveyed at the source (survey.py). Blobs go first, a manifest after all that it names, what
is about it after it, and the name last: so a name at the destination never stands for something incomplete, or for
something whose signatures are not there yet.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Self, TypeVar

from casstore import log
from casstore.attachments import put_attachment
from casstore.content import (
    Attacher,
    Fetcher,
    Mounter,
    Prober,
    Reader,
    ReferrerLister,
    Source,
    Stopper,
    Target,
    Uploader,
)
from casstore.digest import Digest
from casstore.errors import CasstoreError, CorruptContent, MissingBlobs, NotOffered
from casstore.oci import Descriptor
from casstore.progress import Meter, Part
from casstore.streams import BytesSource, Vouching
from casstore.survey import Graph, Node

S = TypeVar("S")
T = TypeVar("T")

DEFAULT_CONCURRENCY = 4
_ROUNDS = 2  # how often blobs are looked for again that a registry says it does not have
_NOTICE = 0.2  # seconds


@dataclass(frozen=True, slots=True)
class CopyReport:
    """What a copy did. Counts of blobs, manifests included, and their bytes; each blob is in one of the three."""

    root: Descriptor
    copied: int
    """Sent."""
    copied_bytes: int
    skipped: int
    """There already."""
    skipped_bytes: int
    mounted: int = 0
    """Had from a neighbour: another repository of the same registry."""
    mounted_bytes: int = 0
    referrers: int = 0
    """Manifests that are about the root or about another of them, and are there now. Their blobs are counted above."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What a copy would do: all blobs and manifests, the root included, that it would move, and those that are there.

    Whether some could be mounted is not known before it is tried.
    """

    root: Descriptor
    name: str
    """The tag or name that it would give."""
    missing: tuple[Descriptor, ...]
    present: tuple[Descriptor, ...]

    @property
    def missing_bytes(self) -> int:
        """Bytes to move."""
        return sum(blob.size for blob in self.missing)

    @property
    def present_bytes(self) -> int:
        """Bytes that are there."""
        return sum(blob.size for blob in self.present)


def plan(
    target: Prober,
    graph: Graph,
    *,
    name: str,
    concurrency: int = DEFAULT_CONCURRENCY,
    assumed: Collection[Digest] = (),
) -> Plan:
    """What a copy of `graph` would move: the target is asked for all of it, but for what is `assumed` to be there."""
    parts = list(dict.fromkeys((*graph.blobs, *(node.descriptor for node in graph.nodes))))
    there = in_parallel(parts, lambda part: part.digest in assumed or target.exists(part), concurrency)
    told = list(zip(parts, there, strict=True))
    missing = tuple(part for part, present in told if not present)
    return Plan(graph.root, name, missing, tuple(part for part, present in told if present))


class Copier:
    """Copies artifacts from one source to one target; what was there for one is not asked for again.

    When a copy fails, or a signal ends it, both sides are told to stop, where they can be: no other copy follows it.
    """

    def __init__(self, source: Source, target: Target, *, concurrency: int = DEFAULT_CONCURRENCY) -> None:
        self._source, self._target, self._concurrency = source, target, concurrency
        self._there: set[Digest] = set()
        self._sent: set[Digest] = set()
        self._listed: dict[Digest, set[Digest]] = {}
        self._stopping = threading.Event()

    def copy(self, graph: Graph, *, tag: str | None, meter: Meter) -> CopyReport:
        """Copy the artifact of `graph` and let `tag` stand for it at the target.

        Every blob is asked for at the target first; a manifest that is there does not vouch for its blobs. The largest
        go first, so that none is left to go alone at the end. The meter gets the bytes of all blobs that no copy before
        had.

        Raises:
            NotOffered: there are referrers to copy, and the target cannot have any.
            CasstoreError: either side failed; the target then holds some blobs more, and no new name.
        """
        if any(node.subject is not None and node.attachment is None for node in graph.nodes):
            self._attacher()
        self._listed.clear()
        blobs = graph.blobs
        # Two manifests may call the same bytes by two media types.
        once = {(blob.digest, blob.size): blob for blob in blobs if blob.digest not in self._there}
        fresh = sorted(once.values(), key=lambda blob: -blob.size)
        done = self._all(fresh, lambda blob: self._copy_blob(blob, meter), meter)
        how = {blob.digest: outcome for blob, outcome in zip(fresh, done, strict=True)}
        self._there.update(how)
        for outcome in (_SENT, _PRESENT, _MOUNTED):
            count = sum(each == outcome for each in how.values())
            log.debug("transfer", "%s: %s blobs %s", graph.root.digest, count, outcome)
        for node in graph.nodes:
            how[node.descriptor.digest] = self._store(node, graph)
        if tag is not None:
            root = graph.root
            self._with_all_blobs(graph.nodes, lambda: self._target.tag(root, tag))
        return self._report(graph, how)

    def _all(
        self, blobs: Collection[Descriptor], work: Callable[[Descriptor], T], meter: Meter | None = None
    ) -> list[T]:
        tick = (lambda: None) if meter is None else meter.tick
        return in_parallel(blobs, work, self._concurrency, self._stop, tick)

    def _stop(self) -> None:
        self._stopping.set()
        for side in (self._target, self._source):
            if isinstance(side, Stopper):
                side.stop()

    def _copy_blob(self, blob: Descriptor, meter: Meter) -> str:
        if self._target.exists(blob):
            meter.add(blob.size)
            return _PRESENT
        if isinstance(self._target, Mounter) and self._target.mount(blob, self._source):
            meter.add(blob.size)
            return _MOUNTED
        self._send(blob, meter)
        return _SENT

    def _send(self, blob: Descriptor, meter: Meter | None) -> None:
        """Send what was just asked for in vain."""
        source = _Watched(self._source, meter, self._stopping)
        if isinstance(self._target, Uploader):
            self._target.upload(blob, source)
        else:
            self._target.push(blob, source)
        self._sent.add(blob.digest)

    def _store(self, node: Node, graph: Graph) -> str:
        """Store a manifest whose blobs are there."""
        here, target = node.descriptor, self._target
        source: Fetcher = BytesSource(graph.raw) if here == graph.root else self._source
        present = target.exists(here)
        subject, attachment = node.subject, node.attachment
        if subject is not None and attachment is not None:
            self._with_all_blobs([node], lambda: put_attachment(target, attachment, source, subject=subject.digest))
        elif subject is None:
            if not present:
                self._with_all_blobs([node], lambda: target.push(here, source))
        elif not present or not self._is_attached(here, subject):
            self._with_all_blobs([node], lambda: self._attacher().attach(here, subject, source))
        return _PRESENT if present else _SENT

    def _attacher(self) -> Attacher:
        if not isinstance(self._target, Attacher):
            raise NotOffered(f"{self._target!r}: it cannot have referrers; leave them out")
        return self._target

    def _is_attached(self, referrer: Descriptor, subject: Descriptor) -> bool:
        """Whether the target told of it when it was asked first."""
        target = self._target
        if subject.digest not in self._listed:
            listed: Sequence[Descriptor] = ()
            if isinstance(target, ReferrerLister):
                with contextlib.suppress(CorruptContent):  # then they are attached again, which mends it
                    listed = target.referrers(subject)
            self._listed[subject.digest] = {each.digest for each in listed}
        return referrer.digest in self._listed[subject.digest]

    def _with_all_blobs(self, nodes: Collection[Node], store: Callable[[], object]) -> None:
        """Store a manifest; when the registry says that it has not all that it names, send that again.

        Its garbage collection may have taken what it had, or what it said to a mount or a HEAD was not true.
        Where it sticks to that, what this copy did not send itself is sent anyway.
        """
        for _ in range(_ROUNDS):
            try:
                store()
                return
            except MissingBlobs:
                blobs = list(dict.fromkeys(blob for node in nodes for blob in node.blobs))
                there = self._all(blobs, self._target.exists)
                missing = [blob for blob, present in zip(blobs, there, strict=True) if not present]
                missing = missing or [blob for blob in blobs if blob.digest not in self._sent]
                if not missing:
                    raise
                self._all(missing, lambda blob: self._send(blob, None))
        store()

    def _report(self, graph: Graph, how: dict[Digest, str]) -> CopyReport:
        parts = {part.digest: part for part in (*graph.blobs, *(node.descriptor for node in graph.nodes))}

        def of(outcome: str) -> list[int]:
            return [part.size for digest, part in parts.items() if how.get(digest, _PRESENT) == outcome]

        sent, present, mounted = of(_SENT), of(_PRESENT), of(_MOUNTED)
        return CopyReport(
            root=graph.root,
            copied=len(sent),
            copied_bytes=sum(sent),
            skipped=len(present),
            skipped_bytes=sum(present),
            mounted=len(mounted),
            mounted_bytes=sum(mounted),
            referrers=sum(node.subject is not None for node in graph.nodes),
        )


_SENT, _PRESENT, _MOUNTED = "sent", "present", "mounted"


def in_parallel(
    items: Iterable[S],
    work: Callable[[S], T],
    concurrency: int,
    stop: Callable[[], object] = lambda: None,
    tick: Callable[[], object] = lambda: None,
) -> list[T]:
    """`work` of each, several at a time; after the first failure, or a signal, `stop` is called and no more begun.
    `tick` is called now and then meanwhile, and what it raises is such a failure.
    """
    # Slow to import (with logging and more), and `casstore list` comes by here too.
    from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait

    with ThreadPoolExecutor(concurrency, "copy") as pool:
        try:
            futures = [pool.submit(work, item) for item in items]
            waiting = True
            while waiting:  # in short waits: a signal that another thread got is noticed between them only
                done, left = wait(futures, timeout=_NOTICE, return_when=FIRST_EXCEPTION)
                for error in filter(None, (future.exception() for future in done)):
                    raise error
                waiting = bool(left)
                if waiting:
                    tick()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)  # leaving the pool would else do all that is queued
            stop()
            raise
        return [future.result() for future in futures]


class _Stopped(CasstoreError):
    """Another blob failed, or a signal came."""


class _Watched:
    """A Fetcher that reports what is read through it, and stops when it is told to."""

    def __init__(self, source: Fetcher, meter: Meter | None, stopping: threading.Event) -> None:
        self._source, self._meter, self._stopping = source, meter, stopping

    def fetch(self, descriptor: Descriptor) -> Reader:
        reader = self._source.fetch(descriptor)
        kind = _VouchingReader if isinstance(reader, Vouching) else _WatchedReader
        return kind(reader, descriptor, self._meter, self._stopping)


class _WatchedReader:
    def __init__(self, reader: Reader, descriptor: Descriptor, meter: Meter | None, stopping: threading.Event) -> None:
        self._reader, self._meter, self._stopping = reader, meter, stopping
        self._name = f"{descriptor.kind} {descriptor.digest.hex[:12]}"
        self._size, self._count = descriptor.size, 0

    def read(self, size: int) -> bytes:
        if self._stopping.is_set():
            raise _Stopped(f"{self._name}: the copy was stopped")
        data = self._reader.read(size)
        if data:
            self._tell(len(data))
        return data

    def _tell(self, count: int) -> None:
        self._count += count
        if self._meter is not None:
            self._meter.add(count, Part(self._name, self._count, self._size))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        try:
            if error is not None or self._count < self._size:  # it will be read again from its first byte, or never
                self._tell(-self._count)
        finally:  # whoever is told may raise
            self._reader.__exit__(kind, error, None)


class _VouchingReader(_WatchedReader):
    @property
    def verified(self) -> Descriptor | None:
        """See Vouching."""
        return self._reader.verified if isinstance(self._reader, Vouching) else None
