"""Asks the tools with the Python SDK over one transport, for scripts/mcp-clients.sh.

clients.py TRANSPORT QUESTIONS ADDRESS BITBRAT; see clients.mjs.
"""

import asyncio
import json
import os
import sys

from mcp import Client, StdioServerParameters
from mcp.client.sse import sse_client


def without_times(answer):
    kept = {key: value for key, value in answer.items() if key != "asOf"}
    kept["items"] = [{key: value for key, value in item.items() if key != "ageMs"} for item in answer["items"]]
    return kept


async def main(transport, file, address, bitbrat):
    with open(file, encoding="utf-8") as text:
        questions = json.load(text)
    server = {
        "stdio": lambda: StdioServerParameters(command=bitbrat, args=["mcp"], env=dict(os.environ)),
        "http": lambda: f"http://{address}/mcp",
        "sse": lambda: sse_client(f"http://{address}/sse"),
    }[transport]()
    wrong = 0
    async with Client(server) as client:
        tools = (await client.list_tools()).tools
        for question in questions:
            result = await client.call_tool(question["tool"], question["arguments"])
            expected = question["expected"]
            starts = result.content[0].text.startswith(expected["items"][0]["answer"] + ": ")
            if result.is_error or without_times(result.structured_content) != expected or not starts:
                wrong += 1
                print(f"  {question['tool']} {question['arguments']}: {result}\n  is not {expected}")
    verdict = "FAIL" if wrong or len(tools) != 6 else "OK"
    equal = len(questions) - wrong
    print(f"{verdict} python {transport}: {len(tools)} tools, {equal} of {len(questions)} answers equal")
    return verdict != "OK"


sys.exit(asyncio.run(main(*sys.argv[1:])))
