"""Whether probes, pushed events and writes notice a crowd at the dashboard: connections that send nothing, connections that never
read, and as many requests as the daemon answers."""

import contextlib
import json
import shutil
import subprocess
import threading
import time

import lib
from case_push import CHANNELS, InSqlite, event
from case_web import IDLE, LIST, UNREAD, crowd
from lib import BenchError, Cleanup, Daemon, Sim, setting

CONNECTIONS = 8
HISTOGRAMS = ("bitbrat_request_duration_seconds", "bitbrat_commit_duration_seconds")


def run(figures):
    sources, seconds = setting("BENCH_SOURCES", 200, 1_000), setting("BENCH_SECONDS", 5, 30)
    with Cleanup() as cleanup:
        sim = Sim(cleanup)
        channels = sim.fill(sources)[:CHANNELS]
        daemon = Daemon(cleanup, sim, sim.fill(sources), sim.login())

        def checked():
            known, waiting = daemon.metrics("bitbrat_sources", "bitbrat_observations_waiting")
            return known >= sources and waiting == 0 and sim.subscriptions("stream.online") >= CHANNELS

        lib.until("the first checks and subscriptions", checked, 300, every=0.5)
        reader = InSqlite(daemon.stored())
        for channel in channels:
            event(sim, reader, channel, live=False, stream="")
        calm = phase(sim, daemon, reader, channels, seconds, "1")
        memory = daemon.usage.memory()
        with contextlib.ExitStack() as clients:
            crowd(clients, daemon.address)
            with requests(daemon.address, seconds + 5) as answered:
                crowded = phase(sim, daemon, reader, channels, seconds, "2")
                most = daemon.usage.memory()
        report(figures, daemon, sources, seconds, calm, crowded, memory, most, answered)


def phase(sim, daemon, reader, channels, seconds, mark):
    """Times from a pushed event to the stored document in milliseconds, and what the daemon's histograms gained meanwhile."""
    before = histograms(daemon)
    times, turn, end = [], 0, time.monotonic() + seconds
    while time.monotonic() < end:
        channel = channels[turn % CHANNELS]
        # An event that is not stored within 20 s ends the measurement with an error.
        took = event(sim, reader, channel, live=(turn // CHANNELS) % 2 == 0, stream=f"{mark}{channel}{turn:05}")
        times.append(took * 1000)
        turn += 1
        time.sleep((turn * 7_919 % 23_000) / 1_000_000)
    # The last round may have begun streams that the next phase does not expect.
    for channel in channels:
        event(sim, reader, channel, live=False, stream="")
    after = histograms(daemon)
    return times, {name: [a - b for a, b in zip(after[name], before[name])] for name in HISTOGRAMS}


def histograms(daemon):
    """Sum and count of each histogram."""
    parts = [f"{name}_{part}" for name in HISTOGRAMS for part in ("sum", "count")]
    _, text = daemon.http.request("GET", "/metrics")
    sums = dict.fromkeys(parts, 0.0)
    for line in text.decode().splitlines():
        name = line.partition(" ")[0].partition("{")[0]
        if name in sums:
            sums[name] += float(line.rsplit(" ", 1)[1])
    return {name: (sums[f"{name}_sum"], sums[f"{name}_count"]) for name in HISTOGRAMS}


@contextlib.contextmanager
def requests(address, seconds):
    """Asks for the list over and over, with wrk where it is installed. Yields a dict that gets the requests a second."""
    answered = {}
    if not shutil.which("wrk"):
        raise BenchError("wrk is needed (apt-get install wrk)")
    command = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s", f"http://{address}{LIST}"]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    reader = threading.Thread(target=lambda: answered.update(text=child.stdout.read()))
    reader.start()
    try:
        yield answered
    finally:
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(seconds)
        child.kill()
        reader.join()
        lines = {line.partition(":")[0].strip(): line.partition(":")[2].strip() for line in answered.get("text", "").splitlines()}
        answered["rate"] = float(lines.get("Requests/sec", 0))
        answered["errors"] = lines.get("Socket errors", "none") + "; " + lines.get("Non-2xx or 3xx responses", "every answer 2xx")


def report(figures, daemon, sources, seconds, calm, crowded, memory, most, answered):
    for share in (50, 99):
        value, reference = (lib.percentile(times, share) for times in (crowded[0], calm[0]))
        figures.add(f"push to stored document in the crowd, p{share}", value, "ms", "without", reference)
    for name, what in zip(HISTOGRAMS, ("request to the platform", "commit")):
        means = [spent * 1000 / count if count else None for spent, count in (crowded[1][name], calm[1][name])]
        if None not in means:
            figures.add(f"{what} in the crowd, mean", means[0], "ms", "without", means[1])
    figures.add("resident memory in the crowd", most, "MiB", "before it", memory)
    health = daemon.http.json("GET", "/livez")
    figures.note(
        f"{sources:,} sources; {IDLE} connections that send nothing, {UNREAD} that never read, and wrk with {CONNECTIONS} for {seconds} s: "
        f"{answered['rate']:.0f} answers of {LIST} a second, socket errors: {answered['errors']}; all of {len(crowded[0])} pushed events "
        f"were stored ({len(calm[0])} without); afterwards /livez says {json.dumps(health['status'])}"
    )
