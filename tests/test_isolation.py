"""No verb leaves the store and the places that it was given: what a symlink leads to is neither changed nor made.

A victim, a directory outside, is looked at before and after: names, kinds, content, modes, times and link counts. The
numbers are rows of docs/explanation/faults.md.
"""

from __future__ import annotations

import ctypes
import json
import os
import re
import shutil
import stat
import sys
import tarfile
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from fnmatch import fnmatch
from pathlib import Path

import pytest

from casstore import Snapshot, Store, durable, spec
from casstore.credentials import Credentials, DockerConfig
from casstore.digest import Digest
from casstore.errors import CasstoreError
from casstore.jsondoc import dump
from casstore.lastseen import LastSeen, Sighting
from casstore.storedir import StoreDirectory
from tests.support import syscalls
from tests.support.artifacts import RAW, Disk, HandMade, config_bytes, frame, pack_bytes
from tests.support.command import Casstore, Result
from tests.support.stores import FAST, blob_path, capture, flip_byte, manifest_of, write_disk
from tests.support.verbs import VERBS, make_bases
from tests.test_dialects_store import write_07

DOCUMENTED = {0, 2, 3, *range(10, 18)}
WORDS = [
    *(VERBS[verb].words for verb in ("create", "create-force", "create-artifact", "pull", "tag", "remove", "undo")),
    *(VERBS[verb].words for verb in ("adopt", "check", "restore", "gc")),
    "adopt --drop",
    "check --read-data --repair --from {place}/backup",
    "export one {case}/one.tar -f",
    "export one {case}/oci.tar --as oci -f",
    "import {place}/archive.tar --name imported -f",
    "import {place}/oci.tar --name unpacked -f",
    "init --shared",
    "list",
    "prune --keep-last 1",
    "push one oci:{case}/pushed:one",
    "reindex",
    "restore one {case}/salvaged --salvage -f",
    "rm sha256:000000",
    "verify --all",
    "gc",
]
"""One after the other, on one store: every verb that changes one, and some that only read."""
MAKING = [words for words in WORDS if words.split()[0] in {"create", "pull", "tag", "rm", "undo", "check", "gc"}]
"""Those that make what may be missing."""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What all cases start from; see tests.support.verbs."""
    place = tmp_path_factory.mktemp("bases")
    make_bases(place)
    casstore = Casstore(place)
    casstore.store = place / "source"
    casstore("--store", place / "source", "export", "new", place / "archive.tar")
    casstore("--store", place / "source", "export", "new", place / "oci.tar", "--as", "oci")
    write_07(place / "seven", 1)
    return place


def look(path: Path) -> dict[str, tuple[object, ...]]:
    """All that can be seen of a victim; reading it here changes nothing that is compared."""
    found: dict[str, tuple[object, ...]] = {}
    for each in (path, *sorted(path.rglob("*"))):
        info = each.lstat()
        content = each.read_bytes() if stat.S_ISREG(info.st_mode) else None
        found[str(each.relative_to(path))] = (info.st_mode, info.st_nlink, info.st_mtime_ns, info.st_ctime_ns, content)
    return found


class Opened:
    """Tells what was opened in a directory, or of it, since it was asked last: inotify(7), for all processes."""

    _OPEN, _EVENT = 0x20, 16  # IN_OPEN; bytes of an event before its name

    def __init__(self, path: Path) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        self._fd = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        assert self._fd >= 0
        folders = [path, *(each for each in path.rglob("*") if each.is_dir() and not each.is_symlink())]
        for folder in folders:
            assert libc.inotify_add_watch(self._fd, os.fsencode(folder), self._OPEN) >= 0

    def __call__(self) -> list[bytes]:
        names = []
        try:
            events = os.read(self._fd, 1 << 20)
        except BlockingIOError:
            return []
        while events:
            length = int.from_bytes(events[12:16], "little")
            names.append(events[16 : 16 + length].rstrip(b"\0") or b".")
            events = events[16 + length :]
        return names

    def close(self) -> None:
        os.close(self._fd)


def run(casstore: Casstore, words: str, **known: object) -> Result:
    """Run a verb, which may be refused, but only as documented."""
    parts = words.format(**known).split()
    if parts[0] in {"create", "pull", "restore", "check"}:
        parts.append("-q")
    done = casstore.run("--durability", "none", "--wait", "5", *parts)
    assert done.code in DOCUMENTED, f"{parts}: exit {done.code}: {done.stdout}{done.stderr}"
    assert "Traceback" not in done.stderr
    return done


# --- inside of a store

DIRECTORIES = {"blobs", "blobs/sha256", "refs", "tmp", "trash", "quarantine", "state", "cache", "cache/sources"}
PARTS = [
    *("blobs", "blobs/sha256", "refs", "tmp", "trash", "quarantine state cache", "cache/sources"),
    *("lock", "gate.lock", "refs.lock", "oci-layout", "casstore.json", "index.json"),
    "catalog.sqlite",
    "catalog.sqlite-journal catalog.sqlite-wal catalog.sqlite-shm",
    "cache/check-position state/last-seen.json refs/one trash/" + "0" * 64 + " trash/gone@1 tmp/op-" + "1" * 16,
    "refs/new tmp/op-" + "0" * 16 + "/lease blobs/sha256/PACK blobs/sha256/" + "5" * 64,
    "blobs/sha256/MANIFEST",
]
"""Where symlinks are to be: at several places at once, where one does not keep verbs from coming to the others."""


def plant(root: Path, part: str, victim: Path, kind: str) -> Callable[[], None]:
    """Let a symlink have a part's place; what was there is behind it, or nothing is (`dangling`). Returns what plants
    it again after it was replaced.
    """
    path = root / part
    behind = victim / f"{'nothing' if kind == 'dangling' else 'moved'} {part.replace('/', ' ')}"
    path.parent.mkdir(exist_ok=True)
    if os.path.lexists(path) and kind == "moved":
        shutil.move(path, behind)
    elif os.path.lexists(path):
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    elif kind == "moved" and part in DIRECTORIES:
        behind.mkdir()
        (behind / "file").write_text("victim")
    elif kind == "moved":
        behind.write_text("victim")
    if behind.is_dir():
        (behind / ("6" * 64)).write_text("victim")

    def again() -> None:
        if path.parent.is_dir() and not path.is_symlink():
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
            path.symlink_to(behind)

    again()
    return again


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    """Somebody's directory."""
    path = tmp_path / "victim"
    path.mkdir()
    (path / "precious").write_text("precious")
    return path


@pytest.mark.parametrize("kind", ["moved", "dangling"])
@pytest.mark.parametrize("parts", PARTS)
def test_20_23_24_no_verb_follows_a_symlink_out_of_a_store(
    place: Path, tmp_path: Path, victim: Path, parts: str, kind: str
) -> None:
    """Whatever of a store it stands for, and whatever verb comes."""
    case = tmp_path / "case"
    shutil.copytree(place / "plain", case, symlinks=True)
    casstore = Casstore(tmp_path)
    casstore.store = case / "store"
    casstore.env["CASSTORE_STORE"] = str(case / "store")
    manifest = manifest_of(case / "store", "one")
    parts = parts.replace("MANIFEST", manifest.descriptor.digest.hex).replace("PACK", manifest.packs[0].digest.hex)
    again = [plant(case / "store", part, victim, kind) for part in parts.split()]
    before, opened = look(victim), Opened(victim)
    for words in WORDS if kind == "moved" else MAKING:
        run(casstore, words, case=case, place=place)
        assert opened() == [], words
        assert look(victim) == before, words
        opened()
        for each in again:
            each()
    opened.close()


# --- where things are written

TARGETS = [
    "restore one {target} -f",
    "restore one {target}/ -f",
    "restore one {target}/ --as 0.7 -f",
    "restore one {target}/ --as 0.6 -f",
    "restore one {target} --salvage -f",
    "restore one {target}/ --salvage -f",
    "restore seven {target}/ --salvage -f",
    "restore seven {target}/ -f",
    "export one {target} -f",
    "export one {target} --as oci -f",
    "import {place}/archive.tar {target} -f",
    "import {place}/archive.tar {target}/ -f",
    "push one oci:{target}:one",
    "copy oci:{place}/layout:new oci:{target}:new",
    "list oci:{target}",
    "rm oci:{target}:one",
    "create {target} --disk {place}/new -f",
]
"""Everything that writes to a place that it is given."""


def make_target(target: Path, victim: Path, kind: str) -> None:
    """Plant what leads to the victim at a target, or in it."""
    if kind == "symlink to a file":
        target.symlink_to(victim / "precious")
    elif kind == "dangling symlink":
        target.symlink_to(victim / "nothing")
    elif kind == "hard link":
        os.link(victim / "precious", target)
    elif kind == "FIFO":
        os.mkfifo(victim / "fifo")
        os.link(victim / "fifo", target)
    else:
        target.mkdir()
        for name in (
            "manifest.json",
            "snapshot.json",
            "disk.raw",
            "upper.ext4",
            "snapshot-metadata.json",
            "metadata.json",
        ):
            (target / name).symlink_to(victim / "precious")
        if kind == "a layout's":
            (target / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
            (target / "index.json").symlink_to(victim / "precious")
            (target / "blobs").mkdir()
            (target / "blobs/sha256").symlink_to(victim / "folder")
            (target / ".casstore").symlink_to(victim / "folder")
        else:
            (target / "layers").symlink_to(victim / "folder")
            (target / "index.json").symlink_to(victim / "nothing")
            (target / "blobs").symlink_to(victim / "folder")
            (target / "refs").symlink_to(victim / "folder")


@pytest.mark.parametrize(
    "kind", ["symlink to a file", "dangling symlink", "hard link", "FIFO", "in a folder", "a layout's"]
)
def test_49_nothing_is_written_to_where_a_target_leads(place: Path, tmp_path: Path, victim: Path, kind: str) -> None:
    """A name at the target may be replaced, with -f; what it led to never is."""
    (victim / "folder").mkdir()
    casstore = Casstore(tmp_path)
    shutil.copytree(place / "plain" / "store", casstore.store, symlinks=True)
    casstore("create", "seven", "--from-artifact", place / "seven")
    for number, words in enumerate(TARGETS):
        target = tmp_path / f"target-{number}" / "it"
        target.parent.mkdir()
        make_target(target, victim, kind)
        before = look(victim)
        run(casstore, words, target=target, place=place)
        now = look(victim)
        if kind in {"hard link", "FIFO"}:  # one name less, at most
            before, now = ({name: (*seen[:1], seen[4]) for name, seen in each.items()} for each in (before, now))
        assert now == before, words
        (victim / "fifo").unlink(missing_ok=True)


# --- what is swapped while it is in use


@pytest.mark.parametrize("part", ["blobs", "blobs/sha256", "refs", "tmp", "trash", "cache"])
@pytest.mark.parametrize("verb", ["create", "rename", "undo", "pull", "gc", "adopt"])
def test_35_a_part_that_is_swapped_after_the_store_was_opened_is_not_followed(
    place: Path, tmp_path: Path, victim: Path, part: str, verb: str
) -> None:
    """To the same content, so that nothing but the symlink can be noticed."""
    root = tmp_path / "store"
    shutil.copytree(place / "plain" / "store", root, symlinks=True)
    actions: dict[str, Callable[[Store], object]] = {
        "create": lambda store: Snapshot.builder(place / "fresh").name("new").create(store),
        "undo": lambda store: store.undo(),
        "pull": lambda store: store.pull(f"oci:{place}/layout:new"),
        "gc": lambda store: store.gc(),
        "adopt": lambda store: store.adopt(),
        "rename": lambda store: store.tag("one", "two", force=True),
    }
    with Store.open(root, options=FAST) as store:
        shutil.move(root / part, victim / "moved")
        (root / part).symlink_to(victim / "moved")
        before, opened = look(victim), Opened(victim)
        with suppress(CasstoreError):
            actions[verb](store)
        assert opened() == []
        assert look(victim) == before
    opened.close()


class _Swap:
    """Lets a symlink to the victim take a directory's place, once."""

    def __init__(self, folder: Path, victim: Path) -> None:
        self._folder, self._victim = folder, victim
        self.moved = folder.with_name("moved")

    def __call__(self) -> None:
        if not self.moved.exists():
            self._folder.rename(self.moved)
            self._folder.symlink_to(self._victim)


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize("verb", ["restore", "salvage", "export"])
def test_49_a_folder_that_is_swapped_while_a_file_is_written(
    store: Store, tmp_path: Path, victim: Path, monkeypatch: pytest.MonkeyPatch, verb: str, force: bool
) -> None:
    """The file appears where it was begun, and nothing in the place that the path leads to by now."""
    capture(store, tmp_path, "one", 1, 2)
    folder = tmp_path / "folder"
    folder.mkdir()
    out = folder / "precious"
    if force:
        out.write_bytes(b"old")
    else:
        (victim / "precious").unlink()
    swap, before = _Swap(folder, victim), look(victim)
    begun = durable.Durability.sync_file

    def sync_file(self: durable.Durability, fd: int) -> None:
        swap()
        begun(self, fd)

    monkeypatch.setattr(durable.Durability, "sync_file", sync_file)
    match verb:
        case "restore":
            store.restore("one", str(out), force=force)
        case "salvage":
            store.open_snapshot("one").salvage(out, force=force)
        case _:
            store.export("one", out, force=force)
    assert look(victim) == before
    assert (swap.moved / "precious").stat().st_size > 1000
    assert [path.name for path in swap.moved.iterdir()] == ["precious"]


@pytest.mark.parametrize("part", ["blobs", "blobs/sha256", "refs", "trash"])
@pytest.mark.parametrize("verb", ["create", "rename", "remove", "gc"])
def test_35_a_part_that_is_swapped_just_before_it_is_changed(
    store: Store, tmp_path: Path, victim: Path, monkeypatch: pytest.MonkeyPatch, part: str, verb: str
) -> None:
    """After all looks that could be taken: another store's part is left alone, though the names in it are the same."""
    root = Path(store.path)
    for number, name in enumerate(("one", "two", "gone"), start=1):
        capture(store, tmp_path, name, number, 7)
    store.remove("gone")
    shutil.copytree(root, victim / "store", symlinks=True)
    before = look(victim)
    path = root / part

    def swap() -> None:
        if not path.is_symlink():
            path.rename(root / "swapped")
            path.symlink_to(victim / "store" / part)

    for name in ("rename", "link", "symlink", "unlink"):
        _hook(monkeypatch, name, swap)
    with suppress(CasstoreError):
        match verb:
            case "create":
                capture(store, tmp_path, "new", 11)
            case "rename":
                store.tag("one", "two", force=True)
            case "remove":
                store.remove("two")
            case _:
                store.gc()
    assert look(victim) == before


def _hook(monkeypatch: pytest.MonkeyPatch, name: str, swap: Callable[[], None]) -> None:
    real = getattr(os, name)

    def call(*args: object, **options: object) -> object:
        with monkeypatch.context() as patch:
            patch.setattr(os, "rename", _RENAME)  # by which it is swapped
            patch.setattr(os, "symlink", _SYMLINK)
            swap()
        return real(*args, **options)

    monkeypatch.setattr(os, name, call)


_RENAME, _SYMLINK = os.rename, os.symlink


# --- nothing from an artifact becomes a path, a URL or a command

CANARY = "canary"
URL = "http://127.0.0.1:9/canary-url"
CONFIG = {
    "image": {"ref": "canary-host.example/../../canary-image:latest", "manifest_digest": "sha256:" + "0" * 64},
    "labels": {
        "canary-label": "$(touch canary)",
        "--canary": "../../canary",
        "canary": "\u001b]8;;file:///canary\u0007",
    },
    "source_sandbox": "../canary-sandbox",
    "parent": "sha256:" + "1" * 64,
}
ANNOTATIONS = {
    "org.opencontainers.image.base.name": "canary-base.example/image",
    "org.opencontainers.image.ref.name": "../canary-name",
    "org.opencontainers.image.source": URL,
    "canary": "`touch canary`",
}
TITLES = ["../canary-title", "/tmp/canary-title", "canary-title", "--canary=$(canary)", "canary\n/title"]
HOSTILE_NAMES = ["../canary-ref", "/canary", "--canary", "canary/name", "..", "canary name", "refs/canary", "canary\n"]


KINDS = ("harmless", "elsewhere", "disk")


def make_hostile(folder: Path, kind: str) -> None:
    """A layout with canaries wherever there may be any text: one that follows all rules, one whose blobs are said to be
    elsewhere, and one with a path as the name of its disk.
    """
    made = HandMade([pack_bytes([frame(RAW, b"x" * 8192)])], [Disk(8192, [(0, 8192)], [(0, 8192, 0, 0, 1)])])
    blobs = made.blobs
    document = json.loads(blobs.contents[made.store().digest])
    config = json.loads(config_bytes(8192)) | CONFIG
    if kind == "disk":
        config["upper"]["file"] = "../canary-disk"
    elsewhere = {"urls": [URL], "annotations": ANNOTATIONS} if kind == "elsewhere" else {}
    described = blobs.add(dump(config), spec.MEDIA_CONFIG)
    document["config"] = {**described.to_dict(), **elsewhere}
    for title in TITLES:
        file = blobs.add(title.encode(), spec.MEDIA_FILE)
        document["layers"].append({**file.to_dict(), **elsewhere, "annotations": {spec.ANNOTATION_TITLE: title}})
    document["annotations"] = ANNOTATIONS
    root = blobs.add(dump(document), spec.MEDIA_MANIFEST)
    (folder / "blobs/sha256").mkdir(parents=True)
    for digest, data in blobs.contents.items():
        (folder / "blobs/sha256" / digest.hex).write_bytes(data)
    (folder / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
    entry = {**root.to_dict(), "urls": [URL], "artifactType": spec.ARTIFACT_TYPE}
    entries = [
        {**entry, "annotations": {"org.opencontainers.image.ref.name": name}} for name in ("evil", *HOSTILE_NAMES)
    ]
    (folder / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": entries}))


def taint(folder: Path) -> int:
    """What people do with artifacts of others. Runs in a child that is traced."""
    casstore = Casstore(folder)
    codes = {}
    for kind in KINDS:
        layout = f"oci:{folder}/{kind}"
        for words in (
            f"pull {layout}:evil --name {kind} --referrers",
            f"copy {layout}:evil oci:{folder}/copied-{kind}:evil --referrers",
            f"list {layout}",
            f"inspect {layout}:evil",
            f"import {folder}/{kind}.tar --name imported-{kind} -f",
            f"inspect {kind} --json",
            f"restore {kind} {folder}/{kind}.raw",
            f"restore {kind} {folder}/{kind}.dir/",
            f"restore {kind} {folder}/{kind}.seven/ --as 0.7",
            f"restore {kind} {folder}/{kind}.salvaged/ --salvage",
            f"export {kind} {folder}/{kind}.msb",
            f"export {kind} {folder}/{kind}.oci --as oci",
            f"push {kind} oci:{folder}/pushed-{kind}:it",
        ):
            done = casstore.run("--durability", "none", *words.split())
            codes[words] = done.code
            if kind == "harmless" and done.code:
                sys.stderr.write(f"{words}: {done.stderr}")
        store = folder / "store"
        for path in (folder / kind / "blobs/sha256").iterdir():  # as another tool does
            shutil.copyfile(path, store / "blobs/sha256" / path.name)
        index = json.loads((store / "index.json").read_bytes())
        index["manifests"] += json.loads((folder / kind / "index.json").read_bytes())["manifests"]
        (store / "index.json").write_text(json.dumps(index))
        for words in (
            f"check --read-data --repair --from {layout}",
            "adopt",
            "list",
            "list --json",
            "stats",
            "verify --all",
            "prune --keep-last 1",
            "undo",
            "adopt --drop",
            "reindex",
            "gc",
        ):
            casstore.run("--durability", "none", *words.split())
    good = [code for words, code in codes.items() if "harmless" in words]
    bad = [code for words, code in codes.items() if "harmless" not in words and words.startswith(("pull", "import"))]
    return int(any(good) or not all(bad))


@pytest.mark.needs("strace")
def test_61_65_69_nothing_from_an_artifact_becomes_a_path_a_url_or_a_command(tmp_path: Path) -> None:
    """No call that takes a path, an address or a program ever gets a text of one, whatever is done with it."""
    folder = tmp_path / "work"
    folder.mkdir()
    for kind in KINDS:
        make_hostile(folder / kind, kind)
        with tarfile.open(folder / f"{kind}.tar", "w") as tar:
            for path in sorted((folder / kind).rglob("*")):
                tar.add(path, str(path.relative_to(folder / kind)), recursive=False)
            if kind == "disk":
                tar.addfile(tarfile.TarInfo("../canary-member"))
    ended = syscalls.run(lambda: taint(folder), strace=["-s", "4096", "-e", "trace=%file,%network,%process"])
    assert ended.code == 0, ended.err
    assert len(ended.trace) > 1000
    assert [line for line in ended.trace if CANARY in line] == []
    assert [line for line in ended.trace if re.search(r"\b(execve|connect|sendto)\(", line)] == []
    assert not [path for path in tmp_path.rglob("*") if CANARY in path.name]


# --- with which mode files are made

TABLE = Path(__file__).parents[1] / "docs/explanation/threat-model.md"
MODE = re.compile(r"^\|[^|]*\| (`[^|]*`) \| (0\d{3})[^|]*\| (has no say|takes bits away) \|$", re.MULTILINE)
TOUR = (
    "create one --disk {folder}/disk; create two --disk {folder}/disk; rm two; check --read-data=50%;"
    " restore one {folder}/back.raw; restore one {folder}/saved.raw --salvage; restore one {folder}/dir/;"
    " restore one {folder}/seven/ --as 0.7; export one {folder}/one.msb; export one {folder}/one.tar --as oci;"
    " push one oci:{folder}/layout:one; create {folder}/made --disk {folder}/disk;"
    " import {folder}/one.msb --name three;"
    " key generate {folder}/release --no-passphrase; sign one --key {folder}/release.key"
)


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_37_every_file_has_the_mode_that_is_told(tmp_path: Path, umask: int) -> None:
    """The table of the threat model, row by row: it has what all verbs make, and they make what it has."""
    rows = [
        (pattern.strip("`"), int(mode, 8) & (~umask if says == "takes bits away" else -1))
        for patterns, mode, says in MODE.findall(TABLE.read_text())
        for pattern in patterns.split()
    ]
    folder = tmp_path / "tour"
    folder.mkdir()
    casstore = Casstore(folder)
    write_disk(tmp_path / "source", 1, 2).rename(folder / "disk")
    before = os.umask(umask)
    try:
        for words in TOUR.split("; "):
            casstore("--durability", "none", *words.format(folder=folder).split())
        DockerConfig(str(casstore.docker_config)).store("registry.example", Credentials("ann", "secret"))
        pack = blob_path(casstore.store, manifest_of(casstore.store, "one").packs[0].digest)
        flip_byte(pack, 100)
        casstore("check", "--read-data", "--repair", "--from", f"oci:{folder}/layout:one")
        seen = Sighting(digest=Digest("0" * 64), seen=datetime.now(UTC))
        LastSeen(StoreDirectory.open(str(casstore.store), FAST, create=False)).record(
            "registry.example/it:latest", seen
        )
    finally:
        os.umask(before)
    used = set()
    for path in sorted(set(folder.rglob("*")) - {folder / "disk"}):
        name = str(path.relative_to(folder))
        if not path.is_symlink() and not name.startswith("store/quarantine/"):  # that keeps what it was
            fitting = [(pattern, mode) for pattern, mode in rows if _fits(name, pattern)]
            assert fitting, f"{name} is in no row of the table"
            used.add(fitting[0][0])
            assert oct(stat.S_IMODE(path.stat().st_mode)) == oct(fitting[0][1]), name
    assert {pattern for pattern, _ in rows} == used


def _fits(name: str, pattern: str) -> bool:
    """`*` at the beginning of a pattern stands for anything, elsewhere for what is in one directory."""
    if pattern.startswith("*"):
        return fnmatch(name, pattern)
    return name.count("/") == pattern.count("/") and fnmatch(name, pattern)
