// twurple and discord.js against a running simulator; see scripts/real-clients.sh.
//
// Usage: node clients.mjs NAME SIM.json. Prints one line and exits with 0 or 1.

import { readFileSync } from 'node:fs';

const [name, file] = process.argv.slice(2);
const sim = JSON.parse(readFileSync(file, 'utf8')).items;
const platform = (wanted) => sim.find((item) => item.platform === wanted);
const login = (account) => sim.flatMap((item) => item.logins).find((one) => one.account === account);

/** Causes an event in the simulator. */
async function trigger(address, event, source, fields = {}) {
  const answer = await fetch(`${address}/__sim/trigger`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ event, source, fields }),
  });
  if (!answer.ok) throw new Error(`trigger ${event}: ${answer.status} ${await answer.text()}`);
}

/** Waits until `condition` holds. */
async function until(what, condition) {
  for (let n = 0; n < 600; n += 1) {
    if (await condition()) return;
    await new Promise((done) => setTimeout(done, 50));
  }
  throw new Error(`never happened: ${what}`);
}

async function twurple() {
  const twitch = platform('twitch');
  // The library's own mock mode: it then asks at /auth, /mock and /eventsub of this port.
  process.env.TWURPLE_MOCK_API_PORT = new URL(twitch.address).port;
  const { ApiClient } = await import('@twurple/api');
  const { RefreshingAuthProvider } = await import('@twurple/auth');
  const { EventSubWsListener } = await import('@twurple/eventsub-ws');
  const authProvider = new RefreshingAuthProvider({
    clientId: twitch.environment.TWITCH_CLIENT_ID,
    clientSecret: twitch.environment.TWITCH_CLIENT_SECRET,
  });
  const add = async (account) => {
    const { accessToken, refreshToken, scopes } = login(account);
    const token = { accessToken, refreshToken, scope: scopes, expiresIn: 3600, obtainmentTimestamp: Date.now() };
    return authProvider.addUserForToken(token);
  };
  const bot = await add('twitch/bot');
  const broadcaster = '777005';
  await add(`twitch/broadcaster:${broadcaster}`);
  const apiClient = new ApiClient({ authProvider });
  const me = await apiClient.users.getUserById(bot);
  const streams = await apiClient.streams.getStreamsByUserIds(['777001', '777004', '777007']);
  if (streams.length !== 3) throw new Error(`read ${streams.length} streams, not 3`);

  const received = new Set();
  const subscribed = new Set();
  const listener = new EventSubWsListener({ apiClient, url: `${twitch.address.replace('http', 'ws')}/ws` });
  listener.onSubscriptionCreateSuccess((subscription) => subscribed.add(subscription.id));
  listener.onSubscriptionCreateFailure((subscription, error) => fail(error));
  listener.onChannelChatMessage('777002', bot, (event) => {
    if (event.messageText === 'hi Kappa' && event.chatterName === 'squeak') received.add('channel.chat.message');
  });
  listener.onStreamOffline(broadcaster, () => received.add('stream.offline'));
  listener.start();
  await until('both subscriptions', () => subscribed.size === 2);
  await trigger(twitch.address, 'channel.chat.message', 'twitch:777002', { text: 'hi Kappa' });
  await trigger(twitch.address, 'stream.offline', `twitch:${broadcaster}`);
  await until('both events', () => received.size === 2);
  listener.stop();
  await trigger(twitch.address, 'stream.online', `twitch:${broadcaster}`);
  return `logged in as ${me.displayName}, read ${streams.length} streams, received ${[...received].sort().join(', ')}`;
}

async function discordJs() {
  const discord = platform('discord');
  const { Client, Events, GatewayIntentBits: Intents } = await import('discord.js');
  const client = new Client({
    intents: [Intents.Guilds, Intents.GuildMembers, Intents.GuildMessages, Intents.MessageContent],
    rest: { api: `${discord.address}/api` },
  });
  client.on(Events.Error, fail);
  const contents = [];
  client.on(Events.MessageCreate, (message) => contents.push(message.content));
  const ready = new Promise((done) => client.once(Events.ClientReady, done));
  await client.login(login('discord/bot').accessToken);
  await ready;
  const application = await client.application.fetch();
  const guild = await client.guilds.fetch('888001');
  const members = await guild.members.fetch();
  const role = guild.roles.cache.find((one) => one.managed);
  if (role?.tags?.botId !== client.user.id) throw new Error('the role of the bot is not found by its tags');
  await trigger(discord.address, 'MESSAGE_CREATE', 'discord:888001', { content: 'hi from outside' });
  await until('the message', () => contents.includes('hi from outside'));
  await client.destroy();
  return `logged in as ${client.user.username} (owner ${application.owner.username}), read ${guild.name} with `
    + `${members.size} members, received MESSAGE_CREATE`;
}

const versions = { twurple: '@twurple/api', 'discord.js': 'discord.js' };

function fail(error) {
  console.log(`FAIL ${label()}: ${error?.stack ?? error}`.replaceAll('\n', ' | '));
  process.exit(1);
}

function label() {
  const path = new URL(`node_modules/${versions[name]}/package.json`, `file://${process.cwd()}/`);
  return `${name} ${JSON.parse(readFileSync(path, 'utf8')).version}`;
}

process.on('unhandledRejection', fail);
const run = { twurple, 'discord.js': discordJs }[name];
try {
  console.log(`OK   ${label()}: ${await run()}`);
  process.exit(0);
} catch (error) {
  fail(error);
}
