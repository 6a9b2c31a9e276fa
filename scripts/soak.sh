#!/bin/sh
# Runs the daemon for a virtual week with 500 sources of the simulated Twitch, random faults and restarts, and compares every
# document with the simulator's truth: two minutes of processor time in a debug build. `.ci/run` includes it, `scripts/test.sh`
# has the same week with 60 sources; run this one after changing watch/, persist/ or the rules in core/.
#
#   scripts/soak.sh [SEED [COUNT]]   COUNT seeds from SEED on, one after the other; default: 7, once
#   BITBRAT_SOAK_SOURCES, BITBRAT_SOAK_DAYS and BITBRAT_SOAK_LOOK (seconds between two looks) change the size
set -eu
cd "$(dirname "$0")/.."
export BITBRAT_SOAK_SOURCES="${BITBRAT_SOAK_SOURCES:-500}"
seed="${1:-${BITBRAT_SOAK_SEED:-7}}"
last=$((seed + ${2:-1} - 1))
while [ "$seed" -le "$last" ]; do
  echo "seed $seed"
  BITBRAT_SOAK_SEED="$seed" cargo test --test main watch::soak -- --exact \
    watch::soak::after_a_virtual_week_of_faults_every_document_is_the_truth --nocapture
  seed=$((seed + 1))
done
