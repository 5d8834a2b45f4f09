"""How much computing a block may take, beside a yardstick measured in the same run.

Neither the load of the machine nor its speed changes the verdict: what is counted is the processor time of this thread.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache


@contextmanager
def at_most(yardsticks: float) -> Iterator[None]:
    """Fail if the block takes more processor time than so many yardsticks (a million additions each: 0.03 to 0.1 s)."""
    one, started = _yardstick(), time.thread_time()
    yield
    taken = (time.thread_time() - started) / one
    assert taken < yardsticks, f"expected at most {yardsticks} times a million additions, got {taken:.1f}"


@cache
def _yardstick() -> float:
    started = time.thread_time()
    total = 0
    for number in range(1_000_000):
        total += number
    assert total == 499_999_500_000
    return time.thread_time() - started
