"""Writes docs/benchmarks.md and its plots from the results of a run of all cases."""

import datetime
import json
import math
import os
import platform
import re
import subprocess
from pathlib import Path

import plot
from figures import number
from lib import ROOT, WORK, is_debug, say
from peers import SOURCE

TITLES = {
    "status": "Cold start: `sources status`",
    "poll": "Poll of many Twitch channels",
    "push": "Pushed event to stored document",
    "persist": "Bus to store",
    "idle": "`watch` at rest",
    "web": "Dashboard and API",
    "load": "Probes, events and writes beside a crowd",
    "join": "Merge of one observation",
}
METHODS = {
    "status": "The command is started again and again, in turn with `true` (the least that any process takes) and with the version output of another "
    "program. The sources are real: each was probed at a simulated Twitch before.",
    "poll": "Every response of the simulated Twitch is 50 ms late. The floor sends the same calls, as many at a time, and does nothing with the responses. "
    "The time of the calls is from the arrival of the first request to the response of the last, as the simulator's journal has it. The peers are "
    "`bench/peers/`: twurple and pyTwitchAPI as a bot author would use them. The last rows also write a document in Firestore's emulator for each channel; "
    "the peers write in bulk, and the floor only writes, the same documents and history entries as `bitbrat`, 250 of each at a time.",
    "push": "From the order to send an event until the document is stored. Each program has channels of its own and gets an event in turn. The floor is a "
    "bare socket that receives the event. SQLite is read over a second connection; for Firestore the emulator's commit time counts. The peers write one "
    "document, `bitbrat` also the entry of the history.",
    "persist": "`watch --role persist` reads from NATS JetStream. Each message starts or ends a stream, so each changes a document and adds an entry to its history. "
    "The floor on SQLite waits for the disk at each transaction, as `bitbrat` does for transitions.",
    "idle": "After the first checks are stored, for the given time, with the schedules as shipped. The peers read the streams of all channels once a minute, "
    "and nothing else; both run at the same time, after `watch`.",
    "web": "First contentful paint of a fresh context of headless Chromium. Response times are those of one kept connection; the floor is Node's own server "
    "with the same bytes. The last rows add clients that send nothing and clients that never read their responses.",
    "load": "200 connections that send nothing, 50 that request a large response or a stream and never read it, and wrk with eight connections that ask for "
    "a list over and over. Meanwhile channels start and end streams, one at a time, as in the case of pushed events. wrk takes all processor time that "
    "it gets, so on a small machine some of the difference is its own.",
    "join": "One new observation merged into a document with evidence of every kind, and its status derived.",
}
BEGIN = "<!-- figures: written by scripts/bench.sh -->"
INTRODUCTION = """# Benchmarks

`scripts/bench.sh` measures all of this, each figure beside a floor or a program of others that was measured in the same run; the ratio is what can be
compared between machines. `scripts/bench.sh NAME` measures one case and prints it; without a name all cases run, and this page is written; `scripts/bench.sh page`
writes it from the last figures of each case. Everything runs on loopback against simulated platforms, and needs no credentials.

| variable | means |
|---|---|
| `BENCH_FULL=1` | the sizes of this page; without it the sizes are small, for a trial |
| `BENCH_SOURCES`, `BENCH_SECONDS`, `BENCH_RUNS`, `BENCH_ROUNDS`, `BENCH_EVENTS`, `BENCH_MESSAGES` | one size, instead of the usual one |
| `BENCH_BIN=PATH` | measures this program and builds nothing (leaves out `join`) |
| `BENCH_PEERS=0` | without the peers, which are installed from the npm and Python registries below `target/bench/` |
| `BENCH_PAGE=PATH` | writes the page there |

This page contains only figures of release builds.

"""


def write(program):
    """The page of the repository is for release builds; a debug build writes one below target/bench/ to read through."""
    results = {name: load(name) for name in TITLES}
    debug = is_debug(program) or any(record["debug"] for record in results.values() if record)
    target = Path(os.environ.get("BENCH_PAGE") or (WORK / "benchmarks.md" if debug else ROOT / "docs" / "benchmarks.md"))
    if debug and target.resolve() == (ROOT / "docs" / "benchmarks.md").resolve():
        say("bench: a debug build writes no figures into docs/benchmarks.md; build with --release")
        return
    images = target.parent / "images"
    images.mkdir(parents=True, exist_ok=True)
    target.write_text(compose(machine(program, debug), results, images), encoding="utf-8")
    say(f"bench: wrote {target}")


def compose(head, results, images):
    sections = (section(name, results.get(name), images) for name in TITLES)
    return INTRODUCTION + BEGIN + "\n\n" + head + "".join(sections).rstrip() + "\n"


def load(name):
    path = WORK / "results" / f"{name}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def machine(program, debug):
    memory = Path("/proc/meminfo").read_text(encoding="utf-8").split(maxsplit=2)[1]
    model = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(encoding="utf-8"), re.M)
    version = subprocess.run([program, "--version"], capture_output=True, text=True, check=False).stdout.strip()
    libraries = json.loads((SOURCE / "package.json").read_text(encoding="utf-8"))["dependencies"]
    requirements = [line for line in (SOURCE / "requirements.txt").read_text(encoding="utf-8").split("\n") if "==" in line]
    peers = [f"{name} {version}" for name, version in libraries.items()] + [line.replace("==", " ") for line in requirements]
    rows = [
        ("date", datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d")),
        ("program", f"{version}, {'DEBUG build: no figure below counts' if debug else 'release build'}, {Path(program).stat().st_size / 1048576:.1f} MiB"),
        ("peers", ", ".join(peers)),
        ("machine", f"{os.cpu_count()} cores ({model[1].strip() if model else platform.machine()}), {math.ceil(int(memory) / 1048576)} GiB, {platform.system()} {platform.release().split('-')[0]}"),
    ]
    return "".join(["| | |\n|---|---|\n", *(f"| {name} | {value} |\n" for name, value in rows), "\n"])


def section(name, record, images):
    text = f"## {TITLES[name]}\n\n{METHODS[name]}\n\n"
    if not record:
        return text + f"`scripts/bench.sh {name}`: no figures of a release build are recorded yet.\n\n"
    text += f"`{record['command']}`, {record['at']}, load {record['load']:.1f} at the end{'' if record['full'] else ', small sizes for a trial'}.\n\n"
    if record["rows"]:
        text += "| | bitbrat | beside | | ratio |\n|---|---:|---|---:|---:|\n"
    for row in record["rows"]:
        ratio = f"{row['ratio']:.2f}" if row["ratio"] is not None else ""
        beside = f"{number(row['reference_value'])} {row['unit']}" if row["reference"] else ""
        text += f"| {row['what'].strip()} | {number(row['value'])} {row['unit']} | {row['reference'] or ''} | {beside} | {ratio} |\n"
    text += "\n" if record["rows"] else ""
    for title in dict.fromkeys(point["title"] for point in record["growth"]):
        points = [point for point in record["growth"] if point["title"] == title]
        file = f"bench-{re.sub('[^a-z]+', '-', title.lower())}.svg"
        (images / file).write_text(plot.growth(title, points), encoding="utf-8")
        text += f"![{title}, by number of sources](images/{file})\n\n"
    for note in record["notes"]:
        text += f"- {note if note.startswith('`') else note[:1].upper() + note[1:]}.\n"
    return text.rstrip() + "\n\n"
