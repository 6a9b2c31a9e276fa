"""Cold `sources status` beside `true`, and beside another program's version output."""

import os
import shutil
import subprocess
import time

import lib
from lib import BIN, Cleanup, Sim, bare_environment, bitbrat_environment, configuration, setting

PEERS = [["gh", "--version"], ["kubectl", "version", "--client"], ["docker", "--version"], ["git", "--version"]]


def timed(command, environment, folder):
    begun = time.perf_counter()
    done = subprocess.run(command, env=environment, cwd=folder, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, check=False)
    took = (time.perf_counter() - begun) * 1000
    # Not healthy (3), to be authorized (4) and not enough evidence (8) are results, too.
    if command[0] == BIN and done.returncode not in (0, 3, 4, 8):
        raise lib.BenchError(f"`{' '.join(command)}` ended with {done.returncode}: {done.stderr[-300:].decode(errors='replace')}")
    return took


def peak(command, environment, folder):
    if not os.access("/usr/bin/time", os.X_OK):
        return None
    done = subprocess.run(["/usr/bin/time", "-f", "%M", *command], env=environment, cwd=folder, capture_output=True, check=False)
    return int(done.stderr.split()[-1]) / 1024


def run(figures):
    runs = setting("BENCH_RUNS", 10, 100)
    most = setting("BENCH_SOURCES", 200, 10_000)
    sizes = sorted({size for size in (1, 1_000) if size < most} | {most})
    peer = next((command for command in PEERS if shutil.which(command[0])), None)
    if peer:
        version = subprocess.run(peer, capture_output=True, text=True, check=False).stdout.strip().splitlines()
        figures.note(f"`{' '.join(peer)}` prints `{version[0] if version else ''}`")
    with Cleanup() as cleanup:
        sim = Sim(cleanup)
        token = sim.login()
        for size in sizes:
            home = cleanup.directory()
            configuration(home, sim.fill(size))
            sim.refill()
            environment = bitbrat_environment(home, sim, token)
            done = subprocess.run([BIN, "probe", "-q", "-o", "name"], env=environment, cwd=home, capture_output=True, check=False)
            if done.returncode not in (0, 3, 4, 8):
                raise lib.BenchError(f"`bitbrat probe` of {size} sources ended with {done.returncode}: {done.stderr[-300:].decode(errors='replace')}")
            measure(figures, size, runs, environment, home, peer)


def measure(figures, size, runs, environment, home, peer):
    programs = {"true": ["true"], "status": [BIN, "sources", "status"], "json": [BIN, "sources", "status", "-o", "json"]}
    if peer:
        programs["peer"] = peer
    taken = {name: [] for name in programs}
    names = list(programs)
    # In turn, with another one first in each round, so that the load of a moment meets all of them.
    for turn in range(runs + 2):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            environment_of = environment if programs[name][0] == BIN else bare_environment(home)
            took = timed(programs[name], environment_of, home)
            if turn >= 2:
                taken[name].append(took)
    middle = {name: lib.percentile(values, 50) for name, values in taken.items()}
    sources = f"{size:,} source{'s' if size > 1 else ''}"
    figures.add(f"`sources status`, {sources}, p50", middle["status"], "ms", "`true`", middle["true"])
    if peer:
        figures.add(f"`sources status`, {sources}, p50", middle["status"], "ms", f"`{' '.join(peer)}`", middle["peer"])
    figures.add(f"`sources status -o json`, {sources}, p50", middle["json"], "ms", "`true`", middle["true"])
    memory = peak(programs["status"], environment, home)
    if memory is not None:
        figures.add(f"`sources status`, {sources}, peak memory", memory, "MiB", "`true`", peak(["true"], bare_environment(home), home))
    figures.grow("Time of sources status", "ms", "sources status", size, middle["status"])
    figures.grow("Time of sources status", "ms", "true", size, middle["true"])
