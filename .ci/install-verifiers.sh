#!/usr/bin/env bash
# Install the verifiers that the tests show casstore's signatures to, into .cache/verifiers: @sigstore/verify for Node,
# at the versions that tests/programs/sigstore/package-lock.json fixes. Where it cannot be had (no npm, an old Node, no
# network) the tests that need it are skipped, and pytest lists what was missing.
set -euo pipefail

cd "$(dirname "$0")/.."
wanted=tests/programs/sigstore
folder=.cache/verifiers
log=$(mktemp)
trap 'rm -f "$log"' EXIT

give_up() {
    rm -rf "$folder"
    echo "could not install: @sigstore/verify ($1)" >&2
    [ "${CI:-}" != true ] || exit 1
    exit 0
}

install() {
    rm -rf "$folder"
    mkdir -p "$folder"
    cp "$wanted/package.json" "$wanted/package-lock.json" "$folder"
    npm ci --prefix "$folder" --ignore-scripts --no-audit --no-fund >"$log" 2>&1
}

if cmp --silent "$wanted/package-lock.json" "$folder/package-lock.json" && [ -d "$folder/node_modules/@sigstore/verify" ]; then
    exit 0
fi
command -v npm >/dev/null && command -v node >/dev/null || give_up "no npm"
node -e 'const [a, b] = process.versions.node.split(".").map(Number); process.exit(a > 22 || (a === 22 && b >= 9) || (a === 20 && b >= 17) ? 0 : 1)' ||
    give_up "expected Node 20.17 or 22.9 or newer, got $(node --version)"
echo "installing: @sigstore/verify" >&2
if ! install && ! { sleep 5; install; }; then
    tail -n 20 "$log" >&2
    give_up "npm failed"
fi
