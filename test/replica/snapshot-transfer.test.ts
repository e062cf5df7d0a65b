/**
 * A sender and a receiver over the memory bus, in virtual time: what each does when the other is late, gone, wrong or new.
 */
import { afterEach, expect, test } from "vitest";
import { entry } from "../contract/store-harness.ts";
import { SCRIPTED } from "../contract/snapshot.ts";
import type { Entry } from "../../src/consensus/engine.ts";
import { encodeApi, SUBJECTS } from "../../src/model/api.ts";
import { stampCommand } from "../../src/model/commands.ts";
import { ShardpactError } from "../../src/model/errors.ts";
import { createBulkConnection } from "../../src/replica/bulk.ts";
import { decodeBulk, encodeChunk } from "../../src/replica/snapshot-messages.ts";
import { createSnapshotReceiver, type SnapshotToInstall } from "../../src/replica/snapshot-receiver.ts";
import { createSnapshotSender } from "../../src/replica/snapshot-sender.ts";
import { createSnapshotSpool } from "../../src/replica/snapshot-spool.ts";
import { createMemoryDisk } from "../../src/storage/memory/disk.ts";
import { createMemoryFiles } from "../../src/storage/memory/files.ts";
import { openMemoryStores } from "../../src/storage/memory/open.ts";
import { snapshotFolder } from "../../src/storage/snapshot/folder.ts";
import { createMemoryBus } from "../../src/transport/memory.ts";
import { createProcess } from "../sim/process.ts";
import { createRandom, createScheduler, type Scheduler } from "../sim/scheduler.ts";
import { putCommand } from "./cluster.ts";

const GROUP = "g";
const { groupId } = SCRIPTED;
const CHUNK_BYTES = 256 * 1024;

function history(count: number, bytes: number): readonly Entry[] {
  const genesis = { ...entry(1, 1, "config"), payload: new TextEncoder().encode("voters") };
  const puts = Array.from({ length: count - 1 }, (_, i) => {
    const payload = stampCommand(putCommand(`${i} ${"x".repeat(bytes)}`), 1_000 + i);
    return { index: i + 2, epoch: 1, kind: "command" as const, payload };
  });
  return [genesis, ...puts];
}

interface World {
  readonly scheduler: Scheduler;
  readonly bus: ReturnType<typeof createMemoryBus>;
  /** Bulk messages by kind and offset, as they were delivered. */
  readonly bulk: { readonly kind: string; readonly offset: number }[];
  /** Runs virtual time until `done`, at most `ms`; answers whether it was reached. */
  until(done: () => boolean, ms?: number): Promise<boolean>;
}

function createWorld(bulkMs = 5): World {
  const scheduler = createScheduler();
  // The scheduler stops when nothing is left; what a promise brings must not come too late.
  const beat = (): void => void scheduler.after(10, beat);
  beat();
  const bus = createMemoryBus({ clock: { after: scheduler.after } });
  const world: World = {
    ...{ scheduler, bus, bulk: [] },
    async until(done, ms = 120_000) {
      await scheduler.run(scheduler.nowMs() + ms, done);
      return done();
    },
  };
  bus.setFaults({ deliver: (_from, _to, subject) => [subject.includes(".bulk.") ? bulkMs : 1] });
  const tap = bus.connect("tap");
  tap.subscribe(`shardpact.${GROUP}.bulk.>`, ({ data }) => {
    const message = decodeBulk(data);
    if (message) world.bulk.push(message);
  });
  return world;
}

async function storesWith(entries: readonly Entry[]) {
  const stores = openMemoryStores(createMemoryDisk(), SCRIPTED);
  await stores.log.boot();
  await stores.log.append([{ hardState: null, removeFrom: null, put: entries }]);
  await stores.catalog.apply(entries);
  return stores;
}

type Stores = Awaited<ReturnType<typeof storesWith>>;

/** r1: one life of a process that sends; its files outlive it. */
async function startSender(world: World, stores: Stores, files = createMemoryFiles()) {
  const process = createProcess("r1", world.scheduler, createRandom(1), { offsetMs: 0, rate: 1 });
  const { runtime } = process;
  const folder = snapshotFolder("/r1", files);
  const found = await folder.open();
  const transport = world.bus.connect("r1");
  const bulk = createBulkConnection({
    connect: async () => world.bus.connect("r1"),
    runtime,
    onRefused: () => undefined,
  });
  const spool = createSnapshotSpool({ folder, groupId, catalog: stores.catalog, runtime, found: found.whole });
  const reports: string[] = [];
  const sender = createSnapshotSender({
    ...{ group: GROUP, groupId, replica: "r1", transport, bulk, spool, runtime },
    onSent: (to, index) => void reports.push(`sent ${index} to ${to}`),
    onFailed: (to) => void reports.push(`failed ${to}`),
    onStep: () => undefined,
  });
  const kill = async (): Promise<void> => {
    process.kill();
    sender.stop();
    await transport.close();
    await bulk.close();
  };
  return { ...{ sender, spool, reports, files, folder, process, kill } };
}

/** r2: one life of a process that receives. `installed`: indexes, in order. */
async function startReceiver(
  world: World,
  o: { applied?: number; leader?: string; error?: ShardpactError } = {},
  files = createMemoryFiles(),
) {
  const process = createProcess("r2", world.scheduler, createRandom(2), { offsetMs: 0, rate: 1 });
  const { runtime } = process;
  const folder = snapshotFolder("/r2", files);
  const transport = world.bus.connect("r2");
  const bulk = createBulkConnection({
    connect: async () => world.bus.connect("r2"),
    runtime,
    onRefused: () => undefined,
  });
  const state = { applied: o.applied ?? 0, leader: o.leader ?? "r1", steps: [] as string[], installed: [] as number[] };
  const receiver = createSnapshotReceiver({
    ...{ group: GROUP, groupId, replica: "r2", transport, bulk, folder, runtime, found: await folder.open() },
    session: () => state,
    async install({ path, offer }: SnapshotToInstall) {
      // As a store does: the whole file is checked.
      const stores = openMemoryStores(createMemoryDisk(), SCRIPTED);
      await stores.log.boot();
      await stores.catalog.installSnapshot(path, { files, digest: offer.digest });
      if (o.error) return o.error;
      state.installed.push(offer.index);
      state.applied = offer.index;
      return null;
    },
    onStep: (step, from, index, reason) => void state.steps.push(`${step} ${index} from ${from}${reason ? " !" : ""}`),
  });
  open.push(receiver);
  // What a killed process had in its hands is lost; nothing is tidied up.
  const kill = async (): Promise<void> => {
    process.kill();
    await transport.close();
    await bulk.close();
  };
  return { ...{ receiver, state, transport, files, folder, kill } };
}

const open: { close(): Promise<void> }[] = [];
afterEach(async () => {
  await Promise.all(open.splice(0).map((receiver) => receiver.close()));
});

const wantsOf = (world: World): readonly number[] =>
  world.bulk.filter(({ kind }) => kind === "want").map(({ offset }) => offset);

test("every piece travels once when nothing is lost, a window of four at a time", async () => {
  const world = createWorld();
  const stores = await storesWith(history(30, 100_000));
  const { sender, reports, spool } = await startSender(world, stores);
  const { state } = await startReceiver(world);
  sender.start("r2", 1);
  expect(await world.until(() => reports.length > 0)).toBe(true);
  expect(reports).toEqual(["sent 30 to r2"]);
  expect(state).toMatchObject({ installed: [30], applied: 30 });
  const wants = wantsOf(world);
  expect(wants).toEqual(Array.from({ length: wants.length }, (_, i) => i * CHUNK_BYTES));
  let inFlight = 0;
  for (const { kind } of world.bulk) expect((inFlight += kind === "want" ? 1 : -1)).toBeLessThanOrEqual(4);
  // What follows it is held for a while, then let go.
  expect(spool.heldAt()).toBe(30);
  expect(await world.until(() => spool.heldAt() === Infinity, 20_000)).toBe(true);
});

test("a lost piece costs about what a piece takes on this link, lost again and again or not", async () => {
  const world = createWorld();
  const { sender, reports } = await startSender(world, await storesWith(history(30, 100_000)));
  await startReceiver(world);
  let n = 0;
  world.bus.setFaults({
    deliver(_from, to, subject) {
      const isChunk = subject === SUBJECTS.bulk(GROUP, "r2", "r1");
      if (isChunk && to === "r2" && (n += 1) > 4 && n % 3 !== 0) return [];
      return [subject.includes(".bulk.") ? 5 : 1];
    },
  });
  sender.start("r2", 1);
  expect(await world.until(() => reports.length > 0)).toBe(true);
  expect(n).toBeGreaterThan(20);
  // 23 pieces, and two of three lost.
  expect(world.scheduler.nowMs()).toBeLessThan(12_000);
});

test("a slow link is not filled with pieces that are on their way", async () => {
  const world = createWorld(3_000);
  const { sender, reports } = await startSender(world, await storesWith(history(30, 100_000)));
  await startReceiver(world);
  sender.start("r2", 1);
  expect(await world.until(() => reports.length > 0)).toBe(true);
  const inFirstWindow = (offset: number): boolean => offset < 4 * CHUNK_BYTES;
  // Until it knows the link: again after one second, and after two more.
  expect(wantsOf(world).filter(inFirstWindow)).toHaveLength(12);
  const others = wantsOf(world).filter((offset) => !inFirstWindow(offset));
  expect(others).toEqual([...new Set(others)]);
});

test("a receiver goes on at the byte where it was when the sender's process was killed and started again", async () => {
  const world = createWorld(50);
  const stores = await storesWith(history(30, 100_000));
  const first = await startSender(world, stores);
  const { state } = await startReceiver(world);
  first.sender.start("r2", 1);
  expect(await world.until(() => world.bulk.filter(({ kind }) => kind === "chunk").length >= 9)).toBe(true);
  await first.kill();
  // The log went on meanwhile; what was spooled is still served.
  await stores.catalog.apply([{ index: 31, epoch: 1, kind: "noop", payload: new Uint8Array(0) }]);
  const second = await startSender(world, stores, first.files);
  second.sender.start("r2", 1);
  expect(await world.until(() => second.reports.length > 0)).toBe(true);
  expect(second.reports).toEqual(["sent 30 to r2"]);
  expect(state.steps).toEqual(["receiving 30 from r1", "installing 30 from r1", "installed 30 from r1"]);
  const served = world.bulk.filter(({ kind }) => kind === "chunk").map(({ offset }) => offset);
  expect(new Set(served).size).toBe(Math.max(...served) / CHUNK_BYTES + 1);
  // At most the window that was on its way was asked for again.
  expect(served.length - new Set(served).size).toBeLessThanOrEqual(4);
});

test("a receiver whose process was killed goes on where its file ends; what a power cut left of it is begun anew", async () => {
  for (const broken of [false, true]) {
    const world = createWorld(50);
    const { sender, reports } = await startSender(world, await storesWith(history(30, 100_000)));
    const first = await startReceiver(world);
    sender.start("r2", 1);
    expect(await world.until(() => world.bulk.filter(({ kind }) => kind === "chunk").length >= 9)).toBe(true);
    await first.kill();
    const before = world.bulk.length;
    const { begun } = await first.folder.open();
    expect(begun).toHaveLength(1);
    const file = await first.files.open(`/r2/${begun[0]}.snapshot.begun`, "r+");
    const had = await file.size();
    expect(had).toBeGreaterThan(4 * CHUNK_BYTES);
    if (broken) await file.write(new Uint8Array(1000), had - 1000);
    const second = await startReceiver(world, {}, first.files);
    expect(await world.until(() => reports.length > 0)).toBe(true);
    expect(reports).toEqual(["sent 30 to r2"]);
    expect(second.state.installed).toEqual([30]);
    const asked = world.bulk.slice(before).filter(({ kind }) => kind === "want");
    expect(asked.some(({ offset }) => offset < had)).toBe(broken);
    expect(second.state.steps.filter((step) => step.startsWith("receiving")).length).toBe(broken ? 2 : 1);
  }
});

test("a spool from before that the log can't follow any more is not served", async () => {
  const world = createWorld();
  const stores = await storesWith(history(10, 10));
  const first = await startSender(world, stores);
  first.sender.start("r2", 1);
  await world.until(() => first.spool.heldAt() === 10, 1_000);
  await world.until(() => false, 1_000);
  await first.kill();
  await stores.catalog.apply([{ index: 11, epoch: 1, kind: "noop", payload: new Uint8Array(0) }]);
  const second = await startSender(world, stores, first.files);
  await startReceiver(world);
  second.sender.start("r2", 11);
  expect(await world.until(() => second.reports.length > 0)).toBe(true);
  expect(second.reports).toEqual(["sent 11 to r2"]);
  expect(await second.folder.open()).toEqual({ whole: ["sent-11"], begun: [] });
});

test("one that is there already says so; nothing is sent", async () => {
  const world = createWorld();
  const { sender, reports } = await startSender(world, await storesWith(history(10, 10)));
  const { state } = await startReceiver(world, { applied: 12 });
  sender.start("r2", 5);
  expect(await world.until(() => reports.length > 0)).toBe(true);
  expect(reports).toEqual(["sent 10 to r2"]);
  expect(state.steps).toEqual([]);
  expect(world.bulk).toEqual([]);
});

test("silence ends an attempt; the next ones wait longer and longer, and the end of the lead ends all without a report", async () => {
  const world = createWorld();
  const { sender, reports } = await startSender(world, await storesWith(history(10, 10)));
  const failedAtMs: number[] = [];
  for (let attempt = 1; attempt <= 4; attempt += 1) {
    sender.start("r2", 1);
    expect(await world.until(() => reports.length === attempt)).toBe(true);
    failedAtMs.push(world.scheduler.nowMs());
  }
  expect(reports).toEqual(Array.from({ length: 4 }, () => "failed r2"));
  const waits = failedAtMs.slice(1).map((ms, i) => ms - (failedAtMs[i] ?? 0));
  expect(waits).toEqual(waits.toSorted((a, b) => a - b));
  expect((waits[2] ?? 0) - (waits[0] ?? 0)).toBeGreaterThan(1_000);
  sender.start("r2", 1);
  await world.until(() => false, 8_000);
  sender.endAll();
  await world.until(() => false, 60_000);
  expect(reports).toHaveLength(4);
});

test("offers of whoever does not lead, and of another group, are not listened to", async () => {
  const world = createWorld();
  const { sender, reports } = await startSender(world, await storesWith(history(10, 10)));
  const { state, transport } = await startReceiver(world, { leader: "r3" });
  const foreign = { kind: "offer", groupId: `b3:${"5".repeat(64)}`, index: 99, digest: groupId, bytes: 10 };
  transport.publish(SUBJECTS.snapshot(GROUP, "r2", "r3"), encodeApi(foreign));
  transport.publish(SUBJECTS.snapshot(GROUP, "r2", "r3"), new Uint8Array([1, 2, 3]));
  sender.start("r2", 1);
  expect(await world.until(() => reports.length > 0)).toBe(true);
  expect(reports).toEqual(["failed r2"]);
  expect(state.steps).toEqual([]);
});

test("the snapshot of another leader takes the place of the one on its way", async () => {
  const world = createWorld(50);
  const stores = await storesWith(history(30, 100_000));
  const old = await startSender(world, stores);
  const { state } = await startReceiver(world);
  old.sender.start("r2", 1);
  expect(await world.until(() => world.bulk.length > 20)).toBe(true);
  await old.kill();
  await stores.catalog.apply([{ index: 31, epoch: 1, kind: "noop", payload: new Uint8Array(0) }]);
  // Another machine: it has another spool.
  const next = await startSender(world, stores);
  next.sender.start("r2", 31);
  expect(await world.until(() => next.reports.length > 0)).toBe(true);
  expect(next.reports).toEqual(["sent 31 to r2"]);
  expect(state.installed).toEqual([31]);
});

test("a spool that went bad on its disk is found out by the receiver, and made anew", async () => {
  const world = createWorld();
  const { sender, reports, files } = await startSender(world, await storesWith(history(30, 100_000)));
  const { state } = await startReceiver(world);
  sender.start("r2", 1);
  await world.until(() => world.bulk.length > 3);
  const file = await files.open("/r1/sent-30.snapshot", "r");
  await file.write(Uint8Array.of(0xff, 0xff, 0xff), (await file.size()) - 400_000);
  expect(await world.until(() => reports.length > 0)).toBe(true);
  expect(reports).toEqual(["failed r2"]);
  expect(state.steps.at(-1)).toBe("receive_failed 30 from r1 !");
  expect(state.installed).toEqual([]);
  sender.start("r2", 1);
  expect(await world.until(() => reports.length > 1)).toBe(true);
  expect(reports.at(-1)).toBe("sent 30 to r2");
});

test("pieces that are not what was sent are dropped: of a wrong hash, size, place or snapshot", async () => {
  const world = createWorld(20);
  const { sender, reports } = await startSender(world, await storesWith(history(30, 100_000)));
  const { state } = await startReceiver(world);
  const forger = world.bus.connect("forger");
  let n = 0;
  world.bus.setFaults({
    deliver(from, _to, subject) {
      if (from !== "forger" && subject === SUBJECTS.bulk(GROUP, "r2", "r1") && (n += 1) % 3 === 0) forge();
      return [subject.includes(".bulk.") ? 20 : 1];
    },
  });
  const digest = groupId as `b3:${string}`;
  function forge(): void {
    const subject = SUBJECTS.bulk(GROUP, "r2", "r1");
    const offset = wantsOf(world).at(-1) ?? 0;
    const bytes = new Uint8Array(CHUNK_BYTES);
    forger.publish(subject, encodeChunk({ digest, offset, bytes }));
    const torn = encodeChunk({ digest, offset, bytes });
    torn[60] = (torn[60] ?? 0) ^ 1;
    forger.publish(subject, torn);
    forger.publish(subject, torn.subarray(0, 50));
    forger.publish(subject, new Uint8Array(0));
  }
  sender.start("r2", 1);
  expect(await world.until(() => reports.length > 0)).toBe(true);
  expect(n).toBeGreaterThan(6);
  expect(reports).toEqual(["sent 30 to r2"]);
  expect(state.installed).toEqual([30]);
});

test("an install that could not be tried keeps the file; one that failed for good removes it", async () => {
  for (const [code, transfers] of [
    ["unavailable", 1],
    ["store_failed", 2],
  ] as const) {
    const world = createWorld();
    const { sender, reports } = await startSender(world, await storesWith(history(10, 100_000)));
    const o = { error: new ShardpactError(code, "in a test") };
    const { state } = await startReceiver(world, o);
    sender.start("r2", 1);
    await world.until(() => state.steps.filter((step) => step.startsWith("installing")).length === 1);
    await world.until(() => false, 500);
    delete (o as { error?: ShardpactError }).error;
    if (code === "store_failed") sender.start("r2", 1);
    expect(await world.until(() => reports.at(-1) === "sent 10 to r2", 20_000)).toBe(true);
    expect(state.steps.filter((step) => step.startsWith("receiving"))).toHaveLength(transfers);
    expect(state.installed).toEqual([10]);
  }
});
