#!/bin/bash
# Writes the lock files anew from pyproject.toml and the .in files: pinned, hashed, naming no index.
# Keeps the versions that are locked; scripts/lock.sh --upgrade takes the newest, --upgrade-package NAME one of them.
set -euo pipefail
cd "$(dirname "$0")/.."
# The same switches as in setup.sh; --no-config: no machine's own settings find their way into the files.
export UV_SYSTEM_CERTS=1 UV_NATIVE_TLS=1
unset UV_FIND_LINKS UV_INDEX UV_EXTRA_INDEX_URL

compile() { # $1: output; the rest: inputs and switches
    local output="$1"
    shift
    .tools/bin/uv pip compile -q --no-config --generate-hashes --no-emit-index-url --no-header \
        --python /usr/bin/python3 "$@" -o "$output"
}

compile requirements.lock --all-extras "$@" pyproject.toml
compile scripts/tools.lock "$@" scripts/tools.in
compile scripts/browser.lock "$@" -c requirements.lock scripts/browser.in
compile scripts/rollout.lock "$@" scripts/rollout.in
