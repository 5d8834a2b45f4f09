#!/usr/bin/env bash
# A guided tour in demo-work/: no network but a loopback port, no root. Run it with: make demo
set -euo pipefail
cd "$(dirname "$0")"
rm -rf demo-work
mkdir demo-work
size=$((256 << 20)) data=$((24 << 20))

bold='' cyan='' plain=''
if [ -t 1 ] && [ -z "${NO_COLOR:-}" ]; then bold=$'\e[1m' cyan=$'\e[36m' plain=$'\e[0m'; fi
say() { printf '\n%s# %s%s\n' "$bold" "$*" "$plain"; }
run() { printf '%s$ %s%s\n' "$cyan" "$*" "$plain"; "$@"; }
# pin COMMAND...: run it, and remember the reference that it writes.
pin() { printf '%s$ %s%s\n' "$cyan" "$*" "$plain"; pinned=$("$@"); echo "$pinned"; }

# prepare WHAT: make or change the demo's disk; without mke2fs and debugfs, unpack the small prebuilt ones.
prepare() {
  python - "$1" $size $data <<'PYTHON'
import subprocess
import sys
from pathlib import Path

from tests.support import disks, needs

what, size, data = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
disk, tree, dense = Path("demo-work/disk.ext4"), Path("demo-work/tree"), Path("demo-work/dense")
if not (needs.available("mke2fs") and needs.available("debugfs")):
    disks.unpack_fixture("base" if what == "make" else "edited", disk)
elif what == "make":
    tree.mkdir()
    disks.write_tree(tree, seed=1, data=data)
    disks.make_ext4(dense, size, tree, seed=1)
    # mke2fs preallocates the journal; casstore restores space that was never written as a hole.
    subprocess.run(["cp", "--sparse=always", dense, disk], check=True)
else:
    disks.edit_with_debugfs(disk, seed=2)
PYTHON
  rm -rf demo-work/tree demo-work/dense
}

# same A B: the bytes and the allocated ranges of two files are equal.
same() {
  cmp "$1" "$2"
  PYTHONPATH=.. python -c '
import sys
from pathlib import Path
from tests.support.disks import extents
a, b = (extents(Path(name)) for name in sys.argv[1:])
sys.exit(0 if a == b else "the holes differ")' "$1" "$2"
  echo "the same bytes and the same holes: $1, $2"
}

registry=
serve() {
  local port
  port=$(PYTHONPATH=.. python -c 'from tests.support.servers import free_port; print(free_port())')
  cat > registry.json <<JSON
{"version": "0.1", "log": {"level": "error", "accesslog": {"disabled": true}},
 "storage": {"filesystem": {"rootdirectory": "$PWD/registry"}}, "http": {"addr": "127.0.0.1:$port"}}
JSON
  OTEL_TRACES_EXPORTER=none docker-registry serve registry.json > registry.log 2>&1 &
  registry=$!
  trap 'kill $registry' EXIT
  for _ in $(seq 100); do
    if (: < "/dev/tcp/127.0.0.1/$port") 2> /dev/null; then break; fi
    sleep 0.1
  done
  host=127.0.0.1:$port
}

export CASSTORE_STORE=$PWD/demo-work/store

say "A disk of a sandbox: a real ext4 file system, sparse."
prepare make
cd demo-work
run ls -ls disk.ext4

say "Keep it. Holes cost nothing; the rest is cut into chunks, and compressed."
run casstore create base --disk disk.ext4

say "Work in the sandbox: some files change, some come, some go. Keep the disk again: only what changed is stored."
(cd .. && prepare change)
run casstore create edited --disk disk.ext4 --parent base --label step=edited
run casstore ls
run casstore inspect edited

say "What changed: blocks of the disk, and files on it, without mounting anything."
run casstore diff base edited --no-files --map
run casstore diff base edited --name-status -- /home /var
run casstore tree

say "Push both to an OCI layout directory. The second time, what is there already is not sent."
run casstore push base oci:layout
pin casstore push edited oci:layout

if command -v docker-registry > /dev/null; then
  say "And to a registry, an ordinary one. It is the same artifact, with the same digest."
  serve
  run casstore push base "$host/team/disks" --plain-http
  pin casstore push edited "$host/team/disks" --plain-http
  options=--plain-http
else
  say "docker-registry is not installed: the layout stands for a registry."
  options=
fi

say "Say whose it is: a key of ours signs it, where it is."
run casstore key generate release --no-passphrase
# shellcheck disable=SC2086  # no option at all is wanted for the layout
run casstore sign "$pinned" --key release.key $options

say "Elsewhere, in an empty store: pull by digest, which stands for just this content. All of it is verified, and so is who signed."
export CASSTORE_STORE=$PWD/other-store
# shellcheck disable=SC2086  # no option at all is wanted for the layout
run casstore pull "$pinned" --name edited --key release.pub $options
run casstore restore edited restored.ext4
same disk.ext4 restored.ext4
run casstore verify edited --key release.pub

say "What it all takes."
mebibytes() { du --summarize --block-size=1K "$@" | awk '{printf "%8.1f MiB\n", $1 / 1024}'; }
printf '%-48s %s\n' \
  "the disk, as long as it looks" "$(mebibytes --apparent-size disk.ext4)" \
  "the disk, allocated" "$(mebibytes disk.ext4)" \
  "the store with both snapshots" "$(mebibytes store)" \
  "the layout with both" "$(mebibytes layout)" \
  "the other store with one" "$(mebibytes other-store)"
say "Done. Everything is in demo-work/."
