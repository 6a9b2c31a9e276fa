#!/usr/bin/env bash
# Writes documents with bitbrat into a Firestore emulator and reads them with Google's own client library for Node: the
# fields and types must be exactly those that the platform's TypeScript services expect.
set -u

usage() {
  cat <<'TXT'
Usage: scripts/google-client-check.sh

Needs Node 18 or newer and npm (it installs @google-cloud/firestore below .services once) and the Firestore emulator:
the one of FIRESTORE_EMULATOR_HOST if that is set, else the one that scripts/services.sh runs or starts.
BITBRAT names the binary to check (default: built with `cargo build`).
TXT
}

client="@google-cloud/firestore@8"

say() { printf 'google-client-check: %s\n' "$*" >&2; }

case ${1:-} in -h | --help) usage && exit 0 ;; esac
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1
command -v node >/dev/null && command -v npm >/dev/null || { say "needs node and npm" && exit 1; }

if [ -z "${FIRESTORE_EMULATOR_HOST:-}" ]; then
  scripts/services.sh up firestore || exit 1
  eval "$(scripts/services.sh env firestore)"
fi
export FIRESTORE_EMULATOR_HOST

modules=.services/node
if [ ! -d "$modules/node_modules/@google-cloud/firestore" ]; then
  mkdir -p "$modules"
  npm install --silent --no-audit --no-fund --prefix "$modules" "$client" >&2 || { say "npm install failed" && exit 1; }
fi

bitbrat=${BITBRAT:-}
if [ -z "$bitbrat" ]; then
  cargo build --quiet || exit 1
  bitbrat=target/debug/bitbrat
fi

project="node-check-$$"
# `probe` answers with the health of the demo's sources, some of which are in trouble on purpose.
BITBRAT_STORE__URL="firestore:$project" "$bitbrat" --demo --no-progress probe -o name >/dev/null
code=$?
case $code in 0 | 3 | 4 | 8) ;; *) say "bitbrat probe ended with $code" && exit 1 ;; esac
# The client would look for the machine of a cloud first, and warn that there is none.
METADATA_SERVER_DETECTION=none NODE_PATH="$modules/node_modules" GOOGLE_CLOUD_PROJECT="$project" node scripts/google-client-check.cjs
