"""Keep the disks of many stopped sandboxes of microsandbox, some at the same time.

python many_sandboxes.py STORE MICROSANDBOX_HOME box-1 box-2 box-3
"""

import asyncio
import sys

from casstore import aio
from casstore.aio import MicrosandboxError, Snapshot


async def keep(sandbox: str, turn: asyncio.Semaphore) -> str | None:
    """The digest of the sandbox's snapshot; None where it cannot be taken, as it runs."""
    async with turn:
        try:
            made = await Snapshot.create(sandbox, name=f"{sandbox}-kept", labels={"run": "nightly"})
        except MicrosandboxError as error:
            print(f"{sandbox}: {error}", file=sys.stderr)
            return None
        return made.digest


async def main(store: str, home: str, *sandboxes: str) -> dict[str, str | None]:
    """The digest for each sandbox."""
    turn = asyncio.Semaphore(4)
    with aio.use(store, home=home):
        digests = await asyncio.gather(*(keep(sandbox, turn) for sandbox in sandboxes))
    return dict(zip(sandboxes, digests, strict=True))


if __name__ == "__main__":
    print(asyncio.run(main(*sys.argv[1:])))
