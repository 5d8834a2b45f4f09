"""Run the steps of an agent, and keep the disk after each: what did not change costs nothing.

python snapshot_each_step.py STORE disk.ext4 './step-1.sh' './step-2.sh'
"""

import subprocess
import sys

from casstore import Snapshot, Store


def main(store: str, disk: str, *commands: str) -> None:
    """Keep the disk as `step-0`, and after each command as `step-1`, `step-2` and so on, each a child of the last."""
    with Store.open(store, create=True) as opened:
        opened.create(Snapshot.builder(disk).name("step-0").build())
        for number, command in enumerate(commands, 1):
            subprocess.run(["sh", "-c", command], check=True)  # or whatever lets the sandbox work, and stops it
            step = Snapshot.builder(disk).name(f"step-{number}").parent(f"step-{number - 1}")
            made = opened.create(step.label("step", str(number)).label("command", command).build())
            print(f"{made.names[0]} {made.digest}")


if __name__ == "__main__":
    main(*sys.argv[1:])
