"""Peak memory of the four verbs that move content, for disks of several sizes: it must not grow with them."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypedDict

from tests.benchmarks.measure import Command, CommandFailed, run
from tests.benchmarks.report import Table, mebibytes, say, seconds
from tests.benchmarks.tools import Casstore, Tool
from tests.support import disks, needs


class Measured(TypedDict):
    """What a verb took: seconds, bytes."""

    seconds: float
    peak: int


Memory = dict[str, dict[str, Measured]]
"""By allocated bytes of the disk, then by verb."""


def memory(work: Path, *, sizes: Sequence[int]) -> Memory:
    """On disks of `sizes` allocated bytes, half of it text and half random bytes."""
    measured = {}
    for size in sizes:
        with tempfile.TemporaryDirectory(dir=work) as folder:
            measured[str(size)] = _one_size(Path(folder), size)
    return measured


def tables(result: Memory) -> Iterator[Table]:
    """Peaks and times, a row per verb."""
    sizes = [mebibytes(int(size)) for size in result]
    head = ["", *(f"{what}, {size}" for what in ("peak", "time") for size in sizes)]
    rows = []
    for verb in next(iter(result.values())):
        costs = [verbs[verb] for verbs in result.values()]
        peaks, times = [mebibytes(cost["peak"]) for cost in costs], [seconds(cost["seconds"]) for cost in costs]
        rows.append([verb, *peaks, *times])
    yield Table("Disks that are allocated in full; at most 200 MiB is the goal", head, rows)


def _one_size(work: Path, size: int) -> dict[str, Measured]:
    disk = work / "full.disk"
    disks.write_mixed_file(disk, size, seed=1)
    tool, other = Casstore(work / "here"), Casstore(work / "there")
    measured = {}
    with registry(work) as reference:
        steps: list[tuple[str, Tool, Command]] = [
            ("create", tool, ["casstore", "create", "disk", "--disk", disk]),
            ("push", tool, ["casstore", "push", "disk", *reference]),
            ("pull", other, ["casstore", "pull", *reference, "--name", "disk"]),
            ("restore", other, ["casstore", "restore", "disk", work / "restored.disk"]),
        ]
        for name, where, command in steps:
            cost = run(command, cwd=work, env=where.env)
            measured[name] = Measured(seconds=cost.seconds, peak=cost.peak)
    if not disks.same_bytes(disk, work / "restored.disk"):
        raise CommandFailed("casstore: the restored disk differs")
    return measured


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
