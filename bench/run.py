"""Runs the cases of scripts/bench.sh, which prepares the program and the environment."""

import importlib
import os
import signal
import sys
import time

from figures import Figures
from lib import BIN, BenchError, Skipped, say

CASES = ["status", "poll", "push", "persist", "idle", "web", "join"]


def main():
    # What was started is ended on the way out.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    wanted = sys.argv[1:] or CASES
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
        figures.record["load"] = os.getloadavg()[0]
        figures.record["seconds"] = round(time.monotonic() - begun)
        figures.save()
    if not sys.argv[1:] and not failed:
        import page

        page.write(BIN)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
