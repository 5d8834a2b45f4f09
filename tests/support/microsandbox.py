"""The real microsandbox, in three versions: what casstore reads and writes is read and written by them too.

    tool = RealTool("0.6.18", tmp_path / "home")      # a HOME of its own; nothing else on the machine is touched
    tool.add_sandbox("box", upper=disk)               # stopped, on an image that is pinned
    made = tool.create("box", "first", integrity=True)
    tool.read(folder)                                 # opened and verified: Reading(digest=..., upper="verified", ...)
    tool.load(archive), tool.save(folder, archive), tool.index(folder)
    tool.sdk("return [found.digest for found in await Snapshot.list()]")
    tool.cli("snapshot", "verify", folder).stdout     # not with 0.4.4

No machine has to boot: every operation on the snapshots of a stopped sandbox works without.

`make` installs the packages (.ci/install-microsandbox.sh); tests that use them are marked `needs("microsandbox")`.
One home of 0.7.11 refuses to list anything once two copies of one older artifact were in it, so give each artifact
its own home there.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sqlite3
import subprocess
import tarfile
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

from tests.support import disks
from tests.support.sandboxes import IMAGE, IMAGE_DIGEST

Version = Literal["0.4.4", "0.6.18", "0.7.11"]
VERSIONS: tuple[Version, ...] = ("0.4.4", "0.6.18", "0.7.11")
DIALECTS: Mapping[Version, str] = {"0.4.4": "0.4", "0.6.18": "0.6", "0.7.11": "0.7"}
"""The form of artifacts that each version writes."""

ROOT = Path(__file__).parents[2]
PACKAGES = ROOT / ".cache" / "microsandbox"
"""One virtual environment for each version."""
FIXTURES = ROOT / "fixtures" / "microsandbox"


def python(version: Version) -> Path:
    """The interpreter that imports this version."""
    return PACKAGES / version / "bin" / "python"


def program(version: Version) -> Path:
    """Its `msb`; 0.4.4's needs a newer C library than Debian 12 has."""
    return PACKAGES / version / "bin" / "msb"


def installed() -> bool:
    """Whether all three are."""
    return all((PACKAGES / version / "bin" / "msb").exists() and python(version).exists() for version in VERSIONS)


class RealToolFailed(Exception):
    """An exception of the real tool, or an exit code that was not expected."""


@dataclass(frozen=True)
class Reading:
    """What a real tool says of one artifact that it opened and verified; if it refused, only `error`."""

    path: str
    digest: str = ""
    size: int | None = None
    """Bytes of the disk."""
    parent: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    upper: str = ""
    """Of the recorded integrity: "verified" or "not_recorded"; "" where verification failed."""
    algorithm: str | None = None
    integrity: str | None = None
    error: str = ""


# What a script can use. An exception of the SDK is a result here: tests judge it.
_PRELUDE = """
import asyncio, json, os, sys
from microsandbox import Snapshot

async def reading(path):
    told = {"path": str(path)}
    try:
        snapshot = await Snapshot.open(str(path))
        told |= {"path": snapshot.path, "digest": snapshot.digest, "size": snapshot.size_bytes}
        told |= {"parent": snapshot.parent, "labels": dict(snapshot.labels)}
        upper = (await snapshot.verify())["upper"]
        told |= {"upper": upper["kind"], "algorithm": upper.get("algorithm"), "integrity": upper.get("digest")}
    except Exception as error:
        told["error"] = f"{type(error).__name__}: {error}"
    return told

async def load(archive, dest=None):
    return await (Snapshot.load if hasattr(Snapshot, "load") else Snapshot.import_)(archive, dest=dest)

async def loading(archive, dest=None):
    try:
        handle = await load(archive, dest)
    except Exception as error:
        return {"path": "", "error": f"{type(error).__name__}: {error}"}
    return await reading(handle.path)

async def save(snapshot, out, **options):
    await (Snapshot.save if hasattr(Snapshot, "save") else Snapshot.export)(snapshot, out, **options)

async def create(sandbox, name, **options):
    if hasattr(Snapshot, "load"):
        return await Snapshot.create(name, from_sandbox=sandbox, **options)
    return await Snapshot.create(sandbox, name=name, **options)
"""

# At the end of a process 0.4.4 panics, and says so on stderr.
_EPILOGUE = """
try:
    result = {"value": asyncio.run(script(*json.loads(sys.argv[2])))}
except Exception as error:
    result = {"error": f"{type(error).__name__}: {error}"}
with open(sys.argv[1], "w") as out:
    json.dump(result, out)
os._exit(0)
"""


class RealTool:
    """One version, with the HOME `folder`, which is made when it is missing."""

    def __init__(self, version: Version, folder: Path) -> None:
        self.version = version
        self.dialect = DIALECTS[version]
        self.folder = folder
        self.home = folder / ".microsandbox"
        """What MSB_HOME says; 0.4.4 looks below HOME, and finds the same."""
        self.home.mkdir(parents=True, exist_ok=True)

    @property
    def env(self) -> Mapping[str, str]:
        """The environment of its processes."""
        words = {"HOME": str(self.folder), "MSB_HOME": str(self.home), "LC_ALL": "C.UTF-8"}
        return {"PATH": os.environ.get("PATH", os.defpath), **words}

    # --- running it ---------------------------------------------------------------------------------------------------

    def sdk(self, script: str, *arguments: Any) -> Any:
        """Run the body of a coroutine function in a process that imports this version's SDK.

        `script` has the names `Snapshot`, `args` (the arguments, which must be JSON) and the helpers `reading(path)`,
        `load(archive, dest)`, `save(snapshot, out)`, `create(sandbox, name)` that do the same in every version. What it
        returns must be JSON.

        Raises:
            RealToolFailed: it raised an exception.
        """
        body = textwrap.indent(textwrap.dedent(script), "    ")
        source = f"{_PRELUDE}\nasync def script(*args):\n{body}\n{_EPILOGUE}"
        with TemporaryDirectory() as folder:
            out = Path(folder, "result.json")
            command = [str(python(self.version)), "-I", "-c", source, str(out), json.dumps(arguments, default=str)]
            done = subprocess.run(command, env=self.env, cwd=folder, capture_output=True, text=True, check=False)
            if not out.exists():
                raise RealToolFailed(f"microsandbox {self.version}: exit {done.returncode}: {done.stdout}{done.stderr}")
            result = json.loads(out.read_text())
        if "error" in result:
            raise RealToolFailed(result["error"])
        return result["value"]

    def cli(self, *args: object, code: int | None = 0) -> subprocess.CompletedProcess[str]:
        """Run `msb`; it must exit with `code` (None: whatever it is)."""
        command = [str(program(self.version)), *map(str, args)]
        done = subprocess.run(command, env=self.env, capture_output=True, text=True, check=False)
        if code is not None and done.returncode != code:
            raise RealToolFailed(f"{' '.join(command)}: exit {done.returncode}: {done.stdout}{done.stderr}")
        return done

    # --- what tests do with it ----------------------------------------------------------------------------------------

    def read(self, *artifacts: object) -> list[Reading]:
        """Open and verify artifacts, by path, name or whatever this version accepts; one process for all of them."""
        told = self.sdk("return [await reading(one) for one in args]", *artifacts)
        return [Reading(**one) for one in told]

    def index(self, folder: Path) -> set[str]:
        """The digests of what this version lists once it looked for artifacts in `folder`."""
        script = "await Snapshot.reindex(args[0]); return [found.digest for found in await Snapshot.list()]"
        return set(self.sdk(script, folder))

    def load(self, archive: Path, dest: Path | None = None) -> Reading:
        """Import an archive, below `dest` if given, and open and verify what it says the head is.

        Raises:
            RealToolFailed: it does not import it.
        """
        [loaded] = self.load_all((archive, dest))
        if not loaded.path:
            raise RealToolFailed(loaded.error)
        return loaded

    def load_all(self, *archives: tuple[Path, Path | None]) -> list[Reading]:
        """The same for (archive, dest) of any number, in one process; `path` is "" of what it did not import."""
        told = self.sdk("return [await loading(*pair) for pair in args]", *archives)
        return [Reading(**one) for one in told]

    def save(self, snapshot: object, out: Path, *, with_parents: bool = False, plain: bool = False) -> None:
        """Export a snapshot (by path or name) as an archive."""
        script = "await save(args[0], args[1], with_parents=args[2], plain_tar=args[3])"
        self.sdk(script, snapshot, out, with_parents, plain)

    def create(
        self, sandbox: str, name: str, *, labels: Mapping[str, str] | None = None, integrity: bool = False
    ) -> Reading:
        """Take a snapshot of a stopped sandbox, and open and verify it. `path` of the result says where it is."""
        script = """
        made = await create(args[0], args[1], labels=args[2], record_integrity=args[3])
        return await reading(made.path)
        """
        return Reading(**self.sdk(script, sandbox, name, dict(labels or {}), integrity))

    # --- its home -----------------------------------------------------------------------------------------------------

    def add_sandbox(
        self,
        name: str,
        *,
        upper: Path | None,
        status: str = "Stopped",
        image: str = IMAGE,
        manifest_digest: str | None = IMAGE_DIGEST,
        config: Mapping[str, Any] | None = None,
    ) -> Path:
        """Write the row of a sandbox into the database that the real tool made, and copy `upper`, holes and all.

        `config` replaces the row's configuration, which otherwise has the form of this version. Returns where the
        sandbox's upper.ext4 is, or would be.
        """
        if config is None:
            oci: object = image if self.version == "0.4.4" else {"reference": image}
            config = {"name": name, "image": {"Oci": oci}, "manifest_digest": manifest_digest}
        disk = self.home / "sandboxes" / name / "upper.ext4"
        disk.parent.mkdir(parents=True, exist_ok=True)
        if upper is not None:
            copy_disk(upper, disk)
        now = "2026-05-01 12:00:00"
        with contextlib.closing(sqlite3.connect(self._database())) as database, database:
            columns = "name, config, status, created_at, updated_at"
            row = (name, json.dumps(config), status, now, now)
            database.execute(f"insert into sandbox ({columns}) values (?, ?, ?, ?, ?)", row)  # noqa: S608
        return disk

    def _database(self) -> Path:
        path = self.home / "db" / "msb.db"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(_empty_database(self.version))
        return path


def make_home(version: Version, folder: Path, upper: Path, *sandboxes: str) -> RealTool:
    """A real tool whose home has stopped sandboxes of these names, all with a copy of the disk `upper`."""
    tool = RealTool(version, folder)
    for name in sandboxes:
        tool.add_sandbox(name, upper=upper)
    return tool


@cache
def _empty_database(version: Version) -> bytes:
    """The database that this version makes in a new home, in one file."""
    with TemporaryDirectory() as folder:
        tool = RealTool(version, Path(folder))
        tool.sdk("await Snapshot.list()")
        path = tool.home / "db" / "msb.db"
        with contextlib.closing(sqlite3.connect(path)) as database:
            database.execute("pragma wal_checkpoint(truncate)")
        return path.read_bytes()


# --- the artifacts that the real tools made once ---------------------------------------------------------------------


def snapshots(version: Version) -> Sequence[str]:
    """Names of the artifact directories (for 0.7.11: groups) among the fixtures."""
    return sorted(path.stem for path in (FIXTURES / version / "snapshots").iterdir())


def exports(version: Version) -> Sequence[Path]:
    """The archives among the fixtures."""
    return sorted((FIXTURES / version / "exports").iterdir())


def unpack(version: Version, name: str, folder: Path) -> Path:
    """Unpack an artifact directory (for 0.7.11: a group's) into `folder`, holes and all; says where it is."""
    packed = FIXTURES / version / "snapshots" / f"{name}.tar"
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run(["tar", "-xf", packed, "-C", folder, "--no-same-owner"], check=True)
    with tarfile.open(packed) as archive:
        top = archive.getnames()[0].partition("/")[0]
    return folder / top


def copy_artifact(source: Path, target: Path) -> Path:
    """Copy an artifact directory, holes and all: the newer versions rewrite an older one where they find it."""
    return Path(shutil.copytree(source, target, copy_function=copy_disk))


def copy_disk(source: str | Path, target: str | Path) -> None:
    """Copy a file with the same holes; `cp` would make more of them, where zeros are."""
    with open(source, "rb") as inside, open(target, "wb") as out:
        out.truncate(os.fstat(inside.fileno()).st_size)
        for start, length in disks.extents(Path(source)):
            copied = 0
            while copied < length:
                at = start + copied
                copied += os.copy_file_range(inside.fileno(), out.fileno(), length - copied, at, at)
