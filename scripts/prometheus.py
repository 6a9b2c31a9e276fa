"""Scrapes the demo with a real Prometheus and runs every query of the dashboard; scripts/prometheus.sh calls it.

Arguments: the program, the directory of prometheus and promtool, and the directory `contrib`.
"""

import contextlib
import http.server
import json
import os
import pathlib
import re
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.parse
import urllib.request

TEXT = "text/plain;version=0.0.4"
DEADLINE_S = 50


def step(text):
    print(f"ok  {text}", flush=True)


def fetch(url, accept="*/*"):
    request = urllib.request.Request(url, headers={"Accept": accept})
    with urllib.request.urlopen(request, timeout=10) as response:
        return response.headers["Content-Type"], response.read().decode()


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def wait_for(what, condition):
    """Returns the first true result of `condition`."""
    until = time.monotonic() + DEADLINE_S
    reason = ""
    while time.monotonic() < until:
        try:
            found = condition()
            if found:
                return found
        except (OSError, ValueError) as error:
            reason = f": {error}"
        time.sleep(0.2)
    raise SystemExit(f"FAILED  waited {DEADLINE_S} s for {what}{reason}")


@contextlib.contextmanager
def running(command, log, env=None, cwd=None):
    """Runs a program for as long as the context lasts."""
    with open(log, "w") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env=env, cwd=cwd)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def serve_text(metrics):
    """Serves the same metrics in the text format only: not every Prometheus can be told which format to ask for."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            kind, body = fetch(metrics, TEXT)
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.end_headers()
            # Prometheus may have given up meanwhile.
            with contextlib.suppress(BrokenPipeError):
                self.wfile.write(body.encode())

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server.server_address[1]


def configure(path, contrib, open_metrics, text):
    rules = (contrib / "prometheus/rules.yml").resolve()
    path.write_text(
        f"""global: {{ scrape_interval: 3s, scrape_timeout: 3s }}
rule_files: ["{rules}"]
scrape_configs:
  - job_name: bitbrat
    static_configs: [{{ targets: ["127.0.0.1:{open_metrics}"] }}]
  - job_name: text
    static_configs: [{{ targets: ["127.0.0.1:{text}"] }}]
"""
    )


def check_targets(api):
    """Waits until both formats were scraped, and requires that both have the same series."""

    def scraped():
        targets = json.loads(fetch(f"{api}/targets")[1])["data"]["activeTargets"]
        # A busy machine may be too slow for a scrape; the next one counts.
        errors = [target["lastError"] for target in targets if "deadline exceeded" not in target["lastError"]]
        errors = [error for error in errors if error]
        if errors:
            raise SystemExit(f"FAILED  the scrape failed: {errors}")
        return len(targets) == 2 and all(target["health"] == "up" for target in targets)

    wait_for("both scrapes", scraped)
    names = lambda job: {  # noqa: E731
        sample["metric"].get("__name__")
        for sample in query(api, '{job="%s"}' % job)
    }
    wait_for("the same metrics in both formats", lambda: names("bitbrat") and names("bitbrat") == names("text"))
    step("Prometheus scrapes OpenMetrics and text without an error, and finds the same metrics in both")


def query(api, expression):
    encoded = urllib.parse.urlencode({"query": expression})
    try:
        answer = json.loads(fetch(f"{api}/query?{encoded}")[1])
    except urllib.error.HTTPError as error:
        raise SystemExit(f"FAILED  {expression}: {error.read().decode()}") from None
    return answer["data"]["result"]


def expressions(dashboard):
    for panel in dashboard["panels"]:
        for target in panel.get("targets", []):
            expression = target["expr"].replace("$__rate_interval", "5m")
            for variable in dashboard["templating"]["list"]:
                expression = expression.replace("$" + variable["name"], ".*")
            yield panel["title"], expression


def check_dashboard(api, contrib, metrics):
    dashboard = json.loads((contrib / "grafana/bitbrat.json").read_text())
    count = 0
    for title, expression in expressions(dashboard):
        wait_for(f"data of `{title}`: {expression}", lambda expression=expression: query(api, expression))
        count += 1
    used = set()
    for path in ["grafana/bitbrat.json", "prometheus/rules.yml"]:
        text = (contrib / path).read_text()
        used |= set(re.findall(r"\b(?:bitbrat|process)_[a-z_]+", text))

    def complete():
        missing = used - set(re.findall(r"^([a-z_]+)", fetch(metrics)[1], re.M))
        if missing:
            raise ValueError(f"not in /metrics: {sorted(missing)}")
        return True

    wait_for("every metric that the dashboard and the rules use", complete)
    step(f"{count} queries of the dashboard return data, and all {len(used)} metrics exist")


def check_rules(api):
    def evaluated():
        groups = json.loads(fetch(f"{api}/rules")[1])["data"]["groups"]
        rules = [rule for group in groups for rule in group["rules"]]
        broken = [rule["name"] for rule in rules if rule["health"] == "err"]
        if broken:
            raise SystemExit(f"FAILED  rules with errors: {broken}")
        return len(rules)

    step(f"Prometheus has loaded {wait_for('the rules', evaluated)} alert rules")


def main():
    bitbrat, programs, contrib = sys.argv[1], pathlib.Path(sys.argv[2]), pathlib.Path(sys.argv[3])
    with contextlib.ExitStack() as stack:
        work = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory()))
        log = work / "bitbrat.log"
        command = [bitbrat, "--demo", "--set", "web.listen=127.0.0.1:0", "--set", "log.format=text", "watch"]
        # Nothing of a configuration that happens to be here.
        env = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ}
        stack.enter_context(running(command, log, env=env, cwd=work))
        address = wait_for("the web server", lambda: re.search(r"http://(127\.0\.0\.1:\d+)/", log.read_text()))
        metrics = f"http://{address[1]}/metrics"
        wait_for("the first answers of the platforms", lambda: "bitbrat_token_state" in fetch(metrics)[1])
        kind, text = fetch(metrics, TEXT)
        assert kind.startswith("text/plain; version=0.0.4"), kind
        subprocess.run([programs / "promtool", "check", "metrics"], input=text, text=True, check=True)
        series = sum(1 for line in text.splitlines() if line and not line.startswith("#"))
        step(f"promtool accepts the text format ({series} series)")
        config, port = work / "prometheus.yml", free_port()
        configure(config, contrib, address[1].split(":")[1], serve_text(metrics))
        subprocess.run([programs / "promtool", "check", "config", config], check=True, stdout=subprocess.DEVNULL)
        command = [
            programs / "prometheus",
            f"--config.file={config}",
            f"--storage.tsdb.path={work}/data",
            f"--web.listen-address=127.0.0.1:{port}",
        ]
        stack.enter_context(running(command, work / "prometheus.log"))
        api = f"http://127.0.0.1:{port}/api/v1"
        wait_for("Prometheus", lambda: fetch(f"http://127.0.0.1:{port}/-/ready"))
        check_targets(api)
        check_dashboard(api, contrib, metrics)
        check_rules(api)


main()
