#!/usr/bin/env bash
# Runs the fuzz targets of fuzz/ (docs/quality.md, "Fuzzing"). See `scripts/fuzz.sh --help`.
set -eu

usage() {
  cat <<'HELP'
Usage: scripts/fuzz.sh [--seconds N] [--list] [TARGET...]

Builds the fuzz targets and runs each of TARGET (default: all) with libFuzzer, starting from fuzz/seeds/ and the inputs that
earlier runs have found. Prints one line per target: executions, coverage (edges reached, features) and the number of findings.

  --seconds N   seconds per target (default: 60)
  --list        print the names of the targets

The first build compiles all dependencies once more, in fuzz/target. The stable compiler of the project is enough, on Linux; the
C++ compiler builds libFuzzer.

Inputs that reached something new are kept in fuzz/corpus/TARGET. A finding is an input that panics, exceeds a minute or 2 GiB, or
violates a law of the target; it is kept in fuzz/artifacts/TARGET, and fuzz/artifacts/TARGET.log shows what happened. To repeat it:

  fuzz/target/debug/TARGET fuzz/artifacts/TARGET/crash-...

Exit code 0 without findings, 1 with findings, 2 if something is missing.
HELP
}

fail() {
  printf '%s\n' "fuzz: $*" >&2
  exit 2
}

cd "$(dirname "${BASH_SOURCE[0]}")/.."
seconds=60
targets=()
while [ $# -gt 0 ]; do
  case $1 in
    -h | --help) usage && exit 0 ;;
    --list) basename -s .rs -a fuzz/src/bin/*.rs && exit 0 ;;
    --seconds) seconds=${2:?--seconds needs a number} && shift 2 ;;
    -*) usage >&2 && exit 2 ;;
    *) targets+=("$1") && shift ;;
  esac
done
case $seconds in
  '' | *[!0-9]*) fail "--seconds needs a whole number, not \`$seconds\`" ;;
esac
[ ${#targets[@]} -gt 0 ] || mapfile -t targets < <(basename -s .rs -a fuzz/src/bin/*.rs)
for target in "${targets[@]}"; do
  [ -f "fuzz/src/bin/$target.rs" ] || fail "there is no target \`$target\`; scripts/fuzz.sh --list prints them"
done
command -v cargo >/dev/null || fail "cargo is missing; install Rust (https://rustup.rs)"
command -v c++ >/dev/null || fail "a C++ compiler is missing; on Debian: apt-get install g++"

(
  cd fuzz
  unset CARGO_TARGET_DIR RUSTFLAGS
  RUSTC_WRAPPER=$PWD/rustc.sh nice -n 19 cargo build --locked --bins
) || fail "the targets do not compile"

# Writes the seeds of a target, which are separated by a line of five equals signs, into a folder.
split_seeds() {
  local file="fuzz/seeds/$1.txt" folder=$2
  mkdir -p "$folder"
  awk -v folder="$folder" '
    /^=====$/ { number++; first = 1; next }
    { printf "%s%s", (first || NR == 1 ? "" : "\n"), $0 > (folder "/" (number + 0)); first = 0 }
  ' "$file"
}

# The last figure that libFuzzer has printed behind a name.
figure() { grep -o "$2[: ]*[0-9][0-9]*" "$1" | tail -n 1 | grep -o '[0-9]*$' || echo 0; }

findings=0
printf '%-18s %12s %8s %10s %8s %9s\n' target executions edges features corpus findings
for target in "${targets[@]}"; do
  corpus=fuzz/corpus/$target artifacts=fuzz/artifacts/$target log=fuzz/artifacts/$target.log
  mkdir -p "$corpus" "$artifacts"
  split_seeds "$target" "fuzz/target/seeds/$target"
  # Findings of earlier runs that are fixed.
  for input in "$artifacts"/*; do
    [ ! -f "$input" ] || ! "fuzz/target/debug/$target" -timeout=60 "$input" >/dev/null 2>&1 || rm "$input"
  done
  status=0
  nice -n 19 "fuzz/target/debug/$target" -max_total_time="$seconds" -max_len=16384 -timeout=60 -print_final_stats=1 \
    -artifact_prefix="$artifacts/" "$corpus" "fuzz/target/seeds/$target" >"$log" 2>&1 || status=$?
  found=$(find "$artifacts" -type f \( -name 'crash-*' -o -name 'timeout-*' -o -name 'oom-*' -o -name 'leak-*' \) | wc -l)
  [ "$status" -eq 0 ] || [ "$found" -gt 0 ] || found=1
  findings=$((findings + found))
  printf '%-18s %12s %8s %10s %8s %9s\n' "$target" "$(figure "$log" stat::number_of_executed_units)" \
    "$(figure "$log" ' cov')" "$(figure "$log" ' ft')" "$(find "$corpus" -type f | wc -l)" "$found"
done
[ "$findings" -eq 0 ] || exit 1
