#!/usr/bin/env bash
# Install the programs that the tests (or benchmarks) compare casstore with, where that is possible: as root, on a
# machine with apt-get. Anywhere else the tests that need them are skipped, and pytest lists what was missing.
#
#   install-peers.sh test|bench|demo        demo: nothing but what makes virtual environments
set -euo pipefail

# program=package
case "${1:-test}" in
    test) peers="docker-registry=docker-registry skopeo=skopeo umoci=umoci mke2fs=e2fsprogs debugfs=e2fsprogs strace=strace jq=jq openssl=openssl mount=mount mkfs.xfs=xfsprogs mkfs.btrfs=btrfs-progs chromium=chromium zsh=zsh fish=fish mandoc=mandoc" ;;
    bench) peers="docker-registry=docker-registry skopeo=skopeo mke2fs=e2fsprogs debugfs=e2fsprogs borg=borgbackup restic=restic casync=casync mount=mount" ;;
    demo) peers="" ;;
    *) echo "usage: $0 test|bench|demo" >&2; exit 2 ;;
esac

PATH="$PATH:/usr/sbin:/sbin"
missing=()
for peer in $peers; do
    command -v "${peer%%=*}" >/dev/null || missing+=("${peer#*=}")
done
# Debian ships the part of Python that makes virtual environments as a package of its own.
"${PYTHON:-python3}" -c 'import ensurepip' 2>/dev/null || missing+=(python3-venv)

[ "${#missing[@]}" -gt 0 ] || exit 0
if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
    echo "note: not installed, tests that need them will be skipped: ${missing[*]}" >&2
    exit 0
fi

# docker-registry's package starts a service on port 5000; the tests start their own on a free port.
# 101 is what policy-rc.d says for "no"; a machine that already has a policy keeps it.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    trap 'rm -f "$policy"' EXIT
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 755 "$policy"
fi

log=$(mktemp)
# Ubuntu has Chromium as a snap only; asking apt-get for it would fail all the others.
without_unknown() {
    local peer known=()
    for peer in "${missing[@]}"; do
        if [ "$peer" != chromium ] || apt-cache show chromium >/dev/null 2>&1; then known+=("$peer"); fi
    done
    missing=("${known[@]}")
}

install() {
    export DEBIAN_FRONTEND=noninteractive
    { apt-get -qq update && without_unknown && apt-get -qq install --yes --no-install-recommends "${missing[@]}"; } </dev/null >"$log" 2>&1
}

echo "installing: ${missing[*]}" >&2
if ! install && ! { sleep 5; install; }; then
    tail -n 20 "$log" >&2
    rm -f "$log"
    echo "could not install: ${missing[*]}" >&2
    [ "${CI:-}" != true ] || exit 1
    exit 0
fi
rm -f "$log"
