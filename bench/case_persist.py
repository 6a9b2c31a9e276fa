"""Messages a second from NATS to the store through `watch --role persist`, beside the store's own batched writes.

Each message is a stream that started or ended, so each is a transition: a changed document and an entry of its history. Measured
with as many sources as messages, where every message is a document of its own, and with a hundredth of them, where waiting
messages of one source are merged into one write.
"""

import json
import os
import sqlite3
import time
import uuid

import lib
from firestore import BATCH, Documents, batched_writes
from lib import BenchError, Cleanup, Daemon, Nats, Sim, setting


def run(figures):
    url, emulator = os.environ.get("BITBRAT_TEST_NATS_URL"), os.environ.get("FIRESTORE_EMULATOR_HOST")
    if not url:
        raise lib.Skipped("BITBRAT_TEST_NATS_URL is not set; start NATS with scripts/services.sh up nats")
    count = setting("BENCH_MESSAGES", 200, 2_000)
    with Cleanup() as cleanup:
        sim = Sim(cleanup)
        token = sim.login()
        stores = ["SQLite"]
        if emulator:
            stores.append("Firestore")
        else:
            figures.note("Firestore is not measured: FIRESTORE_EMULATOR_HOST is not set (scripts/services.sh up firestore)")
        for store in stores:
            floor = None
            for sources in (count, max(1, count // 100)):
                rate, processor, memory, sample = measure(sim, token, url, emulator, store, count, sources)
                if floor is None:
                    floor = batched(store, emulator, count, sample)
                shape = "one document each" if sources == count else f"merged, over {sources} source{'s' if sources > 1 else ''}"
                label = f"batched writes to {store}"
                figures.add(f"{count:,} messages to {store}, {shape}", rate, "messages/s", label, floor)
                figures.add(f"{store}, {shape}: processor time per message", processor, "ms")
                figures.add(f"{store}, {shape}: peak memory", memory, "MiB")
    figures.note("the floor writes the same documents and history entries, 250 of each in a transaction or commit; a ratio above 1 is faster than the floor")


def measure(sim, token, url, emulator, store, count, sources):
    unique = uuid.uuid4().hex[:12]
    prefix, project = f"bench{unique}.", f"bench-{unique}"
    with Cleanup() as cleanup:
        nats = Nats(url)
        cleanup.callback(nats.close)
        stream = f"BENCH{unique}"
        nats.request(f"$JS.API.STREAM.CREATE.{stream}", {"name": stream, "subjects": [f"{prefix}>"], "storage": "memory"})
        cleanup.callback(nats.request, f"$JS.API.STREAM.DELETE.{stream}", None)
        remote = {"BITBRAT_STORE__URL": f"firestore:{project}", "FIRESTORE_EMULATOR_HOST": emulator} if store == "Firestore" else {}
        arguments = ["--role", "persist,web"]
        daemon = Daemon(cleanup, sim, ["999"], token, "", arguments, BITBRAT_BUS__URL=url, BUS_PREFIX=prefix, **remote)
        consumer = f"$JS.API.CONSUMER.INFO.{stream}.{prefix.replace('.', '-')}internal-ingress-v1-bitbrat-persist-durable"
        subject = f"{prefix}internal.ingress.v1"

        def drained():
            info = nats.request(consumer, None)
            return info["num_pending"] == 0 and info["num_ack_pending"] == 0

        lib.until("the consumer", lambda: exists(nats, consumer), 60)
        nats.publish(subject, list(messages(50, 50, first=8_000_000)))
        lib.until("the first messages to be stored", drained, 60)
        prepared = list(messages(count, sources))
        before, begun = daemon.usage.cpu(), time.perf_counter()
        nats.publish(subject, prepared)
        lib.until("all messages to be stored", drained, 600, every=0.01)
        took = time.perf_counter() - begun
        processor = (daemon.usage.cpu() - before) * 1000 / count
        rounds = count // sources
        live = sources if rounds % 2 else 0
        sample = check(daemon, emulator, project, store, live)
        return count / took, processor, daemon.usage.memory("VmHWM"), sample


def exists(nats, consumer):
    try:
        return nats.request(consumer, None)
    except BenchError:
        return None


def messages(count, sources, first=2_000_000):
    """Headers and body of each event, as `watch --role ingest` sends them for a pushed start or end of a stream."""
    start = time.time() - 86_400
    for number in range(count):
        turn, source = divmod(number, sources)
        channel, stream = str(first + source), f"4{turn // 2:03}{source:06}"
        live = turn % 2 == 0
        began, now = stamp(start + turn // 2 * 120), stamp(start + turn // 2 * 120 + (0 if live else 60))
        kind = "stream.online" if live else "stream.offline"
        unique = str(uuid.uuid4())
        pushed = {"pushed": {"at": began, "startedAt": began}}
        transition = {"facet": "stream", "to": "ONLINE" if live else "OFFLINE", "at": now, "rule": "stream.pushed-start" if live else "stream.pushed-end", "streamId": stream}
        if turn:
            transition["from"] = "OFFLINE" if live else "ONLINE"
        body = {
            "v": "2",
            "type": f"system.{kind}",
            "correlationId": unique,
            "ingress": {"ingressAt": now, "source": "ingress.twitch.eventsub", "connector": "twitch", "channel": f"#rat{channel}"},
            "identity": {"external": {"id": channel, "platform": "twitch", "displayName": f"rat{channel}", "metadata": {"login": f"rat{channel}"}}},
            "egress": {"destination": "", "connector": "twitch", "channel": f"#rat{channel}"},
            "externalEvent": {"id": unique, "source": "twitch.eventsub", "kind": kind, "version": "1", "createdAt": now, "metadata": {"broadcasterId": channel}},
            "payload": {
                "platform": "twitch",
                "id": channel,
                "broadcasterId": channel,
                "streamId": stream,
                "type": "live" if live else None,
                "startedAt": began if live else None,
                "endedAt": None if live else now,
                "viewer_count": None if live else 0,
                "schemaVersion": 1,
                "evidence": {
                    "profile": {name: {"at": now, "value": f"rat{channel}"} for name in ("displayName", "login")},
                    "stream": {"streams": {stream: pushed if live else pushed | {"ends": [now]}}},
                },
                "transitions": [transition],
            },
            "routing": {"stage": "meta", "slip": [], "history": []},
        }
        headers = [("type", body["type"]), ("correlationId", unique), ("idempotencyKey", unique), ("Nats-Msg-Id", unique), ("source", "ingress.twitch.eventsub")]
        yield headers, json.dumps(body, separators=(",", ":")).encode()


def stamp(seconds):
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{int(seconds * 1000) % 1000:03}Z"


def check(daemon, emulator, project, store, live):
    """The number of live sources is what the messages say. Returns a document and an entry of its history, as they are stored."""
    if store == "SQLite":
        database = daemon.stored()
        rows = database.execute("SELECT document FROM sources WHERE id LIKE 'twitch:2%'").fetchall()
        found = sum('"streamStatus":"ONLINE"' in document for (document,) in rows)
        entry = database.execute("SELECT entry FROM history ORDER BY at DESC LIMIT 1").fetchone()
        sample = (rows[0][0], entry[0])
        database.close()
    else:
        documents = Documents(emulator, project)
        # The first fifty messages are of other sources, all of them live.
        found = documents.count("streamStatus", "ONLINE") - 50
        sample = documents.sample("2000000")
    if found != live:
        raise BenchError(f"{found} sources are stored as live in {store}, and {live} should be: the figures of this run mean nothing")
    return sample


def batched(store, emulator, count, sample):
    """The store's own rate: as many documents and entries as there were messages, in batches, in messages a second."""
    return batched_sqlite(count, sample) if store == "SQLite" else batched_writes(emulator, count, sample)


def batched_sqlite(count, sample):
    with Cleanup() as cleanup:
        database = sqlite3.connect(cleanup.directory() / "floor.db", isolation_level=None)
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = FULL")
        database.execute("CREATE TABLE sources (id TEXT PRIMARY KEY, document TEXT)")
        database.execute("CREATE TABLE history (source TEXT, id TEXT, entry TEXT, PRIMARY KEY (source, id))")
        begun = time.perf_counter()
        for start in range(0, count, BATCH):
            keys = [f"twitch:{number}" for number in range(start, min(start + BATCH, count))]
            database.execute("BEGIN IMMEDIATE")
            database.executemany("INSERT INTO sources VALUES (?, ?)", [(key, sample[0]) for key in keys])
            database.executemany("INSERT INTO history VALUES (?, 'first', ?)", [(key, sample[1]) for key in keys])
            database.execute("COMMIT")
        rate = count / (time.perf_counter() - begun)
        database.close()
        return rate
