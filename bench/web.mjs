// The browser and the bare server of `scripts/bench.sh web`.
//
//   node web.mjs serve FILE TYPE            serves FILE on every path of a free port, and prints the port
//   node web.mjs paint CHROMIUM ROUNDS URL… prints, as JSON, the first contentful paints of each URL in milliseconds

import { createRequire } from 'node:module';
import { createServer } from 'node:http';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';

const [mode, ...rest] = process.argv.slice(2);

function serve(file, type) {
  const body = readFileSync(file);
  const server = createServer((_, response) => {
    response.writeHead(200, { 'content-type': type, 'content-length': body.length });
    response.end(body);
  });
  server.listen(0, '127.0.0.1', () => console.log(server.address().port));
  process.stdin.on('end', () => process.exit(0)).resume();
}

/** Milliseconds from the start of the navigation to the first text or picture; every page has an empty cache. */
async function paint(browser, url) {
  const context = await browser.newContext({ viewport: { width: 1280, height: 800 } });
  const page = await context.newPage();
  await page.goto(url, { waitUntil: 'commit' });
  const time = await page.evaluate(() => new Promise((resolve) => {
    const found = (entries) => {
      const first = entries.find((entry) => entry.name === 'first-contentful-paint');
      if (first) resolve(first.startTime);
    };
    new PerformanceObserver((list) => found(list.getEntries())).observe({ type: 'paint', buffered: true });
  }));
  await context.close();
  return time;
}

async function paints(executablePath, rounds, urls) {
  const { chromium } = createRequire(join(process.cwd(), 'web.mjs'))('playwright-core');
  const browser = await chromium.launch({ executablePath, args: ['--no-sandbox', '--disable-gpu'] });
  const times = urls.map(() => []);
  for (let round = -1; round < Number(rounds); round += 1) {
    for (let index = 0; index < urls.length; index += 1) {
      const which = (index + round + urls.length) % urls.length;
      const time = await paint(browser, urls[which]);
      if (round >= 0) times[which].push(time);
    }
  }
  await browser.close();
  console.log(JSON.stringify(times));
}

if (mode === 'serve') serve(...rest);
else await paints(rest[0], rest[1], rest.slice(2));
