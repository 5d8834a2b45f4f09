"""Read one file of a snapshot in a registry, without pulling it: only what the file needs is fetched.

python read_one_file.py registry.example/team/disks:base /etc/os-release
"""

import os
import sys

from casstore import TransferOptions, open_remote
from casstore.diskfiles import read_file


def main(reference: str, path: str, *, options: TransferOptions | None = None) -> bytes:
    """The content of the file at `path`."""
    with open_remote(reference, options) as opened:
        content = b"".join(read_file(opened.filesystem(), os.fsencode(path)))
        traffic = opened.traffic
        print(f"fetched {traffic.bytes} of {opened.stored_bytes} bytes in {traffic.requests} requests", file=sys.stderr)
    return content


if __name__ == "__main__":
    sys.stdout.buffer.write(main(*sys.argv[1:3]))
