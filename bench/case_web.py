"""The dashboard's first paint in Chromium and the API's response times, at rest and with clients that do not read."""

import contextlib
import http.client
import json
import os
import shutil
import socket
import subprocess
import threading
import time
from urllib.parse import urlsplit

import lib
from lib import ROOT, WORK, BenchError, Cleanup, Daemon, Http, Sim, setting

IDLE, UNREAD, LOAD = 200, 50, 4
LIST = "/api/v1/sources?limit=100"


def run(figures):
    sources, seconds = setting("BENCH_SOURCES", 200, 1_000), setting("BENCH_SECONDS", 5, 30)
    with Cleanup() as cleanup:
        sim = Sim(cleanup)
        daemon = Daemon(cleanup, sim, sim.fill(sources), sim.login())

        def checked():
            known, live, waiting = daemon.metrics("bitbrat_sources", "bitbrat_sources_live", "bitbrat_observations_waiting")
            return known >= sources and live > 0 and waiting == 0

        lib.until("the first checks", checked, 300, every=0.5)
        first_paint(figures, cleanup, daemon, sources)
        api(figures, cleanup, daemon, sources, seconds)


def install_browser():
    """The driver that scripts/browser.sh uses, below target/bench/browser. Returns its directory."""
    browser = os.environ.get("CHROMIUM", "/usr/bin/chromium")
    if not os.access(browser, os.X_OK):
        raise lib.Skipped(f"there is no Chromium at {browser} (apt-get install chromium, or CHROMIUM=path)")
    if not (shutil.which("node") and shutil.which("npm")):
        raise lib.Skipped("node and npm are needed")
    home, wanted = WORK / "browser", ROOT / "tests" / "browser" / "package.json"
    home.mkdir(parents=True, exist_ok=True)
    installed = home / "package.json"
    if not ((home / "node_modules").is_dir() and installed.exists() and installed.read_bytes() == wanted.read_bytes()):
        shutil.copy(wanted, installed)
        command = ["npm", "install", "--ignore-scripts", "--no-audit", "--no-fund", "--no-package-lock", "--loglevel=error"]
        done = subprocess.run(command, cwd=home, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            installed.unlink()
            raise lib.Skipped(f"npm could not install playwright-core: {done.stderr.strip()[-200:]}")
    shutil.copy(ROOT / "bench" / "web.mjs", home / "web.mjs")
    return home, browser


def bare_server(cleanup, body, kind):
    """The floor: Node's own server with the same bytes, and nothing to do for them."""
    if not shutil.which("node"):
        return None
    folder = cleanup.directory()
    (folder / "body").write_bytes(body)
    out = open(folder / "port", "w+b")
    cleanup.callback(out.close)
    cleanup.process(["node", ROOT / "bench" / "web.mjs", "serve", folder / "body", kind], stdin=subprocess.PIPE, stdout=out)
    port = lib.until("the bare server", lambda: (folder / "port").read_text(encoding="utf-8").strip(), 30)
    return f"127.0.0.1:{port}"


def first_paint(figures, cleanup, daemon, sources):
    try:
        home, browser = install_browser()
    except lib.Skipped as reason:
        figures.note(f"first paint is not measured: {reason}")
        return
    floor = bare_server(cleanup, b"<!doctype html><title>floor</title><p>one paragraph", "text/html")
    urls = [f"http://{daemon.address}/", f"http://{floor}/"]
    rounds = setting("BENCH_RUNS", 5, 30)
    command = ["node", "web.mjs", "paint", browser, str(rounds), *urls]
    done = subprocess.run(command, cwd=home, capture_output=True, text=True, timeout=600, check=False)
    if done.returncode != 0:
        raise BenchError(f"Chromium could not be driven: {done.stderr.strip()[-400:]}")
    own, bare = json.loads(done.stdout)
    for share in (50, 90):
        what = f"first paint, {sources:,} sources, p{share}"
        figures.add(what, lib.percentile(own, share), "ms", "one paragraph", lib.percentile(bare, share))


def api(figures, cleanup, daemon, sources, seconds):
    _, one_body = daemon.http.request("GET", f"/api/v1/sources/twitch:{lib.FIRST}")
    _, list_body = daemon.http.request("GET", LIST)
    servers = {
        f"/api/v1/sources/ID of {sources:,}": (f"/api/v1/sources/twitch:{lib.FIRST}", bare_server(cleanup, one_body, "application/json")),
        f"{LIST} of {sources:,}": (LIST, bare_server(cleanup, list_body, "application/json")),
    }
    quiet = {}
    for what, (path, floor) in servers.items():
        quiet[what] = load(daemon.address, path, 1, seconds)
        bare = load(floor, path, 1, seconds)[0] if floor else None
        for share in (50, 99):
            reference = lib.percentile(bare, share) if bare else None
            figures.add(f"{what}, p{share}", lib.percentile(quiet[what][0], share), "ms", "bare Node server", reference)
    under_load(figures, daemon, servers, seconds)


def under_load(figures, daemon, servers, seconds):
    what, (path, _) = next(iter(servers.items()))
    calm, _ = load(daemon.address, path, LOAD, seconds)
    before = daemon.usage.memory()
    with contextlib.ExitStack() as clients:
        crowd(clients, daemon.address)
        during, refused = load(daemon.address, path, LOAD, seconds)
        most = daemon.usage.memory()
        alive = Http(daemon.address).request("GET", "/livez")[0]
    lib.until("the daemon to answer again", lambda: Http(daemon.address).request("GET", "/livez")[0] == 200, 60)
    time.sleep(2)
    after = daemon.usage.memory()
    figures.add(f"{what}, p99 under load with {IDLE} idle and {UNREAD} unread", lib.percentile(during, 99), "ms", "load without them", lib.percentile(calm, 99))
    figures.add(f"responses with {IDLE} idle and {UNREAD} unread", len(during) / seconds, "/s", "load without them", len(calm) / seconds)
    figures.add("resident memory with them", most, "MiB", "before them", before)
    figures.add("resident memory after them", after, "MiB", "before them", before)
    figures.note(f"load is {LOAD} connections that send one request after the other for {seconds} s; {refused} connections were closed meanwhile; /livez was answered with {alive}")


def crowd(clients, address):
    """Connections that send nothing, and connections that request a large response or a stream and never read it."""
    parts = urlsplit(f"http://{address}")
    for number in range(IDLE + UNREAD):
        client = socket.socket()
        clients.callback(client.close)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        client.settimeout(10)
        client.connect((parts.hostname, parts.port))
        if number >= IDLE:
            path = "/api/v1/events" if number % 5 == 0 else "/api/v1/sources?limit=1000"
            with contextlib.suppress(OSError):
                client.sendall(f"GET {path} HTTP/1.1\r\nHost: {address}\r\n\r\n".encode())


def load(address, path, connections, seconds):
    """Response times in milliseconds, and how often a connection was closed between two requests."""
    times, closed, lock = [], [0], threading.Lock()
    end = time.monotonic() + seconds
    problems = []

    def work():
        mine, connection = [], None
        while time.monotonic() < end:
            begun = time.perf_counter()
            try:
                if connection is None:
                    connection = http.client.HTTPConnection(address, timeout=30)
                    connection.connect()
                    connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                connection.request("GET", path)
                answer = connection.getresponse()
                answer.read()
            except (OSError, http.client.HTTPException):
                with lock:
                    closed[0] += 1
                connection.close()
                connection = None
                continue
            if answer.status != 200:
                problems.append(answer.status)
                break
            mine.append((time.perf_counter() - begun) * 1000)
        with lock:
            times.extend(mine)
        if connection:
            connection.close()

    workers = [threading.Thread(target=work) for _ in range(connections)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    if problems or not times:
        raise BenchError(f"GET {path} on {address} was answered with {problems[:3] or 'nothing'}")
    return times, closed[0]
