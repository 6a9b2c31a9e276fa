"""From an event on the simulated Twitch's websocket to the stored document, beside a bare client and client libraries.

Every program has channels and an application of its own, and gets one event in turn, so that none of them works on the event
of another one. SQLite is read through a second connection; Firestore's emulator reports the time of a commit itself.
"""

import json
import os
import queue
import threading
import time

import lib
import peers
from firestore import Documents, seconds
from lib import BenchError, Cleanup, Daemon, Http, Sim, WebSocket, setting

# As many as an account may listen to without the broadcasters' consent: two subscriptions each, ten in all.
CHANNELS = 5
WARM = 2 * CHANNELS
SCHEDULE = '[schedule]\nstream = "0 0 * * * *"\nviewers = "off"\n'


class Bare:
    """The floor: a socket that only reads, and one that sends a single write for each event."""

    def __init__(self, sim, token, client, channels, documents=None):
        self.times = queue.Queue()
        self.documents = documents
        self.socket = WebSocket(f"{sim.address.replace('http', 'ws')}/ws")
        session = json.loads(self.socket.read())["payload"]["session"]["id"]
        http = Http(sim.address)
        for channel in channels:
            for kind in ("stream.online", "stream.offline"):
                body = {"type": kind, "version": "1", "condition": {"broadcaster_user_id": channel}, "transport": {"method": "websocket", "session_id": session}}
                headers = {"Authorization": f"Bearer {token['access_token']}", "Client-Id": client}
                status, answer = http.request("POST", "/helix/eventsub/subscriptions", body, headers)
                if status != 202:
                    raise BenchError(f"the bare client could not subscribe: {status} {answer[:200].decode(errors='replace')}")
        http.close()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        try:
            while True:
                frame = self.socket.read()
                if b'"notification"' not in frame:
                    continue
                if self.documents:
                    event = json.loads(frame)["payload"]
                    live = event["subscription"]["type"] == "stream.online"
                    committed = self.documents.write(event["event"]["broadcaster_user_id"], "ONLINE" if live else "OFFLINE")
                    self.times.put(committed)
                else:
                    self.times.put(time.time())
        except (EOFError, OSError):
            pass

    def stored(self, _channel, _live):
        return self.times.get(timeout=20)


class InFirestore:
    def __init__(self, documents):
        self.documents = documents

    def stored(self, channel, live):
        """The commit time of the document, which is read late enough to disturb no program."""
        wanted = "ONLINE" if live else "OFFLINE"
        end = time.monotonic() + 20
        while True:
            time.sleep(0.02)
            document = self.documents.read(channel)
            if document and document["fields"]["streamStatus"]["stringValue"] == wanted:
                return seconds(document["updateTime"])
            if time.monotonic() > end:
                raise BenchError(f"an event of channel {channel} was not stored within 20 s: {str(document)[:300]}")


class InSqlite:
    def __init__(self, database):
        self.database = database

    def stored(self, channel, live):
        wanted = '"streamStatus":"ONLINE"' if live else '"streamStatus":"OFFLINE"'
        end = time.monotonic() + 20
        while True:
            row = self.database.execute("SELECT document FROM sources WHERE id = ?", (f"twitch:{channel}",)).fetchone()
            if row and wanted in row[0]:
                return time.time()
            if time.monotonic() > end:
                raise BenchError(f"an event of channel {channel} was not stored within 20 s: {row}")
            time.sleep(0.0002)


def run(figures):
    events = setting("BENCH_EVENTS", 30, 1_000)
    emulator = os.environ.get("FIRESTORE_EMULATOR_HOST")
    with Cleanup() as cleanup:
        sim = Sim(cleanup)
        programs = start(cleanup, sim, emulator, figures)
        usage = {name: lib.Usage(child.pid) for name, (_, _, child) in programs.items() if child}
        before = {name: one.cpu() for name, one in usage.items()}
        taken = {name: [] for name in programs}
        names = list(programs)
        for turn in range(events + WARM):
            for name in names[turn % len(names) :] + names[: turn % len(names)]:
                program, channels, _ = programs[name]
                channel = channels[turn % CHANNELS]
                took = event(sim, program, channel, live=(turn // CHANNELS) % 2 == 0, stream=f"7{channel}{turn:05}")
                if turn >= WARM:
                    taken[name].append(took * 1000)
                # A pause of varying length, so that no rhythm of a program is met again and again.
                time.sleep((turn * 7_919 % 23_000) / 1_000_000)
        processor = {name: (one.cpu() - before[name]) * 1000 / (events + WARM) for name, one in usage.items()}
        memory = {name: one.memory() for name, one in usage.items()}
    report(figures, taken, processor, memory)


def event(sim, program, channel, live, stream):
    body = {"id": channel, "stream_id": stream, "lag_ms": 0} if live else {"id": channel}
    connection = sim.http.connection
    begun = time.time()
    # The response is read later: the event is on its way before it.
    connection.request("POST", f"/__sim/twitch/{'stream_up' if live else 'stream_down'}", json.dumps(body), {"Content-Type": "application/json"})
    try:
        return program.stored(channel, live) - begun
    except queue.Empty:
        raise BenchError(f"the bare client received no event of channel {channel} within 20 s") from None
    finally:
        connection.getresponse().read()


def start(cleanup, sim, emulator, figures):
    """Starts every program. Returns its reader, its channels and its process by name."""
    programs, group = {}, iter(range(100))
    project = f"bench-{os.getpid()}-{int(time.time())}"

    def prepare(name):
        number = next(group)
        channels = sim.fill((number + 1) * CHANNELS, live_every=0)[number * CHANNELS :]
        user = lib.BOT + 1 + number
        sim.command("channel", id=str(user), login=f"bot{number}")
        return channels, sim.login(f"{name}-app", user), f"{name}-app"

    def bitbrat(name, **environment):
        channels, token, client = prepare(name)
        daemon = Daemon(cleanup, sim, channels, token, SCHEDULE, client=client, **environment)
        return daemon, channels

    channels, token, client = prepare("floor")
    programs["floor"] = (Bare(sim, token, client, channels), channels, None)
    sqlite, channels = bitbrat("sqlite")
    settled(sqlite, sim, channels, 2)
    reader = InSqlite(sqlite.stored())
    programs["SQLite"] = (reader, channels, sqlite.child)
    if not emulator:
        figures.note("Firestore is not measured: FIRESTORE_EMULATOR_HOST is not set (scripts/services.sh up firestore)")
        return programs
    channels, token, client = prepare("commit")
    documents = Documents(emulator, f"{project}-commit")
    programs["commit"] = (Bare(sim, token, client, channels, documents), channels, None)
    firestore, channels = bitbrat("firestore", BITBRAT_STORE__URL=f"firestore:{project}-own", FIRESTORE_EMULATOR_HOST=emulator)
    settled(firestore, sim, channels, 4)
    programs["Firestore"] = (InFirestore(Documents(emulator, f"{project}-own")), channels, firestore.child)
    for name in peers.available(figures):
        channels, token, client = prepare(name)
        broadcasters = {channel: sim.login(client, channel, []) for channel in channels}
        its_project = f"{project}-{name.lower()}"
        child = peers.start(
            cleanup, name, "push", sim, token, channels, client=client, broadcasters=broadcasters, scopes=lib.SCOPES, project=its_project, emulator=emulator
        )
        programs[name] = (InFirestore(Documents(emulator, its_project)), channels, child)
    return programs


def settled(daemon, sim, channels, groups):
    """Waits until the daemon is subscribed and its first checks are stored."""
    until = lib.until
    wanted = groups * len(channels)
    until("the subscriptions", lambda: min(sim.subscriptions("stream.online"), sim.subscriptions("stream.offline")) >= wanted)

    def idle():
        sources, waiting = daemon.metrics("bitbrat_sources", "bitbrat_outbox_events")
        return sources >= len(channels) and waiting == 0

    until("the first checks", idle, every=0.2)
    time.sleep(1)


def report(figures, taken, processor, memory):
    at = {name: {share: lib.percentile(values, share) for share in (50, 90, 99)} for name, values in taken.items()}
    for share in (50, 99):
        figures.add(f"event to SQLite document, p{share}", at["SQLite"][share], "ms", "bare socket", at["floor"][share])
    if "Firestore" in at:
        for share in (50, 90, 99):
            for name, label in (("floor", "bare socket"), ("commit", "bare socket and one REST write"), *((name, name) for name in peers.NAMES if name in at)):
                figures.add(f"event to Firestore document, p{share}", at["Firestore"][share], "ms", label, at[name][share])
        for name in peers.NAMES:
            if name in at:
                figures.add("Firestore: processor time per event", processor["Firestore"], "ms", name, processor[name])
                figures.add("Firestore: resident memory", memory["Firestore"], "MiB", name, memory[name])
    figures.note(f"{len(taken['SQLite'])} events for each program after {WARM} unmeasured ones, in turn")
