#!/usr/bin/env bash
# Checks the API of a running demo against its OpenAPI document with schemathesis. Run it after changes to src/web/api/. It is not
# part of the tests: it installs schemathesis from the Python registry, once, below target/schemathesis/.
#
#   scripts/schemathesis.sh [ARGUMENT…]     arguments go to `schemathesis run`
#   BITBRAT=path/to/bitbrat                 the program to use instead of target/debug/bitbrat
set -euo pipefail
cd "$(dirname "$0")/.."

version=4.32.5
bitbrat=${BITBRAT:-target/debug/bitbrat}
home=$PWD/target/schemathesis
mkdir -p "$home"
if [ ! -e "$home/$version" ]; then
    python3 -m venv "$home/python"
    "$home/python/bin/pip" install --quiet --disable-pip-version-check "schemathesis==$version"
    touch "$home/$version"
fi
if [ -z "${BITBRAT:-}" ]; then
    cargo build --quiet
fi
bitbrat=$(realpath "$bitbrat")

# A stream of events has no end: it is tested in src/web/tests/api.rs.
cat >"$home/schemathesis.toml" <<'TOML'
[[operations]]
include-path = "/api/v1/events"
enabled = false
TOML

empty=$(mktemp -d)
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
(cd "$empty" && exec "$bitbrat" --demo --still watch --set "web.listen=127.0.0.1:$port") >"$home/watch.log" 2>&1 &
pid=$!
trap 'kill "$pid" 2>/dev/null || true; rm -rf "$empty"' EXIT
for _ in $(seq 600); do
    if curl -sf "http://127.0.0.1:$port/api/v1/sources/twitch:777001/is-live" >/dev/null; then break; fi
    sleep 0.1
done
# It keeps a cache in the current directory.
cd "$home"
"$home/python/bin/schemathesis" --config-file "$home/schemathesis.toml" run "http://127.0.0.1:$port/api/v1/openapi.json" \
    --checks all -n 50 --seed 1 --request-timeout 10 "$@"
