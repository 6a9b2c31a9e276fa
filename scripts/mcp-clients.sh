#!/usr/bin/env bash
# Asks `can` and `is_live` about each source of the simulated world with the official clients (TypeScript SDK, inspector, Python
# SDK) over standard input and output, `/mcp` and `/sse`, and compares every answer with the JSON of the command. Prints one line
# for each client and transport, and fails if one answer differs.
#
# Run it after changes to src/mcp/ or src/web/mcp.rs. It is not part of the tests: it installs the clients from the npm and Python
# registries, once, below target/mcp-clients/. The clients connect to loopback only.
#
#   scripts/mcp-clients.sh [CLIENT…]       sdk, inspector, python; all without names
#   BITBRAT=path/to/bitbrat                the program to use instead of target/debug/bitbrat
#   BITBRAT_PYTHON=python3.12              the Python to use (3.10 or later)
set -euo pipefail
cd "$(dirname "$0")/.."

clients=("$@")
if [ ${#clients[@]} -eq 0 ]; then
    clients=(sdk inspector python)
fi
home=${CARGO_TARGET_DIR:-target}/mcp-clients
mkdir -p "$home"
home=$(realpath "$home")
source=$PWD/scripts/mcp-clients
if [ -z "${BITBRAT:-}" ]; then
    cargo build --quiet
fi
bitbrat=$(realpath "${BITBRAT:-${CARGO_TARGET_DIR:-target}/debug/bitbrat}")

# Installs unless exactly this was installed before.
if ! cmp -s "$source/package.json" "$home/package.json" || [ ! -d "$home/node_modules" ]; then
    cp "$source/package.json" "$home/package.json"
    (cd "$home" && npm install --ignore-scripts --no-audit --no-fund --no-package-lock --loglevel=error) || {
        rm -f "$home/package.json"
        exit 1
    }
fi
if ! cmp -s "$source/requirements.txt" "$home/requirements.txt"; then
    "${BITBRAT_PYTHON:-python3}" -m venv "$home/python"
    "$home/python/bin/pip" install --quiet --disable-pip-version-check -r "$source/requirements.txt"
    cp "$source/requirements.txt" "$home/requirements.txt"
fi
cp "$source/clients.mjs" "$home/clients.mjs"

# A world that does not change by itself, and a daemon that monitors it, on free ports.
work=$(mktemp -d)
pids=()
finish() {
    for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
    wait
    rm -rf "$work"
}
trap finish EXIT
cd "$work"
export HOME=$work XDG_CONFIG_HOME=$work/config XDG_STATE_HOME=$work/state
"$bitbrat" sim --port 0 --still --env >.env 2>sim.log &
pids+=($!)
for _ in $(seq 600); do
    if grep -q '^BITBRAT_SOURCES=' .env; then break; fi
    sleep 0.1
done
printf '[web]\nlisten = "127.0.0.1:0"\n' >bitbrat.toml
"$bitbrat" watch --color never >watch.log 2>&1 &
pids+=($!)
for _ in $(seq 600); do
    if grep -q 'Checked [0-9]* of [0-9]* sources:' watch.log; then break; fi
    sleep 0.1
done
address=$(sed -nE 's|.*Serving pages at http://([0-9.:]+)/.*|\1|p' watch.log | head -n 1)
if [ -z "$address" ]; then
    cat sim.log watch.log >&2
    echo "the daemon did not start" >&2
    exit 1
fi

# Every source, and the commands that have the expected answers.
sed -nE 's/^BITBRAT_SOURCES="?([^"]*)"?$/\1/p' .env | python3 -c '
import json, sys
questions = []
for source in sys.stdin.read().split():
    questions.append({"tool": "bitbrat_is_live", "arguments": {"source": source}, "command": ["is-live", source]})
    for action in ["send-chat", "ban"]:
        arguments = {"source": source, "action": action}
        questions.append({"tool": "bitbrat_can", "arguments": arguments, "command": ["can", source, action]})
print(json.dumps(questions))' >questions.json

failed=0
for client in "${clients[@]}"; do
    for transport in stdio http sse; do
        case $client in
            sdk | inspector) run=(node "$home/clients.mjs" "$client") ;;
            python) run=("$home/python/bin/python" "$source/clients.py") ;;
            *) echo "FAIL $client: no such client" && exit 1 ;;
        esac
        timeout 300 "${run[@]}" "$transport" questions.json "$address" "$bitbrat" 2>"$home/$client-$transport.log" || {
            failed=1
            echo "FAIL $client $transport: see $home/$client-$transport.log"
        }
    done
done
exit "$failed"
