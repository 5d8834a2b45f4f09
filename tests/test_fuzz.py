"""What fuzzing begins with and what it has found, replayed without the fuzzer; and a short run of the fuzzer itself."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
import tracemalloc
from pathlib import Path

import pytest

from casstore.errors import DocumentError
from casstore.spec import MIB
from tests.conftest import IN_CI
from tests.fuzz.draw import Draw
from tests.fuzz.mutators import json_documents, tars, with_checksum
from tests.fuzz.target import FIXTURES, ROOT, Target
from tests.fuzz.targets import TARGETS
from tests.support.tars import archive, member

_MEMORY = 64 * MIB
"""What one input may allocate: each is of some KiB at most."""
_RUNS = 100
"""Of each target, besides its seeds."""


def test_every_target_has_seeds_and_every_folder_a_target() -> None:
    assert all(target.seeds for target in TARGETS.values())
    assert {folder.name for folder in FIXTURES.iterdir()} <= set(TARGETS)
    assert all(path.name.startswith(("seed-", "found-")) for path in FIXTURES.glob("*/*"))
    assert all(path.stat().st_size <= 16 * 1024 for path in FIXTURES.glob("*/*"))


@pytest.mark.parametrize("name", TARGETS)
def test_inputs_are_refused_or_read_rightly_in_little_memory(name: str) -> None:
    for path in TARGETS[name].seeds:
        data = path.read_bytes()
        tracemalloc.start()
        try:
            TARGETS[name](data)
            assert tracemalloc.get_traced_memory()[1] < _MEMORY, path
        finally:
            tracemalloc.stop()


@pytest.mark.parametrize(
    "problem", [ValueError("another kind of error"), DocumentError("x", "\x1b[31m"), DocumentError("x", "y" * 5000)]
)
def test_a_target_lets_through_what_is_a_finding(problem: Exception) -> None:
    def read(data: bytes) -> None:
        raise problem

    with pytest.raises((AssertionError, ValueError)):
        Target(name="x", read=read, refuses=(DocumentError,), modules=())(b"")


def test_a_target_takes_refusals_from_reading_only() -> None:
    def check(value: object) -> None:
        raise DocumentError("x", "cannot be read again")

    with pytest.raises(DocumentError):
        Target(name="x", read=bytes, check=check, refuses=(DocumentError,), modules=())(b"")


def test_a_draw_gives_something_for_any_bytes() -> None:
    draw = Draw(b"\x05ab\ncd")
    assert draw.number(9) == 5
    assert draw.line() == b"ab"
    assert draw.one_of("xyz") == "x"  # "c" is 99
    assert draw.rest() == b"d"
    assert (draw.number(2**64), draw.some(), draw.rest(), draw.line(), draw.rarely()) == (0, b"", b"", b"", False)


def test_mutated_archives_have_right_checksums() -> None:
    data = archive(member("a", b"x" * 600), member("b"))
    for seed in range(50):
        changed = tars(data, lambda part: part, seed)
        blocks = [changed[at : at + 512] for at in range(0, len(changed), 512)]
        assert all(with_checksum(block) == block for block in blocks)


def test_mutated_documents_are_mostly_documents() -> None:
    data = b'{"a":[1,{"b":"c"}],"d":null}'
    changed = {json_documents(data, lambda part: part + b"!", seed) for seed in range(200)}
    assert len(changed) > 50
    assert sum(each.endswith((b"}", b"]")) for each in changed) > 40


def test_the_fuzzer_finds_nothing_in_a_moment(tmp_path: Path) -> None:
    if importlib.util.find_spec("atheris") is None and not IN_CI:
        pytest.skip("needs atheris, which is not installed: pip install 'casstore[fuzz]'")
    folders = ("--corpus", str(tmp_path / "corpus"), "--findings", str(tmp_path / "found"))
    command = [sys.executable, "-m", "tests.fuzz", "--runs", str(_RUNS), *folders]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr[-8000:]}"
    runs = dict(re.findall(r"^(\S+) +(\d+) ", done.stdout, re.MULTILINE))
    assert runs.keys() == TARGETS.keys()
    assert all(int(count) >= _RUNS for count in runs.values())
