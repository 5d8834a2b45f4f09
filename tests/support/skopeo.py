"""skopeo, the real one."""

from __future__ import annotations

import subprocess

TRIES = 3


def skopeo(*arguments: str) -> None:
    """Run it. Between registries on a busy machine a copy fails now and then (seen once in some hundred runs of the
    suite), so it is tried again: what is tested is what the copy holds. What it said is shown if it always fails.
    """
    said = []
    for _ in range(TRIES):
        done = subprocess.run(["skopeo", *arguments], check=False, capture_output=True, text=True, timeout=60)
        if done.returncode == 0:
            return
        said.append(done.stderr)
    raise AssertionError(f"skopeo {' '.join(arguments)}\n" + "\n".join(said))
