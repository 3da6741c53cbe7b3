#!/bin/bash
# Builds what is rolled out, into dist/: wheel, sdist, bill of materials, and a wheelhouse per Python of the hosts, from
# which they install without any index and without a compiler. The wheel is the same bytes for the same commit.
# Usage: scripts/package.sh [PYTHON …]     default: 3.11 (Debian 12)   3.13 is Debian 13, 3.12 Ubuntu 24.04
# libvirt-python is not in it: it must fit the host's libvirt, so it is the distribution's (python3-libvirt).
set -euo pipefail
cd "$(dirname "$0")/.."
export UV_SYSTEM_CERTS=1 UV_NATIVE_TLS=1 UV_NO_CONFIG=1 PIP_DISABLE_PIP_VERSION_CHECK=1
unset UV_FIND_LINKS UV_INDEX UV_EXTRA_INDEX_URL
PYTHON="${VENV:-.venv}/bin/python"
UV="${UV:-.tools/bin/uv}"
PLATFORMS=(manylinux_2_34_x86_64 manylinux_2_28_x86_64 manylinux_2_27_x86_64 manylinux_2_17_x86_64 manylinux2014_x86_64 manylinux_2_12_x86_64
    manylinux_2_5_x86_64)

fail() { printf 'package: %s\n' "$*" >&2; exit 1; }

# $1: Python; $2: folder; the rest: extras
wheelhouse() {
    local python="$1" folder="$2" extras=() platforms=() each
    shift 2
    for each in "$@"; do extras+=(--extra "$each"); done
    for each in "${PLATFORMS[@]}"; do platforms+=(--platform "$each"); done
    mkdir -p "$folder"
    # Constrained by the lock: the hosts get what was tested.
    "$UV" pip compile -q --generate-hashes --no-emit-index-url --no-header --no-annotate --no-emit-package libvirt-python \
        --python-version "$python" --python-platform x86_64-manylinux_2_28 -c requirements.lock "${extras[@]}" pyproject.toml \
        -o "$folder/requirements.txt" || fail "the packages for Python $python could not be resolved"
    .tools/bin/pip download -qq --no-deps --require-hashes --only-binary :all: --python-version "$python" --implementation cp \
        "${platforms[@]}" -r "$folder/requirements.txt" -d "$folder" || fail "a wheel for Python $python could not be downloaded"
    cp dist/virtward-*.whl "$folder/"
    printf 'virtward==%s --hash=sha256:%s\n' "$version" "$(sha256sum dist/virtward-*.whl | cut -d' ' -f1)" >>"$folder/requirements.txt"
}

[ "$#" != 0 ] || set -- 3.11
rm -rf dist
SOURCE_DATE_EPOCH="${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}"
export SOURCE_DATE_EPOCH
"$PYTHON" -m hatchling build -t wheel -t sdist >/dev/null 2>&1 || fail "hatchling could not build wheel and sdist"
version="$(basename dist/virtward-*.whl | cut -d- -f2)"
"$PYTHON" scripts/sbom.py requirements.lock "$version" >"dist/virtward-$version.cdx.json"
for python in "$@"; do
    wheelhouse "$python" "dist/wheelhouse/py$python/agent" agent
    wheelhouse "$python" "dist/wheelhouse/py$python/aggregator" aggregator cli
    wheelhouse "$python" "dist/wheelhouse/py$python/all" agent aggregator cli # a machine that is both
done
(cd dist && find . -type f ! -name SHA256SUMS -print0 | sort -z | xargs -0 sha256sum >SHA256SUMS)
printf 'package: virtward %s is in dist/\n' "$version"
