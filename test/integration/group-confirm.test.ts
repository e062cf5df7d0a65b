/**
 * What a client may believe: a real group with replicas stopped, forged, edited and restored behind its back.
 */
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { connect as natsConnect } from "nats";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { type LocalGroup, startLocalGroup } from "../../src/cli/embedded/local-group.ts";
import { connect, isShardpactError } from "../../src/index.ts";
import { ENGINE } from "../support/engine.ts";
import { sql, tinyShard, waitForAgreement } from "../support/group.ts";
import { waitFor } from "../support/wait-for.ts";

let dir: string;
let local: LocalGroup;

beforeAll(async () => {
  dir = await mkdtemp(path.join(tmpdir(), "shardpact-confirm-"));
  local = await startLocalGroup({ dir: path.join(dir, "group"), engine: ENGINE });
  await local.waitForLeader();
  await using group = await connect(local.url);
  await group.publish("points", await tinyShard(dir, "points", 1));
});
afterAll(async () => {
  await local?.close();
  await rm(dir, { recursive: true, force: true });
});

async function failure(promise: Promise<unknown>): Promise<unknown> {
  return promise.then(
    () => new Error("it did not fail"),
    (error: unknown) => error,
  );
}

describe("open fails closed", () => {
  test("two of three replicas stopped: no_quorum within the deadline, and nothing can be trained on", async () => {
    await using group = await connect(local.url);
    const leader = await local.waitForLeader();
    const followers = local.replicas.filter((r) => r.id !== leader);
    for (const follower of followers) await follower.kill("SIGSTOP");
    try {
      const startedMs = performance.now();
      const error = await failure(group.open("points@v1", { timeoutMs: 3000 }));
      expect(isShardpactError(error, "no_quorum"), String(error)).toBe(true);
      expect(performance.now() - startedMs).toBeLessThan(4500);
    } finally {
      for (const follower of followers) await follower.kill("SIGCONT");
    }
    await waitForAgreement(local);
    const points = await group.open("points@v1", { timeoutMs: 20_000 });
    expect(points.rows).toBe(8);
    await points.close();
  });

  const editVersion = (url: string, set: string) =>
    sql(
      url,
      `alter table shardpact.versions disable trigger all; update shardpact.versions set ${set} where dataset = 'points'`,
    );

  test("what no root covers edited in SQL on one replica: open names that replica and goes on with the majority", async () => {
    await using group = await connect(local.url);
    const edited = local.replicas.find((r) => r.id === "r2")!;
    await editVersion(edited.postgresUrl, "message = 'forged'");
    try {
      await waitFor(
        async () => {
          await using points = await group.open("points@v1");
          return points.confirmed.diverged.includes("r2") ? true : null;
        },
        { timeoutMs: 20_000, what: "r2 to be named" },
      );
    } finally {
      await editVersion(edited.postgresUrl, "message = ''");
    }
  });

  test("one replica's versions.root edited in SQL: it finds that, answers nothing false, and takes its tables anew", async () => {
    await using group = await connect(local.url);
    const edited = local.replicas.find((r) => r.id === "r2")!;
    const rootOf = async () => {
      const [row] = await sql(
        edited.postgresUrl,
        "select encode(root, 'hex') as root from shardpact.versions where dataset = 'points'",
      );
      return String(row?.["root"]);
    };
    const before = await rootOf();
    await editVersion(edited.postgresUrl, `root = decode('${"ab".repeat(32)}', 'hex')`);
    await waitFor(
      async () => {
        await using points = await group.open("points@v1");
        expect(points.root).toBe(`b3:${before}`);
        return (await rootOf()) === before ? true : null;
      },
      { timeoutMs: 30_000, what: "r2 to have the root again" },
    );
    expect(await readFile(edited.logFile, "utf8")).toContain("the row of points@v1 is not what was applied");
    await waitForAgreement(local);
  });

  test("an impostor on peer and answer subjects changes nothing", async () => {
    await waitForAgreement(local);
    const impostor = await natsConnect({ servers: local.url, inboxPrefix: "_INBOX" });
    const noise = new Uint8Array(300).fill(7);
    const sniffed: string[] = [];
    impostor.subscribe("_INBOX.>", {
      callback: (_error, message) => {
        sniffed.push(message.subject);
        impostor.publish(message.subject, noise); // answers beside the real ones
      },
    });
    for (const to of ["r1", "r2", "r3"]) {
      for (const from of ["r1", "r2", "r3"]) impostor.publish(`shardpact.${local.group}.peer.${to}.${from}`, noise);
    }
    await impostor.flush();
    await using group = await connect(local.url);
    const points = await group.open("points@v1");
    expect(points.confirmed.diverged).toEqual([]);
    expect(points.confirmed.replicas.length).toBeGreaterThanOrEqual(2);
    await points.close();
    await impostor.close();
    await waitForAgreement(local);
  });
});
