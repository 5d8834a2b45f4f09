"""Names that are gone from refs/, though nobody removed them with casstore: nobody forgets them unasked."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

import pytest

from casstore import Store, trash
from casstore.checking.findings import Kind
from casstore.derived import Derived
from casstore.errors import CorruptContent, NotFound
from tests.support.stores import FAST, capture, disk_bytes, index_refs, link_refs, names, require_sound


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A store with `base` and `other`."""
    root = tmp_path / "store"
    with Store.init(root, options=FAST) as store:
        capture(store, tmp_path, "base", 1, 2)
        capture(store, tmp_path, "other", 3)
    return root


def without_room(_trash: trash.Trash, folder: int, name: str, _stamp: int) -> bool:
    """Stands for Trash.take on a full disk."""
    os.unlink(name, dir_fd=folder)
    return False


def opened(root: Path) -> Store:
    return Store.open(root, options=FAST)


def test_row_22_a_lost_name_is_told_by_every_command_until_it_is_back(root: Path) -> None:
    """Row 22. gc frees nothing of it meanwhile."""
    before = link_refs(root)
    (root / "refs/base").unlink()
    for _ in range(2):
        with opened(root) as store:
            assert names(store) == ["other"]
            assert "casstore undo base takes it back, casstore rm base lets it go" in store.warnings[-1]
            for dry_run in (True, False):
                with pytest.raises(CorruptContent, match=r"snapshot base: its name is gone from refs/.*frees nothing"):
                    store.gc(dry_run=dry_run)
        assert index_refs(root).keys() == {"other"}
    with opened(root) as store:
        assert [(ref.name, ref.time) for ref in store.removed()] == [("base", None)]
        assert [back.name for back in store.undo()] == ["base"]
        assert store.warnings == []
        assert store.gc().removed == ()
    assert link_refs(root) == before
    require_sound(root, contents={"base": disk_bytes(1, 2), "other": disk_bytes(3)})


def test_rm_lets_it_go(root: Path) -> None:
    (root / "refs/base").unlink()
    with opened(root) as store:
        assert store.remove("base").names == ("base",)
        assert store.warnings == []
        assert [ref.has_vanished for ref in store.removed()] == [False]
        with pytest.raises(NotFound):
            store.remove("base")
        store.undo("base")
        store.remove("base")
        assert store.gc().removed != ()
        with pytest.raises(NotFound):
            store.undo()


def test_check_tells_it_also_after_other_commands_and_repairs_it(root: Path) -> None:
    before = link_refs(root)
    (root / "refs/base").unlink()
    for _ in range(3):
        found = [each for each in Store.check(root).findings if each.kind is Kind.LOST_REF]
        assert [(each.subject, str(each.digest)) for each in found] == [("refs/base", before["base"])]
        opened(root).close()
    Store.repair(root)
    assert link_refs(root) == before
    with opened(root) as store:
        assert store.warnings == []
        store.gc()
    assert Store.check(root).findings == ()


def test_a_process_that_is_open_notices_as_well(root: Path, tmp_path: Path) -> None:
    with opened(root) as store:
        (root / "refs/base").unlink()
        capture(store, tmp_path, "more", 4)
        assert "snapshot base: its name is gone" in store.warnings[-1]


def test_a_name_that_is_made_again_does_not_hide_it(root: Path, tmp_path: Path) -> None:
    old = link_refs(root)["base"]
    (root / "refs/base").unlink()
    with opened(root) as store:
        capture(store, tmp_path, "base", 5)
        with pytest.raises(CorruptContent, match="its name is gone"):
            store.gc()
        (root / "refs/base").unlink()
    with opened(root) as store:
        assert [ref.has_vanished for ref in store.removed()] == [False, True]
        store.undo("base", rename="new")
        store.undo("base")
        assert str(store.get("base").digest) == old


@pytest.mark.parametrize("old", ["the same", "another", "a broken one"])
def test_what_was_removed_before_it_was_made_again_does_not_hide_it(root: Path, tmp_path: Path, old: str) -> None:
    """Whatever the name stood for when it was removed; an index.json that says nothing of it changes nothing."""
    base = link_refs(root)["base"]
    with opened(root) as store:
        if old == "a broken one":
            (root / "refs/base").unlink()
            (root / "refs/base").symlink_to("nowhere")
        elif old == "another":
            store.tag("other", "base", force=True)
        store.remove("base")
        store.tag(base, "base")
    (root / "refs/base").unlink()
    (root / "index.json").unlink()
    lost = [each for each in Store.check(root).findings if each.kind is Kind.LOST_REF]
    assert [(each.subject, str(each.digest)) for each in lost] == [("refs/base", base)]
    with opened(root) as store:
        assert "snapshot base: its name is gone" in store.warnings[-1]
        with pytest.raises(CorruptContent, match="its name is gone"):
            store.gc()
        store.undo("base")
        assert str(store.get("base").digest) == base


def test_what_casstore_removed_again_is_not_taken_for_lost(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither with a catalog of before, nor after the clock was set back."""
    with opened(root) as store:
        store.remove("base")
        store.undo("base")
        store.tag("other", "base", force=True)
        before = (root / "catalog.sqlite").read_bytes()
        store.remove("base")
    (root / "catalog.sqlite").write_bytes(before)
    assert not [each for each in Store.check(root).findings if each.kind is Kind.LOST_REF]
    with opened(root) as store:
        assert store.warnings == []
        store.undo("base")
        store.gc()
        monkeypatch.setattr(time, "time_ns", lambda: 1)
        store.remove("base")
        assert store.warnings == []
    with opened(root) as store:
        assert store.warnings == []


def test_reindex_forgets_no_name_untold(root: Path) -> None:
    with opened(root) as store:
        (root / "refs/base").unlink()
        assert store.reindex() == 1
        assert "snapshot base" in store.warnings[-1]


def test_what_casstore_removed_is_never_taken_for_lost(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process, one that could not keep it in the trash, and one with a catalog of before."""
    with opened(root) as watching:
        before = (root / "catalog.sqlite").read_bytes()
        with opened(root) as store:
            store.remove("base")
        (root / "catalog.sqlite").write_bytes(before)  # as after a power cut
        assert names(watching) == ["other"]
        assert watching.warnings == []
    with opened(root) as store:
        assert store.warnings == []
        store.gc()
    with opened(root) as store:
        assert store.warnings == []
        with monkeypatch.context() as patch:
            patch.setattr(trash.Trash, "take", without_room)
            assert store.remove("other").for_good == ("other",)
        assert store.warnings == []
    with opened(root) as store:
        assert store.warnings == []
        assert store.removed() == []


def test_a_full_disk_whose_catalog_cannot_follow_is_no_reason_for_an_alarm(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Row 39: no catalog is better than one that knows a name which was removed for good."""
    saved = root.parent / "catalog"
    shutil.copy(root / "catalog.sqlite", saved)
    with opened(root) as store, monkeypatch.context() as patch:
        patch.setattr(trash.Trash, "take", without_room)
        patch.setattr(Derived, "_follow", lambda _: False)
        store._directory.follow = lambda: False
        store.remove("other")
    assert not (root / "catalog.sqlite").exists()
    with opened(root) as store:
        assert store.warnings == []


def test_a_store_that_only_can_be_read_goes_on(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (root / "refs/base").unlink()
    with monkeypatch.context() as patch:
        patch.setattr(os, "access", lambda *_: False)
        with opened(root) as store:
            assert names(store) == ["other"]
            assert store.read_only
    with opened(root) as store:
        assert "snapshot base" in store.warnings[-1]
