/**
 * Replicas that are not what they were: a database restored from an older copy, a flipped byte in a log entry, a
 * flipped byte in a page row.
 */
import { execFile } from "node:child_process";
import { readFile, rm } from "node:fs/promises";
import path from "node:path";
import { promisify } from "node:util";
import { afterAll, beforeAll, expect, test } from "vitest";
import { type LocalGroup, startLocalGroup } from "../../src/cli/embedded/local-group.ts";
import { connect, isShardpactError, type Group } from "../../src/index.ts";
import { encodeApi, decodeApi, readReply, replicaStatus, SUBJECTS, type ReplicaStatus } from "../../src/model/api.ts";
import { connectNats } from "../../src/transport/nats.ts";
import { ENGINE } from "../support/engine.ts";
import { sql, tinyShard, waitForAgreement } from "../support/group.ts";
import { tempDir, type TempDir } from "../support/temp-dir.ts";
import { waitFor } from "../support/wait-for.ts";

let dir: TempDir;
let local: LocalGroup;
let group: Group;

beforeAll(async () => {
  dir = await tempDir("identity");
  local = await startLocalGroup({ dir: path.join(dir.path, "group"), engine: ENGINE });
  await local.waitForLeader();
  group = await connect(local.url);
  await group.publish("points", await tinyShard(dir.path, "points", 1));
});
afterAll(async () => {
  await group?.close();
  await local?.close();
  await dir?.remove();
});

async function statusOf(id: string): Promise<ReplicaStatus> {
  await using transport = await connectNats({ servers: [local.url], name: "test", timeoutMs: 5000 });
  const answer = await transport.request(SUBJECTS.api(local.group, id, "status"), encodeApi(null), { timeoutMs: 2000 });
  return decodeApi(replicaStatus, answer);
}

const stateOf = (id: string, state: ReplicaStatus["state"]) =>
  waitFor(async () => ((await statusOf(id)).state === state ? true : null), {
    timeoutMs: 30_000,
    what: `${id} to be ${state}`,
  });

/** With owners and modes: Postgres runs as another user when the tests run as root. */
const copyFolder = (from: string, to: string) => promisify(execFile)("cp", ["-a", from, to]);

/** A follower with its place in `postgres`. */
async function aFollower() {
  const leader = await local.waitForLeader();
  const at = local.replicas.findIndex((replica) => replica.id !== leader);
  return {
    replica: local.replicas[at]!,
    postgres: local.postgres[at]!,
    data: path.join(dir.path, "group", `r${at + 1}`, "postgres"),
  };
}

test("one flipped byte in a page row: the replica that serves it finds it, the good ones answer, and it mends itself", async () => {
  await waitForAgreement(local); // followers apply a moment later
  const { replica } = await aFollower();
  const pageOf = async (what = "bytes") => {
    const [row] = await sql(
      replica.postgresUrl,
      `select encode(${what}, 'hex') as found from shardpact.pages where kind = 'page'`,
    );
    return String(row?.["found"]);
  };
  const before = await pageOf();
  await sql(
    replica.postgresUrl,
    "alter table shardpact.pages disable trigger all; update shardpact.pages set bytes = set_byte(bytes, 20, get_byte(bytes, 20) # 1) where kind = 'page'",
  );
  await using transport = await connectNats({ servers: [local.url], name: "test", timeoutMs: 5000 });
  const query = { kind: "object", digest: `b3:${await pageOf("digest")}` };
  const request = encodeApi({ query, asOf: null, minIndex: 0, waitMs: 1000 });
  const subject = SUBJECTS.api(local.group, replica.id, "read");
  const reply = decodeApi(readReply, await transport.request(subject, request, { timeoutMs: 5000 }));
  expect(reply).toMatchObject({ ok: false, error: { code: "unavailable" } });
  await using points = await group.open("points@v1");
  for await (const batch of points.batches()) expect(batch.numRows).toBe(8);
  await waitFor(async () => ((await pageOf()) === before ? true : null), {
    timeoutMs: 30_000,
    what: "the damaged page to be mended",
  });
  expect(await readFile(replica.logFile, "utf8")).toMatch(
    /tables are damaged: the row of page b3:[0-9a-f]+ is not what/,
  );
  await waitForAgreement(local);
});

test("one flipped byte in a log entry that a follower needs: it is mended from what was applied, and nothing false is sent", async () => {
  const { replica } = await aFollower();
  const others = local.replicas.filter((r) => r !== replica);
  await replica.stop();
  const { version } = await group.publish("points", await tinyShard(dir.path, "points-2", 2));
  expect(version).toBe(2);
  const [last] = await sql(others[0]!.postgresUrl, "select max(index)::int as index from shardpact.log");
  const index = Number(last?.["index"]);
  const payloadOf = async (url: string) => {
    const [row] = await sql(url, `select encode(payload, 'hex') as payload from shardpact.log where index = ${index}`);
    return String(row?.["payload"]);
  };
  const before = await payloadOf(others[0]!.postgresUrl);
  // Started anew, the others hold the entry only in their logs and ledgers.
  await Promise.all(others.map((other) => other.stop()));
  for (const other of others) {
    await sql(
      other.postgresUrl,
      `update shardpact.log set payload = set_byte(payload, 5, get_byte(payload, 5) # 1) where index = ${index}`,
    );
  }
  await Promise.all(local.replicas.map((r) => r.restart()));
  await waitForAgreement(local);
  for (const { postgresUrl } of local.replicas) expect(await payloadOf(postgresUrl)).toBe(before);
});

test("a replica's database restored from an older copy: it notices, doesn't vote, and the others go on", async () => {
  const { replica, postgres, data } = await aFollower();
  await replica.stop();
  await postgres.stop();
  const copy = path.join(dir.path, "older-copy");
  await copyFolder(path.join(data, "data"), copy);
  await postgres.restart();
  await replica.restart();
  await Promise.all(Array.from({ length: 50 }, (_, i) => group.tag("points", `later-${i}`, 1)));
  await waitForAgreement(local);
  await replica.stop();
  await postgres.stop();
  await rm(path.join(data, "data"), { recursive: true });
  await copyFolder(copy, path.join(data, "data"));
  await postgres.restart();
  await replica.restart();
  await stateOf(replica.id, "non_voting");
  await group.tag("points", "without-it", 1);

  // With one more replica gone, a majority would need the vote that it must not give.
  const leader = await local.waitForLeader();
  await local.replicas.find((r) => r.id === leader)!.kill("SIGSTOP");
  try {
    const error = await group.open("points@v1", { timeoutMs: 4000 }).catch((e: unknown) => e);
    expect(isShardpactError(error, "no_quorum"), String(error)).toBe(true);
  } finally {
    await local.replicas.find((r) => r.id === leader)!.kill("SIGCONT");
  }
});
