"""Stores to test with: tiny disks, and what must hold of every store at any time."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from casstore import Snapshot, Store
from casstore.artifact import Artifact
from casstore.catalog import Catalog
from casstore.digest import Digest
from casstore.durable import Durability
from casstore.names import is_reserved
from casstore.oci import ArtifactManifest
from casstore.storedir import StoreOptions

PIECE = 64 * 1024
"""Bytes of one piece of a tiny disk: a chunk of its own, mostly."""
FAST = StoreOptions(durability=Durability.NONE, wait=20)
"""For tests that do not ask what a power cut does."""


def write_disk(path: Path, *pieces: int) -> Path:
    """Write a disk of one piece per number: equal numbers are equal bytes, 0 is a hole."""
    with path.open("wb") as out:
        for piece in pieces:
            if piece:
                out.write(random.Random(piece).randbytes(PIECE))
            else:
                out.seek(PIECE, os.SEEK_CUR)
        out.truncate(out.tell())
    return path


def disk_bytes(*pieces: int) -> bytes:
    """What `write_disk` writes, holes as zeros."""
    return b"".join(random.Random(piece).randbytes(PIECE) if piece else bytes(PIECE) for piece in pieces)


def capture(
    store: Store, folder: Path, name: str, *pieces: int, force: bool = False, parent: str | None = None
) -> Snapshot:
    """Create a snapshot of a tiny disk."""
    builder = Snapshot.builder(write_disk(folder / f"{name}.disk", *pieces)).name(name)
    if force:
        builder.force()
    if parent is not None:
        builder.parent(parent)
    return builder.create(store)


def content(store: Store, selector: str) -> bytes:
    """The bytes of a snapshot's disk."""
    parts: list[bytes] = []
    store.open_snapshot(selector).restore_to(lambda data: parts.append(bytes(data)), workers=1)
    return b"".join(parts)


def manifest_of(root: Path, name: str) -> ArtifactManifest:
    """What a name in a store stands for."""
    return ArtifactManifest.parse((root / "refs" / name).read_bytes(), subject=name)


def names(store: Store) -> list[str]:
    """The names in a store, sorted."""
    return sorted(handle.name for handle in store.list())


def rebuilt(store: Store) -> dict[str, Any]:
    """What a catalog says that was made by walking the refs just now."""
    catalog, directory = Catalog(None), store._directory
    try:
        catalog.sync(
            lambda: directory.read_refs()[0],
            lambda digest: Artifact.load(directory.blobs, directory.resolve(str(digest)), check=False),
        )
        return catalog.dump()
    finally:
        catalog.close()


def index_entries(root: Path) -> list[dict[str, Any]]:
    """The entries of an index.json."""
    entries: list[dict[str, Any]] = json.loads((root / "index.json").read_bytes())["manifests"]
    return entries


def index_refs(root: Path) -> dict[str, str]:
    """What index.json says of our refs: name -> digest."""
    return {
        entry["annotations"]["io.casstore.ref"]: entry["digest"]
        for entry in index_entries(root)
        if "io.casstore.ref" in entry.get("annotations", {})
    }


def link_refs(root: Path) -> dict[str, str]:
    """What the symlinks in refs/ say, read without any of casstore's code: name -> digest."""
    found = {}
    for path in (root / "refs").iterdir():
        if path.is_symlink() and not path.name.startswith("."):
            target = os.readlink(path)
            found[path.name] = target.replace("../blobs/sha256/", "sha256:")
    return found


def blobs(root: Path) -> set[str]:
    """The names of the files in blobs/."""
    return set(os.listdir(root / "blobs/sha256"))


def reachable(root: Path, *, trash: bool = False) -> set[str]:
    """The hex digests that the refs reach, or also the removed ones; found without casstore's code."""
    found: set[str] = set()
    links = [os.readlink(path) for path in root.glob("trash/*@*") if trash and path.is_symlink()]
    refs = link_refs(root)
    about = {name: refs.pop(name) for name in sorted(refs) if is_reserved(name)}
    todo = [*refs.values(), *links]
    while todo:
        hex_ = todo.pop().replace("../blobs/sha256/", "sha256:").removeprefix("sha256:")
        path = root / "blobs/sha256" / hex_
        if len(hex_) == 64 and path.is_file():
            document = json.loads(path.read_bytes())
            found |= {hex_, *(part["digest"][7:] for part in [document["config"], *document["layers"]])}
        if not todo:  # what is about something lives while that does
            todo = [about.pop(name) for name in list(about) if name[7:71] in found]
    return found


def all_files(root: Path) -> dict[str, bytes | str]:
    """Every file below `root` that holds state, with its content: for "nothing changed"."""
    found: dict[str, bytes | str] = {}
    for folder, _, files in os.walk(root):
        for file in files:
            path = Path(folder, file)
            if file not in {"lock", "gate.lock", "refs.lock", "catalog.sqlite"}:
                found[str(path.relative_to(root))] = os.readlink(path) if path.is_symlink() else path.read_bytes()
    return found


def staged(root: Path) -> list[str]:
    """The names of all files in op- directories."""
    return sorted(path.name for path in root.glob("tmp/op-*/*"))


def leftovers(root: Path) -> list[str]:
    """Whatever a store should not hold when nobody works with it and gc has run."""
    found = [str(path.relative_to(root)) for place in ("tmp", "trash") for path in (root / place).glob("*")]
    found += [str(path.relative_to(root)) for path in [*root.glob(".*"), *(root / "refs").glob(".*")]]
    return sorted(found)


def require_sound(root: Path, *, broken: Sequence[str] = (), contents: Mapping[str, bytes] | None = None) -> None:
    """Everything that must hold of a store at any time; `broken` are the refs that may be."""
    with Store.open(root, options=FAST) as store:
        assert [problem.name for problem in store.problems()] == sorted(broken)
        assert store._catalog.dump() == rebuilt(store)
        good = {name: digest for name, digest in link_refs(root).items() if name not in broken}
        assert index_refs(root).keys() - set(broken) == good.keys()
        assert {name: digest for name, digest in index_refs(root).items() if name in good} == good
        good = {name: digest for name, digest in good.items() if not is_reserved(name)}
        assert {handle.name: str(handle.digest) for handle in store.list()} == good
        for name in good:
            store.verify(name, workers=1)
        for name, data in (contents or {}).items():
            assert content(store, name) == data


def python(code: str, *arguments: str | Path, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run Python code in a process of its own, with sys.argv[1:] = arguments."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, check=check, capture_output=True, text=True, timeout=120)


def start_python(code: str, *arguments: str | Path) -> subprocess.Popen[str]:
    """Start Python code in a process of its own; its output is piped."""
    command = [sys.executable, "-u", "-c", code, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def flip_byte(path: Path, at: int = -1) -> None:
    """Damage a file, whatever its mode; its size stays."""
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.chmod(0o644)
    path.write_bytes(data)
    path.chmod(0o444)


def blob_path(root: Path, digest: Digest | str) -> Path:
    """Where a blob's file is."""
    return root / "blobs/sha256" / str(digest).removeprefix("sha256:")
