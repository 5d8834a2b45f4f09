"""Calls of casstore.aio, for tests that are no coroutines."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

Result = TypeVar("Result")


def run(call: Callable[[], Awaitable[Result]]) -> Result:
    """The result of one call, in a loop of its own."""

    async def script() -> Result:
        return await call()

    return asyncio.run(script())
