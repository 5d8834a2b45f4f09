"""Say what an agent changed on its disk between two steps.

python what_changed.py STORE step-1 step-2
"""

import sys
from contextlib import ExitStack

from casstore import Store
from casstore.comparing.disks import compare_disks
from casstore.comparing.files import compare_files


def main(store: str, before: str, after: str) -> None:
    """Print the files that were added, removed or changed."""
    with Store.open(store) as opened, ExitStack() as stack:
        a, b = (stack.enter_context(opened.look_into(name)) for name in (before, after))
        blocks = compare_disks(a.artifact, b.artifact)
        files = compare_files(a.filesystem(), b.filesystem(), blocks)
    for file in files.added:
        print(f"A {file.path!r} {file.size} bytes")
    for file in files.removed:
        print(f"D {file.path!r}")
    for change in files.changed:
        print(f"M {change.path!r} {', '.join(change.what)}")
    print(f"{blocks.changed_bytes + blocks.added_bytes} bytes of the disk, {blocks.new_stored_bytes} stored")


if __name__ == "__main__":
    main(*sys.argv[1:])
