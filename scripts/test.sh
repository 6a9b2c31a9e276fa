#!/usr/bin/env bash
# Runs every test, with everything they need: starts the services, then the doc tests, the test suite, the browser tests
# and the checks with a real Prometheus.
# Run it before you push; `.ci/run` runs it too. See `scripts/test.sh --help`.
set -u

usage() {
  cat <<'TXT'
Usage: scripts/test.sh [--no-services] [NEXTEST ARGUMENTS]

Without arguments: all doc tests and all tests. Arguments go to `cargo nextest run`, so a name runs a part
(scripts/test.sh merge), and doc tests are left out then.

Services that already run, or whose variable is already set (FIRESTORE_EMULATOR_HOST, PUBSUB_EMULATOR_HOST,
BITBRAT_TEST_NATS_URL, BITBRAT_TEST_POSTGRES_URL), are used and left alone; the others are started by scripts/services.sh and stopped at the end.

  --no-services   start nothing; for tests that need no emulator
TXT
}

nextest_version=0.9.143

say() { printf 'test: %s\n' "$*" >&2; }

with_services=1
case ${1:-} in
  -h | --help) usage && exit 0 ;;
  --no-services) with_services= && shift ;;
esac

cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1
profile=default
if [ -n "${CI:-}" ]; then
  profile=ci
  # Nothing is built twice in CI: incremental bookkeeping would only cost time and disk.
  export CARGO_INCREMENTAL=0
fi

# Prints the services that nobody has set a variable for.
wanted_services() {
  [ -n "${FIRESTORE_EMULATOR_HOST:-}" ] || echo firestore
  [ -n "${BITBRAT_TEST_NATS_URL:-}" ] || echo nats
  [ -n "${PUBSUB_EMULATOR_HOST:-}" ] || echo pubsub
  [ -n "${BITBRAT_TEST_POSTGRES_URL:-}" ] || echo postgres
}

started=()
start_services() {
  local service wanted=()
  for service in $(wanted_services); do
    wanted+=("$service")
    scripts/services.sh status "$service" >/dev/null 2>&1 || started+=("$service")
  done
  [ ${#wanted[@]} -gt 0 ] || return 0
  trap '[ ${#started[@]} -eq 0 ] || scripts/services.sh down "${started[@]}"' EXIT
  trap 'exit 130' INT
  trap 'exit 143' TERM HUP
  scripts/services.sh up "${wanted[@]}" || return 1
  eval "$(scripts/services.sh env "${wanted[@]}")"
  # Tests that need a service skip when its variable is not set, but not here: a gate must not turn green by skipping.
  export BITBRAT_TEST_SERVICES=required
}

if [ -n "$with_services" ] && ! start_services; then
  say "the services did not start; scripts/test.sh --no-services runs without them"
  exit 1
fi

# Logins in a browser are tested with a real one.
if [ -n "$with_services" ]; then
  BITBRAT_TEST_BROWSER=$(scripts/services.sh browser) || exit 1
  export BITBRAT_TEST_BROWSER
fi

# Tokens in a keyring are tested with a real one.
if [ -n "$with_services" ] && ! { command -v gnome-keyring-daemon && command -v dbus-run-session; } >/dev/null 2>&1; then
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
    say "installing gnome-keyring and dbus with apt-get"
    install_keyring() { DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends gnome-keyring dbus >/dev/null 2>&1; }
    install_keyring || { apt-get update >/dev/null 2>&1 && install_keyring; }
  fi
fi

# The campaign of random faults gives the program's processes clocks of their own.
if [ ! -e "${BITBRAT_TEST_LIBFAKETIME:-}" ] && ! ls /usr/lib/*/faketime/libfaketime.so.1 /usr/lib*/faketime/libfaketime.so.1 >/dev/null 2>&1; then
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
    say "installing faketime with apt-get"
    install_faketime() { DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends faketime >/dev/null 2>&1; }
    install_faketime || { apt-get update >/dev/null 2>&1 && install_faketime; }
  fi
fi

failed=0
if [ $# -eq 0 ]; then
  cargo test --doc || failed=1
fi

if ! cargo nextest --version >/dev/null 2>&1; then
  say "cargo-nextest is missing: building it once (minutes)"
  cargo install --locked --debug "cargo-nextest@$nextest_version" || say "that failed"
fi
if cargo nextest --version >/dev/null 2>&1; then
  cargo nextest run --profile "$profile" "$@" || failed=1
else
  say "WARNING: running with plain cargo test: no time limits, tests share one process"
  cargo test --lib --bins --tests "$@" || failed=1
fi
if [ $# -eq 0 ]; then
  scripts/browser.sh || failed=1
  scripts/prometheus.sh || failed=1
fi
exit $failed
