#!/usr/bin/env bash
# Is this checkout, or this binary, what we promise? Looks for every promised file, formats and builds, then runs the
# binary against the built-in simulator and looks at its JSON. CI runs it last; operators run it on a binary that they
# have just installed: ./validate_deliverable.sh --skip-build --binary /usr/local/bin/bitbrat
set -u

usage() {
  cat <<'TXT'
Usage: ./validate_deliverable.sh [--skip-build] [--binary PATH]

Prints one line per check, OK or FAIL, runs all of them and exits 1 when any failed.

  --skip-build    do not format or build; needs no Rust toolchain
  --binary PATH   the binary to run (default: the debug binary of this checkout)

Needs no credentials, no internet and no tools beyond a shell and coreutils. Your own configuration, environment
and stores are neither read nor written.
TXT
}

root=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd) || exit 1
build=1
binary=${CARGO_TARGET_DIR:-$root/target}/debug/bitbrat
while [ $# -gt 0 ]; do
  case $1 in
    --skip-build) build= ;;
    --binary) [ $# -gt 1 ] || { usage >&2 && exit 2; } && binary=$2 && shift ;;
    -h | --help) usage && exit 0 ;;
    *) usage >&2 && exit 2 ;;
  esac
  shift
done
[ "${binary#/}" != "$binary" ] || binary=$PWD/$binary

work=$(mktemp -d "${TMPDIR:-/tmp}/bitbrat-validate.XXXXXX") || exit 1
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT TERM HUP

# --- the checks' own tools ---------------------------------------------------------------------------------------

passed=0
failed=0
# check LABEL SHELL-TEXT: runs the text; what it prints is shown when it fails.
check() {
  local label=$1
  if eval "$2" >"$work/why" 2>&1; then
    passed=$((passed + 1))
    printf 'OK    %s\n' "$label"
  else
    failed=$((failed + 1))
    printf 'FAIL  %s\n' "$label"
    tail -n 12 "$work/why" | sed 's/^/        /'
  fi
}

bound=()
if command -v timeout >/dev/null 2>&1; then bound=(timeout 90); fi

summary() { printf '\n%d passed, %d failed\n' "$passed" "$failed"; }

# Runs the binary in a world of its own: empty folder, empty home, no inherited variables, one store for all calls.
bitbrat() {
  (cd "$work/home" && env -i PATH="$PATH" HOME="$work/home" TMPDIR="$work" LC_ALL=C \
    BITBRAT_STORE__URL="sqlite:$work/demo.db" ${bound[@]+"${bound[@]}"} "$binary" "$@" </dev/null)
}

# keep NAME "CODES" ARGUMENTS...: runs bitbrat, keeps its output as NAME.out and NAME.err, wants one of the exit codes.
keep() {
  local name=$1 codes=$2 code
  shift 2
  bitbrat "$@" >"$work/$name.out" 2>"$work/$name.err"
  code=$?
  case " $codes " in *" $code "*) return 0 ;; esac
  echo "bitbrat $*: exit code $code, expected ${codes// / or }"
  tail -n 8 "$work/$name.err"
  return 1
}

# The kept output without JSON's double quotes and the space after its colons: {apiVersion:bitbrat/v1,...
output() { sed 's/": */":/g; s/"//g' "$work/$1.out"; }
# has NAME PATTERN: some line of the kept output matches.
has() { output "$1" | grep -qE -- "$2" || { echo "no line matches $2 in:" && head -c 600 "$work/$1.out" && return 1; }; }
# every NAME PATTERN: there are lines, and all of them match.
every() { [ -s "$work/$1.out" ] && ! output "$1" | grep -vE -- "$2"; }
at_least() { [ "$(wc -l <"$work/$1.out")" -ge "$2" ] || { echo "fewer than $2 lines:" && cat "$work/$1.out" && return 1; }; }
whole_object() { [ "$(head -c 1 "$work/$1.out")" = "{" ] && [ "$(tr -d '\n' <"$work/$1.out" | tail -c 1)" = "}" ]; }
# first PATTERN: the key of the first source whose line matches, from the kept ndjson.
first() { output lines | grep -E -- "$1" | sed -n 's/.*[{,]key:\([a-z]*:[0-9]*\),.*/\1/p' | head -n 1; }

# --- the checkout ------------------------------------------------------------------------------------------------

cd "$root" || exit 1
for file in Cargo.toml Cargo.lock README.md CHANGELOG.md LICENSE-MIT LICENSE-APACHE .env.example \
  rustfmt.toml clippy.toml deny.toml .config/nextest.toml justfile \
  docs/ARCHITECTURE.md src/lib.rs src/main.rs tests/main.rs; do
  check "file $file" "test -s $file"
done
for file in .ci/run validate_deliverable.sh scripts/services.sh scripts/test.sh scripts/package.sh scripts/package-test.sh; do
  check "program $file" "test -x $file"
done
for dir in docs/decisions src/core src/store src/platforms/twitch src/sim src/cli; do
  check "folder $dir" "ls -A $dir | grep -q ."
done

if [ -n "$build" ]; then
  check "formatted" "cargo fmt --check"
  check "builds" "cargo build --locked"
fi

# --- the binary --------------------------------------------------------------------------------------------------

mkdir -p "$work/home"
check "binary $binary" 'test -x "$binary"'
[ -x "$binary" ] || { summary && exit 1; }
check "--version names bitbrat" 'keep version 0 --version && has version "^bitbrat [0-9]+\.[0-9]+\.[0-9]+"'
check "--help" 'keep help 0 --help && has help sources && has help probe'
check "help exit-codes lists them" 'keep codes 0 help exit-codes && has codes 124 && has codes 130'
check "schema sources is a JSON schema" 'keep schema 0 schema sources && whole_object schema && has schema "\\\$schema:"'
for shell in bash zsh fish; do
  check "completion $shell" "keep completion-$shell 0 completion $shell && has completion-$shell bitbrat"
done
check "man page" 'keep man 0 man && has man "^\.TH "'

# --- the binary against the simulator ----------------------------------------------------------------------------

# The demo world has expired and revoked tokens, so a healthy 0 is not expected; 1 and 2 would be our fault.
check "--demo probes all sources" 'keep probed "0 3 4 8" --demo sources status --probe -o json'
check "standard output is one JSON object" 'whole_object probed'
check "it is a SourceList of bitbrat/v1" 'has probed apiVersion:bitbrat/v1 && has probed kind:SourceList'
check "it says as of when" 'has probed "asOf:[0-9]{4}-[0-9]{2}-[0-9]{2}T"'
check "another process reads them from the store" 'keep lines "0 3 4 8" --demo sources status -o ndjson'
check "eight sources or more" 'at_least lines 8'
check "every source has a key of the right shape" 'every lines "[{,]key:(twitch|kick|discord):[0-9]+,"'
check "every source has a known status" 'every lines "[{,]status:(CONNECTED|DISCONNECTED|ERROR)[,}]"'
check "every source has a known stream status" 'every lines "[{,]streamStatus:(ONLINE|OFFLINE|UNKNOWN)[,}]"'
check "every source says whether it is stale" 'every lines "[{,]stale:"'
check "some stream is ONLINE with viewers" 'has lines "streamStatus:ONLINE.*viewerCount:[1-9]|viewerCount:[1-9].*streamStatus:ONLINE"'
check "some stream is OFFLINE" 'has lines streamStatus:OFFLINE'
check "some authorisation is VALID" 'has lines authStatus:VALID'
check "some authorisation is refused" 'has lines "authStatus:(EXPIRED|REVOKED)"'
check "no viewers are claimed of a stream that is not ONLINE" '[ -s "$work/lines.out" ] && ! output lines | grep -v streamStatus:ONLINE | grep viewerCount:'
check "-o name prints ids only" 'keep names "0 3 4 8" --demo sources status -o name && every names "^(twitch|kick|discord):[0-9]+$"'
check "-o name and -o ndjson agree on the number" '[ "$(wc -l <"$work/names.out")" = "$(wc -l <"$work/lines.out")" ]'
check "the table has a line for each" 'keep table "0 3 4 8" --demo sources status && at_least table "$(wc -l <"$work/lines.out")"'

online=$(first streamStatus:ONLINE)
offline=$(first streamStatus:OFFLINE)
check "is-live says yes for ${online:-a live source}" 'keep live 0 --demo sources is-live "$online"'
check "is-live says no for ${offline:-an ended one}" 'keep ended 1 --demo sources is-live "$offline"'
check "describe shows ${online:-a live source}" 'keep described "0 3 4 8" --demo sources describe "$online" && has described "$online"'
check "sources list knows ${online:-a live source}" 'keep listed 0 --demo sources list -o name && has listed "^$online\$"'
check "an unknown source is exit code 5" 'keep unknown 5 --demo sources status twitch:999999999999'
check "an unknown flag is exit code 2" 'keep usage 2 sources status --no-such-flag'
printf '[store\nurl = ' >"$work/broken.toml"
check "a broken configuration is exit code 6" 'keep broken 6 --config "$work/broken.toml" sources status'
check "its message names the file" 'grep -q broken.toml "$work/broken.err"'
check "a reader that leaves early is no error" 'bitbrat --demo sources list 2>"$work/pipe.err" | head -n 1 && ! grep -i "panic\|broken pipe" "$work/pipe.err"'
check "nothing panicked" '[ -s "$work/lines.out" ] && ! grep -l "panicked at" "$work"/*.err'
check "no token in any output" '[ -s "$work/lines.out" ] && ! grep -lEi "(bearer|oauth:|access_token\"?[:=]) *\"?[a-z0-9]{20}" "$work"/*.out "$work"/*.err'

summary
[ "$failed" = 0 ]
