"""Copy all snapshots of a repository, with their signatures, to another registry. What is there already is not sent.

python mirror.py registry.example/team/disks mirror.example/disks
"""

import sys
from dataclasses import replace

from casstore import TransferOptions, list_remote, remote


def main(source: str, destination: str, *, options: TransferOptions | None = None) -> int:
    """How many snapshots were copied."""
    with_signatures = replace(options or TransferOptions(), referrers=True)
    copied = 0
    for entry in list_remote(source, options):
        if entry.kind == "snapshot":
            report = remote.copy(entry.reference, f"{destination}:{entry.name}", with_signatures)
            print(f"{report.reference}: {report.copy.copied} blobs sent, {report.copy.skipped} there already")
            copied += 1
    return copied


if __name__ == "__main__":
    main(*sys.argv[1:3])
