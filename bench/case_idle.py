"""What `watch` costs at rest for growing numbers of sources, beside client libraries that poll the same channels once a minute."""

import time

import lib
import peers
from lib import BenchError, Cleanup, Daemon, Sim, setting

# The peers hold everything in memory and are measured up to this size.
PEER_LIMIT = 10_000


def run(figures):
    most, seconds = setting("BENCH_SOURCES", 200, 100_000), setting("BENCH_SECONDS", 10, 300)
    sizes = sorted({size for size in (1, 1_000, 10_000, 100_000) if size < most} | {most})
    names = peers.available(figures)
    for size in sizes:
        with Cleanup() as cleanup:
            sim = Sim(cleanup)
            if size > 10_000:
                # Every minute of so many channels takes more calls than the usual limit has.
                sim.command("knobs", bucket=max(800, size // 100 * 4))
            ours = measure_own(cleanup, sim, size, seconds)
            beside = measure_peers(sim, size, names, seconds) if size <= PEER_LIMIT and names else {}
        report(figures, size, seconds, ours, beside)


def observe(programs, seconds):
    """For each process memory in MiB (now and the most while resting) and processor time in percent of a core."""
    before, begun = {name: usage.cpu() for name, usage in programs.items()}, time.monotonic()
    most = dict.fromkeys(programs, 0.0)
    while time.monotonic() - begun < seconds:
        time.sleep(1)
        for name, usage in programs.items():
            most[name] = max(most[name], usage.memory())
    passed = time.monotonic() - begun
    return {
        name: {"memory": usage.memory(), "most": most[name], "cpu": (usage.cpu() - before[name]) / passed * 100, "passed": passed}
        for name, usage in programs.items()
    }


def measure_own(cleanup, sim, size, seconds):
    daemon = Daemon(cleanup, sim, sim.fill(size), sim.login())
    begun = time.monotonic()
    lib.until(
        f"the first checks of {size} sources",
        lambda: (lambda known, live: known >= size and live > 0)(*daemon.metrics("bitbrat_sources", "bitbrat_sources_live")),
        max(600, size / 50),
        every=0.5,
    )
    # The first round is over and nothing of it waits: for ten seconds nothing new is sent. So many sources are always being checked
    # that a few observations wait at any time.
    last, since = 0.0, time.monotonic()
    while time.monotonic() - since < 10:
        sent, outbox, inputs = daemon.metrics("bitbrat_events_sent_total", "bitbrat_outbox_events", "bitbrat_observations_waiting")
        if sent > last or outbox > 0 or inputs > size / 100:
            last, since = sent, time.monotonic()
        if time.monotonic() - begun > max(1_200, size / 40):
            raise BenchError(f"`watch` with {size} sources did not come to rest within {max(1_200, size / 40):.0f} s")
        time.sleep(0.5)
    counters = ("bitbrat_probe_requests_total", "bitbrat_store_writes_total", "bitbrat_ticks_skipped_total")
    settled = time.monotonic() - begun - 10
    before = daemon.metrics(*counters)
    result = observe({"bitbrat": daemon.usage}, seconds)["bitbrat"]
    called, writes, skipped = (after - was for after, was in zip(daemon.metrics(*counters), before))
    passed = result["passed"]
    peak = daemon.usage.memory("VmHWM")
    lib.end(daemon.child)
    return result | {"calls": called / passed * 60, "writes": writes / passed * 3_600, "skipped": skipped, "settled": settled, "peak": peak}


def measure_peers(sim, size, names, seconds):
    """Both peers at the same time, each with an application, and so a rate limit, of its own."""
    with Cleanup() as cleanup:
        programs = {}
        for name in names:
            client = f"{name}-app"
            child = peers.start(cleanup, name, "idle", sim, sim.login(client), sim.fill(size), client=client)
            programs[name] = lib.Usage(child.pid)
        before = calls(sim)
        results = observe(programs, seconds)
        after = calls(sim)
        for name, result in results.items():
            result["calls"] = (after[name] - before[name]) / result["passed"] * 60
        return results


def calls(sim):
    """Requests so far. twurple's mock mode has paths of its own, by which its requests differ from those of pyTwitchAPI."""
    counts = dict.fromkeys(peers.NAMES, 0)
    for entry in sim.journal()["counts"]:
        mock = entry["path"].startswith(("/mock", "/auth", "/eventsub"))
        counts["twurple" if mock else "pyTwitchAPI"] += entry["total"]
    return counts


def report(figures, size, seconds, ours, beside):
    sources = f"{size:,} source{'s' if size > 1 else ''}"
    rows = (("resident memory", "memory", "MiB"), ("processor", "cpu", "% of a core"), ("calls to the platform", "calls", "/min"))
    for what, key, unit in rows:
        for name in beside or [None]:
            figures.add(f"{sources}, {what}", ours[key], unit, name, beside[name][key] if name else None)
    figures.add(f"{sources}, most memory at rest", ours["most"], "MiB")
    figures.add(f"{sources}, peak memory since the start", ours["peak"], "MiB")
    figures.add(f"{sources}, documents written", ours["writes"], "/h")
    figures.add(f"{sources}, first checks stored after", ours["settled"], "s")
    if ours["skipped"]:
        figures.note(f"{sources}: {ours['skipped']:.0f} scheduled checks were skipped")
    if seconds < 60:
        figures.note(f"{sources}: calls and processor time mean nothing below BENCH_SECONDS=60, as most schedules are minutes")
    figures.note(f"{sources}: at rest for {seconds} s, one in twenty live, schedules as shipped, SQLite")
    for title, axis, key in (("Memory at rest", "MiB", "memory"), ("Processor at rest", "% of a core", "cpu")):
        figures.grow(title, axis, "bitbrat watch", size, ours[key])
        for name, result in beside.items():
            figures.grow(title, axis, name, size, result[key])
