"""One poll of N Twitch sources over a simulated latency, beside a bare loop of the same calls and beside client libraries."""

import asyncio
import datetime
import json
import os
import subprocess
import time
import uuid
from urllib.parse import quote, urlsplit

import lib
import peers
from firestore import Documents, batched_writes
from lib import BIN, Cleanup, Sim, bitbrat_environment, configuration, setting

LATENCY = 50


def run(figures):
    most, rounds = setting("BENCH_SOURCES", 200, 10_000), setting("BENCH_ROUNDS", 1, 5)
    sizes = sorted({size for size in (100, 1_000) if size < most} | {most})
    emulator = os.environ.get("FIRESTORE_EMULATOR_HOST")
    names = peers.available(figures)
    with Cleanup() as cleanup:
        sim = Sim(cleanup)
        token = sim.login()
        for size in sizes:
            channels = sim.fill(size)
            sim.delay(LATENCY)
            report(figures, size, poll(sim, token, channels, names, rounds))
            sim.no_delay()
        if emulator:
            store(figures, sim, token, channels, names, rounds, emulator)
        else:
            figures.note("Firestore is not measured: FIRESTORE_EMULATOR_HOST is not set (scripts/services.sh up firestore)")
    figures.note(f"the responses of a poll are {LATENCY} ms late; those before the documents in Firestore are not")
    figures.note("`bitbrat probe stream` also validates its token, derives each status and stores each source in SQLite; the peers read the streams into memory")


def in_turn(names, rounds):
    """Every program in each round, with another one first."""
    for turn in range(rounds):
        yield from names[turn % len(names) :] + names[: turn % len(names)]


def poll(sim, token, channels, names, rounds):
    results = {name: [] for name in ["bitbrat", *names, "floor"]}
    for name in in_turn(["bitbrat", *names], rounds):
        sim.refill()
        result = bitbrat(sim, token, channels) if name == "bitbrat" else peer(sim, token, channels, name, "poll")
        result |= span(sim.journal())
        results[name].append(result)
        if name == "bitbrat":
            sim.refill()
            asyncio.run(replay(sim.address, token, result["requests"], result["in_flight"]))
            results["floor"].append(span(sim.journal()))
    return results


def store(figures, sim, token, channels, names, rounds, emulator):
    """One poll, after which each channel has a document in Firestore. The peers write in bulk."""
    results = {name: [] for name in ["bitbrat", *names, "floor"]}
    for name in in_turn(["bitbrat", *names], rounds):
        sim.refill()
        project = f"bench-{uuid.uuid4().hex[:12]}"
        if name == "bitbrat":
            remote = {"BITBRAT_STORE__URL": f"firestore:{project}", "FIRESTORE_EMULATOR_HOST": emulator}
            result = bitbrat(sim, token, channels, **remote)
        else:
            result = peer(sim, token, channels, name, "store", project=project, emulator=emulator)
        documents = Documents(emulator, project)
        found = documents.count("platform", "twitch")
        if found != len(channels):
            raise lib.BenchError(f"{name} stored {found} documents of {len(channels)} in Firestore: the figures of this run mean nothing")
        results[name].append(result)
        if name == "bitbrat":
            rate = batched_writes(emulator, len(channels), documents.sample(channels[0]))
            results["floor"].append({"wall": len(channels) / rate * 1000})
    ours = results["bitbrat"]
    what = f"poll of {len(channels):,} and a document in Firestore for each"
    figures.add(f"{what}: whole process", middle(ours, "wall"), "ms", "bare batched writes alone", middle(results["floor"], "wall"))
    for name in names:
        figures.add(f"{what}: whole process", middle(ours, "wall"), "ms", name, middle(results[name], "wall"))
        figures.add(f"{what}: processor time", middle(ours, "cpu"), "ms", name, middle(results[name], "cpu"))


def middle(results, key):
    return lib.percentile([result[key] for result in results], 50)


def report(figures, sources, results):
    ours = results["bitbrat"]
    floor = f"bare loop, {middle(ours, 'calls'):.0f} calls, {middle(ours, 'in_flight'):.0f} in flight"
    figures.add(f"poll of {sources:,}: time of the calls", middle(ours, "span"), "ms", floor, middle(results["floor"], "span"))
    figures.add(f"poll of {sources:,}: whole process", middle(ours, "wall"), "ms", "calls of the bare loop", middle(results["floor"], "span"))
    for name in peers.NAMES:
        if not results.get(name):
            continue
        label = f"{name}, {middle(results[name], 'calls'):.0f} calls, {middle(results[name], 'in_flight'):.0f} in flight"
        figures.add(f"poll of {sources:,}: time of the calls", middle(ours, "span"), "ms", label, middle(results[name], "span"))
        figures.add(f"poll of {sources:,}: whole process", middle(ours, "wall"), "ms", name, middle(results[name], "wall"))
        figures.add(f"poll of {sources:,}: processor time", middle(ours, "cpu"), "ms", name, middle(results[name], "cpu"))
        if middle(ours, "memory"):
            figures.add(f"poll of {sources:,}: peak memory", middle(ours, "memory"), "MiB", name, middle(results[name], "memory"))
    for name, result in results.items():
        if result:
            label = {"bitbrat": "bitbrat probe stream", "floor": "bare loop"}.get(name, name)
            figures.grow("Time of the calls of a poll", "ms", label, sources, middle(result, "span"))
            if name != "floor":
                figures.grow("Time of the whole process of a poll", "ms", label, sources, middle(result, "wall"))


def span(journal):
    """The calls of one program: from the arrival of the first until the response of the last was due."""
    entries = [entry for entry in journal["recent"] if "/__sim" not in entry["path"]]
    if not entries:
        raise lib.BenchError("the program made no call to the simulator")
    if len(entries) < journal["total"]:
        raise lib.BenchError(f"{journal['total']} calls are more than the simulator's journal holds; set a smaller BENCH_SOURCES")
    times = [datetime.datetime.fromisoformat(entry["at"].replace("Z", "+00:00")) for entry in entries]
    return {
        "requests": entries,
        "calls": len(entries),
        "in_flight": journal["peak_in_flight"],
        "span": (max(times) - min(times)).total_seconds() * 1000 + LATENCY,
    }


def measured(command, environment, folder, body=None):
    """Runs a program to its end: wall and processor time, and its peak memory where GNU time is installed."""
    gnu = ["/usr/bin/time", "-f", "\n%U %S %M"] if os.access("/usr/bin/time", os.X_OK) else []
    begun = time.perf_counter()
    done = subprocess.run([*gnu, *map(str, command)], env=environment, cwd=folder, input=body, capture_output=True, check=False)
    wall = (time.perf_counter() - begun) * 1000
    if done.returncode not in (0, 3, 4, 8):
        raise lib.BenchError(f"`{command[0]}` ended with {done.returncode}: {done.stderr[-600:].decode(errors='replace')}")
    user, system, memory = (done.stderr.split()[-3:] if gnu else (0, 0, 0))
    return {"wall": wall, "cpu": (float(user) + float(system)) * 1000, "memory": int(memory) / 1024, "out": done.stdout}


def bitbrat(sim, token, channels, **environment):
    with Cleanup() as cleanup:
        home = cleanup.directory()
        configuration(home, channels)
        return measured([BIN, "probe", "stream", "-q", "-o", "name"], bitbrat_environment(home, sim, token, **environment), home)


def peer(sim, token, channels, name, mode, **more):
    with Cleanup() as cleanup:
        home = cleanup.directory()
        result = measured(*peers.invocation(name, home, mode, sim, token, channels, **more))
        seen = json.loads(result["out"].decode().splitlines()[-1])
        live = len(range(0, len(channels), 20))
        if seen["live"] != live:
            raise lib.BenchError(f"{name} found {seen['live']} live channels of {live}")
        return result


async def replay(address, token, requests, in_flight):
    """The floor: the same requests, as many at a time, and nothing is done with the responses."""
    parts = urlsplit(address)
    waiting = list(reversed(requests))

    async def connection():
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port, limit=1 << 20)
        while waiting:
            entry = waiting.pop()
            if entry["method"] != "GET":
                continue
            query = "&".join(f"{quote(name)}={quote(value)}" for name, value in entry["query"])
            bearer = "OAuth" if entry["path"].startswith("/oauth2") else "Bearer"
            writer.write(
                f"GET {entry['path']}?{query} HTTP/1.1\r\nHost: {parts.netloc}\r\nClient-Id: app\r\n"
                f"Authorization: {bearer} {token['access_token']}\r\n\r\n".encode()
            )
            head = await reader.readuntil(b"\r\n\r\n")
            if b" 200 " not in head.split(b"\r\n", 1)[0]:
                raise lib.BenchError(f"the bare loop got {head[:60].decode(errors='replace')} for {entry['path']}")
            length = next((line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")), None)
            if length is None:
                raise lib.BenchError("the simulator sent a response without a length")
            await reader.readexactly(int(length.split(b":")[1]))
        writer.close()

    await asyncio.gather(*(connection() for _ in range(max(1, in_flight))))
