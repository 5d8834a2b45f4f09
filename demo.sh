#!/usr/bin/env bash
# A guided tour in demo-work/: no network, no root. Run it with: make demo
set -euo pipefail
cd "$(dirname "$0")"
rm -rf demo-work
mkdir demo-work
python - <<'PYTHON'
from pathlib import Path
from tests.support import disks
disks.unpack_fixture("base", Path("demo-work/base.ext4"))
disks.unpack_fixture("edited", Path("demo-work/edited.ext4"))
PYTHON
cd demo-work

say() { printf '\n\033[1m# %s\033[0m\n' "$*"; }
run() { printf '\033[36m$ %s\033[0m\n' "$*"; "$@"; }

say "Two states of one sandbox disk: 64 MiB each, about 1 MiB of it allocated."
run ls -ls base.ext4 edited.ext4

say "Keep both. The second stores only what changed."
export CASSTORE_STORE=$PWD/store
run casstore create base --disk base.ext4
run casstore create edited --disk edited.ext4 --parent base
run casstore ls
run casstore stats

say "Move them: an OCI layout here, a registry (HOST/REPO:TAG) elsewhere. It is the same artifact with the same digest."
run casstore push edited oci:remote:edited
export CASSTORE_STORE=$PWD/other-store
run casstore pull oci:remote:edited --name edited

say "Restore in the other store: the same bytes, and the same holes."
run casstore restore edited restored.ext4
run cmp restored.ext4 edited.ext4
run ls -ls restored.ext4
run casstore verify edited
say "Done. Everything is in demo-work/."
