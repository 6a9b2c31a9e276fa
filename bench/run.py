"""Runs the cases of scripts/bench.sh, which prepares the program and the environment."""

import importlib
import os
import signal
import sys
import time

import page
from figures import Figures
from lib import BIN, BenchError, Skipped, is_debug, say

CASES = ["status", "poll", "push", "persist", "idle", "web", "load", "join"]


def main():
    # What was started is ended on the way out.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    wanted = [name for name in sys.argv[1:] if name != "page"] if sys.argv[1:] else CASES
    failed = False
    for name in wanted:
        begun = time.monotonic()
        figures = Figures(name, f"scripts/bench.sh {name}")
        try:
            importlib.import_module(f"case_{name}").run(figures)
        except Skipped as reason:
            figures.note(f"not measured: {reason}")
        except (BenchError, OSError, EOFError) as error:
            say(f"bench: {name}: {error}")
            failed = True
            continue
        figures.record |= {
            "load": os.getloadavg()[0],
            "seconds": round(time.monotonic() - begun),
            "debug": is_debug(BIN),
            "full": os.environ.get("BENCH_FULL") == "1",
        }
        figures.save()
    if not failed and (not sys.argv[1:] or "page" in sys.argv[1:]):
        page.write(BIN)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
