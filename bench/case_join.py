"""Merging an observation into a document and deriving its status: a Rust program, as nothing else can call this code."""

import json
import os
import subprocess

from lib import ROOT, BenchError, Skipped


def run(figures):
    if os.environ.get("BENCH_BUILD") != "1":
        raise Skipped("it is a Rust benchmark and BENCH_BIN was given, so nothing is built; run it without BENCH_BIN")
    command = ["cargo", "bench", "--locked", "--profile", os.environ.get("BENCH_PROFILE", "bench"), "--bench", "join"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise BenchError(f"`{' '.join(command)}` failed: {done.stderr.strip()[-400:]}")
    for line in done.stdout.splitlines():
        if line.startswith("{"):
            row = json.loads(line)
            figures.add(row["what"], row["value"], "µs", row["floor"], row["floor_value"])
