#!/bin/sh
# Runs the daemon for a virtual week with 500 sources, random faults and restarts, and compares every document with the
# simulated truth. Takes a few minutes; run it after changing watch/, persist/ or the rules in core/.
#
#   scripts/soak.sh [SEED]      BITBRAT_SOAK_SOURCES and BITBRAT_SOAK_DAYS change the size
set -eu
cd "$(dirname "$0")/.."
export BITBRAT_SOAK_SOURCES="${BITBRAT_SOAK_SOURCES:-500}"
export BITBRAT_SOAK_DAYS="${BITBRAT_SOAK_DAYS:-7}"
export BITBRAT_SOAK_SEED="${1:-${BITBRAT_SOAK_SEED:-7}}"
exec cargo test --test main watch::soak -- --exact watch::soak::after_a_virtual_week_of_faults_every_document_is_the_truth --nocapture
