#!/usr/bin/env bash
# Measures bitbrat beside floors and beside programs of others. `scripts/bench.sh --help` lists the cases.
set -euo pipefail

usage() {
  cat <<'TXT'
Usage: scripts/bench.sh [NAME…]

Each figure is printed beside a floor or a peer that was measured in the same run, as a ratio. Without a name all cases
run, and docs/benchmarks.md is written with its plots (only of a release build).

  status   cold `sources status` with 1, 1,000 and 10,000 sources; floor: `true`; peer: gh, or another program that is there
  poll     one poll of 10,000 Twitch sources with 50 ms latency; floor: a bare loop of the same calls; peers
  push     from a pushed event to the stored document, on SQLite and Firestore; floor: a bare socket client; peers
  persist  messages a second from NATS to SQLite and Firestore; floor: the store's own batched writes
  idle     `watch` with 1 to 100,000 sources at rest: memory, processor, calls, writes; peers
  web      first paint in Chromium, response times of the API, also with clients that do not read; floor: bare servers
  load     pushed events, probes and writes while 250 connections and wrk crowd the dashboard; reference: without them
  join     merging one observation and deriving the status (a Rust benchmark)
  page     docs/benchmarks.md again, from the last figures of each case

Peers (bench/peers/): twurple and pyTwitchAPI with Google's Firestore clients, installed once from the npm and Python
registries below target/bench/. What this machine lacks is left out with a note.

Variables:
  BENCH_BIN=PATH         measure this program; nothing is built
  BENCH_FULL=1           the sizes above, for about an hour in all; without it the sizes are small, for a trial
  BENCH_SOURCES, BENCH_SECONDS, BENCH_RUNS, BENCH_ROUNDS, BENCH_EVENTS, BENCH_MESSAGES
                         one size, instead of the usual one
  BENCH_PEERS=0          without the peers
  BENCH_PYTHON=PATH      the Python for the peer (default: python3)
  BENCH_PAGE=PATH        write the page there instead of docs/benchmarks.md
  CHROMIUM=PATH          the browser (default: /usr/bin/chromium)

It needs Linux and Python 3.11. Firestore's emulator and NATS are started with scripts/services.sh when their variables
are not set, and are stopped again. Compare only runs on the same machine.
TXT
}

cd "$(dirname "${BASH_SOURCE[0]}")/.."

cases=" status poll push persist idle web load join page "
for name in "$@"; do
  case $name in
    -h | --help) usage && exit 0 ;;
  esac
  case $cases in
    *" $name "*) ;;
    *) printf 'bench: there is no case `%s`; the cases are:%s\n' "$name" "$cases" >&2 && exit 2 ;;
  esac
done

command -v python3 >/dev/null || { echo "bench: needs python3 (3.11 or newer)" >&2 && exit 1; }
if [ -n "${BENCH_BIN:-}" ]; then
  [ -x "$BENCH_BIN" ] || { echo "bench: BENCH_BIN=$BENCH_BIN is not a program" >&2 && exit 2; }
  BENCH_BIN=$(realpath "$BENCH_BIN")
else
  cargo build --release --locked --bin bitbrat
  BENCH_BIN=$(realpath "${CARGO_TARGET_DIR:-target}/release/bitbrat")
  export BENCH_BUILD=1
fi
export BENCH_BIN

# Services that run already are used as they are.
started=()
services() {
  if [ -z "${FIRESTORE_EMULATOR_HOST:-}" ] && ! scripts/services.sh env firestore >/dev/null 2>&1; then started+=(firestore); fi
  if [ -z "${BITBRAT_TEST_NATS_URL:-}" ] && ! scripts/services.sh env nats >/dev/null 2>&1; then started+=(nats); fi
  if [ ${#started[@]} -gt 0 ]; then scripts/services.sh up "${started[@]}" || true; fi
  local given
  # What the caller has set counts before what this checkout runs.
  given=$(scripts/services.sh env firestore nats 2>/dev/null) || true
  [ -n "${FIRESTORE_EMULATOR_HOST:-}" ] || eval "$(grep FIRESTORE <<<"$given" || true)"
  [ -n "${BITBRAT_TEST_NATS_URL:-}" ] || eval "$(grep NATS <<<"$given" || true)"
}
stop() { if [ ${#started[@]} -gt 0 ]; then scripts/services.sh down "${started[@]}"; fi; }
trap stop EXIT
if [ $# -eq 0 ] || [[ " $* " =~ " poll "|" push "|" persist " ]]; then services; fi

PYTHONDONTWRITEBYTECODE=1 python3 bench/run.py "$@" &
child=$!
trap 'kill "$child" 2>/dev/null || true' INT TERM
failed=0
wait "$child" || failed=$?
# A signal ends the first wait before the program has ended what it started.
wait "$child" 2>/dev/null || true
exit "$failed"
