"""The programs in `bench/peers/`, written with client libraries of others: installed once below target/bench/peers/."""

import json
import os
import shutil
import subprocess

from lib import PEERS, ROOT, BenchError, bare_environment, until

SOURCE = ROOT / "bench" / "peers"
NAMES = ["twurple", "pyTwitchAPI"]


def available(figures):
    """The peers that are installed, after an attempt to install them. What is missing is noted beside the figures."""
    names = []
    for name, install in (("twurple", install_node), ("pyTwitchAPI", install_python)):
        reason = "BENCH_PEERS=0" if os.environ.get("BENCH_PEERS") == "0" else install()
        if reason:
            figures.note(f"{name} is not measured: {reason}")
        else:
            names.append(name)
    return names


def unchanged(name):
    installed = PEERS / name
    return installed.exists() and installed.read_bytes() == (SOURCE / name).read_bytes()


def attempt(what, *commands):
    PEERS.mkdir(parents=True, exist_ok=True)
    for command in commands:
        done = subprocess.run(command, cwd=PEERS, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            return f"{what} could not install it ({(done.stderr or done.stdout).strip().splitlines()[-1:]}); is its registry reachable?"
    return None


def install_node():
    if not (shutil.which("node") and shutil.which("npm")):
        return "it needs node and npm"
    PEERS.mkdir(parents=True, exist_ok=True)
    if not (unchanged("package.json") and (PEERS / "node_modules").is_dir()):
        shutil.copy(SOURCE / "package.json", PEERS / "package.json")
        reason = attempt("npm", ["npm", "install", "--ignore-scripts", "--no-audit", "--no-fund", "--no-package-lock", "--loglevel=error"])
        if reason:
            (PEERS / "package.json").unlink()
            return reason
    # Node finds libraries beside the program.
    shutil.copy(SOURCE / "twurple.mjs", PEERS / "twurple.mjs")
    return None


def install_python():
    if unchanged("requirements.txt"):
        return None
    python = os.environ.get("BENCH_PYTHON", "python3")
    pip = ["python/bin/pip", "install", "--quiet", "--disable-pip-version-check", "-r", str(SOURCE / "requirements.txt")]
    reason = attempt("pip", [python, "-m", "venv", "python"], pip)
    if not reason:
        shutil.copy(SOURCE / "requirements.txt", PEERS / "requirements.txt")
    return reason


def invocation(name, home, mode, sim, token, channels, **more):
    """The command, environment and directory of a peer. Its settings are a file in `home`."""
    settings = {
        "mode": mode,
        "address": sim.address,
        "clientId": more.pop("client", "app"),
        "clientSecret": "hush-secret",
        "token": token,
        "channels": channels,
    } | more
    path = home / "settings.json"
    path.write_text(json.dumps(settings), encoding="utf-8")
    environment = bare_environment(home)
    if "emulator" in more:
        environment["FIRESTORE_EMULATOR_HOST"] = more["emulator"]
    if name == "twurple":
        return ["node", PEERS / "twurple.mjs", path], environment, PEERS
    return [PEERS / "python" / "bin" / "python", SOURCE / "pytwitchapi.py", path], environment, home


def start(cleanup, name, mode, sim, token, channels, **more):
    """Starts a peer that runs until its standard input ends, and waits until it is ready."""
    home = cleanup.directory()
    command, environment, folder = invocation(name, home, mode, sim, token, channels, **more)
    out, log = home / "out", home / "log"
    with open(out, "wb") as stdout, open(log, "wb") as stderr:
        child = cleanup.process(command, env=environment, cwd=folder, stdin=subprocess.PIPE, stdout=stdout, stderr=stderr)

    def ready():
        if child.poll() is not None:
            raise BenchError(f"{name} ended with {child.returncode}: {log.read_text(errors='replace')[-600:]}")
        return out.read_bytes().startswith(b"ready")

    until(f"{name} to be ready", ready, 120)
    return child
