#!/bin/bash
# make bench: each benchmark once, at a size that two cores finish in minutes. One JSON object a line on stdout.
# ONLY=NAME runs one of them; for other sizes call .venv/bin/python -m benchmarks.NAME directly.
# All that are designed stand here; one line at the end names those that are not built yet.
set -uo pipefail
cd "$(dirname "$0")/.."
status=0
known=()
not_built=()

bench() { # $1: benchmark; the rest: its arguments
    local name="$1"
    case " ${known[*]-} " in *" $name "*) ;; *) known+=("$name") ;; esac
    [ -z "${ONLY:-}" ] || [ "$ONLY" = "$name" ] || return 0
    if [ ! -f "benchmarks/$name.py" ]; then
        case " ${not_built[*]-} " in *" $name "*) ;; *) not_built+=("$name") ;; esac
        return 0
    fi
    printf 'bench: %s\n' "$*" >&2
    shift
    .venv/bin/python -m "benchmarks.$name" "$@" || { printf 'bench: %s failed\n' "$name" >&2; status=1; }
}

# At the size that the design sets goals for: a few seconds each. The last is a failed rack's worth as one batch.
for kind in basic selector antiaffinity preferred spread; do
    bench placement --kind "$kind" --nodes 5000 --pending 10000
done
bench placement --kind mixed --nodes 10000 --pending 1000 --together
# Full clusters, in which greedy placement leaves VMs down.
bench tight --nodes 20 --vms 100
bench tight --nodes 10 --vms 50 --budget 10
bench readiness --nodes 500 --vms 5000
bench decide --nodes 16 --vms 160
bench ingest --agents 500 --vms 20 --hz 1 --seconds 30
bench flood --connections 5000 --seconds 6
bench agent --vms 20 --seconds 20 --rounds 1
bench crash --crashes 20
bench recovery --fault power --hosts 3 --vms 3 --rounds 3
bench recovery --fault hang --hosts 3 --vms 3 --rounds 3
bench migration --vms 3
bench migration_tls --rounds 4
bench simulation --nodes 3 --vms 6 --seeds 1..20
bench simulation --nodes 16 --vms 160 --seeds 1..2

case " ${known[*]} " in
    *" ${ONLY:-${known[0]}} "*) ;;
    *) printf 'bench: there is no benchmark %s; ONLY takes one of: %s\n' "$ONLY" "${known[*]}" >&2; exit 2 ;;
esac
if [ "${#not_built[@]}" != 0 ]; then
    printf 'bench: designed, but not built yet, so not run: %s\n' "${not_built[*]}" >&2
    [ -z "${ONLY:-}" ] || status=1 # asked for by name: saying so is not enough
fi
exit "$status"
