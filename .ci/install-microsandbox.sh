#!/usr/bin/env bash
# Install the versions of microsandbox that the tests (tests/support/microsandbox.py) and benchmarks work with, each in
# a virtual environment of its own below .cache/microsandbox. Where one cannot be had (no network, no wheel for this
# machine) the tests that need it are skipped, and pytest lists what was missing.
set -euo pipefail

cd "$(dirname "$0")/.."
versions="0.4.4 0.6.18 0.7.11"
log=$(mktemp)
trap 'rm -f "$log"' EXIT

install() { # version folder
    rm -rf "$2"
    {
        "${PYTHON:-python3}" -m venv "$2" &&
            "$2/bin/python" -m pip install --disable-pip-version-check --only-binary :all: "microsandbox==$1"
    } >"$log" 2>&1
}

for version in $versions; do
    folder=.cache/microsandbox/$version
    # An interpreter that was removed leaves an environment that does not run.
    if ! "$folder/bin/python" -c 'import microsandbox' 2>/dev/null; then
        echo "installing: microsandbox $version" >&2
        if ! install "$version" "$folder" && ! { sleep 5; install "$version" "$folder"; }; then
            tail -n 20 "$log" >&2
            rm -rf "$folder"
            echo "could not install: microsandbox $version" >&2
            [ "${CI:-}" != true ] || exit 1
        fi
    fi
done
