"""casstore beside the tools that people use already: what each can do, found out by running it where possible.

    python -m tests.benchmarks.compared [--out DIR]      writes DIR/compared.json, and the computed parts of compared.md
    python -m tests.benchmarks.compared --render --out DIR   only the last, from the first

Every tool that is installed gets the same two small disks. Cells that a run cannot show come from compared_cells.py,
each with the address of what says so. Needs docker-registry, mke2fs and debugfs; less than 3 minutes.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import zstandard

from casstore import spec
from casstore.digest import Digest
from tests.benchmarks import compared_cells as cells
from tests.benchmarks import compared_page, page
from tests.benchmarks.contestants import CONTESTANTS, FIRST, INSIDE, SECOND, Casstore, Contestant, flip, make_disks
from tests.benchmarks.measure import CommandFailed
from tests.benchmarks.report import mebibytes, say, seconds
from tests.benchmarks.tools import version_of
from tests.support import disks, needs
from tests.support.proxy import TcpProxy
from tests.support.servers import registry

NEEDS = ("docker-registry", "mke2fs", "debugfs")
SNAPSHOT_TOOLS = ("casstore", "restic", "borg", "casync", "git")
REGISTRY_TOOLS = ("casstore", "skopeo", "docker", "oras", "regctl", "tart")
_MEASURED = {
    "first": "first snapshot",
    "second": "second snapshot, after small edits",
    "memory": "memory of the first",
    "restore": "restore, and what it allocates",
    "damage": "one byte of what is stored is damaged",
}
_SENT = {
    "push": "push of the first disk sends",
    "again": "push of the second sends",
    "file": "one file of the disk, from afar, fetches",
    "cut": "an upload that breaks in the middle",
}

Row = dict[str, Any]


def compare(work: Path, *, size: int, data: int) -> dict[str, list[Row]]:
    """All rows, by table."""
    images = make_disks(work, size=size, data=data)
    here = {kind.name: kind(work / kind.name, images) for kind in CONTESTANTS if kind.installed()}
    measured: dict[str, dict[str, Any]] = {what: {} for what in _MEASURED}
    for tool in here.values():
        for what, cell in _measure(tool):
            measured[what][tool.name] = cell
            say(f"{tool.name}: {what}: {cell['text']}")
    told = [{"what": what, "cells": _told(row, here)} for what, row in cells.SNAPSHOTS.items()]
    damaged = {name: _damage(tool) for name, tool in here.items()}
    measured["damage"] = damaged
    sent = _registries(work, here["casstore"], images)
    registries = [{"what": what, "cells": _told(row, here)} for what, row in cells.REGISTRIES.items()]
    return {
        "snapshots": [{"what": _MEASURED[what], "cells": row} for what, row in measured.items()] + told,
        "registries": [{"what": _SENT[what], "cells": row} for what, row in sent.items()] + registries,
    }


# --- snapshots -------------------------------------------------------------------------------------------------------


def _measure(tool: Contestant) -> Iterator[tuple[str, dict[str, Any]]]:
    tool.ask(*tool.prepare())
    kept = 0
    for what, name in (("first", FIRST), ("second", SECOND)):
        command = tool.create(name)
        before, kept = kept, 0
        cost = tool.time(*command)
        kept = tool.stored()
        text = f"{seconds(cost.seconds)}, {_size(kept - before)}"
        yield what, _ran(text, tool.shown(command), seconds=cost.seconds, bytes=kept - before)
        if what == "first":
            yield "memory", _ran(mebibytes(cost.peak), tool.shown(command), bytes=cost.peak)
    if tool.name == "git":
        yield "second", _packed(tool, text)
    command = tool.restore(FIRST)
    cost = tool.time(*command)
    if not disks.same_bytes(tool.images[FIRST], tool.restored()):
        raise CommandFailed(f"{tool.name}: the restored disk differs")
    wanted, got = (disks.allocated(path) for path in (tool.images[FIRST], tool.restored()))
    text = f"{seconds(cost.seconds)}, {mebibytes(got)} of {mebibytes(wanted)}"
    yield "restore", _ran(text, tool.shown(command), seconds=cost.seconds, bytes=got)


def _packed(tool: Contestant, loose: str) -> dict[str, Any]:
    """Git keeps each version as it is, until it packs them."""
    command = ["git", "gc", "-q", "--prune=now"]
    cost = tool.time(*command)
    less = tool.stored()
    text = f"{loose}; both {_size(less)} after `git gc`, {seconds(cost.seconds)}"
    return _ran(text, f"git add, git commit, {' '.join(command)}", seconds=cost.seconds, bytes=less)


def _damage(tool: Contestant) -> dict[str, Any]:
    flip(tool.victim())
    command = tool.check()
    done = tool.ask(*command)
    lines = [line for line in done.output.splitlines() if line.strip()]
    text = "found" if done.code else "**not found**"
    if tool.name == "casync":
        text = "found when it is restored" if done.code else "**not found**"
    return _ran(f"{text} (exit {done.code})", done.command, said=lines[-3:])


def _told(row: Mapping[str, cells.Cell], here: Mapping[str, Contestant]) -> dict[str, dict[str, Any]]:
    """The cells of a row; what a tool that is not installed would be asked is left out."""
    found: dict[str, dict[str, Any]] = {}
    for name, cell in row.items():
        tool = here.get(name, here["casstore"])
        if isinstance(cell, cells.Cited):
            found[name] = {"text": cell.text, "url": cell.url}
        elif needs.find_program(name) is None:
            found[name] = {"text": "not installed here"}
        elif isinstance(cell, cells.Absent):
            said = tool.ask(*cell.help).output.lower()
            if wrong := [word for word in cell.words if word.lower() in said]:
                raise CommandFailed(f"{name} may have it after all: {wrong} in {' '.join(cell.help)}")
            found[name] = _ran(cell.text, " ".join(cell.help), absent=list(cell.words))
        else:
            found[name] = _asked(tool, name, cell)
    return found


def _asked(tool: Contestant, name: str, cell: cells.Asked) -> dict[str, Any]:
    command = getattr(tool, cell.method)() if cell.method else cell.words
    done = tool.ask(*command)
    if done.code != cell.code or cell.expects not in done.output:
        say(f"!! {name}: {done.command}: exit {done.code}, expected {cell.expects!r}: {done.output[:300]}")
        return {"text": "does not work here", "command": done.command}
    lines = [line.rstrip() for line in done.output.splitlines() if line.strip()]
    return _ran(cell.text, done.command, said=[line[:160] for line in lines[:4]])


def _ran(text: str, command: str, **more: Any) -> dict[str, Any]:
    return {"text": text, "command": command, **more}


def _size(count: float) -> str:
    return f"{count / disks.MIB:.1f} MiB" if count < 100 * disks.MIB else mebibytes(count)


# --- registries ------------------------------------------------------------------------------------------------------


def _registries(work: Path, tool: Contestant, images: Mapping[str, Path]) -> dict[str, dict[str, Any]]:
    """What casstore and skopeo send. A layout with the compressed disk as its only layer stands for what a tool that
    pushes files, or images, would have to send.
    """
    layout = _one_layer(work / "layout", images)
    fresh = Casstore(work / "pushes", images)
    for name in (FIRST, SECOND):
        fresh.time(*fresh.create(name))
    found: dict[str, dict[str, Any]] = {what: {} for what in _SENT}
    pushes: dict[str, Callable[[str, str], Sequence[str | Path]]] = {
        "casstore": lambda name, host: ["casstore", "push", name, f"{host}/disks:{name}", "--plain-http", "-q"],
        "skopeo": lambda name, host: [
            *("skopeo", "--insecure-policy", "copy", "--quiet", "--dest-tls-verify=false"),
            *(f"oci:{layout}:{name}", f"docker://{host}/disks:{name}"),
        ],
    }
    for client, push in pushes.items():
        if needs.find_program(client) is None:
            continue
        with tempfile.TemporaryDirectory(dir=work) as folder, registry(Path(folder)) as server:
            with TcpProxy(server.host) as proxy:
                for what, name in (("push", FIRST), ("again", SECOND)):
                    proxy.reset()
                    fresh.time(*push(name, proxy.host))
                    time.sleep(0.1)
                    shown = fresh.shown(push(name, "HOST"))
                    found[what][client] = _ran(_size(proxy.uploaded), shown, bytes=proxy.uploaded)
            found["file"][client] = _one_file(fresh, client, server.host, layout)
        found["cut"][client] = _cut(fresh, work, push, int(found["push"][client]["bytes"]))
    return found


def _one_layer(folder: Path, images: Mapping[str, Path]) -> Path:
    blobs = folder / "blobs/sha256"
    blobs.mkdir(parents=True)

    def put(data: bytes, media_type: str) -> dict[str, Any]:
        digest = Digest.of(data)
        (blobs / digest.hex).write_bytes(data)
        return {"mediaType": media_type, "digest": str(digest), "size": len(data)}

    entries = []
    for name, image in images.items():
        layer = zstandard.ZstdCompressor(level=3).compress(image.read_bytes())
        document = {
            "schemaVersion": 2,
            "mediaType": spec.MEDIA_MANIFEST,
            "config": put(b"{}", spec.MEDIA_EMPTY),
            "layers": [put(layer, "application/zstd")],
        }
        entry = put(json.dumps(document).encode(), spec.MEDIA_MANIFEST)
        entries.append({**entry, "annotations": {spec.ANNOTATION_REF_NAME: name}})
    (folder / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": entries}))
    (folder / "oci-layout").write_text(json.dumps({"imageLayoutVersion": spec.LAYOUT_VERSION}))
    return folder


def _one_file(tool: Contestant, client: str, host: str, layout: Path) -> dict[str, Any]:
    if client != "casstore":
        size = max(path.stat().st_size for path in (layout / "blobs/sha256").iterdir())
        return _ran(f"all of it, {_size(size)}", "the layer is one compressed stream", bytes=size)
    with TcpProxy(host) as proxy:
        done = tool.ask("casstore", "cat", f"{proxy.host}/disks:{FIRST}", f"/{INSIDE}", "--plain-http")
        time.sleep(0.1)
        got, through = proxy.downloaded, proxy.host
    if done.code:
        say(f"!! {done.command}: {done.output[:300]}")
        return {"text": "does not work here", "command": done.command}
    return _ran(f"{_size(got)} (`casstore cat`)", done.command.replace(through, "HOST"), bytes=got)


def _cut(tool: Contestant, work: Path, push: Callable[[str, str], Sequence[str | Path]], whole: int) -> dict[str, Any]:
    """Cut the connection once, in the middle; push again if that fails."""
    with (
        tempfile.TemporaryDirectory(dir=work) as folder,
        registry(Path(folder)) as server,
        TcpProxy(server.host) as proxy,
    ):
        proxy.cut_upload_after(whole // 2)
        tries = 1
        while (done := tool.ask(*push(FIRST, proxy.host))).code and tries < 4:
            tries += 1
        time.sleep(0.1)
        sent = proxy.uploaded
    if done.code:
        return _ran("fails", tool.shown(push(FIRST, "HOST")), said=done.output.splitlines()[-3:])
    ended = "ends well" if tries == 1 else f"fails; {tries} runs"
    text = f"{ended}, {100 * sent / whole:.0f} % of the bytes sent in all"
    return _ran(text, tool.shown(push(FIRST, "HOST")), bytes=sent, runs=tries)


# --- all of it -------------------------------------------------------------------------------------------------------


def _versions() -> dict[str, str]:
    asked = {"restic": ("version",)}
    named = {name: version_of(name, *asked.get(name, ())) for name in (*SNAPSHOT_TOOLS, *REGISTRY_TOOLS)}
    return {name: said for name, said in named.items() if said}


def main(words: Sequence[str] | None = None) -> int:
    lines = (__doc__ or "").splitlines()
    parser = argparse.ArgumentParser(description=lines[0])
    parser.add_argument("--size", type=int, default=256, help="MiB of the disks (%(default)s)")
    parser.add_argument("--data", type=int, default=48, help="MiB of files on them (%(default)s)")
    parser.add_argument("--work", type=Path, help="folder for disks and repositories (a temporary one)")
    parser.add_argument("--out", type=Path, metavar="DIR", help="where compared.json and compared.md are")
    parser.add_argument("--render", action="store_true", help="run nothing: the page from DIR/compared.json")
    args = parser.parse_args(words)
    if args.render:
        document = json.loads((args.out / "compared.json").read_text())
    else:
        if missing := [need for need in NEEDS if not needs.available(need)]:
            say(f"this machine lacks {', '.join(missing)}")
            return 1
        with tempfile.TemporaryDirectory(dir=args.work) as folder:
            tables = compare(Path(folder).resolve(), size=args.size * disks.MIB, data=args.data * disks.MIB)
        measured = page.circumstances()
        command = "python -m tests.benchmarks.compared --out docs/explanation"
        measured |= {"command": command, "versions": _versions(), "size": args.size, "data": args.data}
        document = {"measured": measured, "tables": tables}
    if args.out:
        compared_page.write(args.out, document)
    else:
        say("\n".join(compared_page.blocks(document).values()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
