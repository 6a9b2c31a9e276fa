#!/usr/bin/env bash
# Checks the models of the outbox, the token refresh and the leases exhaustively in bounded size (docs/quality.md, "Models").
# They are a crate of their own in models/, with its own lock file and target folder.
set -eu

usage() {
  cat <<'TXT'
Usage: scripts/models.sh [TEST NAME]

Without arguments: all models, with all of their broken variants. Prints how many states each search has visited and the shortest
sequence of actions that each broken variant permits.
TXT
}

case ${1:-} in
  -h | --help) usage && exit 0 ;;
esac

cd "$(dirname "${BASH_SOURCE[0]}")/../models"
cargo test --locked --lib -- --nocapture "$@"
