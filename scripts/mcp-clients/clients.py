"""Asks the tools with the Python SDK over one transport, for scripts/mcp-clients.sh.

clients.py TRANSPORT QUESTIONS ADDRESS BITBRAT; see clients.mjs.
"""

import asyncio
import json
import os
import subprocess
import sys

from mcp import Client, StdioServerParameters
from mcp.client.sse import sse_client


def without_times(answer):
    kept = {key: value for key, value in answer.items() if key != "asOf"}
    kept["items"] = [{key: value for key, value in item.items() if key != "ageMs"} for item in answer["items"]]
    return kept


def printed(bitbrat, command):
    """The exit code of a command is a part of its answer."""
    run = subprocess.run([bitbrat, *command, "-o", "json"], capture_output=True, check=False)
    return without_times(json.loads(run.stdout))


async def is_equal(client, bitbrat, question):
    """The daemon checks sources meanwhile, so an answer may change between a command and a call: then both are asked again."""
    for _ in range(3):
        expected = printed(bitbrat, question["command"])
        result = await client.call_tool(question["tool"], question["arguments"])
        starts = result.content[0].text.startswith(expected["items"][0]["answer"] + ": ")
        if not result.is_error and starts and without_times(result.structured_content) == expected:
            return True
    print(f"  {question['command']}: {result}\n  is not {expected}")
    return False


async def main(transport, file, address, bitbrat):
    with open(file, encoding="utf-8") as text:
        questions = json.load(text)
    server = {
        "stdio": lambda: StdioServerParameters(command=bitbrat, args=["mcp"], env=dict(os.environ)),
        "http": lambda: f"http://{address}/mcp",
        "sse": lambda: sse_client(f"http://{address}/sse"),
    }[transport]()
    async with Client(server) as client:
        tools = len((await client.list_tools()).tools)
        equal = sum([await is_equal(client, bitbrat, question) for question in questions])
    is_fine = tools == 6 and equal == len(questions)
    print(f"{'OK' if is_fine else 'FAIL'} python {transport}: {tools} tools, {equal} of {len(questions)} answers equal")
    return not is_fine


sys.exit(asyncio.run(main(*sys.argv[1:])))
