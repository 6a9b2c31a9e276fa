#!/usr/bin/env bash
# Random faults, kills, clock errors and logins against the simulator's truth on all three platforms, with the real program.
# A part of `scripts/test.sh`; run more seeds after a change to watch/, platforms/, persist/ or the rules in core/.
# See `scripts/campaign.sh --help`.
set -eu

usage() {
  cat <<'TXT'
Usage: scripts/campaign.sh [--seeds N] [--seed FIRST] [--logs DIR]

  --seeds N      how many stories (default: 20); each takes a minute or two, ten run side by side
  --seed FIRST   the first seed (default: 1); a story is decided by its seed, apart from the machine's own timing
  --logs DIR     keep the report and the daemon's whole log of each failing seed there

Exit code 0 when every document and every history was right in the end, else the reports of the failing seeds.

Examples:
  scripts/campaign.sh --seeds 200
  scripts/campaign.sh --seed 17 --seeds 1 --logs /tmp
TXT
}

while [ $# -gt 0 ]; do
  case $1 in
    -h | --help) usage && exit 0 ;;
    --seeds) export BITBRAT_CAMPAIGN_SEEDS="${2:?--seeds needs a number}" && shift 2 ;;
    --seed) export BITBRAT_CAMPAIGN_SEED="${2:?--seed needs a number}" && shift 2 ;;
    --logs) mkdir -p "${2:?--logs needs a directory}" && BITBRAT_CAMPAIGN_LOGS=$(cd "$2" && pwd) && export BITBRAT_CAMPAIGN_LOGS && shift 2 ;;
    *) usage >&2 && exit 2 ;;
  esac
done
cd "$(dirname "${BASH_SOURCE[0]}")/.."
exec cargo test --test main campaign:: -- --nocapture
