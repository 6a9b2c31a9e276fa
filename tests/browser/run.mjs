// Drives the dashboard with a headless browser against simulated platforms. Started by scripts/browser.sh, which also starts the
// simulator; the daemon is started, stopped and started again here.
//
//   node run.mjs BITBRAT ENV_FILE SIM_PORT PICTURES

import { spawn, spawnSync } from "node:child_process";
import { createRequire } from "node:module";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";

const [bitbrat, envFile, simPort, pictures] = process.argv.slice(2);
const require = createRequire(join(process.cwd(), "run.mjs"));
const { chromium } = require("playwright-core");
const axe = readFileSync(require.resolve("axe-core/axe.min.js"), "utf8");

const home = mkdtempSync(join(tmpdir(), "bitbrat-browser-"));
const env = { ...process.env, HOME: home, XDG_CONFIG_HOME: home, XDG_STATE_HOME: home, XDG_DATA_HOME: home, NO_COLOR: "1" };
for (const line of readFileSync(envFile, "utf8").split("\n")) {
  const [, name, value] = /^([A-Z_]+)=(.*)$/.exec(line) ?? [];
  if (name) env[name] = value.replace(/^"|"$/g, "");
}

const freePort = () => new Promise((resolve) => {
  const server = createServer().listen(0, "127.0.0.1", () => {
    const { port } = server.address();
    server.close(() => resolve(port));
  });
});
const port = await freePort();
const origin = `http://127.0.0.1:${port}`;
env.BITBRAT_WEB__LISTEN = `127.0.0.1:${port}`;
env.BITBRAT_WEB__PUBLIC = "twitch:777001 twitch:777002 kick:*";

const run = (args, input) => {
  const done = spawnSync(bitbrat, args, { cwd: home, env, input, encoding: "utf8" });
  if (done.status !== 0) throw new Error(`bitbrat ${args.join(" ")} failed: ${done.stderr}`);
  return done.stdout;
};
const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
const until = async (what, test, ms = 60_000) => {
  const end = Date.now() + ms;
  for (;;) {
    const found = await Promise.resolve().then(test).catch(() => null);
    if (found) return found;
    if (Date.now() > end) throw new Error(`waited ${ms} ms for ${what}`);
    await sleep(25);
  }
};

// A week of one source, so that the pictures of its page show something: recorded changes, and when daemons ran.
const DAY = 86_400_000;
const past = () => {
  const now = Date.now();
  const changes = [["status", "CONNECTED", -7 * DAY], ["auth", "VALID", -7 * DAY]];
  for (let day = 7; day > 0; day -= 1) {
    const start = now - day * DAY + 3_600_000 * (2 + (day % 3));
    changes.push(["stream", "ONLINE", start - now, `old${day}`], ["stream", "OFFLINE", start + 3_600_000 * (3 + (day % 4)) - now, `old${day}`]);
  }
  for (const [hours, minutes, to] of [[120, 25, "DISCONNECTED"], [76, 140, "ERROR"], [31, 8, "DISCONNECTED"], [9, 22, "DISCONNECTED"]]) {
    changes.push(["status", to, -hours * 3_600_000], ["status", "CONNECTED", -hours * 3_600_000 + minutes * 60_000]);
  }
  changes.push(["auth", "EXPIRED", -76 * 3_600_000], ["auth", "VALID", -74 * 3_600_000], ["stream", "UNKNOWN", -15 * 3_600_000], ["stream", "OFFLINE", -14 * 3_600_000]);
  const entries = changes.map(([facet, to, at, streamId], index) => {
    const time = new Date(now + at).toISOString();
    const rule = { status: "status.proven", auth: "auth.validated", stream: to === "ONLINE" ? "stream.seen-in-poll" : "stream.absent-from-poll" }[facet];
    return { id: `past-${index}`, recordedAt: time, facet, to, at: time, rule, ...(streamId ? { streamId } : {}) };
  });
  const program = `
import glob, json, sqlite3, sys
home, entries, runs = sys.argv[1], json.loads(sys.argv[2]), sys.argv[3]
store = sqlite3.connect(glob.glob(home + "/**/bitbrat.db", recursive=True)[0])
for entry in entries:
    at = entry.pop("ms")
    store.execute("INSERT INTO history (source, id, at, recorded_at, entry) VALUES (?, ?, ?, ?, ?)", ("twitch:777001", entry["id"], at, at, json.dumps(entry)))
store.commit()
open(glob.glob(home + "/**/runs.json", recursive=True)[0], "w").write(runs)
`;
  const runs = [[-8, -4.2], [-4.05, -0.9], [-0.86, 0]].map(([from, until]) => ({ from: new Date(now + from * DAY).toISOString(), until: new Date(now + until * DAY).toISOString() }));
  const dated = entries.map((entry) => ({ ...entry, ms: Date.parse(entry.at) }));
  const done = spawnSync("python3", ["-c", program, home, JSON.stringify(dated), JSON.stringify(runs)], { encoding: "utf8" });
  if (done.status !== 0) throw new Error(done.stderr);
};

let daemon;
const start = async () => {
  daemon = spawn(bitbrat, ["watch"], { cwd: home, env, stdio: ["ignore", "ignore", "pipe"] });
  daemon.log = "";
  daemon.stderr.on("data", (text) => { daemon.log += text; });
  await until("the daemon", async () => (await fetch(`${origin}/healthz`)).ok);
};
const stop = async () => {
  daemon.kill("SIGTERM");
  await until("the end of the daemon", () => daemon.exitCode !== null || daemon.signalCode !== null);
};
const control = (command, body) => fetch(`http://127.0.0.1:${simPort}/__sim/twitch/${command}`, {
  method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body),
}).then(async (answer) => {
  if (!answer.ok) throw new Error(`${command}: ${answer.status} ${await answer.text()}`);
  return answer.status === 204 ? null : answer.json();
});

const problems = [];
let expectsFailures = false;
const open = async (browser, options) => {
  const context = await browser.newContext({ viewport: { width: 1280, height: 900 }, ...options });
  const page = await context.newPage();
  page.on("console", (message) => {
    if (["error", "warning"].includes(message.type()) && !expectsFailures) problems.push(`console: ${message.text()}`);
  });
  page.on("pageerror", (error) => problems.push(`page: ${error.message}`));
  page.on("request", (request) => {
    if (!request.url().startsWith(`${origin}/`)) problems.push(`foreign request: ${request.url()}`);
  });
  return page;
};
const accessible = async (page, name) => {
  await page.evaluate(axe);
  const { violations } = await page.evaluate(() => globalThis.axe.run(document, {
    resultTypes: ["violations"], runOnly: ["wcag2a", "wcag2aa", "wcag21aa", "wcag22aa"],
  }));
  for (const found of violations) {
    const nodes = found.nodes.slice(0, 3).map((node) => `${node.target} ${node.failureSummary}`).join("; ");
    problems.push(`axe, ${name}: ${found.impact} ${found.id}: ${nodes}`);
  }
};
const fits = async (page, name) => {
  const [needed, there] = await page.evaluate(() => [document.documentElement.scrollWidth, innerWidth]);
  if (needed > there) problems.push(`${name} is ${needed} pixels wide on a screen of ${there}`);
};
// Checks pages in both color schemes on a large and a small screen. A page is its name, its path and the status of its response.
const onEveryScreen = async (pages, further = async () => {}) => {
  for (const colorScheme of ["light", "dark"]) {
    for (const [device, viewport] of [["desktop", { width: 1280, height: 900 }], ["phone", { width: 390, height: 844 }]]) {
      for (const [name, path, status] of pages) {
        expectsFailures = status !== 200;
        const other = await open(browser, { viewport, colorScheme, reducedMotion: "reduce" });
        const found = (await other.goto(origin + path)).status();
        if (found !== status) problems.push(`${name} has the status ${found}`);
        if (await other.locator("#state").count()) await until("updates", async () => (await text(other, "#state")) === "live");
        await fits(other, `${name} on a ${device}`);
        await accessible(other, `${name}, ${colorScheme}, ${device}`);
        await further(other, name, device, colorScheme);
        await other.context().close();
        expectsFailures = false;
      }
    }
  }
};
const step = async (name, work) => {
  const from = Date.now();
  await work();
  console.log(`OK ${name} (${Date.now() - from} ms)`);
};

const row = (id) => `#s-twitch-${id}`;
const text = (page, selector) => page.locator(selector).first().innerText();

const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium", headless: true, timeout: 120_000,
  args: ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"],
});
let failed = false;
try {
  await start();
  const page = await open(browser);
  page.setDefaultTimeout(60_000);
  await until("the first round of checks", async () => {
    const { items } = await (await fetch(`${origin}/api/v1/sources`)).json();
    return items.length >= 19 && items.filter((item) => item.statusAgeMs !== undefined).length >= 17;
  });
  await stop();
  past();
  await start();
  await page.goto(`${origin}/`);
  await until("updates", async () => (await text(page, "#state")) === "live");

  await step("the API answers what the commands print, for every source", async () => {
    const { items } = await (await fetch(`${origin}/api/v1/sources`)).json();
    const same = (answer) => JSON.stringify([answer.key, answer.question, answer.answer, answer.missing, answer.notCovered, answer.fix, answer.rule]);
    for (const { key } of items) {
      for (const [path, args] of [["is-live", ["is-live", key]], ["can/send-chat", ["can", key, "send-chat"]]]) {
        // The exit code is part of the answer.
        const printed = JSON.parse(spawnSync(bitbrat, [...args, "-o", "json", "-q"], { cwd: home, env, encoding: "utf8" }).stdout).items[0];
        const served = (await (await fetch(`${origin}/api/v1/sources/${key}/${path}`)).json()).items[0];
        if (same(printed) !== same(served)) problems.push(`${path} of ${key}: ${same(printed)} and ${same(served)}`);
      }
    }
  });

  await step("a stream that goes live changes its row within a second, without a reload", async () => {
    await page.evaluate(() => { globalThis.untouched = true; });
    await page.locator(`${row(777002)} a`).focus();
    await until("the row", async () => /offline/i.test(await text(page, row(777002))));
    run(["sim", "trigger", "stream.online", "twitch:777002", "-f", "viewers=40", "--port", simPort]);
    const from = Date.now();
    await until("the row", async () => /online/i.test(await text(page, row(777002))), 20_000);
    const took = Date.now() - from;
    if (took > 1000) problems.push(`the row changed after ${took} ms`);
    const kept = await page.evaluate(() => [globalThis.untouched, document.activeElement.dataset.k]);
    if (!kept[0] || kept[1] !== "twitch:777002") problems.push(`the page was loaded again, or the focus was lost: ${kept}`);
  });

  await step("a revoked account is on top with the next step, and a login heals it", async () => {
    await control("disconnect", { user_id: "777100" });
    await until("the cause", async () => /twitch\/bot .*(revoked|rejected|expired)/s.test(await text(page, "#attention li")), 90_000);
    const advice = await text(page, "#attention li code");
    if (!advice.startsWith("bitbrat auth login twitch")) problems.push(`the advice is ${advice}`);
    if (!/^\(\d+\) bitbrat$/.test(await page.title())) problems.push(`the title is ${await page.title()}`);
    await page.screenshot({ path: join(pictures, "attention.png") });
    const scopes = ["chat:read", "user:read:chat", "user:bot", "user:write:chat", "user:read:moderated_channels", "moderator:read:chatters"];
    const token = await control("token", { client_id: env.TWITCH_CLIENT_ID, user_id: "777100", scopes });
    run(["auth", "login", "twitch", "--with-token"], `${token.access_token}\n${token.refresh_token}\n`);
    await until("the recovery", async () => !/twitch\/bot/.test(await text(page, "#attention")), 90_000);
  });

  await step("keys move between rows, search and help", async () => {
    await page.keyboard.press("Escape");
    await page.evaluate(() => document.activeElement.blur());
    await page.keyboard.press("j");
    const first = await page.evaluate(() => document.activeElement.dataset.k);
    await page.keyboard.press("j");
    const second = await page.evaluate(() => document.activeElement.dataset.k);
    if (!first || !second || first === second) problems.push(`j moved from ${first} to ${second}`);
    await page.keyboard.press("/");
    if ((await page.evaluate(() => document.activeElement.id)) !== "q") problems.push("/ does not lead to the search");
    await page.keyboard.press("Escape");
    await page.keyboard.press("?");
    if (!(await page.locator("#help").isVisible())) problems.push("? does not open the help");
    await page.keyboard.press("Escape");
  });

  await step("the page recovers when the daemon is restarted", async () => {
    expectsFailures = true;
    await stop();
    await until("the state", async () => /reconnecting|no data/.test(await text(page, "#state")), 5_000);
    await start();
    const from = Date.now();
    await until("updates", async () => (await text(page, "#state")) === "live", 30_000);
    const took = Date.now() - from;
    if (took > 5_000) problems.push(`the page recovered after ${took} ms`);
    expectsFailures = false;
  });

  await until("the checks after the restart", async () => {
    const { items } = await (await fetch(`${origin}/api/v1/sources?limit=1000`)).json();
    return items.filter((item) => item.status === "CONNECTED" && item.stale.length === 0).length >= 16;
  });
  await step("pages are accessible and fit their screens", async () => {
    await onEveryScreen([
      ["index", "/", 200], ["index, filtered", "/?show=failing&sort=name", 200], ["index, nothing found", "/?q=nobody", 200],
      ["source", "/sources/twitch:777001", 200], ["source, kick", "/sources/kick:888001", 200], ["source, discord", "/sources/discord:888001", 200],
      ["public", "/public", 200], ["debug", "/_debug", 200],
      ["error, no such source", "/sources/twitch:1", 404], ["error, no such path", "/nothing", 404], ["error, no source", "/sources/myspace:1", 400],
    ], async (other, name, device, colorScheme) => {
      if (name === "index") {
        await other.keyboard.press("?");
        await accessible(other, `help, ${colorScheme}, ${device}`);
        await other.keyboard.press("Escape");
      }
      if (["index", "source"].includes(name)) {
        if (name === "source" && device === "desktop") await other.setViewportSize({ width: 1280, height: 1400 });
        await other.screenshot({ path: join(pictures, `${name}-${device}-${colorScheme}.png`) });
      }
    });
    const narrow = await open(browser, { viewport: { width: 320, height: 700 } });
    for (const path of ["/", "/sources/twitch:777001"]) {
      await narrow.goto(origin + path);
      await fits(narrow, `${path} at 320 pixels`);
    }
    await narrow.context().close();
  });

  await step("everything is there without a script", async () => {
    const plain = await open(browser, { javaScriptEnabled: false });
    await plain.goto(`${origin}/?show=live&sort=-viewers`);
    const first = await text(plain, ".sources tbody tr");
    if (!first.includes("twitch:777001")) problems.push(`the first row is ${first}`);
    await plain.fill("#q", "quiet");
    await plain.click("button[type=submit]");
    if ((await plain.locator(".sources tbody tr").count()) !== 1) problems.push("the search does not find one source");
    await plain.context().close();
  });

  await step("the forms of the login are accessible, and a logout leads every page to one", async () => {
    await page.context().close();
    await stop();
    env.BITBRAT_WEB_TOKEN = "a-token-of-this-test";
    await start();
    const submit = async (other, token) => {
      await other.fill("#token", token);
      await Promise.all([other.waitForNavigation(), other.click("button[type=submit]")]);
    };
    await onEveryScreen([["login", "/login", 200], ["login, before a page", "/sources/twitch:777001", 401]], async (other, name, device, colorScheme) => {
      // Five wrong tokens a minute are answered, and then refused.
      if (name !== "login") return;
      expectsFailures = true;
      await submit(other, "wrong");
      await accessible(other, `login, refused, ${colorScheme}, ${device}`);
    });
    expectsFailures = true;
    const other = await open(browser);
    await other.goto(`${origin}/sources/twitch:777001`);
    await submit(other, env.BITBRAT_WEB_TOKEN);
    const tab = await other.context().newPage();
    await tab.goto(`${origin}/`);
    await until("updates", async () => (await text(tab, "#state")) === "live");
    const answer = await other.evaluate(() => fetch("../logout", { method: "POST", redirect: "manual" }).then((found) => found.type));
    if (answer !== "opaqueredirect") problems.push(`the logout was answered with ${answer}`);
    await until("the form in the other tab", async () => tab.locator("#token").isVisible(), 10_000);
    for (let attempt = 0; attempt < 6; attempt += 1) await submit(tab, "wrong");
    if (!/Too many/.test(await text(tab, ".bad"))) problems.push(`after many wrong tokens the form says ${await text(tab, ".bad")}`);
    for (const colorScheme of ["light", "dark"]) {
      await tab.emulateMedia({ colorScheme });
      await accessible(tab, `login, too many wrong tokens, ${colorScheme}`);
    }
    await other.context().close();
  });
} catch (error) {
  failed = true;
  console.log(`FAIL ${error.stack}`);
  console.log(daemon?.log.split("\n").slice(-15).join("\n"));
} finally {
  await browser.close();
  if (daemon && daemon.exitCode === null && daemon.signalCode === null) await stop().catch(() => daemon.kill("SIGKILL"));
  writeFileSync(join(pictures, "watch.log"), daemon?.log ?? "");
  rmSync(home, { recursive: true, force: true });
}
for (const problem of new Set(problems)) console.log(`FAIL ${problem}`);
process.exit(failed || problems.length > 0 ? 1 : 0);
