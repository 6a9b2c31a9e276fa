"""What a bot author would write with pyTwitchAPI and Google's Firestore client. Started by scripts/bench.sh.

Usage: pytwitchapi.py SETTINGS.json, whose `mode` is
  poll   read the streams of all channels once, print how many are live, and end
  store  the same, and write a document for each channel
  idle   the same every minute until standard input ends; prints `ready` after the first time
  push   write a document for each pushed stream.online and stream.offline until standard input ends; prints `ready` when subscribed
"""

import asyncio
import json
import sys
from datetime import UTC, datetime

from twitchAPI.twitch import Twitch
from twitchAPI.type import AuthScope


async def login(settings):
    base = settings["address"]
    twitch = await Twitch(settings["clientId"], settings["clientSecret"], base_url=f"{base}/helix/", auth_base_url=f"{base}/oauth2/")
    token = settings["token"]
    scopes = [AuthScope(scope) for scope in settings.get("scopes", [])]
    await twitch.set_user_authentication(token["access_token"], scopes, token["refresh_token"])
    return twitch


async def poll(twitch, channels):
    async def page(ids):
        return [stream async for stream in twitch.get_streams(user_id=ids, first=100)]

    pages = await asyncio.gather(*(page(channels[start : start + 100]) for start in range(0, len(channels), 100)))
    return [stream for one in pages for stream in one]


async def store(streams, settings):
    from google.cloud.firestore import AsyncClient

    client = AsyncClient(project=settings["project"])
    live = {stream.user_id: stream for stream in streams}

    async def commit(ids):
        batch = client.batch()
        for channel in ids:
            stream = live.get(channel)
            fields = {"platform": "twitch", "id": channel, "streamStatus": "ONLINE" if stream else "OFFLINE", "lastStreamUpdate": datetime.now(UTC)}
            if stream:
                fields |= {"title": stream.title, "viewerCount": stream.viewer_count}
            batch.set(client.collection("sources").document(f"twitch:{channel}"), fields, merge=True)
        await batch.commit()

    channels = settings["channels"]
    await asyncio.gather(*(commit(channels[start : start + 500]) for start in range(0, len(channels), 500)))


async def push(twitch, settings):
    from google.cloud.firestore import AsyncClient
    from twitchAPI.eventsub.websocket import EventSubWebsocket

    # Callbacks run in a loop of the library's own, where the client has to be created.
    clients = []

    async def write(channel, fields):
        if not clients:
            clients.append(AsyncClient(project=settings["project"]))
        document = clients[0].collection("sources").document(f"twitch:{channel}")
        await document.set({"platform": "twitch", "id": channel} | fields, merge=True)

    async def online(data):
        event = data.event
        await write(event.broadcaster_user_id, {"streamStatus": "ONLINE", "streamId": event.id, "lastStreamUpdate": event.started_at})

    async def offline(data):
        await write(data.event.broadcaster_user_id, {"streamStatus": "OFFLINE"})

    base = settings["address"]
    socket = EventSubWebsocket(twitch, connection_url=f"{base.replace('http', 'ws')}/ws", subscription_url=f"{base}/helix/")
    socket.start()
    for channel in settings["channels"]:
        await socket.listen_stream_online(channel, online)
        await socket.listen_stream_offline(channel, offline)
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await socket.stop()


async def idle(twitch, channels):
    streams = await poll(twitch, channels)
    print(f"ready, {len(streams)} live", flush=True)
    ended = asyncio.create_task(asyncio.to_thread(sys.stdin.read))
    while not (await asyncio.wait([ended], timeout=60))[0]:
        streams = await poll(twitch, channels)


async def main():
    with open(sys.argv[1], encoding="utf-8") as file:
        settings = json.load(file)
    twitch = await login(settings)
    if settings["mode"] in ("poll", "store"):
        streams = await poll(twitch, settings["channels"])
        if settings["mode"] == "store":
            await store(streams, settings)
        print(json.dumps({"live": len(streams)}), flush=True)
    elif settings["mode"] == "push":
        await push(twitch, settings)
    else:
        await idle(twitch, settings["channels"])
    await twitch.close()


asyncio.run(main())
