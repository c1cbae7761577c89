#!/usr/bin/env bash
# Browser tests against the real server: tests/browser/run.sh BIN_DIR
#
# BIN_DIR holds hubbub, hubbub-model and simllm. Needs widget/node_modules (make setup) and Chromium:
# CHROMIUM names another one than /usr/bin/chromium. Each test file starts its own servers on free
# ports with data folders of their own, and ends them.
set -euo pipefail

here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
bin="$(realpath "${1:?usage: tests/browser/run.sh BIN_DIR}")"

fail() {
  echo "tests/browser: $1" >&2
  exit 2
}
for program in hubbub hubbub-model simllm; do
  [ -x "$bin/$program" ] || fail "$bin/$program is missing; build it first (make build)"
done
[ -d "$here/../../widget/node_modules/playwright-core" ] || fail "widget/node_modules is missing (make setup)"
[ -x "${CHROMIUM:-/usr/bin/chromium}" ] || fail "Chromium is missing; set CHROMIUM or install it (make setup)"

# One file at a time: a browser, a server and a database are enough for a small machine. The last
# word is timeout's: whatever hangs does not hang for ever.
status=0
HUBBUB_BIN="$bin" timeout --kill-after=30 600 \
  node --test --test-concurrency=1 --test-reporter=spec "$here"/*.test.mjs || status=$?
case "$status" in
  0) echo "tests/browser: all passed" ;;
  124 | 137) echo "tests/browser: FAILED, not finished after 600 s" ;;
  *) echo "tests/browser: FAILED" ;;
esac
exit "$status"
