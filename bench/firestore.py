"""Firestore's emulator over REST, as a bare client uses it."""

import concurrent.futures
import json
import time
import uuid

from lib import BenchError, Http

# Documents in a commit; each comes with an entry of its history, and Firestore accepts 500 writes at a time.
BATCH = 250


class Documents:
    """The documents of one project in Firestore's emulator."""

    def __init__(self, emulator, project):
        self.http = Http(emulator)
        self.root = f"projects/{project}/databases/(default)/documents"
        self.headers = {"Authorization": "Bearer owner"}

    def write(self, channel, status):
        fields = {"platform": "twitch", "id": channel, "streamStatus": status}
        update = {"name": f"{self.root}/sources/twitch:{channel}", "fields": {name: {"stringValue": value} for name, value in fields.items()}}
        body = {"writes": [{"update": update, "updateMask": {"fieldPaths": list(fields)}}]}
        status, answer = self.http.request("POST", f"/v1/{self.root}:commit", body, self.headers)
        if status != 200:
            raise BenchError(f"the emulator refused a write: {status} {answer[:200].decode(errors='replace')}")
        return seconds(json.loads(answer)["commitTime"])

    def read(self, channel):
        status, answer = self.http.request("GET", f"/v1/{self.root}/sources/twitch:{channel}", headers=self.headers)
        return json.loads(answer) if status == 200 else None

    def count(self, field, value):
        """How many documents of `sources` have this text in a field."""
        condition = {"field": {"fieldPath": field}, "op": "EQUAL", "value": {"stringValue": value}}
        query = {"from": [{"collectionId": "sources"}], "where": {"fieldFilter": condition}}
        body = {"structuredAggregationQuery": {"structuredQuery": query, "aggregations": [{"alias": "count", "count": {}}]}}
        status, answer = self.http.request("POST", f"/v1/{self.root}:runAggregationQuery", body, self.headers)
        if status != 200:
            raise BenchError(f"the emulator did not count the documents: {status} {answer[:200].decode(errors='replace')}")
        return int(json.loads(answer)[0]["result"]["aggregateFields"]["count"]["integerValue"])

    def sample(self, channel):
        """The fields of a document and of the newest entry of its history."""
        path = f"/v1/{self.root}/sources/twitch:{channel}/history?pageSize=1"
        _, answer = self.http.request("GET", path, headers=self.headers)
        return self.read(channel)["fields"], json.loads(answer)["documents"][0]["fields"]


def seconds(stamp):
    whole, _, rest = stamp.rstrip("Z").partition(".")
    return float(time.mktime(time.strptime(whole, "%Y-%m-%dT%H:%M:%S"))) - time.timezone + float(f"0.{rest or 0}")


def batched_writes(emulator, count, sample):
    """Writes `count` documents with their entries in full commits, four at a time. Returns documents a second."""
    documents = Documents(emulator, f"bench-{uuid.uuid4().hex[:12]}")
    bodies = []
    for start in range(0, count, BATCH):
        writes = []
        for number in range(start, min(start + BATCH, count)):
            name = f"{documents.root}/sources/twitch:{number}"
            writes.append({"update": {"name": name, "fields": sample[0]}})
            writes.append({"update": {"name": f"{name}/history/first", "fields": sample[1]}})
        bodies.append(json.dumps({"writes": writes}))

    def commit(body):
        http = Http(emulator)
        status, answer = http.request("POST", f"/v1/{documents.root}:commit", body, documents.headers)
        http.close()
        if status != 200:
            raise BenchError(f"the emulator refused a batch: {status} {answer[:200].decode(errors='replace')}")

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        begun = time.perf_counter()
        list(pool.map(commit, bodies))
        return count / (time.perf_counter() - begun)
