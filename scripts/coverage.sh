#!/usr/bin/env bash
# Prints which lines the tests execute, by folder of src/ (docs/quality.md, "Coverage"). See `scripts/coverage.sh --help`.
set -eu

usage() {
  cat <<'HELP'
Usage: scripts/coverage.sh [TEST ARGUMENT...]

Builds the crate with counters in target/coverage (once as long as a full build), runs the tests, and prints the executed lines of
each folder of src/. Without arguments: unit tests (`--lib`). With arguments, those of `cargo test`, for example `--test main cli::`;
start the services first for tests that need them (scripts/services.sh up).

Needs LLVM's llvm-cov and llvm-profdata of the compiler's major version (`rustc -vV`); on Debian they are in the package llvm-22.
LLVM_COV and LLVM_PROFDATA name others. cargo-llvm-cov is installed into target/coverage/tool if it is missing.
HELP
}

fail() {
  printf '%s\n' "coverage: $*" >&2
  exit 2
}

case ${1:-} in
  -h | --help) usage && exit 0 ;;
esac
version=0.9.1
cd "$(dirname "${BASH_SOURCE[0]}")/.."
tool=$PWD/target/coverage/tool/bin/cargo-llvm-cov
major=$(rustc -vV | sed -n 's/^LLVM version: \([0-9]*\).*/\1/p')
export LLVM_COV=${LLVM_COV:-$(command -v "llvm-cov-$major" || true)}
export LLVM_PROFDATA=${LLVM_PROFDATA:-$(command -v "llvm-profdata-$major" || true)}
if ! [ -x "$LLVM_COV" ] || ! [ -x "$LLVM_PROFDATA" ]; then
  fail "llvm-cov-$major or llvm-profdata-$major is missing; on Debian: apt-get install llvm-$major"
fi
command -v python3 >/dev/null || fail "python3 is missing; it adds up the lines of a folder"
if ! "$tool" llvm-cov --version 2>/dev/null | grep -q "$version"; then
  CARGO_TARGET_DIR=$PWD/target/coverage/tool/build nice -n 19 \
    cargo install --locked --debug --root "$PWD/target/coverage/tool" "cargo-llvm-cov@$version"
fi

# Without this, cargo-llvm-cov would try to add a component to the toolchain.
export CARGO_LLVM_COV_SETUP=no CARGO_LLVM_COV_TARGET_DIR=$PWD/target/coverage/build
[ $# -gt 0 ] || set -- --lib
nice -n 19 "$tool" llvm-cov test --no-report --locked "$@"
nice -n 19 "$tool" llvm-cov report --json --summary-only --output-path target/coverage/summary.json
python3 - "$PWD/src/" target/coverage/summary.json <<'PYTHON'
import collections, json, sys

root, file = sys.argv[1:]
folders = collections.defaultdict(lambda: [0, 0])
for entry in json.load(open(file))["data"][0]["files"]:
    if not entry["filename"].startswith(root):
        continue
    parts = entry["filename"][len(root):].split("/")[:-1]
    lines = entry["summary"]["lines"]
    for folder in {"src", "/".join(["src", *parts[:2]])}:
        folders[folder][0] += lines["covered"]
        folders[folder][1] += lines["count"]
print(f"{'folder':<32} {'lines':>8} {'executed':>9}")
for folder, (covered, count) in sorted(folders.items()):
    print(f"{folder:<32} {count:>8} {100 * covered / max(count, 1):>8.1f}%")
PYTHON
