"""Work in threads, results in order, never more than a few at once."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def default_workers() -> int:
    """One thread per processor that this process may use, at most 8: the work is in calls that release the GIL."""
    return min(len(os.sched_getaffinity(0)), 8)


def ordered_map(pool: Executor, function: Callable[[T], R], items: Iterable[T], *, ahead: int) -> Iterator[R]:
    """`map(function, items)` in the threads of `pool`, with at most `ahead` calls started and not yet taken.

    The first error is raised in its place; calls not yet started are cancelled then, and when the caller stops early.
    """
    pending: deque[Future[R]] = deque()
    try:
        for item in items:
            pending.append(pool.submit(function, item))
            if len(pending) >= ahead:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        for future in pending:
            future.cancel()
