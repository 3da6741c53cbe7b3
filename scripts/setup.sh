#!/bin/bash
# Makes this machine ready to run virtward's demo and tests: system packages, the guest kernel, .venv.
# Idempotent; starts, enables and boots nothing. What it knows: Debian's packages and our lock file.
# Usage: scripts/setup.sh               everything that make demo and make test need
#        scripts/setup.sh packages FILE only the system packages that FILE names, one a line
#        scripts/setup.sh browser       the above, and what the tests of the page need besides
#        scripts/setup.sh rollout       the first, and what the roll-out test needs besides
set -euo pipefail
cd "$(dirname "$0")/.."

PYTHON=/usr/bin/python3 # the distribution's, whatever comes first in PATH
CACHE_DIR="${VIRTWARD_CACHE_DIR:-/var/cache/virtward}"
KERNEL_DIR="$CACHE_DIR/kernel"
AGENT_DIR="$CACHE_DIR/guest-agent"
KERNEL_META=linux-image-cloud-amd64
STAMP=.venv/.setup-stamp
export DEBIAN_FRONTEND=noninteractive
# Behind a mirror with a certificate of its own, uv must ask the system's store (both names: older and newer uv).
export UV_SYSTEM_CERTS=1 UV_NATIVE_TLS=1 UV_NO_CONFIG=1 UV_PYTHON_DOWNLOADS=never UV_NO_PROGRESS=1

say() { printf 'setup: %s\n' "$*"; }
fail() { printf 'setup: %s\n' "$*" >&2; exit 1; }

wanted_packages() { sed -e 's/#.*//' -e 's/[[:space:]]*$//' -e '/^$/d' "$1"; }

missing_packages() { # $1: file with a package a line
    local installed
    installed="$(dpkg-query -W -f '${db:Status-Abbrev} ${Package}\n' | sed -n 's/^ii  *//p' | sort -u)"
    comm -23 <(wanted_packages "$1" | sort -u) <(printf '%s\n' "$installed")
}

# The start links a package's installation made: systemd's and sysvinit's.
start_links() { find /etc/systemd/system /etc/rc?.d -type l \( -path '*.wants/*' -o -path '*.requires/*' -o -name 'S*' \) 2>/dev/null | sort; }

disable_new_links() { # $1: file with the links that were there before
    local link
    comm -13 "$1" <(start_links) | while read -r link; do
        case "$link" in
            /etc/systemd/system/*) DPKG_MAINTSCRIPT_PACKAGE=virtward deb-systemd-helper disable "$(basename "$link")" >/dev/null ;;
            *) update-rc.d "$(basename "$link" | sed 's/^S[0-9]*//')" disable >/dev/null 2>&1 || true ;;
        esac
    done
}

install_packages() {
    local policy=/usr/sbin/policy-rc.d kept="" before
    [ "$(id -u)" = 0 ] || fail "these packages are missing and only root can install them: $*"
    before="$(mktemp)"
    start_links >"$before"
    # Services that packages would start are held for the time of the installation.
    if [ -e "$policy" ] || [ -L "$policy" ]; then kept="$(mktemp -d)" && mv "$policy" "$kept/policy-rc.d"; fi
    # shellcheck disable=SC2064 # expanded now: the values are needed when the shell ends, from anywhere
    trap "rm -f '$policy' '$before'; [ -z '$kept' ] || mv '$kept/policy-rc.d' '$policy'" EXIT
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 755 "$policy"
    say "installing $# system packages and what they need"
    apt-get update -qq || fail "apt-get update failed: look at /etc/apt/sources.list and the network"
    apt-get install -qq -y --no-install-recommends -o Dpkg::Use-Pty=0 -o DPkg::Lock::Timeout=300 "$@" >/tmp/virtward-setup-apt.log 2>&1 ||
        { tail -n 20 /tmp/virtward-setup-apt.log >&2; fail "apt-get could not install the packages; the whole log is /tmp/virtward-setup-apt.log"; }
    disable_new_links "$before"
    rm -f "$policy" "$before"
    [ -z "$kept" ] || mv "$kept/policy-rc.d" "$policy"
    trap - EXIT
}

# libvirtd refuses to start without the account that libvirt-daemon-system would make, even if qemu.conf says root.
# Same names, numbers and home as that package's, which keeps an account it finds.
qemu_account_exists() { getent passwd libvirt-qemu >/dev/null && getent group libvirt-qemu >/dev/null; }

make_qemu_account() {
    [ "$(id -u)" = 0 ] || fail "the system account libvirt-qemu is missing and only root can make it"
    say "making the system account libvirt-qemu"
    getent group kvm >/dev/null || groupadd --system kvm
    getent group libvirt-qemu >/dev/null || groupadd --system --gid 64055 libvirt-qemu
    getent passwd libvirt-qemu >/dev/null ||
        useradd --system --uid 64055 --gid kvm --groups libvirt-qemu --home-dir /var/lib/libvirt --no-create-home -K SYS_UID_MAX=65000 \
            --shell /usr/sbin/nologin --comment "Libvirt Qemu,,," libvirt-qemu
}

# Over these each host of a laboratory mounts its own: the folders of libvirt-daemon-system and swtpm, and the file that Debian's
# installer writes, but no package.
ensure_mount_points() {
    local folder
    for folder in /var/cache/libvirt /var/lib/libvirt /var/log/libvirt /var/lib/swtpm-localca /var/log/swtpm; do
        [ -d "$folder" ] || mkdir -p "$folder" || fail "the folder $folder is missing and only root can make it"
    done
    [ -e /etc/hosts ] || printf '127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n' >/etc/hosts ||
        fail "the file /etc/hosts is missing and only root can make it"
}

# Debian's cloud kernel for the linux guest: unpacked, never installed.
# Left behind: $KERNEL_DIR/release (one line, the version), boot/vmlinuz-VERSION, lib/modules/VERSION.
unpack_kernel() {
    local image work
    [ "$(id -u)" = 0 ] || fail "the guest kernel is missing in $KERNEL_DIR and only root can put it there"
    [ -n "$(apt-cache search --names-only "^$KERNEL_META\$")" ] || apt-get update -qq
    image="$(apt-cache depends --important "$KERNEL_META" | sed -n 's/^ *Depends: \(linux-image-.*\)$/\1/p' | head -n 1)"
    [ -n "$image" ] || fail "the package mirror does not offer $KERNEL_META; check /etc/apt/sources.list"
    say "unpacking the guest kernel $image"
    mkdir -p "$CACHE_DIR"
    work="$(mktemp -d "$CACHE_DIR/kernel-XXXXXX")"
    chmod 755 "$work"
    (cd "$work" && apt-get download -qq -o APT::Sandbox::User=root "$image") || { rm -rf "$work"; fail "apt-get could not download $image"; }
    dpkg-deb -x "$work"/*.deb "$work"
    rm -f "$work"/*.deb
    basename "$(echo "$work"/boot/vmlinuz-*)" | sed 's/^vmlinuz-//' >"$work/release"
    rm -rf "$KERNEL_DIR"
    mv "$work" "$KERNEL_DIR"
}

# QEMU's guest agent for the linux guest: unpacked, never installed. Left behind: $AGENT_DIR/usr/sbin/qemu-ga.
unpack_guest_agent() {
    local work
    [ "$(id -u)" = 0 ] || fail "the guest agent is missing in $AGENT_DIR and only root can put it there"
    [ -n "$(apt-cache search --names-only '^qemu-guest-agent$')" ] || apt-get update -qq
    say "unpacking the guest agent"
    mkdir -p "$CACHE_DIR"
    work="$(mktemp -d "$CACHE_DIR/guest-agent-XXXXXX")"
    chmod 755 "$work"
    (cd "$work" && apt-get download -qq -o APT::Sandbox::User=root qemu-guest-agent) || { rm -rf "$work"; fail "apt-get could not download qemu-guest-agent"; }
    dpkg-deb -x "$work"/*.deb "$work"
    rm -f "$work"/*.deb
    rm -rf "$AGENT_DIR"
    mv "$work" "$AGENT_DIR"
}

make_environment() {
    if ! cmp -s scripts/tools.lock .tools/tools.lock; then
        say "installing uv"
        rm -rf .tools
        "$PYTHON" -m venv .tools
        .tools/bin/pip install -q --disable-pip-version-check --require-hashes --no-deps -r scripts/tools.lock ||
            fail "pip could not install uv; check the network, or PIP_INDEX_URL and the certificates if you use a mirror"
        cp scripts/tools.lock .tools/tools.lock
    fi
    say "installing the Python packages of requirements.lock"
    [ -x .venv/bin/python ] || .tools/bin/uv venv -q --allow-existing --python "$PYTHON" .venv
    .tools/bin/uv pip sync -q --python .venv/bin/python --require-hashes --build-constraints requirements.lock requirements.lock ||
        fail "uv could not install the packages of requirements.lock; check the network, or UV_DEFAULT_INDEX if you use a mirror"
    .tools/bin/uv pip install -q --python .venv/bin/python --no-deps --no-build-isolation --offline -e .
    inputs_hash >"$STAMP"
}

# Of pyproject.toml only what comes before the tools' settings: those change often and install nothing.
inputs_hash() {
    { echo "$PWD" && sed '/^\[tool\.pytest/,$d' pyproject.toml && cat requirements.lock scripts/tools.lock; } | sha256sum
}

ensure_packages() { # $1: file with a package a line
    local missing
    [ -x /usr/bin/dpkg-query ] || fail "this machine is no Debian: only Debian 12 is supported for now"
    [ -r "$1" ] || fail "the list of packages $1 is missing"
    mapfile -t missing < <(missing_packages "$1")
    [ "${#missing[@]}" = 0 ] || install_packages "${missing[@]}"
}

ensure_base() {
    ensure_packages scripts/packages.txt
    qemu_account_exists || make_qemu_account
    ensure_mount_points
    [ -s "$KERNEL_DIR/release" ] || unpack_kernel
    [ -x "$AGENT_DIR/usr/sbin/qemu-ga" ] || unpack_guest_agent
    [ -e "$STAMP" ] && [ "$(cat "$STAMP")" = "$(inputs_hash)" ] || make_environment
}

ensure_browser() {
    ensure_packages scripts/packages-browser.txt
    .tools/bin/uv pip install -q --python .venv/bin/python --require-hashes -r scripts/browser.lock ||
        fail "uv could not install the packages of scripts/browser.lock; check the network"
}

# Ansible in an environment of its own: its packages are for the controller and never for a host.
ensure_rollout() {
    ensure_packages scripts/packages-rollout.txt
    [ -x .ansible-venv/bin/python ] || .tools/bin/uv venv -q --python "$PYTHON" .ansible-venv
    .tools/bin/uv pip sync -q --python .ansible-venv/bin/python --require-hashes scripts/rollout.lock ||
        fail "uv could not install the packages of scripts/rollout.lock; check the network"
}

# One at a time in this folder: make test in two terminals must not install twice at once.
exec 9<scripts/setup.sh
flock 9
case "${1:-base}" in
    base) ensure_base ;;
    packages) ensure_packages "${2:?scripts/setup.sh packages needs the file that lists them}" ;;
    browser) ensure_base && ensure_browser ;;
    rollout) ensure_base && ensure_rollout ;;
    *) fail "unknown word $1: only packages FILE, browser and rollout are understood" ;;
esac
say "ready"
