"""Snapshot manifests of microsandbox 0.6 and 0.7: valid documents of any content, and the disks that they describe."""

from __future__ import annotations

import json
import random
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

VECTORS = Path(__file__).parents[2] / "fixtures" / "vectors" / "dialects"
IDS: Mapping[str, str] = {
    name: digest for digest, name in (line.split() for line in (VECTORS / "ids.txt").read_text().splitlines())
}
"""File of VECTORS -> id."""

LEGACY_LABELS = "org.microsandbox.capture-labels"
_SAFE = 2**53 - 1

texts = st.text(st.characters(exclude_categories=["Cs"]) | st.sampled_from('"\\/\n\x00\x7f\u2028ﬀ😀\ue000'), max_size=6)
_some_text = texts.filter(bool)
labels = st.dictionaries(texts, texts, max_size=4)
_values = st.recursive(
    st.none() | st.booleans() | st.integers(-_SAFE, _SAFE) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)
_extensions: st.SearchStrategy[dict[str, Any]] = st.just({}) | st.dictionaries(_some_text, _values, max_size=3)


def _hexadecimal(prefix: str, digits: int) -> st.SearchStrategy[str]:
    return st.binary(min_size=digits // 2, max_size=digits // 2).map(lambda raw: prefix + raw.hex())


digests = _hexadecimal("sha256:", 64)


@st.composite
def times(draw: st.DrawFn) -> str:
    """Times of RFC 3339 in all zones, which say a year of four digits in UTC."""
    day = draw(st.datetimes(min_value=_year(2), max_value=_year(9998)))
    fraction = draw(st.just("") | st.text("0123456789", min_size=1, max_size=12).map(lambda digits: f".{digits}"))
    zone = draw(st.sampled_from(["Z", "+00:00", "-00:00", "+05:30", "-11:59", "+23:59"]))
    return day.replace(microsecond=0).isoformat() + fraction + zone


def _year(year: int) -> Any:
    from datetime import datetime

    return datetime(year, 1, 1)  # noqa: DTZ001  (the zone is another part)


def _integrity(size: int) -> st.SearchStrategy[dict[str, Any] | None]:
    def merkle(root: str) -> dict[str, Any]:
        algorithm = "msb-file-merkle-blake3-v1"
        return {"algorithm": algorithm, "root": root, "logical_size": size, "leaf_size": 65536}

    simple = st.sampled_from(["sha256", "msb-sparse-sha256-v1"])
    recorded = st.builds(lambda algorithm, digest: {"algorithm": algorithm, "digest": digest}, simple, digests)
    return st.none() | recorded | _hexadecimal("blake3:", 64).map(merkle)


def _requires(draw: st.DrawFn, extensions: Mapping[str, Any]) -> list[str]:
    keys = sorted(extensions)
    return sorted(draw(st.lists(st.sampled_from(keys), unique=True))) if keys else []


@st.composite
def documents_06(draw: st.DrawFn) -> dict[str, Any]:
    """Of 0.6, with a raw disk `upper.ext4`."""
    size, extensions = draw(st.sampled_from([0, 1, 4096, 2**40])), draw(_extensions)
    upper = {"file": "upper.ext4", "size_bytes": size, "integrity": draw(_integrity(size))}
    return {
        "schema": 1,
        "artifact": "snapshot",
        "scope": "disk",
        "created_at": draw(times()),
        "parent": draw(st.none() | digests),
        "image": {"ref": draw(_some_text), "manifest_digest": draw(digests)},
        "source_sandbox": draw(st.none() | texts),
        "state": {"kind": "file", "format": "raw", "fstype": draw(_some_text), "upper": upper},
        "labels": draw(labels),
        "extensions": extensions,
        "requires": _requires(draw, extensions),
    }


@st.composite
def documents_07(draw: st.DrawFn, *, most: int = 3) -> dict[str, Any]:
    """Of 0.7, with a chain of up to `most` layers; see `disks_of`."""
    layers: list[dict[str, Any]] = []
    size, extensions = draw(st.sampled_from([65536, 2**30])), draw(_extensions)
    ids = draw(st.lists(_hexadecimal("layer_", 32), min_size=1, max_size=most, unique=True))
    for n, layer_id in enumerate(ids):
        form = "qcow2" if n else draw(st.sampled_from(["raw", "qcow2"] if most > 1 else ["raw"]))
        integrity = draw(_integrity(QCOW2_SIZE if form == "qcow2" else size))
        layers.append(
            {
                "layer_id": layer_id,
                "format": form,
                "virtual_size": size,
                "backing": ids[n - 1] if n else None,
                "payload": {"file_kind": "regular", "integrity": integrity},
            }
        )
    snapshot_id, parent = draw(st.lists(_hexadecimal("snap_", 32), min_size=2, max_size=2, unique=True))
    document = {
        "schema": "microsandbox.snapshot/1",
        "snapshot_id": snapshot_id,
        "scope": "file",
        "state": {
            "kind": "file",
            "disk_format": layers[-1]["format"],
            "filesystem": draw(_some_text),
            "virtual_size": size,
            "head": ids[-1],
            "layers": layers,
        },
        "capture": {
            "created_at": draw(times()),
            "source_lineage": draw(st.none() | texts),
            "source_checkpoint": draw(st.none() | texts),
            "consistency": draw(
                st.sampled_from([f"{kind}-consistent" for kind in ("crash", "filesystem", "application")])
            ),
        },
        "image": {"reference": draw(_some_text), "manifest_digest": draw(digests)},
        "parent": draw(st.sampled_from([None, parent])),
        "requires": _requires(draw, extensions),
        "extensions": extensions,
    }
    if draw(st.booleans()):
        document["root_disk"] = {"layout": draw(st.sampled_from(["managed", "flat"]))}
    return document


def disordered(document: Any, seed: int) -> bytes:
    """The document with its keys in another order, and white space."""
    generator = random.Random(seed)

    def shuffled(value: Any) -> Any:
        if isinstance(value, dict):
            keys = list(value)
            generator.shuffle(keys)
            return {key: shuffled(value[key]) for key in keys}
        return [shuffled(each) for each in value] if isinstance(value, list) else value

    return json.dumps(shuffled(document), ensure_ascii=bool(seed % 2), indent=seed % 3).encode()


QCOW2_SIZE = 5 << 16


def qcow2(virtual_size: int, backing: str | None) -> bytes:
    """An empty qcow2 disk (version 3, clusters of 64 KiB) over the file `backing`."""
    name = (backing or "").encode()
    header = struct.pack(
        ">4sIQIIQIIQQIIQQQQII",
        b"QFI\xfb",
        *(3, 104 if name else 0, len(name), 16, virtual_size, 0, 1, 3 << 16, 1 << 16, 1, 0, 0, 0, 0, 0, 4, 104),
    )
    return (header + name).ljust(QCOW2_SIZE, b"\0")


def write_artifact(folder: Path, document: Mapping[str, Any], data: bytes) -> Path:
    """An artifact directory of 0.6 or 0.7 with this document, given as an object and as bytes, and empty disks."""
    folder.mkdir(parents=True)
    (folder / "snapshot.json").write_bytes(data)
    if "artifact" in document:
        upper = document["state"]["upper"]
        _empty(folder / upper["file"], upper["size_bytes"])
        return folder
    (folder / "layers").mkdir()
    below = None
    for layer in document["state"]["layers"]:
        name = f"{layer['layer_id']}.{layer['format']}"
        if layer["format"] == "raw":
            _empty(folder / "layers" / name, layer["virtual_size"])
        else:
            (folder / "layers" / name).write_bytes(qcow2(layer["virtual_size"], below))
        below = name
    return folder


def _empty(path: Path, size: int) -> None:
    with path.open("wb") as file:
        file.truncate(size)
