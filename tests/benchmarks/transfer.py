"""Push and pull beside skopeo: the same artifact to and from the same docker-registry on this machine.

Each push finds an empty registry, each pull an empty store or layout, and every command a home of its own. The tools
take turns inside a round, and what is compared is the ratio inside a round. A casstore store is an OCI layout, so
skopeo pushes from it, too; it pulls into a layout, and so does `casstore copy`: that is the transfer alone, each blob's
sha256 checked, and durable. `casstore pull` also decodes every chunk and checks it.

What a push of a second snapshot moves is counted on its way to the registry, headers included.
"""

from __future__ import annotations

import json
import random
import statistics
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypedDict

from tests.benchmarks import series
from tests.benchmarks.measure import PATH, Command, CommandFailed, run
from tests.benchmarks.packages import packages_of
from tests.benchmarks.report import Table, mebibytes, megabytes, say, seconds
from tests.benchmarks.speed import Goal
from tests.support import disks
from tests.support.proxy import TcpProxy
from tests.support.servers import registry

FIRST, SECOND = "first", "second"
"""Two snapshots: a disk, and the same after small edits."""
PUSH, TRANSFER, PULL, AGAIN, START = "push", "pull, transfer only", "pull", "push, nothing new", "start-up"
OURS, THEIRS = "casstore", "skopeo"
MOST_MEMORY = 200 * disks.MIB
_REPOSITORY = "benchmark"


class Transfer(TypedDict):
    """The result, as it goes into the JSON; bytes and seconds."""

    allocated: int
    """Of the first disk."""
    stored: int
    """Of all blobs of the first snapshot."""
    blobs: int
    rounds: dict[str, list[dict[str, float]]]
    """By tool, the seconds of a round by what was done."""
    peak: dict[str, dict[str, int]]
    """By tool and what was done."""
    new: int
    """Bytes of the second snapshot's blobs that the first has not, and of its manifest."""
    sent: dict[str, int]
    """By tool, what it sent to push the second snapshot after the first."""


# --- the tools -------------------------------------------------------------------------------------------------------


class Client(ABC):
    """A tool that pushes from the layout `source`."""

    name: str

    def __init__(self, source: Path) -> None:
        self._source = source

    def env(self, home: Path) -> dict[str, str]:
        """The environment of a run with an empty home."""
        return {"PATH": PATH, "HOME": str(home), "LC_ALL": "C.UTF-8"}

    @abstractmethod
    def push(self, snapshot: str, host: str) -> Command:
        """Push a snapshot to the registry at `host`."""

    @abstractmethod
    def pulls(self, snapshot: str, host: str) -> Mapping[str, Command]:
        """The ways to pull a snapshot into the empty working folder."""


class Casstore(Client):
    name = OURS

    def env(self, home: Path) -> dict[str, str]:
        return super().env(home) | {"CASSTORE_STORE": str(home / "store")}

    def push(self, snapshot: str, host: str) -> Command:
        place = f"{host}/{_REPOSITORY}:{snapshot}"
        return ["env", f"CASSTORE_STORE={self._source}", "casstore", "push", snapshot, place, "--plain-http", "-q"]

    def pulls(self, snapshot: str, host: str) -> Mapping[str, Command]:
        place = f"{host}/{_REPOSITORY}:{snapshot}"
        copy = ["casstore", "copy", place, f"oci:layout:{snapshot}", "--src-plain-http"]
        return {
            START: [*copy, "--dry-run"],
            TRANSFER: [*copy, "-q"],
            PULL: ["casstore", "pull", place, "--plain-http", "-q"],
        }


class Skopeo(Client):
    name = THEIRS

    def push(self, snapshot: str, host: str) -> Command:
        place = f"docker://{host}/{_REPOSITORY}:{snapshot}"
        return [*_SKOPEO, "--dest-tls-verify=false", f"oci:{self._source}:{snapshot}", place]

    def pulls(self, snapshot: str, host: str) -> Mapping[str, Command]:
        place = f"docker://{host}/{_REPOSITORY}:{snapshot}"
        return {PULL: [*_SKOPEO, "--src-tls-verify=false", place, f"oci:layout:{snapshot}"]}


_SKOPEO = ("skopeo", "--insecure-policy", "copy", "--quiet")
CLIENTS = (Casstore, Skopeo)


# --- the measurement -------------------------------------------------------------------------------------------------


def transfer(work: Path, *, data: int, rounds: int) -> Transfer:
    """All rounds, with a disk of about `data` bytes of packages."""
    images, store = _make_disks(work, data), work / "store"
    for name, image in images.items():
        parent = ["--parent", FIRST] if name == SECOND else []
        command: Command = ["casstore", "create", name, "--disk", image, "-q", *parent]
        run(command, cwd=work, env=Casstore(store).env(work))
    first, second = (_parts(store, name) for name in (FIRST, SECOND))
    clients = [kind(store) for kind in CLIENTS]
    result = Transfer(
        allocated=disks.allocated(images[FIRST]),
        stored=sum(first.values()),
        blobs=len(first),
        rounds={client.name: [] for client in clients},
        peak={client.name: {} for client in clients},
        new=sum(size for digest, size in second.items() if digest not in first),
        sent={},
    )
    with tempfile.TemporaryDirectory(dir=work) as full, registry(Path(full)) as server:
        filler = clients[0]
        run(filler.push(FIRST, server.host), cwd=work, env=filler.env(work))
        for number in range(rounds):
            turn = number % len(clients)
            for client in clients[turn:] + clients[:turn]:
                last = images[FIRST] if number == rounds - 1 else None
                result["rounds"][client.name].append(_one_round(client, work, server.host, result, last))
            say(f"round {number + 1}: {_told(result, number)}")
    return result


def _make_disks(work: Path, data: int) -> dict[str, Path]:
    images = {name: work / f"{name}.ext4" for name in (FIRST, SECOND)}
    rng = random.Random(4)
    series.make_empty(images[FIRST], max(1024 * disks.MIB, 4 * data), number=1)
    with tempfile.TemporaryDirectory(dir=work) as spare, disks.loop_mounted(images[FIRST], "noatime") as root:
        series.base_system(root, packages_of(data, Path(spare)), rng)
    series.copy_disk(images[FIRST], images[SECOND])
    with disks.loop_mounted(images[SECOND], "noatime") as root:
        series.edit(rng.sample(series.sources(root), 60), rng)
        series.change_rows(root, rng, 500)
    return images


def _parts(store: Path, name: str) -> dict[str, int]:
    """Digest -> bytes of all that a snapshot consists of, its manifest included."""
    raw = (store / "refs" / name).read_bytes()
    document: dict[str, Any] = json.loads(raw)
    blobs = {blob["digest"]: int(blob["size"]) for blob in (document["config"], *document["layers"])}
    return {**blobs, f"manifest of {name}": len(raw)}


def _one_round(client: Client, work: Path, full: str, result: Transfer, disk: Path | None) -> dict[str, float]:
    """Pushes to an empty registry, pulls from `full`; where `disk` is given, what was pulled must restore to it."""
    took: dict[str, float] = {}
    peaks = result["peak"][client.name]

    def measured(what: str, command: Command, home: Path) -> None:
        cost = run(command, cwd=home, env=client.env(home))
        took[what] = cost.seconds
        peaks[what] = max(peaks.get(what, 0), cost.peak)

    with tempfile.TemporaryDirectory(dir=work) as data, registry(Path(data)) as server:
        for what in (PUSH, AGAIN):
            with tempfile.TemporaryDirectory(dir=work) as home:
                measured(what, client.push(FIRST, server.host), Path(home))
        if client.name not in result["sent"]:
            with TcpProxy(server.host) as proxy, tempfile.TemporaryDirectory(dir=work) as home:
                run(client.push(SECOND, proxy.host), cwd=Path(home), env=client.env(Path(home)))
                result["sent"][client.name] = proxy.uploaded
    for what, command in client.pulls(FIRST, full).items():
        with tempfile.TemporaryDirectory(dir=work) as home:
            measured(what, command, Path(home))
            if disk is not None and what == PULL and client.name == OURS:
                restored = Path(home, "restored")
                run(["casstore", "restore", FIRST, restored], cwd=Path(home), env=client.env(Path(home)))
                if not disks.same_bytes(disk, restored):
                    raise CommandFailed("casstore: the disk that was pulled differs")
    return took


def _told(result: Transfer, number: int) -> str:
    parts = []
    for name, measured in result["rounds"].items():
        took = ", ".join(f"{what} {seconds(cost)}" for what, cost in measured[number].items())
        parts.append(f"{name}: {took}")
    return "; ".join(parts)


# --- what is looked at -----------------------------------------------------------------------------------------------

COMPARED = {PUSH: PUSH, AGAIN: AGAIN, TRANSFER: PULL, PULL: PULL}
"""What casstore did -> what skopeo's part of it is."""


def ratio(result: Transfer, what: str, *, without_start: bool = False) -> float:
    """Ours to skopeo's, the median of those inside a round; `without_start` leaves out what Python takes to start."""
    pairs = zip(result["rounds"][OURS], result["rounds"][THEIRS], strict=True)
    return statistics.median(
        (ours[what] - without_start * ours[START]) / theirs[COMPARED[what]] for ours, theirs in pairs
    )


def goals(result: Transfer) -> Iterator[Goal]:
    """What has to hold."""
    for what, most in ((PUSH, 1.0), (TRANSFER, 1.0), (PULL, 1.3)):
        yield Goal(f"{what}: times {THEIRS}'s", ratio(result, what), most, most)
    peak = max(result["peak"][OURS].values())
    yield Goal(f"memory: largest peak / {mebibytes(MOST_MEMORY)}", peak / MOST_MEMORY, 1.0, 1.0)
    sent = result["sent"][OURS] / result["new"]
    yield Goal("push after small edits: bytes sent / new blobs and manifest", sent, 1.05, 1.05)


def tables(result: Transfer) -> Iterator[Table]:
    """All of it."""
    columns = [PUSH, AGAIN, TRANSFER, PULL, START]
    rows = []
    for tool, measured in result["rounds"].items():
        medians = {what: statistics.median(one[what] for one in measured) for what in measured[0]}
        rows.append([tool, *(seconds(medians[what]) if what in medians else "" for what in columns)])
    compared = [what if what in COMPARED else "" for what in columns]
    rows.append([f"{OURS} / {THEIRS}", *(f"{ratio(result, what):.2f}" if what else "" for what in compared)])
    moving = {PUSH, TRANSFER, PULL}
    apart = [f"{ratio(result, what, without_start=True):.2f}" if what in moving else "" for what in columns]
    rows.append(["the same without start-up", *apart])
    size = f"{result['blobs']} blobs of {megabytes(result['stored'])}, for {mebibytes(result['allocated'])} of disk"
    yield Table(f"Medians of {len(result['rounds'][OURS])} rounds; {size}", ["", *columns], rows)
    rows = [
        [tool, *(mebibytes(peaks[what]) if what in peaks else "" for what in columns[:-1]), megabytes(sent)]
        for tool, peaks, sent in ((tool, result["peak"][tool], result["sent"][tool]) for tool in result["rounds"])
    ]
    sent = f"sent after small edits, {megabytes(result['new'])} new"
    yield Table("Peak memory, and bytes to the registry", ["", *columns[:-1], sent], rows)
    judged = [[goal.name, f"{goal.got:.2f}", f"{goal.bound:.2f}", goal.verdict] for goal in goals(result)]
    yield Table("Transfers: what has to hold", ["", "measured", "at most", ""], judged)
