/**
 * Owns the reading worker: the entry of a thread that reads, hashes and copies into memory it shares with the loader.
 *
 * It does what `inline-reads.ts` does, and says so by messages. It holds no state that its loader could miss: when it dies,
 * a new one goes on.
 */
import { workerData } from "node:worker_threads";
import { ShardpactError, toShardpactError } from "../../model/errors.ts";
import type { ObjectHandle, ReadableStore, StoreSpec } from "../../shards/port.ts";
import { lateOnesClosed } from "../../shards/until-aborted.ts";
import { openStoreAgain } from "../../shards/store-again.ts";
import { createInlineReads } from "./inline-reads.ts";
import type { ShardMap, ShardReads } from "./reads.ts";
import {
  shareBytes,
  viewOf,
  type FromWorker,
  type OpenedHandle,
  type Outcome,
  type StoreCall,
  type ToWorker,
  type WorkerCall,
  type WorkerSetup,
} from "./worker-protocol.ts";

const setup = workerData as WorkerSetup;
const { port } = setup;
const closing = new AbortController();
const asked = new Map<number, { resolve: (value: unknown) => void; reject: (error: ShardpactError) => void }>();
let lastAsked = 0;

/**
 * Reads that run at a time. Of files few: what was read is hashed while it is still in the processor's cache, few scratch
 * buffers are needed, and a queue keeps the thread busy all the same. Of stores far away as many as are asked for.
 */
const LOCAL_READS_MAX = 2;
/** How long the end of this thread waits for files that are just being opened. */
const LATE_MS_MAX = 1_000;
const readsMax = setup.stores.every(({ spec }) => spec !== null) ? LOCAL_READS_MAX : Infinity;
const inLine: (() => void)[] = [];
let running = 0;
let isLooking = false;

function startNext(): void {
  const next = running < readsMax ? inLine.shift() : undefined;
  if (!next) return;
  running++;
  next();
}

/** Begins one more in the next turn of the event loop: beside others only if they wait for a disk, for without that they have ended by then. */
function startBeside(): void {
  if (isLooking) return;
  isLooking = true;
  setImmediate(() => {
    isLooking = false;
    startNext();
    if (inLine.length > 0 && running < readsMax) startBeside();
  });
}

async function inTurn(read: () => Promise<void>): Promise<void> {
  await new Promise<void>((go) => {
    inLine.push(go);
    if (running === 0) startNext();
    else startBeside();
  });
  try {
    await read();
  } finally {
    running--;
    if (inLine.length > 0) startBeside(); // in a turn of its own: other calls have come meanwhile
  }
}

const send = (message: FromWorker): void => port.postMessage(message);

/** Asks the loader's thread about a store that lives there. */
function ask(call: StoreCall): Promise<unknown> {
  const id = ++lastAsked;
  send({ kind: "ask", id, call });
  return new Promise((resolve, reject) => asked.set(id, { resolve, reject }));
}

function distantStore(store: number, url: string): ReadableStore {
  return {
    url,
    async open(digest) {
      const { handle, bytes } = (await ask({ kind: "open", store, digest })) as OpenedHandle;
      return distantHandle(handle, bytes);
    },
    quarantine: async (digest, reason) => void (await ask({ kind: "quarantine", store, digest, reason })),
  };
}

function distantHandle(handle: number, bytes: number): ObjectHandle {
  const close = async (): Promise<void> => void (await ask({ kind: "release", handle }));
  return {
    bytes,
    async readInto(target, position) {
      const isShared = (target.buffer as unknown) instanceof SharedArrayBuffer;
      const shared = isShared
        ? shareBytes(target)
        : { memory: new SharedArrayBuffer(target.byteLength), offset: 0, bytes: target.byteLength };
      const read = (await ask({ kind: "fill", handle, position, target: shared })) as number;
      if (!isShared) target.set(viewOf(shared).subarray(0, read));
      return read;
    },
    close,
    [Symbol.asyncDispose]: close,
  };
}

async function openReads(): Promise<ShardReads> {
  const { where, hashing, indexBytesMax } = setup;
  const open = async (spec: StoreSpec | null, url: string, i: number): Promise<ReadableStore> =>
    spec ? openStoreAgain(spec, { calls: "cached" }) : distantStore(i, url);
  const stores = await Promise.all(setup.stores.map(({ url, spec }, i) => open(spec, url, i)));
  return createInlineReads({
    where,
    hashing,
    stores,
    signal: closing.signal,
    ...(indexBytesMax ? { indexBytesMax } : {}),
    onPassedOver: ({ store, error }) => send({ kind: "passed_over", store, error: error.toJSON() }),
  });
}

async function perform(reads: ShardReads, call: WorkerCall): Promise<ShardMap | null> {
  switch (call.kind) {
    case "map":
      return reads.map(call.shard);
    case "read":
      await inTurn(() => reads.read(call.shard, call.segment, call.parts, viewOf(call.target)));
      return null;
    case "forget":
      await reads.forget();
      return null;
    case "close":
      closing.abort(new ShardpactError("closed", "the loader was closed"));
      await reads.close();
      await lateOnesClosed(LATE_MS_MAX); // files that a thread leaves open stay open when it ends
      return null;
  }
}

async function answer(reads: ShardReads, id: number, call: WorkerCall): Promise<void> {
  let outcome: Outcome<ShardMap | null>;
  try {
    outcome = { ok: true, value: await perform(reads, call) };
  } catch (error) {
    outcome = { ok: false, error: toShardpactError(error).toJSON() };
  }
  send({ kind: "done", id, outcome, verifiedBytes: reads.verifiedBytes });
}

const opening = openReads();
port.on("message", (message: ToWorker) => {
  if (message.kind === "calls") {
    void opening.then((reads) => {
      for (const { id, call } of message.calls) void answer(reads, id, call);
    });
    return;
  }
  const waiting = asked.get(message.id);
  asked.delete(message.id);
  if (message.outcome.ok) waiting?.resolve(message.outcome.value);
  else waiting?.reject(ShardpactError.fromJSON(message.outcome.error));
});
await opening; // a store that does not open ends the thread, and its loader reads inline
send({ kind: "ready" });
