#!/usr/bin/env bash
# Install what the tests use of Node's packages, at the versions that tests/programs/*/package-lock.json fix:
#
#     .cache/verifiers    @sigstore/verify, which casstore's signatures are shown to
#     .cache/browser      playwright-core and axe-core, which drive a browser (that is a package of the system: chromium,
#                         .ci/install-peers.sh)
#
# Where they cannot be had (no npm, an old Node, no network) the tests that need them are skipped, and pytest lists what
# was missing.
set -euo pipefail

cd "$(dirname "$0")/.."
log=$(mktemp)
trap 'rm -f "$log"' EXIT
failed=0

# try PROGRAM FOLDER: what tests/programs/PROGRAM asks for, into FOLDER
try() {
    rm -rf "$2"
    mkdir -p "$2"
    cp "tests/programs/$1/package.json" "tests/programs/$1/package-lock.json" "$2"
    npm ci --prefix "$2" --ignore-scripts --no-audit --no-fund >"$log" 2>&1
}

# give_up PACKAGE FOLDER WHY
give_up() {
    rm -rf "$2"
    echo "could not install: $1 ($3)" >&2
    failed=1
}

# install PROGRAM FOLDER PACKAGE OLDEST: OLDEST are the oldest versions of Node that will do, one for each major version
# from the first on
install() {
    local program=$1 folder=$2 package=$3 oldest=$4
    if cmp --silent "tests/programs/$program/package-lock.json" "$folder/package-lock.json" &&
        [ -d "$folder/node_modules/$package" ]; then
        return
    fi
    if ! command -v npm >/dev/null || ! command -v node >/dev/null; then
        give_up "$package" "$folder" "no npm"
        return
    fi
    if ! node -e '
        const [major, minor] = process.versions.node.split(".").map(Number);
        const known = process.argv[1].split(" ").map((each) => each.split(".").map(Number));
        const [, least] = known.find(([each]) => each === major) ?? [0, 0];
        process.exit(major > known.at(-1)[0] || (known.some(([each]) => each === major) && minor >= least) ? 0 : 1);
    ' "$oldest"; then
        give_up "$package" "$folder" "expected Node ${oldest// / or } or newer, got $(node --version)"
        return
    fi
    echo "installing: $package" >&2
    if ! try "$program" "$folder" && ! { sleep 5; try "$program" "$folder"; }; then
        tail -n 20 "$log" >&2
        give_up "$package" "$folder" "npm failed"
    fi
}

install sigstore .cache/verifiers @sigstore/verify "20.17 22.9"
install browser .cache/browser playwright-core "20.0"
[ "$failed" = 0 ] || [ "${CI:-}" != true ]
