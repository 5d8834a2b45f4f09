"""Pull exactly one snapshot, pinned by its digest, and only if the right key has signed it.

python pull_what_is_signed.py STORE registry.example/team/disks@sha256:6b38... release.pub
"""

import sys
from dataclasses import replace
from pathlib import Path

from casstore import PublicKey, Store, TransferOptions, Trust, UntrustedContent


def main(store: str, reference: str, key_file: str, *, options: TransferOptions | None = None) -> bool:
    """Pull it as `pinned`; whether it is signed. If not, nothing but its manifest was fetched."""
    if "@sha256:" not in reference:
        raise SystemExit(f"{reference}: a tag may stand for something else tomorrow; pin the digest")
    key = PublicKey.parse(Path(key_file).read_bytes(), name=key_file)
    wanted = replace(options or TransferOptions(), trust=Trust(keys=(key,)))
    with Store.open(store, create=True) as opened:
        try:
            report = opened.pull(reference, name="pinned", options=wanted)
        except UntrustedContent as error:
            print(f"refused: {error}", file=sys.stderr)
            return False
    print(f"{report.digest} is signed with {key_file}")
    return True


if __name__ == "__main__":
    sys.exit(not main(*sys.argv[1:4]))
