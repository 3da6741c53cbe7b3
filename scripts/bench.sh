#!/bin/bash
# make bench: each benchmark once, at a size that two cores finish in minutes. One JSON object a line on stdout.
# ONLY=NAME runs one of them; for other sizes call .venv/bin/python -m benchmarks.NAME directly.
set -uo pipefail
cd "$(dirname "$0")/.."
status=0

bench() { # $1: benchmark; the rest: its arguments
    local name="$1"
    [ -z "${ONLY:-}" ] || [ "$ONLY" = "$name" ] || return 0
    [ -f "benchmarks/$name.py" ] || return 0
    printf 'bench: %s\n' "$*" >&2
    shift
    .venv/bin/python -m "benchmarks.$name" "$@" || { printf 'bench: %s failed\n' "$name" >&2; status=1; }
}

for kind in basic selector antiaffinity preferred spread; do
    bench placement --kind "$kind" --nodes 1000 --pending 1000
done
bench ingest --agents 500 --vms 20 --hz 1 --seconds 30
bench agent --vms 20
bench recovery --fault power --hosts 3 --vms 3 --rounds 3
bench recovery --fault hang --hosts 3 --vms 3 --rounds 3
bench migration --vms 3
exit "$status"
