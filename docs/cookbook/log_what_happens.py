"""Log what the library does inside: retries, waits, resumed transfers, and whose credentials are used.

python log_what_happens.py STORE registry.example/team/disks:base
"""

import logging
import sys
from pathlib import Path

from casstore import DockerConfig, RegistryTarget, Store, TransferOptions


def main(store: str, reference: str, *, options: TransferOptions | None = None) -> None:
    """Pull as `pulled`, with the passwords of Docker, and messages of casstore alone on stderr."""
    logging.basicConfig(format="%(asctime)s %(name)s %(levelname)s %(message)s")
    logging.getLogger("casstore").setLevel(logging.INFO)
    passwords = DockerConfig(str(Path.home() / ".docker/config.json"))
    options = options or TransferOptions(registries=lambda place: RegistryTarget(place, credentials=passwords))
    with Store.open(store, create=True) as opened:
        opened.pull(reference, name="pulled", options=options)


if __name__ == "__main__":
    main(*sys.argv[1:3])
