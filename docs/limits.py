"""Compute how large a snapshot can be, and put the figures into docs/reference/limits.md.

Everything between the markers there is replaced; run `python docs/limits.py` after changing a limit.
tests/test_limits.py fails until that was done.
"""

from __future__ import annotations

import re
from pathlib import Path

from casstore import spec
from casstore.digest import Digest
from casstore.errors import DocumentError
from casstore.oci import ArtifactManifest, Descriptor
from casstore.packer import PACKS_OF_A_SIZE

PAGE = Path(__file__).parent / "reference" / "limits.md"
BLOCK = re.compile(r"(<!-- computed -->\n).*?(<!-- end -->)", re.DOTALL)
_TIB = 1024 * spec.GIB
_RUN = 28
"""Bytes of a run in a map."""
_EXTENT = 16
_PACK_ENTRY = 68
_SMALL = 96
"""Small packs that a snapshot may list beside those that its bytes need (docs/adr/0005)."""


def _manifest(packs: int) -> bytes:
    """The manifest of a snapshot with the longest usual annotations and this many packs."""
    config = Descriptor(media_type=spec.MEDIA_CONFIG, digest=Digest("0" * 64), size=1000)
    disk_map = Descriptor(media_type=spec.MEDIA_MAP, digest=Digest("1" * 64), size=spec.MAX_MAP)
    layers = [Descriptor(media_type=spec.MEDIA_PACK, digest=Digest(f"{n:064x}"), size=spec.GIB) for n in range(packs)]
    annotations = {spec.ANNOTATION_CREATED: "0" * 30, spec.ANNOTATION_BASE_NAME: "n" * 255}
    annotations[spec.ANNOTATION_BASE_DIGEST] = f"sha256:{'0' * 64}"
    return ArtifactManifest.build(config=config, layers=[disk_map, *layers], annotations=annotations).raw


def most_packs() -> int:
    """The most packs that a manifest can name."""
    one = len(_manifest(1))
    packs = 1 + (spec.MAX_MANIFEST - one) // (len(_manifest(2)) - one)
    _manifest(packs)
    try:
        _manifest(packs + 1)
    except DocumentError:
        return packs
    raise AssertionError("a manifest names more packs than computed")


def one_capture(packs: int) -> int:
    """Stored bytes in so many packs of one capture: each PACKS_OF_A_SIZE are PACK_TARGET larger than those before."""
    return sum(spec.PACK_TARGET * (1 + n // PACKS_OF_A_SIZE) for n in range(packs))


def a_history(packs: int) -> int:
    """Stored bytes that are in use for sure when a long history lists so many packs (docs/adr/0005)."""
    return (packs - _SMALL) // 2 * spec.PACK_TARGET


def most_runs(packs: int) -> int:
    """The most runs in a map with so many packs, with an extent for every second run."""
    return (spec.MAX_MAP - packs * _PACK_ENTRY) // (_RUN + _EXTENT // 2)


def table() -> str:
    """The figures, as a table."""
    packs = most_packs()
    runs = most_runs(packs)
    mean_chunk = 2 * spec.CHUNK_MIN
    rows = [
        ("bytes of a pack's line in the artifact manifest", f"{len(_manifest(2)) - len(_manifest(1))}"),
        ("packs that a manifest of 4 MiB names", f"{packs:,}"),
        ("stored bytes of one capture into a store of its own, at most", f"{one_capture(packs) / _TIB:.1f} TiB"),
        ("packs of a capture of 1 TiB that does not compress", f"{_packs_of(_TIB):,}"),
        ("stored bytes in use after a long history of small steps, at least", f"{a_history(packs) / spec.GIB:.0f} GiB"),
        ("runs in a map of 128 MiB, with an extent for every second one", f"{runs / 1e6:.1f} million"),
        (
            f"disk of which no two chunks ({mean_chunk // spec.KIB} KiB) lie together",
            f"{runs * mean_chunk / spec.GIB:.0f} GiB",
        ),
        ("disk in one pack's order (runs of a pack of 32 MiB)", f"{runs * spec.PACK_TARGET / _TIB:,.0f} TiB"),
    ]
    return "| what | how much |\n|---|---|\n" + "".join(f"| {what} | {much} |\n" for what, much in rows)


def _packs_of(stored: int) -> int:
    packs = 0
    while stored > 0:
        stored -= spec.PACK_TARGET * (1 + packs // PACKS_OF_A_SIZE)
        packs += 1
    return packs


def render(page: str) -> str:
    """The page with the figures of today."""
    return BLOCK.sub(lambda match: f"{match[1]}\n{table()}\n{match[2]}", page)


if __name__ == "__main__":
    PAGE.write_text(render(PAGE.read_text()))
