"""Every kind of file of a store, damaged in every way: a check that reads all data finds it, a repair heals it from a
registry that has the data, and nothing else in the store is changed (rows 16 to 20, 22 to 25, 28).
"""

from __future__ import annotations

import os
import random
import shutil
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from casstore import Store
from casstore.catalog import Catalog
from casstore.checking.findings import Kind
from casstore.checking.rereading import ReadData
from casstore.errors import UnsupportedVersion
from casstore.health import repair_store
from casstore.oci import ArtifactManifest, Descriptor
from casstore.transfer import TransferOptions
from tests.support.manifests import sign
from tests.support.registry_simulator import RegistrySimulator
from tests.support.stores import FAST, capture
from tests.support.transfers import over

BLOBS = ("manifest", "config", "map", "pack", "referrer", "signature")
FILES = (*BLOBS, "ref", "referrer-ref", "index.json", "oci-layout", "casstore.json", "catalog.sqlite")
LOCKS = ("lock", "gate.lock", "refs.lock")
CHANGES = ("flip", "truncate", "empty", "delete", "swap", "symlink", "directory", "fifo")
REPOSITORY = "team/disks"


@dataclass(frozen=True)
class Place:
    """A sound store, what a registry has of it, and which file is of which kind; `others` are second ones to swap."""

    base: Path
    registry: RegistrySimulator
    files: dict[str, str]
    others: dict[str, str]

    @property
    def source(self) -> str:
        return f"{self.registry.host}/{REPOSITORY}"


def build(folder: Path) -> tuple[Path, dict[str, str], dict[str, str]]:
    """A store of two snapshots, each with a signature."""
    root = folder / "base"
    files: dict[str, str] = {name: name for name in ("index.json", "oci-layout", "casstore.json", "catalog.sqlite")}
    files |= dict(zip(LOCKS, LOCKS, strict=True))
    others = {"index.json": "oci-layout", "oci-layout": "casstore.json", "casstore.json": "index.json"}
    others |= {"catalog.sqlite": "index.json", **dict.fromkeys(LOCKS, "oci-layout")}
    with Store.init(root, options=FAST) as store:
        for name, pieces in (("one", (1, 2, 3)), ("two", (4, 5))):
            capture(store, folder, name, *pieces)
        for name, found in (("one", files), ("two", others)):
            manifest = store.open_snapshot(name).artifact_manifest
            with store.transaction() as change:
                signature = sign(change, manifest.descriptor, name.encode())
                change.tag(manifest.descriptor, name)
            found.update(_places(root, name, manifest, signature))
        store.tag("one", "alias")
    return root, files, others


def _places(root: Path, name: str, manifest: ArtifactManifest, signature: Descriptor) -> dict[str, str]:
    blobs = {
        "manifest": manifest.descriptor,
        "config": manifest.config,
        "map": manifest.map,
        "pack": manifest.packs[0],
        "referrer": signature,
        "signature": Descriptor.of(name.encode(), "text/plain"),
    }
    found = {kind: f"blobs/sha256/{blob.digest.hex}" for kind, blob in blobs.items()}
    found["ref"] = f"refs/{name}"
    [found["referrer-ref"]] = [
        f"refs/{path.name}" for path in (root / "refs").glob(f"sha256-{manifest.descriptor.digest.hex}.*")
    ]
    return found


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("mutation")
    root, files, others = build(folder)
    with RegistrySimulator() as simulator, Store.open(root, options=FAST) as store:
        store.push_all(f"{simulator.host}/{REPOSITORY}", options=over(simulator, referrers=True))
        yield Place(root, simulator, files, others)


def damage(root: Path, file: str, change: str, other: str, rng: random.Random) -> None:
    """Change one file."""
    path, content = root / file, b""
    if path.is_symlink():
        content = os.readlink(path).encode()
    elif path.is_file():
        content = path.read_bytes()
    if change == "flip":
        at = rng.randrange(len(content))
        content = content[:at] + bytes([content[at] ^ 1 << rng.randrange(8)]) + content[at + 1 :]
    elif change == "truncate":
        content = content[: rng.randrange(1, len(content))] if len(content) > 1 else b""
    elif change == "empty":
        content = b""
    elif change == "swap":
        source = root / other
        content = os.readlink(source).encode() if source.is_symlink() else source.read_bytes()
    was_link, mode = path.is_symlink(), stat.S_IMODE(path.lstat().st_mode)
    path.unlink()
    if change == "symlink":
        path.symlink_to(root / other)
    elif change == "directory":
        path.mkdir()
        (path / "file").write_text("in the way")
    elif change == "fifo":
        os.mkfifo(path)
    elif change != "delete":
        if was_link and content and b"\0" not in content:
            os.symlink(content, os.fsencode(path))
        else:
            path.write_bytes(content)
            path.chmod(0o644 if was_link else mode)


def state(root: Path) -> dict[str, object]:
    """Everything that a store is, but for its quarantine and what differs from run to run: type, mode and content."""
    found: dict[str, object] = {}
    for folder, folders, names in os.walk(root):
        folders[:] = [name for name in folders if Path(folder, name) not in {root / "quarantine", root / "tmp"}]
        for name in [*folders, *names]:
            path = Path(folder, name)
            told = str(path.relative_to(root))
            info = path.lstat()
            if told == "catalog.sqlite":
                found[told] = _catalog(path)
            elif path.is_symlink():
                found[told] = os.readlink(path)
            elif path.is_file():
                found[told] = (stat.S_IMODE(info.st_mode), info.st_nlink, path.read_bytes())
            else:
                found[told] = stat.S_IFMT(info.st_mode)
    return found


def _catalog(path: Path) -> object:
    catalog = Catalog(str(path))
    try:
        return catalog.dump()
    finally:
        catalog.close()


@dataclass(frozen=True)
class Case:
    """One change of one kind of file, and where repairs come from."""

    kind: str
    change: str
    seed: int = 0

    def run(self, place: Place, tmp_path: Path, transfer: TransferOptions, source: str) -> str:
        """Damage, check and repair a copy of the store; what is wrong with how that ended, or nothing."""
        root = tmp_path / "store"
        shutil.rmtree(root, ignore_errors=True)
        shutil.copytree(place.base, root, symlinks=True)
        before = state(root)
        rng = random.Random(f"{self.kind} {self.change} {self.seed}")
        damage(root, place.files[self.kind], self.change, place.others[self.kind], rng)
        if self.kind == "catalog.sqlite" and self.change == "flip" and _is_as_before(root, before):
            return ""  # a bit of the file that says nothing
        try:
            report = repair_store(root, sources=[source], data=ReadData(), options=FAST, transfer=transfer)
        except UnsupportedVersion:
            return "" if (self.kind, self.change) == ("casstore.json", "flip") else "refused"  # a version to come
        if all(each.kind is Kind.QUARANTINED for each in report.before.findings):
            return "not found"
        left = {each.kind for each in report.after.findings} - {Kind.QUARANTINED}
        after = state(root)
        changed = {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}
        if (left, changed) == self.expected(place):
            return ""
        if (self.kind, self.change) == ("index.json", "flip") and left == {Kind.FOREIGN_ENTRY}:
            return ""  # of a name: as if another tool had given one more
        return f"left {left}, changed {changed}: {report.after.findings} {report.problems}"

    def expected(self, place: Place) -> tuple[set[Kind], set[str]]:
        """What is left, and what is not as before."""
        if (self.kind, self.change) == ("ref", "swap"):  # it may have been meant so: nothing is touched
            return {Kind.CHANGED_REF, Kind.STALE_INDEX, Kind.STALE_CATALOG}, {place.files["ref"]}
        return set(), set()


def _is_as_before(root: Path, before: dict[str, object]) -> bool:
    try:
        return _catalog(root / "catalog.sqlite") == before["catalog.sqlite"]
    except Exception:  # noqa: BLE001  (whatever SQLite makes of the damage)
        return False


def cases(seeds: int) -> Iterator[Case]:
    """All kinds of files, and all ways to damage them; those with an element of chance several times."""
    for kind in FILES:
        for change in CHANGES:
            yield from (Case(kind, change, seed) for seed in range(seeds if change in {"flip", "truncate"} else 1))
    for kind in LOCKS:  # their content is never read, and a missing one is made by whoever needs it
        yield from (Case(kind, change) for change in ("symlink", "directory", "fifo"))


@pytest.mark.parametrize("kind", [*FILES, *LOCKS])
def test_every_damage_is_found_and_healed(place: Place, tmp_path: Path, kind: str) -> None:
    transfer = over(place.registry)
    outcomes = {case: case.run(place, tmp_path, transfer, place.source) for case in cases(1) if case.kind == kind}
    assert not {case: problem for case, problem in outcomes.items() if problem}


@pytest.mark.long
@pytest.mark.parametrize("kind", FILES)
def test_every_damage_is_found_and_healed_wherever_it_is(place: Place, tmp_path: Path, kind: str) -> None:
    transfer = over(place.registry)
    outcomes = {case: case.run(place, tmp_path, transfer, place.source) for case in cases(40) if case.kind == kind}
    assert not {case: problem for case, problem in outcomes.items() if problem}
