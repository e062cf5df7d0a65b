/**
 * Who is listened to: the channel of one replica, and a peer whose messages the test writes.
 */
import { afterEach, expect, test } from "vitest";
import { SUBJECTS } from "../../src/model/api.ts";
import { type PeerHeader, createEnvelopeCodec } from "../../src/replica/envelope.ts";
import { type Peers, createPeers } from "../../src/replica/peers.ts";
import { realRuntime } from "../../src/replica/runtime.ts";
import { createMemoryDisk } from "../../src/storage/memory/disk.ts";
import { openMemoryStores } from "../../src/storage/memory/open.ts";
import { createMemoryBus } from "../../src/transport/memory.ts";
import { waitFor } from "../support/wait-for.ts";

const GROUP_ID = `b3:${"ab".repeat(32)}`;
const HELD = { lastIndex: 12, lastEpoch: 4, epoch: 4 };

interface Bench {
  readonly peers: Peers;
  readonly log: string[];
  /** What r1 told its peer. */
  readonly told: { readonly header: PeerHeader; readonly body: Uint8Array }[];
  readonly recorded: number[];
  say(over: Partial<PeerHeader>, body?: Uint8Array): void;
  /** Until everything said so far has been looked at. */
  settled(): Promise<void>;
}

let open: Peers | null = null;
afterEach(async () => {
  await open?.stop();
  open = null;
});

/** Replica r1 as its peer r2 sees it. */
async function openBench(): Promise<Bench> {
  const bus = createMemoryBus();
  const [own, other] = [bus.connect("r1"), bus.connect("r2")];
  const stores = openMemoryStores(createMemoryDisk(), { groupId: GROUP_ID, replica: "r1", engine: "raft" });
  const start = await stores.log.boot();
  const log: string[] = [];
  const recorded: number[] = [];
  const codec = createEnvelopeCodec(GROUP_ID);
  const told: Bench["told"] = [];
  other.subscribe(SUBJECTS.peer("g", "r2", "r1"), ({ data }) => void told.push(codec.decode(data)));
  const peers = createPeers({
    group: "g",
    groupId: GROUP_ID,
    replica: "r1",
    engine: "raft",
    configuration: { voters: ["r1", "r2"], votersOutgoing: [], learners: [] },
    start,
    transport: own,
    log: {
      ...stores.log,
      recordPeer: async (record) => {
        await new Promise((resolve) => setTimeout(resolve, 20));
        recorded.push(record.boot);
        await stores.log.recordPeer(record);
      },
    },
    runtime: realRuntime(),
    durable: () => HELD,
    voting: () => true,
    chosenEpochAt: () => null,
    onEngine: (_from, body) => void log.push(`engine ${Buffer.from(body).toString()}`),
    onConfirm: () => void log.push("confirm"),
    onRead: (kind) => void log.push(kind),
    onDigest: () => void log.push("digest"),
    onLost: (reason) => void log.push(`lost ${reason}`),
    onDoubt: (reason) => void log.push(`doubt ${reason}`),
    onFailure: (error) => void log.push(`failure ${String(error)}`),
  });
  open = peers;
  const base: PeerHeader = {
    kind: "engine",
    from: "r2",
    incarnation: "two",
    boot: 1,
    life: 1,
    to: "r1",
    toIncarnation: "",
    clockMs: 0,
    durable: HELD,
    voting: true,
  };
  return {
    peers,
    log,
    told,
    recorded,
    say: (over, body = new Uint8Array(0)) =>
      other.publish(SUBJECTS.peer("g", "r1", "r2"), codec.encode({ ...base, ...over }, body)),
    settled: () => new Promise((resolve) => setTimeout(resolve, 150)),
  };
}

test("a message of a new boot waits until the boot is durable; an earlier boot never follows a later one", async () => {
  const { say, log, recorded, settled } = await openBench();
  say({ boot: 1 }, Buffer.from("a"));
  say({ boot: 3, life: 3 }, Buffer.from("b"));
  say({ boot: 2, life: 2 }, Buffer.from("c"));
  say({ boot: 3, life: 3 }, Buffer.from("d"));
  say({ boot: 1 }, Buffer.from("e"));
  await new Promise((resolve) => setTimeout(resolve, 5));
  expect(log).toEqual([]);
  await settled();
  expect(log).toEqual(["engine a", "engine b", "engine d"]);
  expect(recorded).toEqual([1, 3]);
});

test("only a welcome for this life ends the greeting", async () => {
  const { peers, say, told } = await openBench();
  let over = false;
  peers.greet(10_000, () => (over = true));
  const hello = await waitFor(() => told.find(({ header }) => header.kind === "hello")?.header ?? null, {
    timeoutMs: 2000,
    what: "a hello",
  });
  const welcome = (boot: number, life: number): void =>
    say({ kind: "welcome" }, Buffer.from(JSON.stringify({ boot, life })));
  say({ kind: "welcome" });
  welcome(hello.boot, hello.life + 1);
  welcome(hello.boot + 1, hello.life);
  await new Promise((resolve) => setTimeout(resolve, 100));
  expect(over).toBe(false);
  welcome(hello.boot, hello.life);
  await waitFor(() => (over ? true : null), { timeoutMs: 2000, what: "the end of the greeting" });
});

test("a life that lost promises is told so whatever its first message is, and is listened to once it does not vote", async () => {
  const { say, log, told, settled } = await openBench();
  say({ boot: 1 }, Buffer.from("a"));
  await settled();
  const fewer = { boot: 2, life: 2, durable: { lastIndex: 11, lastEpoch: 4, epoch: 4 } };
  say(fewer, Buffer.from("b"));
  say({ ...fewer, kind: "hello" });
  say(fewer, Buffer.from("c"));
  await settled();
  expect(log).toEqual(["engine a"]);
  const lost = told.filter(({ header }) => header.kind === "lost");
  expect(lost.map(({ body }) => JSON.parse(Buffer.from(body).toString()) as object)).toMatchObject(
    [1, 2, 3].map(() => ({ boot: 2, life: 2, reason: expect.stringContaining("up to 12") as string })),
  );
  expect(told.filter(({ header }) => header.kind === "welcome")).toEqual([]);
  say({ ...fewer, voting: false }, Buffer.from("d"));
  // What it was given back does not bring its vote back.
  say({ ...fewer, durable: HELD }, Buffer.from("e"));
  await settled();
  expect(log).toEqual(["engine a", "engine d"]);
});
