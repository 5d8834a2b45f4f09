"""A program that was written for microsandbox 0.4.4 prints the same under casstore.aio: only its import line changes.

What may differ are paths, times, and the digests of documents that contain times. The program leaves out what casstore
does otherwise on purpose; docs/reference/aio.md lists it.
"""

from __future__ import annotations

import random
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import microsandbox
from tests.support.microsandbox import RealTool
from tests.support.sandboxes import IMAGE_DIGEST, write_cache

PROGRAM = Path(__file__).parent / "programs" / "snapshot_tour.py"
MIB = 1 << 20
OF_FIXTURES = {"root": "chain-root", "mid": "chain-mid", "head": "chain-head", "sealed": "tiny-integrity"}


@pytest.fixture
def tool(tmp_path: Path) -> RealTool:
    """A home of 0.4.4 with a sandbox in every state."""
    sparse, dense = tmp_path / "sparse", tmp_path / "dense"
    with sparse.open("wb") as out:
        for at in (1, 5):
            out.seek(at * MIB)
            out.write(random.Random(at).randbytes(10_000))
        out.truncate(8 * MIB)
    dense.write_bytes(random.Random(9).randbytes(MIB))
    tool = RealTool("0.4.4", tmp_path / "ann")
    tool.add_sandbox("base", upper=sparse)
    tool.add_sandbox("dense", upper=dense)
    tool.add_sandbox("crashed", upper=sparse, status="Crashed")
    for name in ("running", "draining", "paused"):
        tool.add_sandbox(name, upper=sparse, status=name.capitalize())
    tool.add_sandbox("nodisk", upper=None)
    tool.add_sandbox("unpinned", upper=sparse, manifest_digest=None)
    tool.add_sandbox("bound", upper=sparse, config={"name": "bound", "image": {"Bind": "/"}, "manifest_digest": "a:b"})
    write_cache(tool.home)
    return tool


def fixtures(folder: Path) -> Path:
    for name, stem in OF_FIXTURES.items():
        microsandbox.unpack("0.4.4", stem, folder).rename(folder / name)
    shutil.copy(microsandbox.FIXTURES / "0.4.4" / "exports" / "plain.tar.zst", folder)
    return folder


def run(tool: RealTool, interpreter: Path | str, program: str, folder: Path) -> str:
    """What the program prints, in an empty directory of its own."""
    (folder / "work").mkdir(parents=True)
    (folder / "fixtures").mkdir()
    command = [str(interpreter), "-c", program, str(folder / "work"), str(fixtures(folder / "fixtures"))]
    env = {**tool.env, "CASSTORE_STORE": str(folder / "store"), "PYTHONPATH": str(PROGRAM.parents[2])}
    done = subprocess.run(command, env=env, cwd=folder, capture_output=True, text=True, check=False, timeout=120)
    # 0.4.4 panics when its process ends, and may abort then.
    out: str = done.stdout
    assert done.returncode in {0, -signal.SIGABRT}, out + done.stderr
    assert out.endswith("\nend\n"), out + done.stderr
    return out


class Masks:
    """Puts signs in the place of paths, times, and of digests that only one of the two outputs has."""

    _PATH = re.compile(r"(?<![\w.~:])/(?:[^\s'\",:]*/)?(?=[^\s'\",:/]+)")
    _TIME = re.compile(r"\d{4}-\d\d-\d\dT[\d:.]+(?:\+00:00|Z)")
    _DIGEST = re.compile(r"sha256[:-](?P<hex>[0-9a-f]{64}|[0-9a-f]{16})(?![0-9a-f])")

    def __init__(self, one: str, other: str) -> None:
        self.common = self.digests(one) & self.digests(other)
        self.times = set(self._TIME.findall(one)) & set(self._TIME.findall(other))

    @classmethod
    def digests(cls, text: str) -> set[str]:
        return {match["hex"] for match in cls._DIGEST.finditer(text)}

    def masked(self, text: str) -> list[str]:
        """Lines; equal digests have equal signs."""
        known: dict[str, int] = {}

        def digest(match: re.Match[str]) -> str:
            hex_ = match["hex"]
            if hex_ in self.common:
                return match[0]
            return f"<digest {known.setdefault(hex_[:16], len(known) + 1)} of {len(hex_)}>"

        text = self._DIGEST.sub(digest, text)
        text = self._TIME.sub(lambda match: match[0] if match[0] in self.times else "<time>", text)
        return self._PATH.sub("<folder>/", text).splitlines()


@pytest.mark.needs("microsandbox")
def test_the_same_program_prints_the_same(tool: RealTool, tmp_path: Path) -> None:
    program = PROGRAM.read_text()
    changed = program.replace("from microsandbox import", "from casstore.aio import")
    assert sum(one != other for one, other in zip(program.split("\n"), changed.split("\n"), strict=True)) == 1
    real = run(tool, microsandbox.python("0.4.4"), program, tmp_path / "real")
    mine = run(tool, sys.executable, changed, tmp_path / "mine")
    masks = Masks(real, mine)
    assert masks.masked(mine) == masks.masked(real)
    # The fixtures' ids, the integrity of the same disk, and the image's digest: that they are equal is no accident.
    for digest in (
        "6b0c50c73829616500a84a056dae5f9adf60d63515606360fa9a281abafdf793",
        "3d4f50b910c245b6f278f9a4fbafb06a8bc07e2f29fa20487a14d8a7aa8ff7e9",
        IMAGE_DIGEST.removeprefix("sha256:"),
    ):
        assert digest in masks.common
    assert re.search(r'"algorithm": "msb-sparse-sha256-v1", "digest": "sha256:[0-9a-f]{64}", "kind": "verified"', mine)


def test_the_masks_hide_nothing_else() -> None:
    one = "a /x/y/name 'sha256:" + 64 * "a" + "' 2026-11-22T10:12:17.3+00:00 'sha256:" + 64 * "b" + "' raw 5"
    other = "a /z/name 'sha256:" + 64 * "c" + "' 2026-11-23T10:12:17.3+00:00 'sha256:" + 64 * "b" + "' raw 5"
    masks = Masks(one, other)
    assert masks.masked(one) == masks.masked(other)
    assert masks.masked(one) == ["a <folder>/name '<digest 1 of 64>' <time> 'sha256:" + 64 * "b" + "' raw 5"]
    for wrong in (one.replace("name", "title"), one.replace("raw 5", "raw 6"), one.replace(64 * "b", 64 * "a")):
        masks = Masks(one, wrong)
        assert masks.masked(wrong) != masks.masked(one)
