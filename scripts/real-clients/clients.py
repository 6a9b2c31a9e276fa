"""pyTwitchAPI, TwitchIO, discord.py and kickcom.py against a running simulator; see scripts/real-clients.sh.

Usage: clients.py NAME SIM.json. Prints one line and exits with 0 or 1.
"""

import asyncio
import importlib.metadata
import json
import sys
import traceback
from urllib.parse import urlsplit

import aiohttp


class Sim:
    """The simulator, as `bitbrat sim -o json` describes it."""

    def __init__(self, path):
        with open(path, encoding="utf-8") as file:
            self.items = json.load(file)["items"]

    def address(self, platform):
        return next(item["address"] for item in self.items if item["platform"] == platform)

    def environment(self, name):
        return next(item["environment"][name] for item in self.items if name in item["environment"])

    def login(self, account):
        return next(one for item in self.items for one in item["logins"] if one["account"] == account)

    async def control(self, platform, path, body):
        url = f"{self.address(platform)}/__sim/{path}"
        async with aiohttp.ClientSession() as session, session.post(url, json=body) as answer:
            if answer.status >= 400:
                raise RuntimeError(f"{path}: {answer.status} {await answer.text()}")

    async def trigger(self, platform, event, source, **fields):
        await self.control(platform, "trigger", {"event": event, "source": source, "fields": fields})


async def py_twitch_api(sim):
    from twitchAPI.eventsub.websocket import EventSubWebsocket
    from twitchAPI.helper import first
    from twitchAPI.twitch import Twitch
    from twitchAPI.type import AuthScope

    base = sim.address("twitch")
    bot = sim.login("twitch/bot")
    twitch = await Twitch(
        sim.environment("TWITCH_CLIENT_ID"),
        sim.environment("TWITCH_CLIENT_SECRET"),
        base_url=f"{base}/helix/",
        auth_base_url=f"{base}/oauth2/",
    )
    scopes = [AuthScope(scope) for scope in bot["scopes"]]
    await twitch.set_user_authentication(bot["accessToken"], scopes, bot["refreshToken"])
    me = await first(twitch.get_users())
    streams = [stream async for stream in twitch.get_streams(user_id=["777001", "777004", "777007"])]
    assert len(streams) == 3, streams

    # Callbacks run in a loop of the library's own, in another thread.
    received = {}
    chatted, started = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    async def on_chat(data):
        received["channel.chat.message"] = data.event.message.text
        loop.call_soon_threadsafe(chatted.set)

    async def on_online(data):
        received["stream.online"] = data.event.broadcaster_user_login
        loop.call_soon_threadsafe(started.set)

    socket = EventSubWebsocket(
        twitch,
        connection_url=f"{base.replace('http', 'ws')}/ws",
        subscription_url=f"{base}/helix/",
    )
    socket.start()
    await socket.listen_channel_chat_message("777002", bot["userId"], on_chat)
    await socket.listen_stream_online("777006", on_online)
    await sim.trigger("twitch", "channel.chat.message", "twitch:777002", text="hi Kappa")
    await sim.trigger("twitch", "stream.online", "twitch:777006", viewers=5)
    await chatted.wait()
    await started.wait()
    await socket.stop()
    await twitch.close()
    await sim.trigger("twitch", "stream.offline", "twitch:777006")
    assert received == {"channel.chat.message": "hi Kappa", "stream.online": "cobaltlantern"}, received
    return f"logged in as {me.display_name}, read {len(streams)} streams, received {', '.join(sorted(received))}"


async def twitch_io(sim):
    import twitchio
    from twitchio import eventsub
    from twitchio.eventsub import websockets
    from twitchio.http import Route

    base = sim.address("twitch")
    # The library has no options for its addresses.
    Route.BASE = f"{base}/helix/"
    Route.ID_BASE = f"{base}/"
    websockets.WSS = f"{base.replace('http', 'ws')}/ws"
    bot = sim.login("twitch/bot")
    received, done = {}, asyncio.Event()

    class Bot(twitchio.Client):
        async def event_message(self, payload):
            received["channel.chat.message"] = payload.text
            if len(received) == 2:
                done.set()

        async def event_stream_online(self, payload):
            received["stream.online"] = payload.broadcaster.name
            if len(received) == 2:
                done.set()

    client = Bot(
        client_id=sim.environment("TWITCH_CLIENT_ID"),
        client_secret=sim.environment("TWITCH_CLIENT_SECRET"),
        bot_id=bot["userId"],
    )
    await client.login(load_tokens=False, save_tokens=False)
    validated = await client.add_token(bot["accessToken"], bot["refreshToken"])
    streams = [stream async for stream in client.fetch_streams(user_ids=[777001, 777004, 777007])]
    assert len(streams) == 3, streams
    chat = eventsub.ChatMessageSubscription(broadcaster_user_id="777002", user_id=bot["userId"])
    await client.subscribe_websocket(chat, as_bot=True)
    online = eventsub.StreamOnlineSubscription(broadcaster_user_id="777006")
    await client.subscribe_websocket(online, as_bot=True)
    await sim.trigger("twitch", "channel.chat.message", "twitch:777002", text="hi Kappa")
    await sim.trigger("twitch", "stream.online", "twitch:777006", viewers=5)
    await done.wait()
    await client.close(save_tokens=False)
    await sim.trigger("twitch", "stream.offline", "twitch:777006")
    assert received == {"channel.chat.message": "hi Kappa", "stream.online": "cobaltlantern"}, received
    return f"logged in as {validated.login}, read {len(streams)} streams, received {', '.join(sorted(received))}"


async def discord_py(sim):
    import discord
    import yarl
    from discord.gateway import DiscordWebSocket
    from discord.http import Route

    base = sim.address("discord")
    # The library has no options for its addresses.
    Route.BASE = f"{base}/api/v10"
    DiscordWebSocket.DEFAULT_GATEWAY = yarl.URL(base.replace("http", "ws"))
    intents = discord.Intents.default()
    intents.members = True
    intents.message_content = True
    client = discord.Client(intents=intents)
    ready, answered, contents = asyncio.Event(), asyncio.Event(), []

    @client.event
    async def on_ready():
        ready.set()

    @client.event
    async def on_message(message):
        contents.append(message.content)
        answered.set()

    await client.login(sim.login("discord/bot")["accessToken"])
    application = await client.application_info()
    running = asyncio.create_task(client.connect())
    await ready.wait()
    guild = await client.fetch_guild(888001)
    members = client.get_guild(888001).member_count
    assert client.get_guild(888001).self_role is not None, "the role of the bot is not found by its tags"
    await sim.trigger("discord", "MESSAGE_CREATE", "discord:888001", content="hi from outside")
    await answered.wait()
    assert contents == ["hi from outside"], contents
    await client.close()
    await running
    return (
        f"logged in as {client.user.name} (owner {application.owner.name}), read {guild.name} with {members} members, "
        "received MESSAGE_CREATE"
    )


async def kickcom_py(sim):
    import enum
    import os
    import tempfile

    from kickpy import KickClient, WebhookEvent
    from kickpy.webhooks.server import WebhookServer

    if sys.version_info < (3, 12):
        # The library looks values up with `in`, for which older Pythons accept members only.
        enum.EnumMeta.__contains__ = lambda kind, value: any(value in (one, one.value) for one in kind)
    # It keeps its token in the current folder.
    os.chdir(tempfile.mkdtemp())
    base = sim.address("kick")
    client = KickClient(sim.environment("KICK_CLIENT_ID"), sim.environment("KICK_CLIENT_SECRET"))
    await client.close()
    # The library has no options for its addresses.
    client.id_session = aiohttp.ClientSession(base_url=base)
    client.api_session = aiohttp.ClientSession(base_url=f"{base}/public/v1/")
    client.api_v2_session = aiohttp.ClientSession(base_url=f"{base}/public/v2/")
    channel = await client.fetch_channel(slug="marblefalcon")
    streams = await client.fetch_user_livestreams([888001, 888003])
    assert channel.stream.is_live and len(streams) == 2, (channel, streams)

    received = asyncio.Queue()
    server = WebhookServer(client, "/kick")
    server.dispatcher.listen(WebhookEvent.LIVESTREAM_STATUS_UPDATED, received.put_nowait)
    runner = aiohttp.web.AppRunner(server)
    await runner.setup()
    site = aiohttp.web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    await sim.control("kick", "kick/knobs", {"webhooks": {"drop": False}})
    await sim.control("kick", "kick/webhook", {"url": f"http://{host}:{port}/kick"})
    await client.subscribe_to_event(WebhookEvent.LIVESTREAM_STATUS_UPDATED, 888002)
    await sim.trigger("kick", "livestream.status.updated", "kick:888002")
    event = await received.get()
    assert event.is_live and event.broadcaster.channel_slug == "tinderboxtales", event
    await runner.cleanup()
    await client.close()
    return (
        f"logged in as the application, read {channel.slug} and {len(streams)} streams, "
        "received livestream.status.updated (signature verified)"
    )


CLIENTS = {
    "pyTwitchAPI": ("twitchAPI", py_twitch_api),
    "TwitchIO": ("twitchio", twitch_io),
    "discord.py": ("discord.py", discord_py),
    "kickcom.py": ("kickcom-py", kickcom_py),
}


def main():
    name, path = sys.argv[1:]
    package, run = CLIENTS[name]
    label = f"{name} {importlib.metadata.version(package)}"
    sim = Sim(path)
    for item in sim.items:
        assert urlsplit(item["address"]).hostname == "127.0.0.1", "the simulator is on loopback"
    try:
        print(f"OK   {label}: {asyncio.run(asyncio.wait_for(run(sim), 60))}")
    except BaseException:  # noqa: BLE001 - whatever it is, the line says so
        print(f"FAIL {label}: {' | '.join(traceback.format_exc().splitlines()[-6:])}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
