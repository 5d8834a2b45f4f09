"""Copies as such: in which order, what is asked and sent how often, and what happens when something fails."""

from __future__ import annotations

import _thread
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Self

import pytest
from hypothesis import given
from hypothesis import strategies as st

from casstore import graph, spec
from casstore.content import Fetcher, Reader
from casstore.digest import Digest
from casstore.errors import (
    DocumentError,
    MissingBlobs,
    NotFound,
    NotOffered,
    RegistryError,
    UnsupportedVersion,
)
from casstore.graph import Copier, CopyReport
from casstore.memory import MemoryTarget
from casstore.oci import Descriptor
from casstore.progress import Meter, ProgressEvent, silent
from casstore.registry import RegistryTarget
from casstore.streams import BytesSource
from casstore.survey import MAX_DEPTH, Graph, survey
from tests.support.manifests import EMPTY, EMPTY_TYPE, image_manifest, index_manifest, put, sign
from tests.support.registry_simulator import RegistrySimulator

SIZES = [10, 5_000, 300, 2_000_000, 70_000]


class Recorder(MemoryTarget):
    """Writes down what is asked of it."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[str, Digest | str]] = []
        self.stopped = threading.Event()

    def exists(self, descriptor: Descriptor) -> bool:
        self.calls.append(("exists", descriptor.digest))
        return super().exists(descriptor)

    def push(self, descriptor: Descriptor, source: Fetcher) -> None:
        self.calls.append(("push", descriptor.digest))
        super().push(descriptor, source)

    def attach(self, descriptor: Descriptor, subject: Descriptor, source: Fetcher) -> None:
        super().attach(descriptor, subject, source)
        self.calls[-1] = ("attach", descriptor.digest)

    def tag(self, descriptor: Descriptor, name: str) -> None:
        self.calls.append(("tag", name))
        super().tag(descriptor, name)

    def stop(self) -> None:
        self.stopped.set()

    def of(self, *kinds: str) -> list[tuple[str, Digest | str]]:
        return [call for call in self.calls if call[0] in kinds]


def artifact(source: MemoryTarget, sizes: Sequence[int] = SIZES) -> Descriptor:
    """An artifact of blobs of these sizes, tagged `one`."""
    layers = [put(source, bytes([n]) * size, "application/x") for n, size in enumerate(sizes)]
    put(source, EMPTY, EMPTY_TYPE)
    root = put(source, image_manifest(layers), spec.MEDIA_MANIFEST)
    source.tag(root, "one")
    return root


def meter() -> Meter:
    return Meter(silent, "copying", None)


def copy(source: Any, target: Any, root: Descriptor, *, referrers: bool = False, **options: Any) -> CopyReport:
    found = survey(source, root, referrers=referrers)
    return Copier(source, target, **options).copy(found, tag="one", meter=meter())


# --- order, and how often ---------------------------------------------------------------------------------------------


def test_a_blob_of_two_media_types_is_sent_once() -> None:
    source, target = MemoryTarget(), Recorder()
    layer = put(source, b"the same", "application/x")
    put(source, EMPTY, EMPTY_TYPE)
    root = put(source, image_manifest([layer, replace(layer, media_type="application/y")]), spec.MEDIA_MANIFEST)
    copy(source, target, root)
    assert target.calls.count(("exists", layer.digest)) == target.calls.count(("push", layer.digest)) == 1


def test_blobs_go_first_the_largest_before_all_then_manifest_referrers_and_tag() -> None:
    source, target = MemoryTarget(), Recorder()
    root = artifact(source)
    first = sign(source, root)
    second = sign(source, first, b"of the signature")
    report = copy(source, target, root, referrers=True, concurrency=1)
    order = target.of("push", "attach", "tag")
    sizes = {digest: descriptor.size for digest, (descriptor, _) in source._contents.items()}
    blobs = [digest for kind, digest in order if kind == "push" and digest != root.digest]
    assert [sizes[digest] for digest in blobs if isinstance(digest, Digest)] == sorted(
        (sizes[digest] for digest in blobs if isinstance(digest, Digest)), reverse=True
    )
    assert order[len(blobs) :] == [
        ("push", root.digest),
        ("attach", first.digest),
        ("attach", second.digest),
        ("tag", "one"),
    ]
    assert report == CopyReport(root, len(blobs) + 3, sum(sizes.values()), 0, 0, referrers=2)
    assert target.referrers(root) == [first]
    assert target.referrers(first) == [second]


def test_everything_is_asked_for_once_and_sent_once_over_several_copies() -> None:
    source, target = MemoryTarget(), Recorder()
    roots = [artifact(source, SIZES[:n]) for n in range(1, len(SIZES))]
    copier = Copier(source, target)
    for n, root in enumerate(roots):
        copier.copy(survey(source, root), tag=f"t{n}", meter=meter())
    counts = Counter(call for call in target.of("exists", "push") if call[1] not in {root.digest for root in roots})
    assert len(counts) == 2 * len(SIZES)
    assert set(counts.values()) == {1}
    assert sorted(target.tags()) == ["t0", "t1", "t2", "t3"]


def test_one_request_asks_for_a_blob_and_two_send_it() -> None:
    source = MemoryTarget()
    root = artifact(source)
    with RegistrySimulator() as registry, RegistryTarget(registry.reference("a/b"), registry.options) as target:
        copy(source, target, root)
        blobs = len(SIZES) + 1
        for method, part in (("HEAD", "/blobs/"), ("POST", "/uploads/"), ("PUT", "/uploads/")):
            assert len(registry.seen(method, part)) == blobs
        registry.requests.clear()
        report = copy(source, target, root)
        assert (report.copied, report.skipped) == (0, blobs + 1)
        assert not registry.seen("POST")


# --- mounts -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mounts", ["yes", "no", "lies"])
def test_within_a_registry_blobs_are_mounted(mounts: Any) -> None:
    """Row 97: also where the registry refuses to, or says that it did and did not."""
    here = MemoryTarget()
    root = artifact(here)
    with RegistrySimulator() as registry:
        with (
            RegistryTarget(registry.reference("a/b"), registry.options) as source,
            RegistryTarget(registry.reference("c/d"), registry.options) as target,
        ):
            copy(here, source, root)
            registry.faults.mounts = mounts
            registry.requests.clear()
            report = copy(source, target, root)
            blobs = len(SIZES) + 1
            assert (report.mounted, report.copied) == ((blobs, 1) if mounts == "yes" else (0, blobs + 1))
            assert len(registry.seen("GET", "/blobs/")) == (0 if mounts == "yes" else blobs)
            assert len(registry.seen("PUT", "/uploads/")) == (0 if mounts == "yes" else blobs)
            assert report.mounted_bytes == (sum(SIZES) + 2 if mounts == "yes" else 0)
        for blob in survey(here, root).blobs:
            assert ("c/d", str(blob.digest)) in registry.contents.blobs
        assert registry.contents.tags["c/d", "one"] == str(root.digest)


# --- a registry that has not what it says -----------------------------------------------------------------------------


class Forgetful(Recorder):
    """Refuses a manifest whose blobs it has not, as registries do."""

    def __init__(self, *, phantoms: bool = False, collects: int = 0, stubborn: bool = False) -> None:
        super().__init__()
        self.phantoms, self.collects, self.stubborn = phantoms, collects, stubborn

    def exists(self, descriptor: Descriptor) -> bool:
        return super().exists(descriptor) or (self.phantoms and descriptor.media_type != spec.MEDIA_MANIFEST)

    def push(self, descriptor: Descriptor, source: Fetcher) -> None:
        if descriptor.media_type == spec.MEDIA_MANIFEST:
            if self.collects:
                self.collects -= 1
                del self._contents[max(self._contents)]
            blobs = survey(source, descriptor).blobs
            if self.stubborn or not all(MemoryTarget.exists(self, blob) for blob in blobs):
                self.calls.append(("refuse", descriptor.digest))
                raise MissingBlobs("blob unknown to registry")
        super().push(descriptor, source)


def test_a_blob_that_was_said_to_be_there_is_sent_when_the_manifest_is_refused() -> None:
    """Row 96: HEAD lies."""
    source, target = MemoryTarget(), Forgetful(phantoms=True)
    root = artifact(source)
    copy(source, target, root)
    sent = Counter(target.of("push"))
    assert set(sent.values()) == {1}
    assert len(sent) == len(SIZES) + 2
    assert target.resolve("one") == root


@pytest.mark.parametrize("times", [1, 2])
def test_a_blob_that_the_registry_has_collected_is_sent_again(times: int) -> None:
    source, target = MemoryTarget(), Forgetful(collects=times)
    root = artifact(source)
    copy(source, target, root)
    assert sum(Counter(target.of("push")).values()) == len(SIZES) + 2 + times
    assert target.resolve("one") == root


def test_a_registry_that_never_takes_the_manifest_is_given_up() -> None:
    source, target = MemoryTarget(), Forgetful(stubborn=True)
    root = artifact(source)
    with pytest.raises(MissingBlobs):
        copy(source, target, root)
    assert len(target.of("refuse")) <= 3
    assert max(Counter(target.of("push")).values()) == 1
    with pytest.raises(NotFound):
        target.resolve("one")


# --- failures and signals ---------------------------------------------------------------------------------------------


class Hanging(Recorder):
    """Its uploads last until it is told to stop."""

    def __init__(self, fails: int | None = None) -> None:
        super().__init__()
        self.begun = 0
        self.fails = fails

    def push(self, descriptor: Descriptor, source: Fetcher) -> None:
        self.begun += 1
        if self.begun == self.fails:
            raise RegistryError("the first failure")
        assert self.stopped.wait(20)
        raise RegistryError("was stopped")


def test_after_a_failure_both_sides_are_told_to_stop_and_the_failure_is_told() -> None:
    source, target = Recorder(), Hanging(fails=2)
    root = artifact(source, range(1, 20))
    start = time.monotonic()
    with pytest.raises(RegistryError, match="the first failure"):
        copy(source, target, root, concurrency=4)
    assert time.monotonic() - start < 10
    assert source.stopped.is_set()
    assert target.begun <= 8
    assert not target.of("tag")


def test_a_signal_ends_a_copy_that_hangs() -> None:
    source, target = Recorder(), Hanging()
    root = artifact(source)

    threading.Timer(0.3, _thread.interrupt_main).start()
    start = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        copy(source, target, root)
    assert time.monotonic() - start < 10
    assert target.stopped.is_set()


class Endless(MemoryTarget):
    """Its content never ends, and it knows no way to be stopped."""

    def fetch(self, descriptor: Descriptor) -> Reader:
        if descriptor.media_type == spec.MEDIA_MANIFEST:
            return super().fetch(descriptor)
        return _EndlessReader()


class _EndlessReader:
    def read(self, size: int) -> bytes:
        time.sleep(0.01)
        return b"x"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass


def test_a_side_that_cannot_be_stopped_is_left_between_two_reads() -> None:
    source, target = Endless(), MemoryTarget()
    root = artifact(source)
    threading.Timer(0.3, _thread.interrupt_main).start()
    with pytest.raises(KeyboardInterrupt):
        copy(source, target, root)


# --- progress ---------------------------------------------------------------------------------------------------------


def test_each_blob_is_a_part_and_all_parts_are_the_whole() -> None:
    source, target = MemoryTarget(), MemoryTarget()
    root = artifact(source)
    seen: list[ProgressEvent] = []
    total = sum(SIZES) + 2
    found = survey(source, root)
    Copier(source, target).copy(found, tag="one", meter=Meter(seen.append, "copying", total))
    parts = {event.part.name: event.part for event in seen if event.part is not None}
    assert sorted(part.total for part in parts.values()) == sorted([*SIZES, 2])
    assert all(part.done == part.total for part in parts.values())
    assert seen[-1].done == total
    assert [event.done for event in seen] == sorted(event.done for event in seen)


def test_what_is_read_again_is_counted_once() -> None:
    class Rewinding(MemoryTarget):
        def push(self, descriptor: Descriptor, source: Fetcher) -> None:
            with source.fetch(descriptor) as reader:
                reader.read(max(descriptor.size // 2, 1))
            super().push(descriptor, source)

    source, target = MemoryTarget(), Rewinding()
    root = artifact(source)
    seen: list[ProgressEvent] = []
    Copier(source, target).copy(survey(source, root), tag="one", meter=Meter(seen.append, "copying", None))
    assert seen[-1].done == sum(SIZES) + 2


# --- what is surveyed -------------------------------------------------------------------------------------------------


def test_an_index_brings_its_manifests_and_theirs() -> None:
    source, target = MemoryTarget(), Recorder()
    one, two = artifact(source, [1, 2]), artifact(source, [3, 4])
    inner = put(source, index_manifest([two]), spec.MEDIA_INDEX)
    root = put(source, index_manifest([one, inner, one]), spec.MEDIA_INDEX)
    signature = sign(source, one)
    copy(source, target, root, referrers=True)
    pushed = [digest for _, digest in target.of("push", "attach")]
    for earlier, later in ((one, root), (two, inner), (inner, root), (one, signature)):
        assert pushed.index(earlier.digest) < pushed.index(later.digest)
    assert target.resolve("one") == root
    assert target.referrers(one) == [signature]


def test_an_index_that_refers_to_a_snapshot_is_carried_with_its_manifests() -> None:
    source, target = MemoryTarget(), MemoryTarget()
    root, part = artifact(source), artifact(source, [7])
    raw = index_manifest([part], subject=root)
    index = Descriptor.of(raw, spec.MEDIA_INDEX)
    source.attach(index, root, BytesSource(raw))
    copy(source, target, root, referrers=True)
    assert target.referrers(root) == [index]
    assert target.exists(part)


class Listing(MemoryTarget):
    """Lists what it is told as referrers of everything."""

    def __init__(self, listed: list[Descriptor]) -> None:
        super().__init__()
        self.listed = listed

    def referrers(self, subject: Descriptor) -> list[Descriptor]:
        return self.listed


def test_what_is_listed_but_refers_to_something_else_is_refused() -> None:
    listed: list[Descriptor] = []
    source = Listing(listed)
    root, stranger = artifact(source), artifact(source, [1])
    listed.append(sign(source, stranger))
    with pytest.raises(DocumentError, match="expected it to refer to"):
        survey(source, root, referrers=True)
    listed[:] = [Descriptor(media_type="application/octet-stream", digest=stranger.digest, size=stranger.size)]
    with pytest.raises(UnsupportedVersion, match="octet-stream"):
        survey(source, root, referrers=True)
    listed[:] = [Descriptor.of(b"nobody has this", spec.MEDIA_MANIFEST)]
    with pytest.raises(NotFound):
        survey(source, root, referrers=True)
    listed[:] = [Descriptor(media_type=spec.MEDIA_MANIFEST, digest=Digest("0" * 64), size=spec.MAX_MANIFEST + 1)]
    with pytest.raises(UnsupportedVersion, match="at most 4194304 bytes"):
        survey(source, root, referrers=True)


def test_referrers_are_bounded_in_number_and_depth(monkeypatch: pytest.MonkeyPatch) -> None:
    source = MemoryTarget()
    root = artifact(source, [1])
    at = root
    for n in range(MAX_DEPTH + 1):
        at = sign(source, at, b"%d" % n)
    with pytest.raises(UnsupportedVersion, match="8 deep, got more"):
        survey(source, root, referrers=True)
    monkeypatch.setattr("casstore.survey.MAX_REFERRERS", 3)
    wide = MemoryTarget()
    root = artifact(wide, [1])
    for n in range(4):
        sign(wide, root, b"%d" % n)
    with pytest.raises(UnsupportedVersion, match="at most 3 referrers"):
        survey(wide, root, referrers=True)


def test_indexes_are_bounded_in_number_and_depth(monkeypatch: pytest.MonkeyPatch) -> None:
    source = MemoryTarget()
    root = artifact(source, [1])
    for _ in range(MAX_DEPTH + 1):
        root = put(source, index_manifest([root]), spec.MEDIA_INDEX)
    with pytest.raises(UnsupportedVersion, match="8 deep, got more"):
        survey(source, root)
    monkeypatch.setattr("casstore.survey.MAX_MANIFESTS", 2)
    monkeypatch.setattr("casstore.survey.MAX_REFERRERS", 0)
    root = put(source, index_manifest([artifact(source, [n]) for n in range(1, 5)]), spec.MEDIA_INDEX)
    with pytest.raises(UnsupportedVersion, match="at most 2 manifests"):
        survey(source, root)


def test_what_manifests_name_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    source = MemoryTarget()
    root = put(source, index_manifest([artifact(source, [1, 2]), artifact(source, [3, 4])]), spec.MEDIA_INDEX)
    monkeypatch.setattr("casstore.survey.MAX_BLOBS", 6)  # with the two configs
    survey(source, root)
    monkeypatch.setattr("casstore.survey.MAX_BLOBS", 5)
    with pytest.raises(UnsupportedVersion, match="at most 5 blobs in all manifests together"):
        survey(source, root)


def test_sides_that_know_no_referrers_say_so() -> None:
    class Poor:
        def __init__(self, memory: MemoryTarget) -> None:
            self.fetch, self.resolve, self.exists = memory.fetch, memory.resolve, memory.exists
            self.push, self.tag = memory.push, memory.tag

    source = MemoryTarget()
    root = artifact(source)
    sign(source, root)
    with pytest.raises(NotOffered, match="leave the referrers out"):
        survey(Poor(source), root, referrers=True)
    target = MemoryTarget()
    with pytest.raises(NotOffered, match="cannot have referrers"):
        copy(source, Poor(target), root, referrers=True)
    assert not target._contents


# --- any graph --------------------------------------------------------------------------------------------------------

Shape = list[tuple[list[int], int]]


@given(
    st.lists(st.tuples(st.lists(st.integers(0, 6), max_size=4), st.integers(0, 30)), min_size=1, max_size=12),
    st.sets(st.integers(0, 6)),
    st.integers(1, 5),
)
def test_a_copy_brings_just_what_the_root_needs_and_what_refers_to_it(
    shape: Shape, there: set[int], concurrency: int
) -> None:
    """Each manifest of `shape` has some blobs and refers to one before it, or (0) to none; some blobs are there."""
    source, target = MemoryTarget(), Recorder()
    blobs = [put(source, b"blob %d" % n, "application/x") for n in range(7)]
    put(source, EMPTY, EMPTY_TYPE)
    made: list[Descriptor] = []
    wanted: set[Digest] = set()
    for n, (layers, place) in enumerate(shape):
        subject = made[place % len(made)] if made and place else None
        raw = image_manifest([blobs[layer] for layer in dict.fromkeys(layers)], subject=subject, n=str(n))
        descriptor = Descriptor.of(raw, spec.MEDIA_MANIFEST)
        if subject is None:
            put(source, raw, spec.MEDIA_MANIFEST)
        else:
            source.attach(descriptor, subject, BytesSource(raw))
        made.append(descriptor)
        if n == 0 or (subject is not None and subject.digest in wanted):
            wanted |= {descriptor.digest, Digest.of(EMPTY), *(blobs[layer].digest for layer in layers)}
    for n in there:
        put(target, b"blob %d" % n, "application/x")
    before = set(target._contents)
    try:
        found: Graph = survey(source, made[0], referrers=True)
    except UnsupportedVersion:
        return  # deeper than is sane
    target.calls.clear()
    planned = graph.plan(target, found, name="one")
    target.calls.clear()
    report = Copier(source, target, concurrency=concurrency).copy(found, tag="one", meter=meter())
    assert set(target._contents) - before == wanted - before
    assert {part.digest for part in planned.missing} == wanted - before
    assert (report.copied, report.skipped) == (len(wanted - before), len(wanted & before))
    assert report.copied_bytes == planned.missing_bytes
    assert max(Counter(target.of("push", "attach")).values()) == 1
    assert report.referrers == len({d.digest for d in made[1:]} & wanted)
