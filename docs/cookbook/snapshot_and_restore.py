"""Keep a disk, and write it back to another file.

python snapshot_and_restore.py STORE disk.ext4 restored.ext4
"""

import sys

from casstore import Snapshot, Store


def main(store: str, disk: str, copy: str) -> None:
    """Keep `disk` as `base` in the store, which is made if it is not there, and restore it to the new file `copy`."""
    with Store.open(store, create=True) as opened:
        made = opened.create(Snapshot.builder(disk).name("base").build())
        print(f"{made.digest}: a disk of {made.size_bytes} bytes")
        opened.restore("base", copy)


if __name__ == "__main__":
    main(*sys.argv[1:])
