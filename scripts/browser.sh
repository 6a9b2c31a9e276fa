#!/usr/bin/env bash
# Drives the dashboard with headless Chromium against the simulator: live updates, recovery after a restart, keyboard,
# accessibility (axe), screens of several sizes, and everything again without a script. Prints one line a step and fails if one
# fails. scripts/test.sh runs it.
#
# It installs Debian's package `chromium` where that is possible, and two libraries from the npm registry below target/browser/,
# without their install scripts. The browser talks to loopback only.
#
#   scripts/browser.sh                  pictures go to target/browser/pictures/
#   BITBRAT=path/to/bitbrat             the program to use instead of target/debug/bitbrat
#   CHROMIUM=path/to/chromium           the browser to use instead of /usr/bin/chromium
set -euo pipefail
cd "$(dirname "$0")/.."

say() { printf 'browser: %s\n' "$*" >&2; }

browser=${CHROMIUM:-/usr/bin/chromium}
if [ ! -x "$browser" ] && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
    say "installing chromium with apt-get"
    install() { DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends chromium fonts-wqy-zenhei >/dev/null 2>&1; }
    install || { apt-get update >/dev/null 2>&1 && install; } || true
fi
if [ ! -x "$browser" ] || ! command -v node >/dev/null 2>&1 || ! command -v npm >/dev/null 2>&1; then
    say "it needs Chromium (apt-get install chromium, or CHROMIUM=path), node and npm"
    exit 1
fi

home=${CARGO_TARGET_DIR:-target}/browser
mkdir -p "$home/pictures"
home=$(realpath "$home")
if ! cmp -s tests/browser/package.json "$home/package.json" || [ ! -d "$home/node_modules" ]; then
    cp tests/browser/package.json "$home/package.json"
    (cd "$home" && npm install --ignore-scripts --no-audit --no-fund --no-package-lock --loglevel=error) || {
        rm -f "$home/package.json"
        say "npm could not install the libraries; is its registry reachable?"
        exit 1
    }
fi
cp tests/browser/run.mjs "$home/run.mjs"

if [ -z "${BITBRAT:-}" ]; then
    cargo build --quiet
fi
bitbrat=$(realpath "${BITBRAT:-${CARGO_TARGET_DIR:-target}/debug/bitbrat}")

# A world that does not change by itself, on free ports.
empty=$(mktemp -d)
(cd "$empty" && exec "$bitbrat" sim --port 0 --still --env) >"$home/sim.env" 2>"$home/sim.log" &
pid=$!
trap 'kill "$pid" 2>/dev/null || true; rm -rf "$empty"' EXIT
for _ in $(seq 600); do
    if grep -q '^BITBRAT_SOURCES=' "$home/sim.env"; then break; fi
    sleep 0.1
done
port=$(sed -nE 's|^BITBRAT_TWITCH__HELIX_URL=http://127.0.0.1:([0-9]+)/.*|\1|p' "$home/sim.env")
if [ -z "$port" ]; then
    cat "$home/sim.log" >&2
    say "the simulator did not start"
    exit 1
fi
cd "$home"
CHROMIUM=$browser timeout 600 node run.mjs "$bitbrat" "$home/sim.env" "$port" "$home/pictures"
