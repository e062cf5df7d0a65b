import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { describe, expect, test } from "vitest";
import { createSeed, publicKeyHex } from "../../src/model/keys.ts";
import { loadReplicaConfig, parseReplicaConfig } from "../../src/replica/config.ts";
import { type PeerHeader, createEnvelopeCodec } from "../../src/replica/envelope.ts";
import { createPeerTable } from "../../src/replica/identity.ts";
import { createRecentEntries } from "../../src/replica/recent-entries.ts";
import type { Runtime } from "../../src/replica/runtime.ts";
import { createWatchdog } from "../../src/replica/watchdog.ts";

const GROUP = `b3:${"ab".repeat(32)}`;
const header = (over: Partial<PeerHeader> = {}): PeerHeader => ({
  kind: "engine",
  from: "r1",
  incarnation: "one",
  boot: 3,
  life: 7,
  to: "r2",
  toIncarnation: "",
  clockMs: 1_700_000_000_000.5,
  durable: { lastIndex: 12, lastEpoch: 2, epoch: 4 },
  voting: true,
  ...over,
});

describe("envelope", () => {
  const codec = createEnvelopeCodec(GROUP);

  test("comes back as it went", () => {
    const body = new Uint8Array([1, 2, 3]);
    const decoded = codec.decode(codec.encode(header(), body));
    expect(decoded.header).toEqual(header());
    expect(codec.decode(codec.encode(header({ voting: false }), body)).header.voting).toBe(false);
    expect([...decoded.body]).toEqual([1, 2, 3]);
  });

  test("another group's, another version's and every truncated one is refused", () => {
    const bytes = codec.encode(header(), new Uint8Array(0));
    expect(() => createEnvelopeCodec(`b3:${"cd".repeat(32)}`).decode(bytes)).toThrow(/another group/);
    for (let length = 0; length < bytes.byteLength; length++) {
      expect(() => codec.decode(bytes.subarray(0, length))).toThrow(
        expect.objectContaining({ code: "invalid_argument" }),
      );
    }
    for (const at of [0, 1]) {
      const other = bytes.slice();
      other[at] = 99;
      expect(() => codec.decode(other)).toThrow(/not known to this build/);
    }
  });
});

describe("peer identities", () => {
  const record = { peer: "r1", incarnation: "one", boot: 3 };

  test("a new boot is recorded first; lower boots, foreign databases and second lives are refused", () => {
    const table = createPeerTable([record]);
    expect(table.admit(header())).toEqual({ kind: "process" });
    expect(table.admit(header({ life: 8 })).kind).toBe("refuse");
    expect(table.admit(header({ boot: 2 })).kind).toBe("refuse");
    expect(table.admit(header({ incarnation: "two" })).kind).toBe("refuse");
    expect(table.admit(header({ boot: 4, life: 9 }))).toEqual({ kind: "record", record: { ...record, boot: 4 } });
    table.recorded({ ...record, boot: 4 }, 9);
    expect(table.admit(header({ boot: 4, life: 9 }))).toEqual({ kind: "process" });
    expect(table.admit(header()).kind).toBe("refuse");
    expect(table.admit(header({ from: "r9" })).kind).toBe("record");
  });

  test.each([
    ["the same", { lastIndex: 12, lastEpoch: 2, epoch: 4 }, 2, "kept"],
    ["more", { lastIndex: 20, lastEpoch: 5, epoch: 5 }, 2, "kept"],
    ["an earlier epoch", { lastIndex: 12, lastEpoch: 2, epoch: 3 }, 2, "lost"],
    ["fewer entries, and they are chosen", { lastIndex: 11, lastEpoch: 2, epoch: 4 }, 2, "lost"],
    ["fewer entries, another was chosen", { lastIndex: 11, lastEpoch: 2, epoch: 4 }, 3, "doubtful"],
    ["fewer entries, none is chosen yet", { lastIndex: 11, lastEpoch: 2, epoch: 4 }, null, "doubtful"],
  ] as const)("promises are %s", (_what, durable, chosen, verdict) => {
    const table = createPeerTable([record]);
    table.admit(header());
    table.heard(header(), 0, 0);
    expect(table.judge(header({ boot: 4, life: 9, durable }), () => chosen).kind).toBe(verdict);
  });

  test("entries of the epoch that a replica is still in can't have been removed: it lost them", () => {
    const table = createPeerTable([record]);
    const held = { lastIndex: 12, lastEpoch: 4, epoch: 4 };
    table.admit(header());
    table.heard(header({ durable: held }), 0, 0);
    const fewer = (epoch: number, life = 9) =>
      header({ boot: 4, life, durable: { lastIndex: 11, lastEpoch: 4, epoch } });
    expect(table.judge(fewer(4), () => null).kind).toBe("lost");
    expect(table.judge(fewer(5, 10), () => null).kind).toBe("doubtful");
    const paxos = createPeerTable([record], "paxos");
    paxos.admit(header());
    paxos.heard(header({ durable: held }), 0, 0);
    expect(paxos.judge(fewer(5), () => null).kind, "Multi-Paxos removes nothing").toBe("lost");
    // Within a life entries are removed by right, and what was told is not held against it.
    expect(table.judge({ ...fewer(4), life: header().life }, () => null).kind).toBe("kept");
  });
});

describe("configuration", () => {
  const seed = createSeed();
  const genesis = {
    format: "shardpact-group/1",
    name: "g",
    nonce: "n",
    engine: "raft",
    catalogLevel: 1,
    voters: [{ id: "r1", publicKey: publicKeyHex(seed) }],
  };
  const input = { replica: "r1", seed, genesis, nats: ["nats://x"], postgres: "postgres://x", stores: [] };

  test("one that joins later has a key of its own and is in no genesis", () => {
    expect(parseReplicaConfig({ ...input, replica: "r2", seed: createSeed() }).replica).toBe("r2");
  });

  test("defaults hold", () => {
    expect(parseReplicaConfig(input).timing).toEqual({
      tickMs: 20,
      heartbeatTicks: 3,
      electionTicksMin: 20,
      electionTicksMax: 40,
    });
  });

  test.each([
    ["a field that is missing", { ...input, nats: undefined }, /nats/],
    ["an id that no subject can hold", { ...input, replica: "r.2" }, /a replica id/],
    ["another's key", { ...input, seed: createSeed() }, /not the key that the group lists/],
    [
      "a group that names a replica twice",
      { ...input, genesis: { ...genesis, voters: [...genesis.voters, ...genesis.voters] } },
      /twice/,
    ],
    ["a seed that is none", { ...input, seed: "SU" }, /not a user NKey seed/],
    ["timing that cannot work", { ...input, timing: { heartbeatTicks: 10 } }, /three heartbeats/],
  ])("refuses %s", (_what, value, message) => {
    expect(() => parseReplicaConfig(value)).toThrow(expect.objectContaining({ code: "config_invalid" }));
    expect(() => parseReplicaConfig(value)).toThrow(message);
  });

  test("a file that is absent or no JSON is named", async () => {
    const dir = await mkdtemp(path.join(tmpdir(), "shardpact-config-"));
    const file = path.join(dir, "replica.json");
    await expect(loadReplicaConfig(file)).rejects.toThrow(/replica\.json/);
    await writeFile(file, "{");
    await expect(loadReplicaConfig(file)).rejects.toMatchObject({ code: "config_invalid" });
    await writeFile(file, JSON.stringify(input));
    expect((await loadReplicaConfig(file)).replica).toBe("r1");
    await rm(dir, { recursive: true });
  });
});

describe("watchdog", () => {
  function watched(offsets: readonly number[], writeMs: number) {
    let now = 0;
    const reasons: string[] = [];
    const runtime: Runtime = {
      nowMs: () => now,
      monotonicMs: () => now,
      randomU32: () => 0,
      every: () => () => undefined,
      after: () => () => undefined,
    };
    const watchdog = createWatchdog({
      tickMs: 20,
      electionMaxMs: 800,
      runtime,
      oldestWriteMs: () => writeMs,
      clockOffsetsMs: () => offsets,
      stepDown: (reason) => reasons.push(reason),
    });
    return {
      reasons,
      after(ms: number) {
        now += ms;
        watchdog.tick();
      },
    };
  }

  test("a leader gives up for a stalled loop, a stuck disk and a clock that is off, and for nothing less", () => {
    const calm = watched([4000, -3000], 700);
    for (let i = 0; i < 100; i++) calm.after(21);
    expect(calm.reasons).toEqual([]);
    const stalled = watched([], 0);
    stalled.after(1000);
    expect(stalled.reasons[0]).toMatch(/event loop stood still/);
    const stuck = watched([], 900);
    stuck.after(20);
    expect(stuck.reasons[0]).toMatch(/log write/);
    const early = watched([9000, 9500], 0);
    for (let i = 0; i < 51; i++) early.after(20);
    expect(early.reasons[0]).toMatch(/9000 ms behind/);
  });
});

describe("recent entries", () => {
  const entry = (index: number) => ({ index, epoch: 1, kind: "command" as const, payload: new Uint8Array(10) });

  test("gives runs, forgets what is applied or removed, and is bounded", () => {
    const recent = createRecentEntries();
    for (let i = 1; i <= 10; i++) recent.put(entry(i));
    expect(recent.run(3, 9, 4, 1000).map((e) => e.index)).toEqual([3, 4, 5, 6]);
    expect(recent.run(3, 9, 100, 25).map((e) => e.index)).toEqual([3, 4]);
    recent.removeFrom(8);
    recent.dropThrough(4);
    expect(recent.run(4, 9, 100, 1000)).toEqual([]);
    expect(recent.run(5, 9, 100, 1000).map((e) => e.index)).toEqual([5, 6, 7]);
    recent.put(entry(2));
    expect(recent.get(2)).toBeUndefined();
    recent.dropThrough(1000);
    recent.put(entry(1001));
    expect(recent.get(1001)?.index).toBe(1001);
  });
});
