"""Push a snapshot, with a bar that shows how far it is.

python push_with_progress.py STORE base registry.example/team/disks:base
"""

import sys

from casstore import ProgressEvent, Store, TransferOptions


def show(event: ProgressEvent) -> None:
    """Draw the bar. This is called from several threads, one at a time, and often: it should be quick."""
    share = event.done / event.total if event.total else 0
    print(f"\r{event.phase} [{'#' * round(20 * share):20}] {share:4.0%}", end="", file=sys.stderr)


def main(store: str, name: str, reference: str, *, options: TransferOptions | None = None) -> str:
    """Push, and return what to pull to get just this."""
    with Store.open(store) as opened:
        report = opened.push(name, reference, options=options, progress=show)
    print(f"\n{report.copy.copied} blobs sent, {report.copy.skipped} there already", file=sys.stderr)
    return report.reference


if __name__ == "__main__":
    print(main(*sys.argv[1:4]))
