"""Compare casstore with borg and restic, and measure its memory and its start-up: `make bench`.

    python -m tests.benchmarks.run [--size MIB] [--data MIB] [--rounds N] [--memory MIB] [--snapshots N] [--json FILE]

Speed: one ext4 disk, and the same disk after some work. In every round each tool starts with an empty repository,
stores the first disk, then the second, and restores the second; the tools take turns inside a round, so that a busy
moment of the machine hits all of them. What is compared is the ratio inside a round; the table shows the median.
All tools write their repository to the same file system and compress with zstd at level 3; borg cuts at fixed 1 MiB
(its advice for disk images). A tool that is not installed is left out.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.support import disks, needs

MIB = disks.MIB
PHASES = ("create", "create again", "restore")


@dataclass(frozen=True)
class Cost:
    """What one command took."""

    seconds: float
    peak: int
    """Bytes: the largest resident set of the process."""


class CommandFailed(Exception):
    """A measured command exited with an error."""


# A process starts with the peak of the process that it was forked from, so something small must do the forking.
_LAUNCH = """
import json, os, sys, time
start = time.perf_counter()
child = os.posix_spawnp(sys.argv[2], sys.argv[2:], os.environ)
_, status, usage = os.wait4(child, 0)
result = [time.perf_counter() - start, usage.ru_maxrss * 1024, os.waitstatus_to_exitcode(status)]
with open(sys.argv[1], "w") as out:
    json.dump(result, out)
"""


def run(command: Sequence[str | Path], *, cwd: Path, env: Mapping[str, str]) -> Cost:
    """Run a command to its end and measure it."""
    with tempfile.NamedTemporaryFile() as result:
        launch = [sys.executable, "-I", "-S", "-c", _LAUNCH, result.name, *command]
        done = subprocess.run(launch, cwd=cwd, env=env, stdin=subprocess.DEVNULL, capture_output=True, check=False)
        words = " ".join(str(word) for word in command)
        if done.returncode:
            raise CommandFailed(f"{words}: {done.stderr.decode(errors='replace')[-2000:]}")
        seconds, peak, code = json.load(result)
    if code:
        said = (done.stdout + done.stderr).decode(errors="replace")
        raise CommandFailed(f"{words}: exit {code}\n{said[-2000:]}")
    return Cost(seconds, peak)


def stored(folder: Path) -> int:
    """Bytes that the files below a folder take."""
    return sum(disks.allocated(path) for path in folder.rglob("*") if path.is_file() and not path.is_symlink())


# --- the tools -------------------------------------------------------------------------------------------------------


class Tool:
    """One program with a repository in `folder`; create and restore give the commands to measure."""

    name: str
    program: str

    def __init__(self, folder: Path) -> None:
        self.repository = folder / "repository"
        self.env = {"PATH": os.pathsep.join([_bin(), disks.PROGRAM_PATH]), "HOME": str(folder), "LC_ALL": "C.UTF-8"}

    def prepare(self) -> Sequence[str | Path] | None:
        """The command that makes the empty repository; not measured."""
        return None

    def create(self, name: str, disk: Path) -> Sequence[str | Path]:
        raise NotImplementedError

    def restore(self, name: str, disk: Path) -> Sequence[str | Path]:
        """The command that writes the disk to `./<its name>` of the working folder, or below it."""
        raise NotImplementedError

    def restored(self, folder: Path, disk: Path) -> Path:
        """Where `restore` left the disk."""
        return folder / disk.name


class Casstore(Tool):
    name = program = "casstore"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.env["CASSTORE_STORE"] = str(self.repository)

    def create(self, name: str, disk: Path) -> Sequence[str | Path]:
        return ["casstore", "create", name, "--disk", disk]

    def restore(self, name: str, disk: Path) -> Sequence[str | Path]:
        return ["casstore", "restore", name, disk.name]


class Borg(Tool):
    name = program = "borg"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.env |= {"BORG_BASE_DIR": str(folder / "borg"), "BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK": "yes"}

    def prepare(self) -> Sequence[str | Path]:
        return ["borg", "init", "--encryption", "none", self.repository]

    def create(self, name: str, disk: Path) -> Sequence[str | Path]:
        chunks = ["--chunker-params", "fixed,1048576", "--sparse"]
        return ["borg", "create", *chunks, "-C", "zstd,3", f"{self.repository}::{name}", disk]

    def restore(self, name: str, disk: Path) -> Sequence[str | Path]:
        return ["borg", "extract", "--sparse", f"{self.repository}::{name}"]

    def restored(self, folder: Path, disk: Path) -> Path:
        return folder / disk.relative_to("/")


class Restic(Tool):
    name = program = "restic"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.env |= {"RESTIC_PASSWORD": "benchmark", "RESTIC_REPOSITORY": str(self.repository)}

    def prepare(self) -> Sequence[str | Path]:
        return ["restic", "--no-cache", "init"]

    def create(self, name: str, disk: Path) -> Sequence[str | Path]:
        return ["restic", "--no-cache", "--quiet", "backup", "--tag", name, disk]

    def restore(self, name: str, disk: Path) -> Sequence[str | Path]:
        return ["restic", "--no-cache", "restore", "latest", "--tag", name, "--target", "."]

    def restored(self, folder: Path, disk: Path) -> Path:
        return folder / disk.relative_to("/")


TOOLS: tuple[type[Tool], ...] = (Casstore, Borg, Restic)


def _bin() -> str:
    return str(Path(sys.executable).parent)


# --- speed and size --------------------------------------------------------------------------------------------------


def make_disks(folder: Path, *, size: int, data: int) -> list[Path]:
    """Two states of one disk."""
    first, second = folder / "first.ext4", folder / "second.ext4"
    if needs.available("mke2fs") and needs.available("debugfs"):
        tree = folder / "tree"
        tree.mkdir()
        disks.write_tree(tree, seed=1, data=data)
        disks.make_ext4(first, size, tree, seed=1)
        shutil.rmtree(tree)
        subprocess.run(["cp", "--sparse=always", first, second], check=True)
        edit = disks.edit_through_mount if needs.available("loop") else disks.edit_with_debugfs
        edit(second, seed=2)
    else:
        say("mke2fs and debugfs are missing: using the small prebuilt disks")
        disks.unpack_fixture("base", first)
        disks.unpack_fixture("edited", second)
    return [first, second]


def one_round(tool: Tool, folder: Path, images: Sequence[Path]) -> dict[str, float]:
    """Seconds per phase and stored bytes of one tool, starting from nothing."""
    first, second = images
    target = folder / "restored"
    target.mkdir()
    if command := tool.prepare():
        run(command, cwd=folder, env=tool.env)
    seconds = {"create": run(tool.create("first", first), cwd=folder, env=tool.env).seconds}
    bytes_first = stored(tool.repository)
    seconds["create again"] = run(tool.create("second", second), cwd=folder, env=tool.env).seconds
    bytes_both = stored(tool.repository)
    seconds["restore"] = run(tool.restore("second", second), cwd=target, env=tool.env).seconds
    if not disks.same_bytes(second, tool.restored(target, second)):
        raise CommandFailed(f"{tool.name}: the restored disk differs")
    return seconds | {"stored": bytes_first, "added": bytes_both - bytes_first}


def speed(work: Path, *, size: int, data: int, rounds: int) -> dict[str, object]:
    """All tools, interleaved."""
    images = make_disks(work, size=size, data=data)
    logical, taken = images[0].stat().st_size // MIB, disks.allocated(images[0]) // MIB
    say(f"\nSpeed and size: a disk of {logical} MiB, {taken} MiB of it allocated; {rounds} rounds")
    kinds: list[type[Tool]] = []
    for kind in TOOLS:
        if shutil.which(kind.program, path=os.pathsep.join([_bin(), disks.PROGRAM_PATH])):
            kinds.append(kind)
        else:
            say(f"{kind.name} is not installed: left out")
    results: dict[str, list[dict[str, float]]] = {kind.name: [] for kind in kinds}
    for number in range(rounds):
        for kind in kinds[number % len(kinds) :] + kinds[: number % len(kinds)]:
            with tempfile.TemporaryDirectory(dir=work) as folder:
                try:
                    results[kind.name].append(one_round(kind(Path(folder)), Path(folder), images))
                except CommandFailed as error:
                    say(f"round {number + 1}: {error}")
    for image in images:
        image.unlink()
    rows = []
    for name, measured in results.items():
        if measured:
            medians = {key: statistics.median(one[key] for one in measured) for key in measured[0]}
            times = [f"{medians[phase]:.2f} s" for phase in PHASES]
            rows.append([name, *times, f"{medians['stored'] / 1e6:.1f} MB", f"{medians['added'] / 1e6:.2f} MB"])
    table(["tool", *PHASES, "stored", "added by the second"], rows)
    ours = results.get("casstore", [])
    rows = [
        [f"casstore / {name}", *(_ratio(ours, measured, key) for key in (*PHASES, "stored", "added"))]
        for name, measured in results.items()
        if name != "casstore" and len(ours) == len(measured) > 0
    ]
    table(["ratio (median of pairs)", *PHASES, "stored", "added by the second"], rows)
    return {"logical": logical * MIB, "allocated": taken * MIB, "rounds": results}


def _ratio(ours: Sequence[Mapping[str, float]], theirs: Sequence[Mapping[str, float]], key: str) -> str:
    return f"{statistics.median(a[key] / max(b[key], 1e-9) for a, b in zip(ours, theirs, strict=True)):.2f}"


# --- memory ----------------------------------------------------------------------------------------------------------


@contextmanager
def registry(work: Path) -> Iterator[list[str]]:
    """A place to push to, as words of a command line: docker-registry on a free loopback port, or an OCI layout where
    it is not installed.
    """
    program = needs.find_program("docker-registry")
    if program is None:
        say("docker-registry is not installed: push and pull use an OCI layout directory")
        yield [f"oci:{work / 'remote'}:disk"]
        return
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    config = work / "registry.yml"
    storage = {"filesystem": {"rootdirectory": str(work / "registry")}}
    config.write_text(json.dumps({"version": 0.1, "storage": storage, "http": {"addr": address}}))
    server = subprocess.Popen([program, "serve", config], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        _wait_for(address)
        yield [f"{address}/benchmark:disk", "--plain-http"]
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait()


def _wait_for(address: str) -> None:
    host, _, port = address.partition(":")
    for _ in range(100):
        try:
            socket.create_connection((host, int(port)), timeout=1).close()
        except OSError:
            time.sleep(0.1)
        else:
            return
    raise CommandFailed(f"docker-registry does not answer on {address}")


def memory(work: Path, *, allocated: int) -> dict[str, object]:
    """Peak memory of the four verbs that move content."""
    say(f"\nMemory: a disk of {allocated // MIB} MiB, all of it allocated, half text and half random bytes")
    disk = work / "full.disk"
    disks.write_mixed_file(disk, allocated, seed=1)
    tool, other = Casstore(work / "here"), Casstore(work / "there")
    costs: dict[str, Cost] = {}
    with registry(work) as reference:
        steps: list[tuple[str, Tool, Sequence[str | Path]]] = [
            ("create", tool, ["casstore", "create", "disk", "--disk", disk]),
            ("push", tool, ["casstore", "push", "disk", *reference]),
            ("pull", other, ["casstore", "pull", *reference, "--name", "disk"]),
            ("restore", other, ["casstore", "restore", "disk", work / "restored.disk"]),
        ]
        for name, where, command in steps:
            costs[name] = run(command, cwd=work, env=where.env)
    if not disks.same_bytes(disk, work / "restored.disk"):
        raise CommandFailed("casstore: the restored disk differs")
    table(["verb", "peak", "time"], [[name, _mib(cost.peak), f"{cost.seconds:.1f} s"] for name, cost in costs.items()])
    return {"allocated": allocated, **{name: asdict(cost) for name, cost in costs.items()}}


def _mib(count: int) -> str:
    return f"{count / MIB:.0f} MiB"


# --- start-up --------------------------------------------------------------------------------------------------------


# In one process: a thousand starts would take minutes.
_FILL = """
import sys
from casstore.cli.main import main
for number in range(int(sys.argv[1])):
    with open("disk", "wb") as disk:
        disk.write(b"%d" % number * 1024)
    main(["create", f"snapshot{number}", "--disk", "disk", "--quiet"], standalone_mode=False)
"""


def startup(work: Path, *, snapshots: int, rounds: int) -> dict[str, object]:
    """How long the command line takes when there is nothing to do."""
    say(f"\nStart-up: {snapshots} snapshots in the store")
    tool = Casstore(work)
    run([sys.executable, "-c", _FILL, str(snapshots)], cwd=work, env=tool.env)
    measured = {}
    for name, command in (("--version", ["casstore", "--version"]), ("ls", ["casstore", "ls"])):
        costs = [run(command, cwd=work, env=tool.env) for _ in range(max(5, rounds))]
        measured[name] = {
            "seconds": statistics.median(cost.seconds for cost in costs),
            "peak": max(cost.peak for cost in costs),
        }
    table(
        ["command", "median time", "peak"],
        [[name, f"{cost['seconds']:.3f} s", _mib(int(cost["peak"]))] for name, cost in measured.items()],
    )
    return {"snapshots": snapshots, **measured}


# --- output ----------------------------------------------------------------------------------------------------------


def say(text: str) -> None:
    print(text, flush=True)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print rows under their heads, columns aligned; nothing if there are none."""
    if not rows:
        return
    widths = [max(len(row[column]) for row in [head, *rows]) for column in range(len(head))]
    for row in [head, ["-" * width for width in widths], *rows]:
        first, *others = zip(row, widths, strict=True)
        cells = [first[0].ljust(first[1]), *(text.rjust(width) for text, width in others)]
        say("  ".join(cells).rstrip())
    say("")


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--size", type=int, default=4096, help="logical MiB of the ext4 disk (%(default)s)")
    parser.add_argument("--data", type=int, default=400, help="MiB of files in it (%(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="times that everything is measured (%(default)s)")
    parser.add_argument("--memory", type=int, default=4096, help="allocated MiB of the memory test (%(default)s)")
    parser.add_argument("--snapshots", type=int, default=1000, help="snapshots of the start-up test (%(default)s)")
    parser.add_argument("--only", choices=("speed", "memory", "startup"), action="append", help="leave out the others")
    parser.add_argument("--work", type=Path, help="folder for the disks and repositories (a temporary one)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all measurements to FILE as well")
    args = parser.parse_args()

    parts: dict[str, Callable[[Path], dict[str, object]]] = {
        "speed": lambda work: speed(work, size=args.size * MIB, data=args.data * MIB, rounds=args.rounds),
        "memory": lambda work: memory(work, allocated=args.memory * MIB),
        "startup": lambda work: startup(work, snapshots=args.snapshots, rounds=args.rounds),
    }
    results: dict[str, dict[str, object]] = {}
    failed = False
    for name, part in parts.items():
        if args.only and name not in args.only:
            continue
        with tempfile.TemporaryDirectory(dir=args.work) as folder:
            try:
                results[name] = part(Path(folder).resolve())
            except CommandFailed as error:
                say(str(error))
                failed = True
    if args.json:
        args.json.write_text(json.dumps(results, indent=2) + "\n")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
