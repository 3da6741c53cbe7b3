#!/bin/bash
# make check: format, lint, types, import contracts and the house's own rules. Runs all of them, then says which failed.
set -uo pipefail
cd "$(dirname "$0")/.."
failed=()

step() { # $1: name; the rest: command. Its output is shown only if it fails.
    local name="$1" output
    shift
    if output="$("$@" 2>&1)"; then
        printf 'check: %-18s ok\n' "$name"
    else
        printf 'check: %-18s FAILED\n%s\n' "$name" "$output"
        failed+=("$name")
    fi
}

step format .venv/bin/ruff format --check .
step lint .venv/bin/ruff check .
step types .venv/bin/mypy
step "import contracts" .venv/bin/lint-imports --no-logo
step "pure modules" .venv/bin/python scripts/check_contracts.py
step sizes .venv/bin/python scripts/check_sizes.py
step "vendored files" .venv/bin/python scripts/check_vendored.py
step fleet .venv/bin/python scripts/check_fleet.py
if [ -f fleet/protocol_document.py ]; then
    step "docs/PROTOCOL.md" .venv/bin/python -m fleet.protocol_document --check
fi
step "shell scripts" bash -n scripts/*.sh .ci/run agent/hooks/libvirt-before-start

if [ "${#failed[@]}" != 0 ]; then
    printf 'check: failed: %s\n' "$(IFS=,; echo "${failed[*]}")" >&2
    exit 1
fi
