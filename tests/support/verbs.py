"""Every verb that changes a store or writes a file, as a command and what it does; and stores to try it on."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from casstore import Snapshot, Store, spec
from casstore.retention import Policy
from tests.support.seed import make_artifact
from tests.support.stores import FAST, blob_path, disk_bytes, flip_byte, link_refs

OLD, TWO, NEW, FORCED, GONE = (1, 2, 3), (3, 7), (2, 3, 4), (4, 5), (8, 9)
EDITED = (1, -2, 3, 0, 11)
BASE = {"one": OLD, "alias": OLD, "two": TWO}

Pieces = tuple[int, ...]
Changes = Mapping[str, Pieces | None]
"""What a verb makes of names: the pieces of what each stands for then; None for a name that is gone."""


def plain(pieces: Pieces) -> bytes:
    """The bytes of a disk; a negative piece is that of the number with a byte changed: it becomes a delta."""
    parts = []
    for piece in pieces:
        data = bytearray(disk_bytes(abs(piece)))
        if piece < 0:
            data[1000] ^= 1
        parts.append(bytes(data))
    return b"".join(parts)


@dataclass(frozen=True)
class Verb:
    """A command, and what it does. In its words {case} is the directory of a case, {place} that of all."""

    words: str
    changes: Changes = field(default_factory=dict)
    again: int = 0
    """The exit code of the same command when it is done already."""
    base: str = "plain"
    target: Pieces | None = None
    """What {case}/out is when it was nothing before, or was the disk TWO."""


VERBS: Mapping[str, Verb] = {
    "create": Verb("create new --disk {place}/fresh", {"new": (21, 22)}, again=15),
    "create-hits": Verb("create new --disk {place}/new", {"new": NEW}, again=15),
    "create-deltas": Verb("create new --disk {place}/edited --parent one", {"new": EDITED}, again=15),
    "create-force": Verb("create one --disk {place}/forced -f", {"one": FORCED}),
    "create-artifact": Verb("create new --from-artifact {place}/artifact", {"new": EDITED}),
    "pull": Verb("pull oci:{place}/layout:new", {"new": NEW}),
    "tag": Verb("tag one new", {"new": OLD}),
    "tag-force": Verb("tag one two -f", {"two": OLD}),
    "remove": Verb("rm two", {"two": None}, again=10),
    "undo": Verb("undo", {"gone": GONE}, again=10),
    "undo-two": Verb("undo", {"one": OLD, "alias": OLD}, again=10, base="pruned"),
    "prune": Verb("prune --keep-label kept", {"one": None, "alias": None}),
    "adopt": Verb("adopt", {"stray": NEW}, base="foreign"),
    "adopt-drop": Verb("adopt --drop", {"stray": NEW}, base="foreign"),
    "gc": Verb("gc"),
    "check": Verb("check --read-data"),
    "repair": Verb("check --read-data --repair --from {place}/backup", base="damaged"),
    "create-first": Verb("create new --disk {place}/new", {"new": NEW}, again=15, base="nothing"),
    "restore": Verb("restore one {case}/out", again=15, target=OLD),
    "restore-seed": Verb("restore one {case}/out -f --seed {place}/new", target=OLD, base="target"),
    "restore-force": Verb("restore one {case}/out -f", target=OLD, base="target"),
}


def make_bases(place: Path) -> None:
    """What the cases start from: copies of these."""
    for name, pieces in {"fresh": (21, 22), "new": NEW, "edited": EDITED, "forced": FORCED}.items():
        (place / name).write_bytes(plain(pieces))
    make_artifact(place, "artifact", plain(EDITED), integrity=True)
    (place / "nothing").mkdir()
    disk = place / "disk"
    root = place / "plain" / "store"
    with Store.init(root, options=FAST) as store:
        for name, pieces in {"gone": GONE, "one": OLD, "two": TWO}.items():
            disk.write_bytes(plain(pieces))
            Snapshot.builder(disk).name(name).labels({"kept": ""} if name == "two" else {}).create(store)
        store.tag("one", "alias")
        store.remove("gone")
    dead = root / "tmp" / f"op-{0:016x}"
    dead.mkdir()
    (dead / "lease").touch()
    (dead / f"{7:064x}").write_bytes(b"left by an interrupted pull")
    (root / "refs" / ".one.0123456789ab.tmp").symlink_to("../blobs/sha256/" + "0" * 64)
    for base in ("target", "pruned", "foreign", "damaged"):
        shutil.copytree(place / "plain", place / base, symlinks=True)
    (place / "target" / "out").write_bytes(plain(TWO))
    for removed in (place / "pruned" / "store" / "trash").iterdir():
        removed.unlink()
    with Store.open(place / "pruned" / "store", options=FAST) as store:
        store.prune(Policy(labels=(("kept", None),)), now=datetime.now(UTC))
    _add_stray(place / "foreign" / "store", disk)
    _damage(place / "damaged" / "store")
    shutil.copytree(root, place / "backup", symlinks=True)
    with Store.init(place / "source", options=FAST) as store:
        disk.write_bytes(plain(NEW))
        Snapshot.builder(disk).name("new").create(store)
        store.push("new", f"oci:{place}/layout")


def _add_stray(root: Path, disk: Path) -> None:
    """Let another tool add a snapshot to index.json."""
    with Store.open(root, options=FAST) as store:
        disk.write_bytes(plain(NEW))
        made = Snapshot.builder(disk).name("stray").create(store)
    (root / "refs" / "stray").unlink()
    (root / "catalog.sqlite").unlink()  # which knows that it was a name
    Store.open(root, options=FAST).close()
    index = json.loads((root / "index.json").read_bytes())
    entry = {"mediaType": spec.MEDIA_MANIFEST, "digest": str(made.digest), "size": made.root.size}
    index["manifests"].append({**entry, "annotations": {spec.ANNOTATION_REF_NAME: "stray"}})
    (root / "index.json").write_text(json.dumps(index))


def _damage(root: Path) -> None:
    """Flip a bit in a pack of one snapshot, and take away the manifest of another."""
    with Store.open(root, options=FAST) as store:
        manifest = store.open_snapshot("one").artifact().manifest
    flip_byte(blob_path(root, manifest.packs[0].digest), 100)
    blob_path(root, link_refs(root)["two"]).unlink()
