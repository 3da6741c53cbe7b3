#!/bin/bash
# Proves the README's commands on a bare Debian: a fresh root (minbase, make, ca-certificates) in a container, with a
# clean clone of the last commit in it. Everything made here is removed at the end, however it ends.
# Usage: scripts/bare_root.sh [COMMAND …]     each a shell command; default: make demo, make test, make demo
#   KEEP_ROOT=1        leaves the root for a look and prints where it is
#   APT_SOURCES=FILE   apt sources for the root; default: this machine's own for the same suite
# Needs root, and the packages of scripts/packages-bare-root.txt, which it installs.
set -euo pipefail
cd "$(dirname "$0")/.."

SUITE=bookworm
HOME_IN_ROOT=/root/virtward
# What this site needs to reach its mirrors goes in as it is: nothing about any site is written here.
SITE_VARIABLES='^(PIP_|UV_|SSL_CERT_|REQUESTS_CA_BUNDLE=|CURL_CA_BUNDLE=|[Hh][Tt][Tt][Pp][Ss]?_[Pp][Rr][Oo][Xx][Yy]=|[Nn][Oo]_[Pp][Rr][Oo][Xx][Yy]=)'

say() { printf 'bare root: %s\n' "$*"; }
fail() { printf 'bare root: %s\n' "$*" >&2; exit 1; }

apt_sources() { # prints the files, one a line
    if [ -n "${APT_SOURCES:-}" ]; then
        printf '%s\n' "$APT_SOURCES"
    else
        grep -lE "(^|[[:space:]])$SUITE([[:space:]]|\$)" /etc/apt/sources.list /etc/apt/sources.list.d/* 2>/dev/null || true
    fi
}

make_root() { # $1: folder
    local sources options
    mapfile -t sources < <(apt_sources)
    [ "${#sources[@]}" != 0 ] || fail "no apt sources for $SUITE on this machine; name a file with APT_SOURCES=FILE"
    options="$(mktemp)"
    apt-config dump | grep -E '^Acquire::(http|https|ftp)(::|s)' >"$options" || true
    mmdebstrap --quiet --variant=minbase --include=make,ca-certificates --aptopt="$options" "$SUITE" "$1" "${sources[@]}" ||
        fail "mmdebstrap could not make the root; see its words above"
    rm -f "$options"
    # Certificates that this site trusts, and pip's settings.
    cp -a /usr/local/share/ca-certificates/. "$1/usr/local/share/ca-certificates/" 2>/dev/null || true
    cp /etc/ssl/certs/ca-certificates.crt "$1/etc/ssl/certs/ca-certificates.crt"
    [ ! -e /etc/pip.conf ] || cp /etc/pip.conf "$1/etc/pip.conf"
    git clone -q --no-hardlinks . "$1$HOME_IN_ROOT"
}

# Runs one shell command in the root. Not booted: a bare root has no init; nspawn's stub is process 1 and reaps.
# The machine's own network: set-up needs the mirrors, and the laboratory makes namespaces of its own in any case.
run_in_root() { # $1: folder, $2: command
    local environment=() line
    while read -r line; do environment+=(--setenv="$line"); done < <(env | grep -E "$SITE_VARIABLES" || true)
    make_cgroups
    # Writable /proc/sys and /sys, all capabilities: the laboratory is root on its machine and makes network namespaces.
    # nspawn parts its cgroup in two: it gets one of its own, so that this machine's stays whole.
    (
        for folder in "${cgroups[@]}"; do echo "$BASHPID" >"$folder/cgroup.procs"; done
        exec env SYSTEMD_NSPAWN_API_VFS_WRITABLE=yes systemd-nspawn --quiet --register=no --keep-unit --as-pid2 \
            --machine="$(basename "$work")" --capability=all --system-call-filter='@mount @keyring' \
            --resolv-conf=copy-host --console=pipe --directory="$1" --chdir="$HOME_IN_ROOT" --setenv=HOME=/root \
            "${environment[@]}" /bin/sh -c "$2" </dev/null
    ) &
    nspawn_pid=$!
    wait "$nspawn_pid"
}

# The hierarchies that systemd uses, old and new; none where it runs this machine, for then --keep-unit is at home there.
make_cgroups() {
    local parent
    cgroups=()
    [ ! -d /run/systemd/system ] || return 0
    for parent in /sys/fs/cgroup/systemd /sys/fs/cgroup/unified /sys/fs/cgroup; do
        if [ -e "$parent/cgroup.procs" ]; then
            mkdir -p "$parent/$(basename "$work")"
            cgroups+=("$parent/$(basename "$work")")
        fi
    done
}

remove_cgroups() {
    local folder
    for folder in "${cgroups[@]}"; do
        find "$folder" -depth -type d -exec rmdir {} + 2>/dev/null || true
    done
}

clean_up() {
    local child
    if [ -n "${nspawn_pid:-}" ] && kill -0 "$nspawn_pid" 2>/dev/null; then
        # Killing systemd-nspawn alone would leave the container alive: its process 1 is nspawn's child.
        for child in $(cat "/proc/$nspawn_pid/task/$nspawn_pid/children" 2>/dev/null); do kill -KILL "$child" 2>/dev/null || true; done
        wait "$nspawn_pid" 2>/dev/null || true
    fi
    remove_cgroups
    rmdir "/run/systemd/nspawn/propagate/$(basename "$work")" 2>/dev/null || true
    if [ -n "${KEEP_ROOT:-}" ]; then
        say "left in $work"
    else
        rm -rf --one-file-system "$work"
    fi
}

[ "$(id -u)" = 0 ] || fail "only root can make a container"
scripts/setup.sh packages scripts/packages-bare-root.txt
git diff --quiet HEAD || say "note: uncommitted changes are not in the clone"
[ "$#" != 0 ] || set -- "make demo" "make test" "make demo"

cgroups=()
work="$(mktemp -d /var/tmp/virtward-bare-root-XXXXXX)"
trap clean_up EXIT
trap 'exit 130' INT TERM
SECONDS=0
make_root "$work/root"
say "root made in $SECONDS s"
for command in "$@"; do
    SECONDS=0
    status=0
    run_in_root "$work/root" "$command" || status=$?
    say "${command%%$'\n'*}: exit $status after $SECONDS s"
    [ "$status" = 0 ] || exit "$status"
done
