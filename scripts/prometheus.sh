#!/usr/bin/env bash
# Checks metrics, alerts and the dashboard with a real Prometheus: `bitbrat --demo watch` is scraped in both formats, every query of
# contrib/grafana/bitbrat.json must return data, and promtool checks the metrics, the alert rules and their tests. Prints one line a
# step and fails if one fails. scripts/test.sh runs it; it takes about half a minute without the build.
#
# Without Prometheus it unpacks Debian's package below target/prometheus/ and installs nothing: no service is started. Everything
# talks to loopback only.
#
#   scripts/prometheus.sh
#   BITBRAT=path/to/bitbrat             the program to use instead of target/debug/bitbrat
#   PROMETHEUS=directory                where prometheus and promtool are, if not on the PATH
set -euo pipefail
cd "$(dirname "$0")/.."

say() { printf 'prometheus: %s\n' "$*" >&2; }

home=${CARGO_TARGET_DIR:-target}/prometheus
mkdir -p "$home"
home=$(realpath "$home")

has_both() { [ -x "$1/prometheus" ] && [ -x "$1/promtool" ]; }

unpack() {
    (
        cd "$home"
        rm -f ./*.deb
        apt-get download prometheus >download.log 2>&1 && dpkg-deb -x prometheus_*.deb .
    )
}

# Prints the directory of both programs.
find_programs() {
    local found
    if [ -n "${PROMETHEUS:-}" ]; then
        has_both "$PROMETHEUS" && realpath "$PROMETHEUS"
        return
    fi
    if found=$(command -v prometheus) && has_both "$(dirname "$found")"; then
        dirname "$found"
        return
    fi
    if ! has_both "$home/usr/bin" && command -v apt-get >/dev/null 2>&1; then
        say "unpacking Debian's package prometheus"
        unpack || { [ "$(id -u)" = 0 ] && apt-get update >/dev/null 2>&1 && unpack; } || return 1
    fi
    has_both "$home/usr/bin" && printf '%s\n' "$home/usr/bin"
}

if ! programs=$(find_programs) || ! command -v python3 >/dev/null 2>&1; then
    say "it needs python3, and prometheus with promtool: Debian's package prometheus, or PROMETHEUS=directory"
    exit 1
fi

"$programs/promtool" check rules --lint-fatal contrib/prometheus/rules.yml >&2
"$programs/promtool" test rules contrib/prometheus/rules.test.yml >&2

if [ -z "${BITBRAT:-}" ]; then
    cargo build --quiet
fi
bitbrat=$(realpath "${BITBRAT:-${CARGO_TARGET_DIR:-target}/debug/bitbrat}")
exec python3 scripts/prometheus.py "$bitbrat" "$programs" contrib
