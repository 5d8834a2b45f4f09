"""Looking into a snapshot in a registry: what is fetched of it, in how many requests, and how long that takes.

A disk is ext4 of some GiB, sparse, with files of this machine, in two generations that are pushed to a
docker-registry. One was written through a mount, as that of a sandbox is: the kernel keeps directories together. The
other was made by `mke2fs -d`, which puts each directory beside its files. What goes over the connections is counted on
its way, headers included. Everything is measured with the registry on this machine, and of the first disk once more
with it far away: each request waits for a round trip, and bytes come at a rate.

Beside it stands what one does without: to pull the snapshot, restore its disk, and ask debugfs.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypedDict

from tests.benchmarks import series
from tests.benchmarks.measure import PATH, Command, CommandFailed, run
from tests.benchmarks.report import Table, mebibytes, megabytes, seconds
from tests.benchmarks.speed import Goal
from tests.support import disks, needs
from tests.support.filesystems import make_image, tool
from tests.support.proxy import TcpProxy
from tests.support.servers import registry

FIRST, SECOND = "first", "second"
SMALL, LARGE = "/looked-at/small", "/looked-at/large"
"""Files of 4 KiB and of 5 MiB."""
ROOT, TREE, CAT_SMALL, CAT_LARGE, DIFF = "files /", "files -R", "cat, 4 KiB", "cat, 5 MiB", "diff"
WHOLE = "pull, restore, debugfs cat"
MOUNTED, MADE = "written through a mount", "made by mke2fs -d"
DELAY, RATE = 0.02, 12.5e6
"""Seconds that a request waits, and bytes a second, of a registry that is far away: 100 Mbit/s."""
_SOURCES = ("/usr/lib", "/usr/share", "/usr/bin")
_LARGEST = 20 * disks.MIB
_REPOSITORY = "benchmark"


class Looked(TypedDict):
    """What one command took."""

    bytes: int
    requests: int
    seconds: float


class Looking(TypedDict):
    """The result, as it goes into the JSON; bytes and seconds."""

    size: int
    allocated: int
    files: int
    stored: int
    """Of all blobs of the second snapshot, which is the one that is looked into."""
    near: dict[str, Looked]
    """By what was done."""
    far: dict[str, Looked]


def looking(work: Path, *, size: int, data: int) -> dict[str, Looking]:
    """All of it, by how the disk was made, with disks of `size` bytes that hold about `data` bytes of files."""
    kinds = [MOUNTED, MADE] if needs.available("loop") else [MADE]
    measured = {}
    for kind in kinds:
        with tempfile.TemporaryDirectory(dir=work) as folder:
            measured[kind] = _looking(Path(folder), size=size, data=data, mounted=kind == MOUNTED, far=kind == kinds[0])
    return measured


def _looking(work: Path, *, size: int, data: int, mounted: bool, far: bool) -> Looking:
    images, files = _make_disks(work, size=size, data=data, mounted=mounted)
    store = work / "store"
    for name, image in images.items():
        parent = ["--parent", FIRST] if name == SECOND else []
        _casstore(work, store, "create", name, "--disk", image, "-q", *parent)
    result = Looking(
        size=size,
        allocated=disks.allocated(images[SECOND]),
        files=files,
        stored=_stored(work, store),
        near={},
        far={},
    )
    with tempfile.TemporaryDirectory(dir=work) as folder, registry(Path(folder)) as server:
        for name in images:
            _casstore(work, store, "push", name, f"{server.host}/{_REPOSITORY}:{name}", "--plain-http", "-q")
        shutil.rmtree(store)
        for looks, rate, delay in ((result["near"], None, 0.0), (result["far"], RATE, DELAY))[: 1 + far]:
            with TcpProxy(server.host, rate=rate, delay=delay) as proxy:
                for what, commands in _looks(proxy.host).items():
                    looks[what] = _look(work, proxy, commands, images[SECOND])
    return result


def _make_disks(work: Path, *, size: int, data: int, mounted: bool) -> tuple[dict[str, Path], int]:
    """Both disks, and how many files are on them."""
    images = {name: work / f"{name}.ext4" for name in (FIRST, SECOND)}
    rng = random.Random(8)
    with tempfile.TemporaryDirectory(dir=work) as folder:
        tree = Path(folder)
        files = _copy_files(tree, data)
        (tree / LARGE[1:]).parent.mkdir()
        content = b"".join(path.read_bytes() for path in rng.sample(files, 400))
        (tree / SMALL[1:]).write_bytes(content[:4096])
        (tree / LARGE[1:]).write_bytes((content * (1 + 5 * disks.MIB // len(content)))[: 5 * disks.MIB])
        if mounted:
            series.make_empty(images[FIRST], size, number=1)
            with disks.loop_mounted(images[FIRST], "noatime") as root:
                shutil.copytree(tree, root, dirs_exist_ok=True)
        else:
            make_image(images[FIRST], tree, size=size)
        series.copy_disk(images[FIRST], images[SECOND])
        gone, new = rng.sample(files, 40), rng.sample(files, 40)
        if mounted:
            with disks.loop_mounted(images[SECOND], "noatime") as root:
                for n, path in enumerate(new):
                    shutil.copyfile(path, root / f"looked-at/new-{n}")
                for path in gone:
                    (root / path.relative_to(tree)).unlink()
        else:
            script = tree / "edits"
            lines = [f'rm "/{path.relative_to(tree)}"' for path in gone]
            lines += [f'write "{path}" "/looked-at/new-{n}"' for n, path in enumerate(new)]
            script.write_text("\n".join(lines) + "\n")
            tool("debugfs", "-w", "-f", script, images[SECOND])
    return images, len(files)


def _copy_files(tree: Path, data: int) -> list[Path]:
    """About `data` bytes of this machine's files, in the order of their names."""
    made: list[Path] = []
    left = data
    for source in _SOURCES:
        for folder, folders, names in os.walk(source):
            folders.sort()
            for name in sorted(names):
                path = Path(folder, name)
                if path.is_symlink() or not path.is_file() or not 0 < path.stat().st_size <= min(left, _LARGEST):
                    continue
                copy = tree / path.relative_to("/")
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, copy)
                made.append(copy)
                left -= path.stat().st_size
    return made


def _casstore(work: Path, store: Path, *words: str | Path) -> None:
    run(["casstore", *words], cwd=work, env=_env(work, store))


def _env(home: Path, store: Path) -> dict[str, str]:
    return {"PATH": PATH, "HOME": str(home), "LC_ALL": "C.UTF-8", "CASSTORE_STORE": str(store)}


def _stored(work: Path, store: Path) -> int:
    """Bytes of all blobs of the second snapshot."""
    command = ["casstore", "inspect", SECOND, "--json"]
    return int(json.loads(run(command, cwd=work, env=_env(work, store)).output)["stored_bytes"])


def _looks(host: str) -> Mapping[str, Sequence[Command]]:
    """What is done, and with which commands, in an empty folder."""
    first, second = (f"{host}/{_REPOSITORY}:{name}" for name in (FIRST, SECOND))
    http = "--plain-http"
    return {
        ROOT: [["casstore", "files", second, http]],
        TREE: [["casstore", "files", second, "-R", http]],
        CAT_SMALL: [["casstore", "cat", second, SMALL, http]],
        CAT_LARGE: [["casstore", "cat", second, LARGE, http]],
        DIFF: [["casstore", "diff", first, second, http]],
        WHOLE: [
            ["casstore", "pull", second, http, "-q"],
            ["casstore", "restore", SECOND, "disk", "-q"],
            ["debugfs", "-R", f"dump {LARGE} file", "disk"],
        ],
    }


def _look(work: Path, proxy: TcpProxy, commands: Sequence[Command], disk: Path) -> Looked:
    took = 0.0
    with tempfile.TemporaryDirectory(dir=work) as folder:
        home = Path(folder)
        proxy.reset()
        for command in commands:
            took += run(command, cwd=home, env=_env(home, home / "store")).seconds
        proxy_bytes, requests = proxy.downloaded, proxy.requests
        if (home / "file").exists():
            tool("debugfs", "-R", f"dump {LARGE} {home / 'expected'}", disk)
            if (home / "file").read_bytes() != (home / "expected").read_bytes():
                raise CommandFailed("casstore: the file that was restored differs")
    return Looked(bytes=proxy_bytes, requests=requests, seconds=took)


# --- what is looked at -----------------------------------------------------------------------------------------------


def goals(measured: Mapping[str, Looking]) -> Iterator[Goal]:
    """What has to hold."""
    for kind, result in measured.items():
        bounds = {ROOT: 0.01, CAT_SMALL: 0.02, CAT_LARGE: 0.05}
        bounds |= {TREE: 0.15, DIFF: 0.3} if kind == MOUNTED else {}
        for what, most in bounds.items():
            part = result["near"][what]["bytes"] / result["stored"]
            yield Goal(f"{what}, {kind}: fetched / stored", part, most, most)
        for what, most in ((ROOT, 0.15), (CAT_LARGE, 0.25)) if result["far"] else ():
            times = result["far"][what]["seconds"] / result["far"][WHOLE]["seconds"]
            yield Goal(f"{what}, far away: times {WHOLE}", times, most, most)


def tables(measured: Mapping[str, Looking]) -> Iterator[Table]:
    """All of it."""
    for kind, result in measured.items():
        far = result["far"]
        rows = [
            [
                what,
                megabytes(looked["bytes"]),
                f"{100 * looked['bytes'] / result['stored']:.2f} %",
                str(looked["requests"]),
                seconds(looked["seconds"]),
                *([seconds(far[what]["seconds"])] if far else []),
            ]
            for what, looked in result["near"].items()
        ]
        title = (
            f"A disk of {mebibytes(result['size'])} {kind}, with {result['files']} files and"
            f" {mebibytes(result['allocated'])} allocated, {megabytes(result['stored'])} stored"
        )
        away = [f"{1000 * DELAY:.0f} ms and {8 * RATE / 1e6:.0f} Mbit/s away"] if far else []
        yield Table(title, ["", "fetched", "of what is stored", "requests", "time", *away], rows)
    judged = [[goal.name, f"{goal.got:.3f}", f"{goal.bound:.3f}", goal.verdict] for goal in goals(measured)]
    yield Table("Looking: what has to hold", ["", "measured", "at most", ""], judged)
