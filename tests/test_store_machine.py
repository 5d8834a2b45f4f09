"""The store against a plain dict, under any sequence of what may happen to it; everything is compared at every step."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from casstore import Store, spec
from casstore.errors import AlreadyExists, CorruptContent, HasChildren, NotFound
from casstore.names import attachment_name, is_reserved, referrer_name
from casstore.retention import Policy
from casstore.signatures.bundle import MEDIA_TYPE
from tests.support.signing import sign_by, verdicts
from tests.support.stores import (
    FAST,
    all_files,
    blobs,
    capture,
    content,
    disk_bytes,
    index_refs,
    leftovers,
    link_refs,
    names,
    reachable,
    rebuilt,
)

NAMES = st.sampled_from(["a", "b", "c", "D-1", "e.2"])
PIECES = st.lists(st.integers(0, 6), min_size=1, max_size=5).map(tuple)


NOWHERE = f"../blobs/sha256/{'0' * 64}"


def digest_in(link: str) -> str:
    return link.replace("../blobs/sha256/", "sha256:")


class StoreMachine(RuleBasedStateMachine):
    """`model` maps each name to its snapshot's digest; `disks` and `parents` are what was captured under a digest.

    `signed` has the names of the signatures of a digest, until gc has taken what it stands for.
    `broken` maps the names of broken refs to their links. `trash` has (number of the removal, name, digest), the last
    first. `is_spoiled` is whether the catalog's file may be gone or damaged.
    """

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="store-machine-"))
        self.root = self.folder / "store0"
        self.store = Store.init(self.root, options=FAST)
        self.other: Store | None = None
        self.model: dict[str, str] = {}
        self.broken: dict[str, str] = {}
        self.trash: list[tuple[int, str, str]] = []
        self.removals = 0
        self.disks: dict[str, tuple[int, ...]] = {}
        self.parents: dict[str, str | None] = {}
        self.ids: dict[str, str] = {}
        self.signed: dict[str, set[str]] = {}
        self.is_spoiled = False

    def teardown(self) -> None:
        self.store.close()
        if self.other is not None:
            self.other.close()
        shutil.rmtree(self.folder)

    @initialize(pieces=PIECES)
    def first(self, pieces: tuple[int, ...]) -> None:
        self.create("a", pieces, None, force=False)

    # what users do

    @rule(name=NAMES, pieces=PIECES, parent=st.none() | NAMES, force=st.booleans())
    def create(self, name: str, pieces: tuple[int, ...], parent: str | None, force: bool) -> None:
        if parent not in self.model:
            parent = None
        taken = name in self.model or name in self.broken
        try:
            made = capture(self.store, self.folder, name, *pieces, force=force, parent=parent)
        except AlreadyExists:
            assert taken
            assert not force
            return
        assert force or not taken
        digest = str(made.digest)
        self.taken_over(name, digest)
        self.model[name], self.disks[digest], self.ids[digest] = digest, pieces, str(made.id)
        self.parents[digest] = None if parent is None else made.parent
        assert (made.parent is None) == (parent is None)

    @precondition(lambda self: self.model)
    @rule(data=st.data(), name=NAMES, force=st.booleans(), by_digest=st.booleans())
    def tag(self, data: st.DataObject, name: str, force: bool, by_digest: bool) -> None:
        source = data.draw(st.sampled_from(sorted(self.model)))
        digest = self.model[source]
        free = (name not in self.model and name not in self.broken) or self.model.get(name) == digest
        try:
            self.store.tag(digest[:20] if by_digest else source, name, force=force)
        except AlreadyExists:
            assert not free
            assert not force
        else:
            assert free or force
            self.taken_over(name, digest)
            self.model[name] = digest

    @precondition(lambda self: self.model)
    @rule(data=st.data(), who=st.sampled_from(["ed-alice", "ed-bob"]), cosign_tag=st.booleans())
    def sign(self, data: st.DataObject, who: str, cosign_tag: bool) -> None:
        name = data.draw(st.sampled_from(sorted(self.model)))
        with self.store.transaction() as change:
            root = self.store._directory.resolve(self.model[name])
            signed = sign_by(change, root, who, cosign_tag=cosign_tag)
            change.commit_all({})
        names = self.signed.setdefault(self.model[name], set())
        names.add(referrer_name(root.digest, replace(signed[0].descriptor, artifact_type=MEDIA_TYPE)))
        if cosign_tag:
            names.add(attachment_name(root.digest))

    @rule(name=NAMES, force=st.booleans())
    def remove(self, name: str, force: bool) -> None:
        try:
            removed = self.store.remove(name, force=force)
        except NotFound:
            assert name not in self.model
            assert name not in self.broken
        except HasChildren:
            assert self.has_children(name)
            assert not force
        else:
            assert removed.names == (name,)
            if name in self.broken:
                link = self.broken.pop(name)
                self.thrown_away({name: digest_in(link)} if link == NOWHERE else {})
            else:
                assert force or not self.has_children(name)
                digest = self.model.pop(name)
                self.thrown_away({name: digest})
                assert str(removed.digest) == digest
                assert sorted(removed.remaining) == sorted(n for n, d in self.model.items() if d == digest)

    def has_children(self, name: str) -> bool:
        digest = self.model[name]
        others = [d for n, d in self.model.items() if n != name and self.ids[d] == self.ids[digest]]
        return not others and any(self.parents[d] == self.ids[digest] for d in set(self.model.values()))

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def remove_by_digest(self, data: st.DataObject) -> None:
        digest = self.model[data.draw(st.sampled_from(sorted(self.model)))]  # digests differ from run to run
        removed = self.store.remove(digest, force=True)
        gone = {name for name, named in self.model.items() if named == digest}
        assert set(removed.names) == gone
        assert removed.remaining == ()
        self.thrown_away(dict.fromkeys(gone, digest))
        self.model = {name: named for name, named in self.model.items() if name not in gone}

    @rule(count=st.integers(1, 3))
    def prune(self, count: int) -> None:
        kept = list(dict.fromkeys(str(handle.digest) for handle in self.store.list()))[:count]
        gone = {name: digest for name, digest in self.model.items() if digest not in kept}
        report = self.store.prune(Policy(last=count), now=datetime.now(UTC))
        assert sorted(report.removed) == sorted(gone)
        self.thrown_away(gone)
        self.model = {name: digest for name, digest in self.model.items() if name not in gone}

    def thrown_away(self, names: Mapping[str, str]) -> None:
        self.removals += 1
        self.trash = [*((self.removals, name, names[name]) for name in sorted(names)), *self.trash]

    def taken_over(self, name: str, digest: str) -> None:
        """What the name stood for until now goes to the trash."""
        link = self.broken.pop(name, None)
        old = self.model.get(name) if link is None else digest_in(link) if link == NOWHERE else None
        if old not in {None, digest}:
            self.thrown_away({name: old})

    def offered(self) -> list[tuple[int, str, str]]:
        """What undo can be asked for."""
        stand = {**self.model, **{name: digest_in(link) for name, link in self.broken.items()}}
        return [each for each in self.trash if stand.get(each[1]) != each[2]]

    @rule(name=st.none() | NAMES)
    def undo(self, name: str | None) -> None:
        offered = [each for each in self.offered() if name in {None, each[1]}]
        there = [each for each in offered if each[2] in self.disks] or offered  # what has no manifest is passed over
        wanted = [each for each in offered if name is None and each[0] == there[0][0]] or offered[:1]
        taken = {each for _, each, digest in wanted if each in self.broken or self.model.get(each, digest) != digest}
        lost = any(digest not in self.disks for _, _, digest in wanted)
        try:
            back = self.store.undo(name)
        except AlreadyExists:
            assert taken
            assert not lost
        except NotFound:
            assert not wanted or lost
        else:
            assert wanted
            assert not taken
            assert not lost
            assert [(each.name, str(each.removed.digest)) for each in back] == [each[1:] for each in wanted]
            self.model |= {each: digest for _, each, digest in wanted}
            self.trash = [each for each in self.trash if each not in wanted]

    @rule(keep=st.booleans())
    def gc(self, keep: bool) -> None:
        before = blobs(self.root)
        keep_trash = 3600.0 if keep else None
        if self.broken:
            with pytest.raises(CorruptContent, match="gc cannot know what it needs"):
                self.store.gc(keep_trash=keep_trash)
            assert blobs(self.root) == before
            return
        kept = reachable(self.root, trash=keep)
        foretold = self.store.gc(dry_run=True, keep_trash=keep_trash)
        assert blobs(self.root) == before
        report = self.store.gc(keep_trash=keep_trash)
        assert (report.removed, report.freed, report.dropped) == (foretold.removed, foretold.freed, foretold.dropped)
        assert {digest.hex for digest in report.removed} == before - kept
        assert blobs(self.root) == kept
        dropped, stay = ([], self.trash) if keep else (self.trash, [])
        assert [(ref.name, str(ref.digest)) for ref in report.dropped] == [each[1:] for each in dropped]
        assert [(ref.name, str(ref.digest)) for ref in report.kept_removed] == [each[1:] for each in stay]
        self.signed = {digest: names for digest, names in self.signed.items() if digest.removeprefix("sha256:") in kept}
        self.trash = stay
        assert len(leftovers(self.root)) == len(stay)

    @rule()
    def reindex(self) -> None:
        self.is_spoiled = False
        assert self.store.reindex() == len(set(self.model.values()))

    @rule()
    def reopen(self) -> None:
        self.store.close()
        self.store = Store.open(self.root, options=FAST)

    @rule()
    def open_another(self) -> None:
        if self.other is not None:
            self.other.close()
        self.other = Store.open(self.root, options=FAST)

    @precondition(lambda self: self.other is not None)
    @rule()
    def change_sides(self) -> None:
        assert self.other is not None
        self.store, self.other = self.other, self.store

    # what happens to them

    @rule()
    def lose_catalog(self) -> None:
        self.is_spoiled = True
        (self.root / "catalog.sqlite").unlink(missing_ok=True)

    @rule(at=st.integers(0, 1 << 16), length=st.integers(1, 5000))
    def damage_catalog(self, at: int, length: int) -> None:
        path = self.root / "catalog.sqlite"
        self.is_spoiled = True
        if path.exists():
            with path.open("r+b") as file:
                file.seek(at % max(1, path.stat().st_size))
                file.write(b"\xa5" * length)

    @rule(garbage=st.sampled_from([None, b"", b"{", b"[]", b'{"schemaVersion":2,"manifests":[]}', b"\xff\xfe"]))
    def spoil_index(self, garbage: bytes | None) -> None:
        (self.root / "index.json").unlink()
        if garbage is not None:
            (self.root / "index.json").write_bytes(garbage)
        self.reopen()

    @rule(keep_other=st.booleans())
    def copy_elsewhere(self, keep_other: bool) -> None:
        """refs/ and blobs/ alone are a complete store."""
        new = Path(tempfile.mkdtemp(prefix="store", dir=self.folder))
        for part in ("refs", "blobs"):
            shutil.copytree(self.root / part, new / part, symlinks=True)
        self.store.close()
        if self.other is not None:
            self.other.close()
            self.other = None
        self.root, self.trash = new, []
        self.store = Store.open(self.root, options=FAST)

    @rule(name=NAMES, link=st.sampled_from(["/etc/passwd", "nowhere", NOWHERE]))
    def break_ref(self, name: str, link: str) -> None:
        path = self.root / "refs" / name
        path.unlink(missing_ok=True)
        path.symlink_to(link)
        self.model.pop(name, None)
        self.broken[name] = link

    @precondition(lambda self: self.model)
    @rule(data=st.data(), let_go=st.booleans())
    def lose_ref(self, data: st.DataObject, let_go: bool) -> None:
        name = data.draw(st.sampled_from(sorted(self.model)))
        if self.is_spoiled:
            self.reindex()  # else nobody may know of it
        (self.root / "refs" / name).unlink()
        assert name not in names(self.store)
        assert f"snapshot {name}: its name is gone" in self.store.warnings[-1]
        with pytest.raises(CorruptContent, match="gc"):  # of this, or of a broken one
            self.store.gc()
        if let_go:
            self.store.remove(name)
            self.thrown_away({name: self.model.pop(name)})
        else:
            self.store.undo(name)

    @precondition(lambda self: self.model)
    @rule(data=st.data(), name=NAMES)
    def link_ref_by_hand(self, data: st.DataObject, name: str) -> None:
        digest = self.model[data.draw(st.sampled_from(sorted(self.model)))]
        path = self.root / "refs" / name
        path.unlink(missing_ok=True)
        path.symlink_to(f"../blobs/sha256/{digest.removeprefix('sha256:')}")
        self.model[name] = digest
        self.broken.pop(name, None)

    @precondition(lambda self: self.model)
    @rule(data=st.data(), name=NAMES)
    def another_tool_adds_a_name_that_is_adopted(self, data: st.DataObject, name: str) -> None:
        digest = self.model[data.draw(st.sampled_from(sorted(self.model)))]
        free = name not in self.model and name not in self.broken
        said = self.model.get(name, index_refs(self.root).get(name))  # of a broken one, what is known of it
        document = json.loads((self.root / "index.json").read_bytes())
        size = (self.root / "blobs/sha256" / digest.removeprefix("sha256:")).stat().st_size
        annotations = {spec.ANNOTATION_REF_NAME: name}
        entry = {"mediaType": spec.MEDIA_MANIFEST, "digest": digest, "size": size, "annotations": annotations}
        document["manifests"].append(entry)
        (self.root / "index.json").write_text(json.dumps(document))
        report = self.store.adopt(drop=True)
        own = min(each for each in self.model if self.model[each] == digest)
        adopted = [name] if free else [] if said in {None, digest} else [own]  # a name that is taken is no name
        assert [(each.name, str(each.digest)) for each in report.adopted] == [(each, digest) for each in adopted]
        assert [each.name for each in report.left] == ([name] if said is None and not free else [])
        assert self.store.foreign() == []
        self.model |= {name: digest} if free else {}

    # what must hold

    @invariant()
    def everything_agrees(self) -> None:
        for store in filter(None, (self.store, self.other)):
            listed = {handle.name: handle for handle in store.list()}
            assert {name: str(handle.digest) for name, handle in listed.items()} == self.model
            assert {problem.name for problem in store.problems()} == self.broken.keys()
            assert [(ref.name, str(ref.digest)) for ref in store.removed()] == [each[1:] for each in self.offered()]
            assert {name: str(handle.id) for name, handle in listed.items()} == {
                name: self.ids[digest] for name, digest in self.model.items()
            }
            assert store._catalog.dump() == rebuilt(store)
        refs = {name: digest for name, digest in link_refs(self.root).items() if name not in self.broken}
        assert {name: digest for name, digest in refs.items() if not is_reserved(name)} == self.model
        assert set(filter(is_reserved, refs)) == set().union(*self.signed.values())

    @invariant()
    def one_snapshot_restores(self) -> None:
        for name in sorted(self.model)[:1]:
            assert content(self.store, name) == disk_bytes(*self.disks[self.model[name]])
        for name in sorted(self.broken)[:1]:
            with pytest.raises(CorruptContent):
                self.store.open_snapshot(name)

    @rule()
    def all_restore_and_the_index_is_right_after_opening(self) -> None:
        self.reopen()
        said = index_refs(self.root)  # of broken ones it still says what they stood for
        assert {name: said[name] for name in said if name not in self.broken and not is_reserved(name)} == self.model
        assert set(filter(is_reserved, said)) == set().union(*self.signed.values())
        for digest in set(self.model.values()):
            found = verdicts(self.store._directory, self.store._directory.resolve(digest), "ed-alice", "ed-bob")
            assert {verdict.partition(":")[2] for verdict in found} <= {"ed-alice", "ed-bob"}
            assert len(found) >= len(self.signed.get(digest, ()))
        for name, digest in self.model.items():
            self.store.verify(name, workers=1)
            assert content(self.store, name) == disk_bytes(*self.disks[digest])
        assert names(self.store) == sorted(self.model)
        assert all_files(self.root).keys() >= {f"blobs/sha256/{hex_}" for hex_ in reachable(self.root)}
        assert not os.listdir(self.root / "tmp") if (self.root / "tmp").exists() else True


def test_the_store_behaves_like_a_dict() -> None:
    run_state_machine_as_test(StoreMachine, settings=settings(max_examples=15, stateful_step_count=20, deadline=None))


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_the_store_behaves_like_a_dict_for_long() -> None:
    run_state_machine_as_test(StoreMachine, settings=settings(max_examples=400, stateful_step_count=60, deadline=None))
