// Reads `sources` with Google's client and checks every field against what the platform's services declare.
// Started by google-client-check.sh.
const { Firestore } = require("@google-cloud/firestore");

const isText = (value) => typeof value === "string" && value !== "";
const isCount = (value) => Number.isInteger(value) && value >= 0;
const isMap = (value) => typeof value === "object" && value !== null && value.constructor === Object;
const isMoment = (value) => /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/.test(value);
const oneOf = (...words) => (value) => words.includes(value);
const shape = (members, optional = []) => (value) =>
  isMap(value) &&
  Object.keys(value).every((name) => name in members && members[name](value[name])) &&
  Object.keys(members).every((name) => name in value || optional.includes(name));

const fields = {
  id: (value) => /^\d+$/.test(value),
  platform: oneOf("twitch", "kick", "discord"),
  displayName: isText,
  status: oneOf("CONNECTED", "DISCONNECTED", "ERROR"),
  streamStatus: oneOf("ONLINE", "OFFLINE", "UNKNOWN"),
  lastStatusUpdate: isMoment,
  lastStreamUpdate: isMoment,
  lastError: shape({ code: isText, message: isText, at: isMoment }),
  metrics: shape(
    { messagesIn: isCount, messagesOut: isCount, errors: isCount, reconnects: isCount, lastHeartbeat: isMoment },
    ["lastHeartbeat"],
  ),
  metadata: isMap,
  authStatus: oneOf("VALID", "EXPIRED", "REVOKED"),
  viewerCount: isCount,
  permissions: (value) => Array.isArray(value) && value.every(isText),
  latencyMs: isCount,
};
const required = ["id", "platform", "status", "streamStatus", "metrics", "metadata", "permissions"];
// Ours, beside the platform's.
const additional = { schemaVersion: (value) => value === 1, evidence: isMap, counters: isMap };

function problems(id, document) {
  const found = [];
  for (const [name, value] of Object.entries(document)) {
    const check = fields[name] ?? additional[name];
    if (!check) found.push(`has an unexpected field ${name}`);
    else if (!check(value)) found.push(`${name} is ${JSON.stringify(value)}`);
  }
  for (const name of required) if (!(name in document)) found.push(`has no ${name}`);
  if (id !== `${document.platform}:${document.id}`) found.push(`is ${document.platform}:${document.id} inside`);
  return found;
}

async function main() {
  const found = await new Firestore().collection("sources").get();
  let wrong = 0;
  const seen = new Set();
  for (const snapshot of found.docs) {
    const document = snapshot.data();
    Object.keys(document).forEach((name) => seen.add(name));
    const told = problems(snapshot.id, document);
    wrong += told.length;
    console.log(`${snapshot.id.padEnd(24)} ${told.length === 0 ? "ok" : told.join("; ")}`);
  }
  const never = Object.keys(fields).filter((name) => !seen.has(name));
  console.log(`${found.size} documents, ${seen.size} fields seen${never.length ? `, never seen: ${never.join(" ")}` : ""}`);
  if (found.empty || wrong > 0) process.exit(1);
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
