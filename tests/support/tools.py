"""Other programs, the real ones."""

from __future__ import annotations

import subprocess
from pathlib import Path

_TRIES = 3


def run(*command: str | Path) -> str:
    """Run a program that must succeed; returns what it wrote to stdout. What it said is shown if it fails."""
    done = subprocess.run([*map(str, command)], check=False, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def skopeo(*arguments: str) -> None:
    """Run skopeo, again where it fails, for one reason: two signatures in cosign's form are two equal layers, skopeo
    copies both at once, and docker-registry 2.8 answers 500 to "is it there?" while it is just writing down that it is.
    With twelve equal layers a third of all copies fail so.
    """
    for left in reversed(range(_TRIES)):
        try:
            run("skopeo", *arguments)
            return
        except AssertionError:
            if not left:
                raise
