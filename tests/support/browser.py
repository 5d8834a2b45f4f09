"""A real browser, Chromium without a window, that looks at pages and tells what is there."""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tests.support import needs

PROGRAM = Path(__file__).parents[1] / "programs" / "browser" / "look.cjs"


@dataclass(frozen=True, kw_only=True)
class Look:
    """A page on a screen; `shot` is a PNG to write, of what fits, of the `whole` page, or of a `part` of it."""

    page: str
    width: int
    height: int
    scheme: str
    shot: str | None = None
    whole: bool = False
    part: str | None = None
    check: bool = True


def look(*looks: Look) -> Sequence[dict[str, Any]]:
    """What was seen at each, with one start of the browser; look.cjs says what that is."""
    with tempfile.TemporaryDirectory() as profile:
        browser = needs.find_program("chromium")
        wanted = {"browser": browser, "profile": profile, "looks": [asdict(each) for each in looks]}
        command = ["node", str(PROGRAM), str(needs.DRIVERS)]
        done = subprocess.run(command, input=json.dumps(wanted).encode(), capture_output=True, check=False, timeout=120)
        assert done.returncode == 0, done.stderr.decode()
        seen: list[dict[str, Any]] = json.loads(done.stdout)
        return seen
