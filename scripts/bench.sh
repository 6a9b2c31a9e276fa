#!/usr/bin/env bash
# Measures what we hold ourselves to, on a release build. `scripts/bench.sh --help` lists what there is.
set -eu

usage() {
  cat <<'TXT'
Usage: scripts/bench.sh NAME

  persist   messages a second from NATS to the Firestore emulator, with processor time and peak memory:
            2,000 messages over 20 sources, each of which changes its document
  status    `sources status` on 1,000 stored sources, beside `true` as the floor (needs hyperfine), with peak memory
            (needs GNU time) and the size of the program
  push      from an event on the simulated Twitch's websocket to the changed document in SQLite: p50, p90, p99
            (BENCH_EVENTS, default 1,000)
  idle      what `watch` with 10,000 simulated Twitch sources costs at rest: memory, processor, calls a minute, writes an
            hour (BENCH_SOURCES; BENCH_SECONDS, default 300)

Servers are started with scripts/services.sh when they are not running. BENCH_PROFILE=dev measures without the
long release build: good for a comparison before and after, not for a figure.
TXT
}

cd "$(dirname "${BASH_SOURCE[0]}")/.."

persist() {
  scripts/services.sh up nats firestore
  eval "$(scripts/services.sh env 2>/dev/null)"
  cargo bench --profile "${BENCH_PROFILE:-bench}" --bench persist
}

status() {
  command -v hyperfine >/dev/null || { echo "bench: needs hyperfine (package hyperfine)" >&2 && exit 1; }
  cargo build --release --bin bitbrat
  cargo build --example fill_store
  local bitbrat=$PWD/target/release/bitbrat work
  work=$(mktemp -d)
  # shellcheck disable=SC2064  # the directory of now
  trap "rm -rf '$work'" EXIT
  # Some of the demo's sources are in trouble on purpose.
  "$bitbrat" --demo --no-progress --set "store.url=sqlite:$work/store.db" probe -o name >/dev/null 2>&1 || true
  target/debug/examples/fill_store "$work/store.db" 1000
  cd "$work"
  export BITBRAT_STORE__URL="sqlite:$work/store.db" BITBRAT_STATE_DIR="$work/state"
  hyperfine -N --warmup 5 --runs 100 --ignore-failure true \
    "$bitbrat sources status" "$bitbrat sources status -o json" "$bitbrat sources status kick:888001"
  if [ -x /usr/bin/time ]; then
    /usr/bin/time -f 'peak memory of sources status: %M KiB' "$bitbrat" sources status 2>&1 >/dev/null | tail -n 1
  fi
  printf 'program, stripped: %s bytes\n' "$(stat -c %s "$bitbrat")"
}

watch() { BENCH=$1 cargo bench --profile "${BENCH_PROFILE:-bench}" --bench watch; }

case ${1:-} in
  persist) persist ;;
  status) status ;;
  push | idle) watch "$1" ;;
  -h | --help) usage ;;
  *)
    usage >&2
    exit 2
    ;;
esac
