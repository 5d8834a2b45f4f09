"""skopeo, the real one."""

from __future__ import annotations

import subprocess

TRIES = 3


def skopeo(*arguments: str) -> None:
    """Run it, again where it fails, for one reason: two signatures in cosign's form are two equal layers, skopeo copies
    both at once, and docker-registry 2.8 answers 500 to "is it there?" while it is just writing down that it is. With
    twelve equal layers a third of all copies fail so.
    """
    said = []
    for _ in range(TRIES):
        done = subprocess.run(["skopeo", *arguments], check=False, capture_output=True, text=True, timeout=60)
        if done.returncode == 0:
            return
        said.append(done.stderr)
    raise AssertionError(f"skopeo {' '.join(arguments)}\n" + "\n".join(said))
