#!/usr/bin/env bash
# Runs client libraries that others wrote against the simulator: twurple, pyTwitchAPI, TwitchIO, discord.js, discord.py and
# kickcom.py. Each logs in, reads something, and receives at least one pushed event. Prints one line a client and fails if
# one of them fails.
#
# Run it after changes to src/sim/. It is not part of the tests: it installs the libraries from the npm and Python
# registries, once, below target/real-clients/. The clients themselves talk to loopback only.
#
#   scripts/real-clients.sh [CLIENT…]        all, or only those named
#   BITBRAT=path/to/bitbrat                  the program to use instead of target/debug/bitbrat
#   BITBRAT_PYTHON=python3.12                the Python to use (3.11 or later)
set -euo pipefail
cd "$(dirname "$0")/.."

clients=("$@")
if [ ${#clients[@]} -eq 0 ]; then
    clients=(twurple pyTwitchAPI TwitchIO discord.js discord.py kickcom.py)
fi
bitbrat=${BITBRAT:-target/debug/bitbrat}
python=${BITBRAT_PYTHON:-python3}
home=$PWD/target/real-clients
source=$PWD/scripts/real-clients

if [ -z "${BITBRAT:-}" ]; then
    cargo build --quiet
fi
bitbrat=$(realpath "$bitbrat")
mkdir -p "$home"

# Installs unless exactly this was installed before.
if ! cmp -s "$source/package.json" "$home/package.json" || [ ! -d "$home/node_modules" ]; then
    cp "$source/package.json" "$home/package.json"
    (cd "$home" && npm install --no-audit --no-fund --no-package-lock --loglevel=error) || {
        rm -f "$home/package.json"
        exit 1
    }
fi
if ! cmp -s "$source/requirements.txt" "$home/requirements.txt"; then
    "$python" -m venv "$home/python"
    "$home/python/bin/pip" install --quiet --disable-pip-version-check -r "$source/requirements.txt"
    cp "$source/requirements.txt" "$home/requirements.txt"
fi
cp "$source/clients.mjs" "$home/clients.mjs"

# A world that does not change by itself, on free ports.
empty=$(mktemp -d)
sim=$home/sim.json
(cd "$empty" && exec "$bitbrat" sim --port 0 --still -o json) >"$sim" 2>"$home/sim.log" &
pid=$!
trap 'kill "$pid" 2>/dev/null || true; rm -rf "$empty"' EXIT
for _ in $(seq 200); do
    # The report ends with the first closing brace that begins a line.
    if grep -q '^}' "$sim"; then break; fi
    sleep 0.1
done
grep -q '^}' "$sim" || { cat "$home/sim.log" >&2; echo "the simulator did not start" >&2; exit 1; }

failed=0
for client in "${clients[@]}"; do
    case $client in
        twurple | discord.js) run=(node clients.mjs) ;;
        pyTwitchAPI | TwitchIO | discord.py | kickcom.py) run=("$home/python/bin/python" "$source/clients.py") ;;
        *) echo "FAIL $client: no such client" && failed=1 && continue ;;
    esac
    log=$home/$client.log
    if (cd "$home" && timeout 90 "${run[@]}" "$client" "$sim") >"$log.out" 2>"$log"; then
        grep -E '^OK ' "$log.out" || { echo "FAIL $client: it printed no result, see $log"; failed=1; }
    else
        grep -E '^FAIL ' "$log.out" || echo "FAIL $client: it ended without a result or took too long, see $log"
        failed=1
    fi
    # A bot may identify once in five seconds; two libraries use the same one.
    case $client in discord.*) sleep 5 ;; esac
done
exit "$failed"
