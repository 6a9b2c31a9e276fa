// Asks the tools with one client over one transport, for scripts/mcp-clients.sh.
//
//   node clients.mjs CLIENT TRANSPORT QUESTIONS ADDRESS BITBRAT
//
// QUESTIONS is a file: [{"tool", "arguments", "command"}], where the command has the expected answer. ADDRESS is host:port of a running
// `watch`; standard input and output are those of `BITBRAT mcp` in the current directory.
import { execFile } from "node:child_process";
import { readFileSync } from "node:fs";
import { promisify } from "node:util";
import { isDeepStrictEqual } from "node:util";
import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { SSEClientTransport } from "@modelcontextprotocol/sdk/client/sse.js";
import { StdioClientTransport } from "@modelcontextprotocol/sdk/client/stdio.js";
import { StreamableHTTPClientTransport } from "@modelcontextprotocol/sdk/client/streamableHttp.js";

const [name, transport, file, address, bitbrat] = process.argv.slice(2);
const questions = JSON.parse(readFileSync(file, "utf8"));
const modules = new URL("node_modules", import.meta.url).pathname;

function withoutTimes(list) {
    const { asOf, ...rest } = list;
    return { ...rest, items: rest.items.map(({ ageMs, ...item }) => item) };
}

async function sdk() {
    const client = new Client({ name: "scripts", version: "1" });
    await client.connect({
        stdio: () => new StdioClientTransport({ command: bitbrat, args: ["mcp"], env: process.env }),
        http: () => new StreamableHTTPClientTransport(new URL(`http://${address}/mcp`)),
        sse: () => new SSEClientTransport(new URL(`http://${address}/sse`)),
    }[transport]());
    // It compiles the output schemas here, and checks each result against them.
    const { tools } = await client.listTools();
    const { resources } = await client.listResources();
    await client.readResource({ uri: resources[0].uri });
    return {
        tools: tools.length,
        ask: (question) => client.callTool({ name: question.tool, arguments: question.arguments }),
        close: () => client.close(),
    };
}

async function inspector() {
    const server = {
        stdio: [bitbrat, "mcp"],
        http: [`http://${address}/mcp`, "--transport", "http"],
        sse: [`http://${address}/sse`, "--transport", "sse"],
    }[transport];
    const run = async (...words) => {
        const command = [`${modules}/.bin/mcp-inspector`, "--cli", ...server, ...words];
        const { stdout } = await promisify(execFile)("node", command, { maxBuffer: 1 << 24 });
        return JSON.parse(stdout);
    };
    const { tools } = await run("--method", "tools/list");
    return {
        tools: tools.length,
        ask: ({ tool, arguments: given }) => {
            const args = Object.entries(given).flatMap(([key, value]) => ["--tool-arg", `${key}=${value}`]);
            return run("--method", "tools/call", "--tool-name", tool, ...args);
        },
        close: async () => {},
    };
}

// The exit code of a command is a part of its answer.
async function printed(command) {
    const run = promisify(execFile)(bitbrat, [...command, "-o", "json"]);
    const { stdout } = await run.catch((error) => error);
    return withoutTimes(JSON.parse(stdout));
}

// The daemon checks sources meanwhile, so an answer may change between a command and a call: then both are asked again.
async function compare(client, question) {
    for (let attempt = 0; ; attempt += 1) {
        const expected = await printed(question.command);
        const result = await client.ask(question);
        const answered = withoutTimes(result.structuredContent);
        const isText = result.content[0].text.startsWith(`${expected.items[0].answer}: `);
        if (!result.isError && isText && isDeepStrictEqual(answered, expected)) return true;
        if (attempt === 2) {
            console.log(`  ${question.command.join(" ")}: ${JSON.stringify(result)}`);
            console.log(`  is not ${JSON.stringify(expected)}`);
            return false;
        }
    }
}

const client = await { sdk, inspector }[name]();
let equal = 0;
for (const question of questions) {
    if (await compare(client, question)) equal += 1;
}
await client.close();
const fine = client.tools === 6 && equal === questions.length;
console.log(`${fine ? "OK" : "FAIL"} ${name} ${transport}: ${client.tools} tools, ${equal} of ${questions.length} answers equal`);
process.exit(fine ? 0 : 1);
