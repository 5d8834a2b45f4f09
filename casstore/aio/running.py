"""Calls that run in a thread, and what becomes of one that is cancelled.

As in the SDK a call has started when it returns, and gives a future: it may be awaited later, in a group, or never.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable
from typing import TypeVar

from casstore.progress import Cancellation, Progress

Result = TypeVar("Result")


def start(work: Callable[[Progress], Result]) -> asyncio.Task[Result]:
    """Run `work` in a thread of the running loop.

    A call that is cancelled ends when its thread has: at the next step of the progress that `work` tells, and after it
    has cleared away what it had begun; so nothing is half there, and nothing goes on behind the program's back. What
    was done already when that step would come is done.

    Raises:
        RuntimeError: no loop is running.
    """
    loop = asyncio.get_running_loop()
    return loop.create_task(_finish(loop, work))


async def _finish(loop: asyncio.AbstractEventLoop, work: Callable[[Progress], Result]) -> Result:
    cancellation = Cancellation()

    def run() -> Result:
        cancellation.check("waiting")  # for a thread
        return work(cancellation)

    thread = loop.run_in_executor(None, contextvars.copy_context().run, run)
    try:
        return await asyncio.shield(thread)
    except asyncio.CancelledError:
        cancellation.cancel()
        await _end_of(thread)
        raise


async def _end_of(thread: asyncio.Future[Result]) -> None:
    """Wait until a thread is done, whatever it ends with and however often the waiting is cancelled."""
    while not thread.done():
        try:
            await asyncio.wait([thread])
        except asyncio.CancelledError:
            continue
    thread.exception()  # it is nobody's any more
