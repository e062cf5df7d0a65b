/**
 * Two nats-servers with one route between them: the old leader keeps the client on its side of a cut route, and must
 * confirm nothing to it, while the majority on the other side elects a leader and goes on.
 */
import { mkdir } from "node:fs/promises";
import path from "node:path";
import { pathToFileURL } from "node:url";
import { afterAll, beforeAll, expect, test } from "vitest";
import { openGroupFiles, writeReplicaConfig } from "../../src/cli/embedded/group-files.ts";
import { type LocalReplica, localReplica } from "../../src/cli/embedded/local-replica.ts";
import { startNats } from "../../src/cli/embedded/nats.ts";
import { startPostgres } from "../../src/cli/embedded/postgres.ts";
import { connect, isShardpactError } from "../../src/index.ts";
import { decodeApi, encodeApi, replicaStatus, SUBJECTS, type ReplicaStatus } from "../../src/model/api.ts";
import { connectNats } from "../../src/transport/nats.ts";
import { ENGINE } from "../support/engine.ts";
import { freePort } from "../support/free-port.ts";
import { tinyShard } from "../support/group.ts";
import { openTcpProxy, type TcpProxy } from "../support/tcp-proxy.ts";
import { tempDir } from "../support/temp-dir.ts";
import { waitFor } from "../support/wait-for.ts";

const GROUP = "halves";
/** What `afterAll` ends, last first. */
const endings: (() => Promise<void>)[] = [];
let folder: string;
/** Of the server that r1 and the first client are on, and of the one with r2 and r3. */
let urls: { readonly left: string; readonly right: string };
let route: TcpProxy;
let replicas: LocalReplica[];

beforeAll(async () => {
  const dir = await tempDir("partition");
  endings.push(() => dir.remove());
  folder = dir.path;
  const files = await openGroupFiles({ dir: folder, name: GROUP, engine: ENGINE, replicas: 3 });
  const access = { group: GROUP, members: files.members };
  const leftPort = await freePort();
  const left = await startNats({ dir: path.join(folder, "left"), access, cluster: { port: leftPort, routes: [] } });
  endings.push(() => left.stop());
  route = await openTcpProxy("127.0.0.1", leftPort);
  endings.push(() => route.close());
  const routes = [`nats-route://127.0.0.1:${route.port}`];
  const right = await startNats({
    dir: path.join(folder, "right"),
    access,
    cluster: { port: await freePort(), routes },
  });
  endings.push(() => right.stop());
  urls = { left: left.url, right: right.url };
  await mkdir(path.join(folder, "store"));
  const store = pathToFileURL(path.join(folder, "store")).href;
  replicas = await Promise.all(
    files.members.map(async (member, i) => {
      const postgres = await startPostgres({ dir: path.join(member.dir, "postgres") });
      endings.push(() => postgres.stop());
      const postgresUrl = await postgres.createDatabase("shardpact");
      const nats = [i === 0 ? urls.left : urls.right];
      await writeReplicaConfig(files, member, { nats, postgres: postgresUrl, stores: [store] });
      const replica = localReplica({
        ...{ id: member.id, dir: member.dir, configFile: member.configFile, logName: "replica.log", postgresUrl },
        ready: async () => (await statusOf(member.id, nats[0]!)) !== null,
      });
      endings.push(() => replica.stop());
      await replica.restart();
      return replica;
    }),
  );
});
afterAll(async () => {
  for (const end of endings.toReversed()) await end();
});

async function statusOf(id: string, url: string): Promise<ReplicaStatus | null> {
  await using transport = await connectNats({ servers: [url], name: "test", timeoutMs: 5000 });
  const request = transport.request(SUBJECTS.api(GROUP, id, "status"), encodeApi(null), { timeoutMs: 1000 });
  return await request.then(
    (answer) => decodeApi(replicaStatus, answer),
    () => null,
  );
}

async function leaderSeenBy(id: string, url: string): Promise<string | null> {
  return (await statusOf(id, url))?.leader ?? null;
}

/** Makes r1 lead: whoever else leads sleeps until others have elected. */
async function makeLeaderOfR1(): Promise<void> {
  await waitFor(
    async () => {
      const leader = await leaderSeenBy("r1", urls.left);
      if (leader === "r1") return true;
      const other = replicas.find((replica) => replica.id === leader);
      await other?.kill("SIGSTOP");
      await new Promise((resolve) => setTimeout(resolve, 2500));
      await other?.kill("SIGCONT");
      return null;
    },
    { timeoutMs: 90_000, what: "r1 to lead" },
  );
}

test("a leader cut off with the client on its side confirms nothing; the majority goes on; healed, all agree", async () => {
  await makeLeaderOfR1();
  await using left = await connect({ url: urls.left });
  await using right = await connect({ url: urls.right });
  await left.publish("points", await tinyShard(folder, "one", 1), { timeoutMs: 20_000 });

  await route.down();
  const error = await left.open("points", { timeoutMs: 3000 }).catch((e: unknown) => e);
  expect(isShardpactError(error, "no_quorum"), String(error)).toBe(true);
  await waitFor(async () => ((await leaderSeenBy("r2", urls.right)) !== "r1" ? true : null), {
    timeoutMs: 20_000,
    what: "another leader",
  });
  const v2 = await right.publish("points", await tinyShard(folder, "two", 2), { timeoutMs: 20_000 });
  expect(v2.version).toBe(2);
  const still = await left.open("points", { timeoutMs: 2000 }).catch((e: unknown) => e);
  expect(isShardpactError(still, "no_quorum"), String(still)).toBe(true);

  await route.up();
  const healed = await waitFor(() => left.open("points", { timeoutMs: 5000 }).catch(() => null), {
    timeoutMs: 30_000,
    what: "the left side to be served",
  });
  expect(healed.version).toBe(2);
});
