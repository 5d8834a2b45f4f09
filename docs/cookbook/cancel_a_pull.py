"""Pull in a thread, and give up from another one: here when it takes too long.

python cancel_a_pull.py STORE registry.example/team/disks:base 60
"""

import sys
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as TooLong

from casstore import Cancellation, Cancelled, Store, TransferOptions


def pull(store: str, reference: str, options: TransferOptions | None, progress: Cancellation) -> str:
    """Pull; a store is for one thread, so it is opened here."""
    with Store.open(store, create=True) as opened:
        return opened.pull(reference, name="pulled", options=options, progress=progress).reference


def main(store: str, reference: str, seconds: str, *, options: TransferOptions | None = None) -> bool:
    """Whether it was pulled in time. If not, no name is there, and what had come is kept for the next pull."""
    cancellation = Cancellation()
    with ThreadPoolExecutor(1) as thread:
        work = thread.submit(pull, store, reference, options, cancellation)
        try:
            print(work.result(timeout=float(seconds)))
        except TooLong:
            cancellation.cancel()
        try:
            return bool(work.result())
        except Cancelled:
            return False


if __name__ == "__main__":
    sys.exit(not main(*sys.argv[1:4]))
