"""What the cases share: the simulator, the daemon, figures of processes, and small HTTP, WebSocket and NATS clients.

Standard library only. Everything listens on free ports of the loopback interface, and `Cleanup` ends what was started.
"""

import base64
import contextlib
import http.client
import json
import math
import os
import shutil
import signal
import socket
import sqlite3
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from urllib.parse import urlsplit

ROOT = Path(__file__).resolve().parent.parent
WORK = Path(os.environ.get("BENCH_WORK", ROOT / "target" / "bench"))
PEERS = WORK / "peers"
BIN = os.environ.get("BENCH_BIN", "")
FIRST = 1_000_001
BOT = 900_100
SCOPES = ["user:read:chat", "user:bot", "user:read:moderated_channels"]


class BenchError(Exception):
    """A case that cannot be measured; the text says what was attempted, why it failed and what to do."""


class Skipped(Exception):
    """A part that this machine cannot run; the text says what is missing."""


def setting(name, usual, published):
    """A size: the variable where it is set, `published` for the figures of the page (BENCH_FULL=1), `usual` for a trial."""
    text = os.environ.get(name, "")
    if not text:
        return published if os.environ.get("BENCH_FULL") == "1" else usual
    if not text.isdigit() or int(text) == 0:
        raise BenchError(f"{name} is `{text}`; give a whole number above 0")
    return int(text)


def say(text):
    print(text, file=sys.stderr, flush=True)


def percentile(values, share):
    """The value below which `share` percent of the values lie (nearest rank)."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * share / 100) - 1)]


def until(what, condition, seconds=300, every=0.05):
    end = time.monotonic() + seconds
    while True:
        found = condition()
        if found:
            return found
        if time.monotonic() > end:
            raise BenchError(f"waited {seconds} s for {what}, which did not happen; run the case again on an idle machine")
        time.sleep(every)


def is_debug(program):
    """Only builds with debug assertions read this variable, so only they contain its name."""
    return b"BITBRAT_TEST_FAULT" in Path(program).read_bytes()


class Cleanup(contextlib.ExitStack):
    """Ends processes and removes directories, the newest first."""

    def directory(self):
        path = Path(tempfile.mkdtemp(prefix="bitbrat-bench-"))
        self.callback(shutil.rmtree, path, ignore_errors=True)
        return path

    def process(self, command, **options):
        child = subprocess.Popen([str(part) for part in command], **options)
        self.callback(end, child)
        return child


def end(child):
    if child.poll() is None:
        child.send_signal(signal.SIGTERM)
        try:
            child.wait(20)
        except subprocess.TimeoutExpired:
            child.kill()
    child.wait()
    for pipe in (child.stdin, child.stdout, child.stderr):
        if pipe:
            with contextlib.suppress(OSError):
                pipe.close()


class Http:
    """One kept connection; a request that finds it closed is sent once more."""

    def __init__(self, address):
        self.netloc = urlsplit(address if "//" in address else f"http://{address}").netloc
        self.connection = None

    def request(self, method, path, body=None, headers=None):
        data = json.dumps(body) if isinstance(body, (dict, list)) else body
        sent = {"Content-Type": "application/json"} | (headers or {}) if data is not None else headers or {}
        for attempt in (1, 2):
            try:
                if self.connection is None:
                    self.connection = http.client.HTTPConnection(self.netloc, timeout=120)
                    self.connection.connect()
                    self.connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self.connection.request(method, path, data, sent)
                answer = self.connection.getresponse()
                return answer.status, answer.read()
            except (http.client.HTTPException, OSError):
                self.close()
                if attempt == 2:
                    raise
        raise AssertionError

    def json(self, method, path, body=None):
        status, data = self.request(method, path, body)
        if status >= 400:
            raise BenchError(f"{method} {path} was answered with {status}: {data[:200].decode(errors='replace')}")
        return json.loads(data) if data else None

    def close(self):
        if self.connection:
            self.connection.close()
            self.connection = None


class Sim:
    """`bitbrat sim` with an empty world, in a process of its own."""

    def __init__(self, cleanup):
        folder = cleanup.directory()
        out = open(folder / "sim.json", "w+", encoding="utf-8")
        cleanup.callback(out.close)
        command = [BIN, "sim", "--port", "0", "--empty", "--still", "-o", "json"]
        self.child = cleanup.process(command, cwd=folder, env=bare_environment(folder), stdout=out, stderr=subprocess.DEVNULL)
        text = until("the simulator", lambda: self._report(folder / "sim.json"), 60)
        self.address = next(item["address"] for item in text["items"] if item["platform"] == "twitch")
        self.http = Http(self.address)
        self.channels = []
        self.command("channel", id=str(BOT), login="bitbrat_bot")

    @staticmethod
    def _report(path):
        text = path.read_text(encoding="utf-8")
        # The report ends with the first closing brace that begins a line.
        return json.loads(text) if text.endswith("\n}\n") else None

    def command(self, name, **fields):
        return self.http.json("POST", f"/__sim/twitch/{name}", fields)

    def fill(self, count, live_every=20):
        """Adds channels up to `count`, one in `live_every` of them live (0: none), and returns their ids."""
        for number in range(len(self.channels), count):
            channel = str(FIRST + number)
            self.command("channel", id=channel, login=f"rat{channel}")
            if live_every and number % live_every == 0:
                self.command("stream_up", id=channel, lag_ms=0)
            self.channels.append(channel)
        return self.channels[:count]

    def login(self, client="app", user=BOT, scopes=SCOPES):
        """Registers an application and returns a token pair of `user` for it."""
        self.command("client", client_id=client, client_secret="hush-secret")
        return self.command("token", client_id=client, user_id=str(user), scopes=scopes)

    def delay(self, milliseconds):
        self.http.json("POST", "/__sim/faults", {"delay_ms": milliseconds})

    def no_delay(self):
        self.http.request("DELETE", "/__sim/faults")

    def refill(self):
        """Lets the rate limit's bucket fill, and clears the journal."""
        self.http.json("POST", "/__sim/clock", {"advance_ms": 70_000})
        self.http.request("DELETE", "/__sim/requests")

    def journal(self):
        return self.http.json("GET", "/__sim/requests")

    def subscriptions(self, kind):
        """How many subscriptions of a type there are, over all applications."""
        _, data = self.http.request("GET", "/__sim/twitch/sockets")
        return data.count(f'"{kind}"'.encode())


def bare_environment(home, **more):
    """The environment of a measured program: nothing of the caller's configuration reaches it."""
    return {"HOME": str(home), "PATH": os.environ.get("PATH", ""), "NO_COLOR": "1", "BITBRAT_STATE_DIR": f"{home}/state"} | more


def bitbrat_environment(home, sim, token, client="app", **more):
    base = sim.address
    return bare_environment(
        home,
        BITBRAT_TWITCH__AUTH_URL=f"{base}/oauth2",
        BITBRAT_TWITCH__HELIX_URL=f"{base}/helix",
        BITBRAT_TWITCH__EVENTSUB_REST_URL=f"{base}/helix",
        BITBRAT_TWITCH__EVENTSUB_WS_URL=f"{base.replace('http', 'ws')}/ws",
        BITBRAT_TWITCH__CLIENT_ID=client,
        BITBRAT_TWITCH__CLIENT_SECRET="hush-secret",
        BITBRAT_TWITCH__BOT_ACCESS_TOKEN=token["access_token"],
        BITBRAT_TWITCH__BOT_REFRESH_TOKEN=token["refresh_token"],
        **more,
    )


def configuration(home, channels, more=""):
    # Short, as a file may have 4 MiB; before any table, as it is a key of the whole file.
    sources = "source = [" + ",".join(f'{{platform="twitch",id="{channel}"}}' for channel in channels) + "]\n"
    (home / "bitbrat.toml").write_text(sources + more, encoding="utf-8")


class Usage:
    """Processor time and memory of a process, from Linux's /proc."""

    def __init__(self, pid):
        self.pid = pid

    def cpu(self):
        """Processor time used so far, in seconds."""
        fields = Path(f"/proc/{self.pid}/stat").read_text(encoding="utf-8").rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def memory(self, name="VmRSS"):
        """A line of /proc/PID/status in MiB: VmRSS now, VmHWM the most ever."""
        for line in Path(f"/proc/{self.pid}/status").read_text(encoding="utf-8").splitlines():
            if line.startswith(f"{name}:"):
                return int(line.split()[1]) / 1024
        return 0.0


class Daemon:
    """`bitbrat watch` with its pages on a free port."""

    def __init__(self, cleanup, sim, channels, token, more="", arguments=(), client="app", **environment):
        self.home = cleanup.directory()
        configuration(self.home, channels, f'{more}[web]\nlisten = "127.0.0.1:0"\n')
        self.log = self.home / "log"
        with open(self.log, "wb") as log:
            self.child = cleanup.process(
                [BIN, "watch", *arguments],
                cwd=self.home,
                env=bitbrat_environment(self.home, sim, token, client, **environment),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=log,
            )
        self.usage = Usage(self.child.pid)
        self.address = until("the daemon's pages", self._address, 120)
        self.http = Http(self.address)

    def _address(self):
        text = self.log.read_text(encoding="utf-8", errors="replace")
        if self.child.poll() is not None:
            raise BenchError(f"`bitbrat watch` ended with {self.child.returncode}: {text[-600:]}")
        _, found, rest = text.partition("Serving pages at http://")
        return rest.split("/", 1)[0].split()[0] if found and "\n" in rest else None

    def metrics(self, *names):
        """The sum over its labels of each metric, in one request."""
        _, data = self.http.request("GET", "/metrics")
        sums = dict.fromkeys(names, 0.0)
        for line in data.decode().splitlines():
            name = line.partition(" ")[0].partition("{")[0]
            if name in sums:
                with contextlib.suppress(ValueError):
                    sums[name] += float(line.rsplit(" ", 1)[1])
        missing = [name for name in names if f"# TYPE {name} " not in data.decode()]
        if missing:
            raise BenchError(f"/metrics has no {', '.join(missing)}")
        return [sums[name] for name in names]

    def stored(self):
        return sqlite3.connect(f"file:{self.home}/state/bitbrat.db?mode=ro", uri=True)


class WebSocket:
    """A bare client: it connects and reads text frames, and answers pings."""

    def __init__(self, address):
        parts = urlsplit(address)
        self.socket = socket.create_connection((parts.hostname, parts.port), 30)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        key = base64.b64encode(os.urandom(16)).decode()
        self.socket.sendall(
            f"GET {parts.path or '/'} HTTP/1.1\r\nHost: {parts.netloc}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n".encode()
        )
        self.buffer = b""
        while b"\r\n\r\n" not in self.buffer:
            self._more()
        head, self.buffer = self.buffer.split(b"\r\n\r\n", 1)
        if b" 101 " not in head.split(b"\r\n", 1)[0]:
            raise BenchError(f"no websocket at {address}: {head[:80].decode(errors='replace')}")

    def _more(self):
        data = self.socket.recv(65_536)
        if not data:
            raise EOFError("the websocket was closed")
        self.buffer += data

    def _take(self, count):
        while len(self.buffer) < count:
            self._more()
        data, self.buffer = self.buffer[:count], self.buffer[count:]
        return data

    def read(self):
        """Returns the next text frame."""
        while True:
            first, second = self._take(2)
            size = second & 127
            if size == 126:
                (size,) = struct.unpack(">H", self._take(2))
            elif size == 127:
                (size,) = struct.unpack(">Q", self._take(8))
            data = self._take(size)
            if first & 15 == 1:
                return data
            if first & 15 == 9:
                mask = os.urandom(4)
                masked = bytes(byte ^ mask[index % 4] for index, byte in enumerate(data))
                self.socket.sendall(bytes([0x8A, 0x80 | len(data)]) + mask + masked)
            if first & 15 == 8:
                raise EOFError("the websocket was closed")

    def close(self):
        self.socket.close()


class Nats:
    """The part of NATS that the case `persist` needs: requests, and publishing with headers to JetStream."""

    def __init__(self, url):
        parts = urlsplit(url)
        self.socket = socket.create_connection((parts.hostname, parts.port), 30)
        self.file = self.socket.makefile("rb")
        self.file.readline()
        self.inbox = f"_INBOX.bench{os.getpid()}"
        self.socket.sendall(
            b'CONNECT {"verbose":false,"pedantic":false,"headers":true,"lang":"bench","version":"1","protocol":1}\r\n'
            + f"SUB {self.inbox}.* 1\r\n".encode()
        )

    def _message(self):
        while True:
            line = self.file.readline().split()
            if not line:
                raise EOFError("NATS closed the connection")
            if line[0] == b"PING":
                self.socket.sendall(b"PONG\r\n")
            elif line[0] in (b"MSG", b"HMSG"):
                size = int(line[-1])
                head = int(line[-2]) if line[0] == b"HMSG" else 0
                data = self.file.read(size + 2)[:-2]
                return data[:head], data[head:]
            elif line[0] == b"-ERR":
                raise BenchError(f"NATS: {b' '.join(line).decode()}")

    def request(self, subject, body):
        data = json.dumps(body).encode() if body is not None else b""
        self.socket.sendall(f"PUB {subject} {self.inbox}.r {len(data)}\r\n".encode() + data + b"\r\n")
        head, answer = self._message()
        if b" 503" in head:
            raise BenchError(f"NATS: {subject} has no responder; start the server with JetStream (-js)")
        answer = json.loads(answer)
        if "error" in answer:
            raise BenchError(f"NATS: {subject}: {answer['error'].get('description')}")
        return answer

    def publish(self, subject, messages, window=256):
        """Publishes (headers, body) pairs and waits for JetStream's acknowledgement of each, `window` at a time."""
        for start in range(0, len(messages), window):
            chunk = messages[start : start + window]
            out = []
            for headers, body in chunk:
                head = b"NATS/1.0\r\n" + b"".join(f"{name}: {value}\r\n".encode() for name, value in headers) + b"\r\n"
                out.append(f"HPUB {subject} {self.inbox}.a {len(head)} {len(head) + len(body)}\r\n".encode() + head + body + b"\r\n")
            self.socket.sendall(b"".join(out))
            for _ in chunk:
                _, answer = self._message()
                if b'"error"' in answer or b'"duplicate"' in answer:
                    raise BenchError(f"JetStream did not accept a message: {answer.decode(errors='replace')}")

    def close(self):
        self.file.close()
        self.socket.close()
