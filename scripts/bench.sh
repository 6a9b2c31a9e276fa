#!/usr/bin/env bash
# Measures what we hold ourselves to, on a release build. `scripts/bench.sh --help` lists what there is.
set -eu

usage() {
  cat <<'TXT'
Usage: scripts/bench.sh NAME

  persist   messages a second from NATS to the Firestore emulator, with processor time and peak memory:
            2,000 messages over 20 sources, each of which changes its document

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

case ${1:-} in
  persist) persist ;;
  -h | --help) usage ;;
  *)
    usage >&2
    exit 2
    ;;
esac
