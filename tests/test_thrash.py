"""Everything at once, and killed at random: no wrong byte, no surprise, nothing left over (rows 12, 29 to 33, 38).

tests/support/thrash.py says who does what. `python -m tests.support.thrash FOLDER` does it for as long as one likes.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import TALLY
from tests.support.thrash import VERBS, disk_of, is_right

REPOSITORY = Path(__file__).parents[1]


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("seconds", "processes"),
    [(12, 6), pytest.param(120, 4, marks=pytest.mark.long), pytest.param(120, 8, marks=pytest.mark.long)],
)
def test_32_processes_that_do_everything_and_are_killed(
    tmp_path: Path, record_property: Callable[[str, object], None], seconds: int, processes: int
) -> None:
    command = [sys.executable, "-m", "tests.support.thrash", str(tmp_path), "--seconds", str(seconds)]
    command += ["--processes", str(processes)]
    done = subprocess.run(command, check=False, capture_output=True, text=True, cwd=REPOSITORY)
    assert done.returncode == 0, done.stderr
    tally = json.loads(done.stdout)
    print(tally, done.stderr)  # noqa: T201  (shown if the test fails)
    done_well = [f"{codes.get('0', 0)} {verb}" for verb, codes in tally["ended"].items()]
    record_property(TALLY, f"{', '.join(done_well)} succeeded; {sum(tally['killed'].values())} verbs were killed")
    assert tally["wrong"] == []
    assert {verb for verb, codes in tally["ended"].items() if "0" in codes} == set(VERBS), "a verb never succeeded"
    assert len(tally["killed"]) > 3


def test_a_disk_says_what_it_holds() -> None:
    data = disk_of([1, 2])
    assert is_right(data)
    assert not is_right(data[:-1] + b"x")
    assert not is_right(data[:-1])
    assert not is_right(b"")
    assert not is_right(bytes(len(data)))
