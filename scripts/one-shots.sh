#!/usr/bin/env bash
# Runs one-shot commands against the simulated platforms, thousands of them, each a process of its own, and then asks the
# simulated Discord how many Identifies it has seen: the answer must be 0. Discord resets the token of a bot that begins 1,000
# sessions a day, so a command that began one would be a way to kill a bot. Only `doctor` connects to the gateway, until its
# Hello. Run it after a change to what Discord is asked. See `scripts/one-shots.sh --help`.
set -u

usage() {
  cat <<'TXT'
Usage: scripts/one-shots.sh [RUNS] [--binary PATH] [--jobs N]

Runs RUNS commands (default: 10000), N at a time (default: the number of processors), in turns: probe, sources status,
sources status --probe, sources can, sources is-live, sources describe, sources list, sources wait, doctor, auth status,
and now and then watch --once. The gateway is switched on in the configuration, which none of them may follow.

Prints what the simulated Discord has counted. Exit code 0 when it saw no Identify.

  --binary PATH   the binary to run (default: the debug binary of this checkout)
TXT
}

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd) || exit 1
binary=${CARGO_TARGET_DIR:-$root/target}/debug/bitbrat
runs=10000
jobs=$(nproc 2>/dev/null || echo 2)
while [ $# -gt 0 ]; do
  case $1 in
    --binary) [ $# -gt 1 ] || { usage >&2 && exit 2; } && binary=$2 && shift ;;
    --jobs) [ $# -gt 1 ] || { usage >&2 && exit 2; } && jobs=$2 && shift ;;
    -h | --help) usage && exit 0 ;;
    [1-9]*) runs=$1 ;;
    *) usage >&2 && exit 2 ;;
  esac
  shift
done
[ -x "$binary" ] || { echo "no binary at $binary: build it, or name one with --binary" >&2 && exit 2; }

work=$(mktemp -d "${TMPDIR:-/tmp}/bitbrat-one-shots.XXXXXX") || exit 1
simulator=
# shellcheck disable=SC2317  # called by the trap
leave() {
  [ -z "$simulator" ] || kill "$simulator" 2>/dev/null
  wait 2>/dev/null
  rm -rf "$work"
}
trap leave EXIT
trap 'exit 130' INT TERM HUP

# One program in a world of its own: no inherited variables, its own folder.
home=$work
clean() { exec env -i PATH="$PATH" HOME="$home" TMPDIR="$work" LC_ALL=C "$@"; }

# --- the simulator ------------------------------------------------------------------------------------------------

# In the background `clean` is the program itself, so that ending it ends the program.
clean "$binary" sim --port 0 --env >"$work/sim.env" 2>"$work/sim.err" &
simulator=$!
for _ in $(seq 600); do
  grep -q '^BITBRAT_DISCORD__API_URL=' "$work/sim.env" && break
  kill -0 "$simulator" 2>/dev/null || break
  sleep 0.1
done
address=$(sed -n 's,^BITBRAT_DISCORD__API_URL=.*http://\([0-9.]*:[0-9]*\)/.*,\1,p' "$work/sim.env")
[ -n "$address" ] || { echo "the simulator does not start:" && cat "$work/sim.err"; } >&2
[ -n "$address" ] || exit 1

# ask METHOD PATH [JSON]: prints the answer's body.
ask() {
  local body=${3:-}
  exec 3<>"/dev/tcp/${address%:*}/${address#*:}" || return 1
  printf '%s %s HTTP/1.1\r\nHost: %s\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s' \
    "$1" "$2" "$address" "${#body}" "$body" >&3
  sed '1,/^\r$/d' <&3
  exec 3>&-
}

# Limits are another matter, and would only make this slow.
ask POST /__sim/discord/knobs '{"bucket":1000000000,"global_per_second":1000000000}' >/dev/null

# --- the runs -----------------------------------------------------------------------------------------------------

# Kick and Twitch have tests of their own; what matters here is asked of Discord.
{
  grep -v '^BITBRAT_SOURCES=' "$work/sim.env"
  echo 'BITBRAT_SOURCES=discord:888001/8880010,discord:888002/8880020,discord:888004,discord:888005'
  echo 'BITBRAT_DISCORD__GATEWAY=true'
} >"$work/client.env"

# shot N WORKER: runs the Nth command and keeps its exit code.
shot() {
  local words
  case $(($1 % 12)) in
    0) words="probe" ;;
    1) words="sources status" ;;
    2) words="sources status --probe" ;;
    3) words="sources can discord:888001 SEND_MESSAGES --probe" ;;
    4) words="sources is-live discord:888001" ;;
    5) words="sources describe discord:888002" ;;
    6) words="sources list" ;;
    7) words="sources wait discord:888001 --for connected --timeout 30s" ;;
    8) words="doctor discord" ;;
    9) words="auth status" ;;
    10) words="probe permissions discord:888002 -o json" ;;
    11) words="probe auth" ;;
  esac
  # Each schedule once is more work; it has its turn all the same.
  [ $(($1 % 200)) -ne 199 ] && [ "$1" -ne $((runs - 1)) ] || words="watch --once"
  # shellcheck disable=SC2086  # words are words
  (clean timeout 120 "$binary" --env-file "$work/client.env" -q $words </dev/null >"$work/out.$2" 2>&1)
  local code=$?
  # 2 is usage, 101 a panic, 124 a command that hangs (or `wait` that saw nothing).
  case $code in 2 | 6 | 101 | 124) echo "bitbrat $words: exit code $code" && tail -n 5 "$work/out.$2" ;; esac
  echo "$words: $code" >>"$work/codes.$2"
}

# Workers have state directories of their own, as machines would; within one the commands follow each other.
worker() {
  local n home=$work/home.$1
  mkdir -p "$home"
  for ((n = $1; n < runs; n += jobs)); do
    shot "$n" "$1"
  done
}

from=$SECONDS
pids=()
for ((w = 0; w < jobs; w++)); do
  worker "$w" >"$work/trouble.$w" &
  pids+=($!)
done
wait "${pids[@]}"
took=$((SECONDS - from))

# --- what Discord has seen ----------------------------------------------------------------------------------------

count() { printf '%s' "$world" | tr ',{}' '\n\n\n' | sed -n "s/^\"$1\": *\([0-9]*\)\$/\1/p" | head -n 1; }

world=$(ask GET /__sim/discord/world)
connections=$(count connections)
identifies=$(count identifies)
requests=$(ask GET /__sim/requests | tr ',{}' '\n\n\n' | sed -n 's/^"total": *\([0-9]*\)$/\1/p' | tail -n 1)
sort "$work"/codes.* | uniq -c
cat "$work"/trouble.*
echo "$runs runs in $took s: ${requests:-?} requests, ${connections:-?} gateway connections, ${identifies:-?} Identifies"
[ "${identifies:-?}" = 0 ] && [ "${requests:-0}" -gt 0 ] && ! grep -q . "$work"/trouble.*
