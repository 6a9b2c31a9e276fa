// What a bot author would write with twurple and Google's Firestore client. Started by scripts/bench.sh.
//
// Usage: node twurple.mjs SETTINGS.json, whose `mode` is
//   poll   read the streams of all channels once, print how many are live, and end
//   store  the same, and write a document for each channel
//   idle   the same every minute until standard input ends; prints `ready` after the first time
//   push   write a document for each pushed stream.online and stream.offline until standard input ends; prints `ready` when subscribed

import { readFileSync } from 'node:fs';

const settings = JSON.parse(readFileSync(process.argv[2], 'utf8'));
// The library's own mock mode: it then asks at /auth, /mock and /eventsub of this port.
process.env.TWURPLE_MOCK_API_PORT = new URL(settings.address).port;
const { ApiClient } = await import('@twurple/api');
const { RefreshingAuthProvider } = await import('@twurple/auth');

const authProvider = new RefreshingAuthProvider({ clientId: settings.clientId, clientSecret: settings.clientSecret });
const tokenData = (token) => ({
  accessToken: token.access_token,
  refreshToken: token.refresh_token,
  scope: settings.scopes ?? [],
  expiresIn: token.expires_in,
  obtainmentTimestamp: Date.now(),
});
const bot = await authProvider.addUserForToken(tokenData(settings.token));
const apiClient = new ApiClient({ authProvider });

async function poll() {
  const pages = [];
  for (let start = 0; start < settings.channels.length; start += 100) {
    const ids = settings.channels.slice(start, start + 100);
    pages.push(apiClient.asUser(bot, (client) => client.streams.getStreamsByUserIds(ids)));
  }
  return (await Promise.all(pages)).flat();
}

async function store(streams) {
  const { Firestore } = await import('@google-cloud/firestore');
  const firestore = new Firestore({ projectId: settings.project });
  const live = new Map(streams.map((stream) => [stream.userId, stream]));
  const writer = firestore.bulkWriter();
  for (const id of settings.channels) {
    const stream = live.get(id);
    const fields = { platform: 'twitch', id, streamStatus: stream ? 'ONLINE' : 'OFFLINE', lastStreamUpdate: new Date() };
    if (stream) Object.assign(fields, { title: stream.title, viewerCount: stream.viewers });
    writer.set(firestore.doc(`sources/twitch:${id}`), fields, { merge: true });
  }
  await writer.close();
}

async function push() {
  const { EventSubWsListener } = await import('@twurple/eventsub-ws');
  const { Firestore } = await import('@google-cloud/firestore');
  const sources = new Firestore({ projectId: settings.project }).collection('sources');
  const write = (id, fields) => sources.doc(`twitch:${id}`).set({ platform: 'twitch', id, ...fields }, { merge: true });
  // It subscribes with the token of each broadcaster.
  for (const id of settings.channels) await authProvider.addUser(id, tokenData(settings.broadcasters[id]));
  const listener = new EventSubWsListener({ apiClient, url: `${settings.address.replace('http', 'ws')}/ws` });
  let subscribed = 0;
  listener.onSubscriptionCreateSuccess(() => {
    subscribed += 1;
    if (subscribed === settings.channels.length * 2) console.log('ready');
  });
  listener.onSubscriptionCreateFailure((subscription, error) => { throw error; });
  for (const id of settings.channels) {
    listener.onStreamOnline(id, (event) => write(id, { streamStatus: 'ONLINE', streamId: event.id, lastStreamUpdate: event.startDate }));
    listener.onStreamOffline(id, () => write(id, { streamStatus: 'OFFLINE', lastStreamUpdate: new Date() }));
  }
  listener.start();
  // The client's first write loads and connects; no event pays for that.
  await sources.doc('warm').set({ streamStatus: 'UNKNOWN' });
}

process.on('unhandledRejection', (error) => { console.error(error); process.exit(1); });
if (settings.mode === 'poll' || settings.mode === 'store') {
  const streams = await poll();
  if (settings.mode === 'store') await store(streams);
  console.log(JSON.stringify({ live: streams.length }));
  process.exit(0);
}
if (settings.mode === 'push') await push();
if (settings.mode === 'idle') {
  let streams = await poll();
  setInterval(async () => { streams = await poll(); }, 60_000);
  console.log(`ready, ${streams.length} live`);
}
process.stdin.on('end', () => process.exit(0)).resume();
