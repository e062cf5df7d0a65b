/**
 * Owns the loader's side of stores that a reading worker can't open for itself: it opens and reads for the worker, into
 * memory that both share. What is read here is hashed there, like anything else.
 */
import { ShardpactError, toShardpactError } from "../../model/errors.ts";
import type { ObjectHandle, ReadableStore } from "../../shards/port.ts";
import { untilAborted } from "../../shards/until-aborted.ts";
import { viewOf, type OpenedHandle, type Outcome, type StoreCall } from "./worker-protocol.ts";

export interface StoreHost {
  answer(call: StoreCall): Promise<Outcome<OpenedHandle | number | null>>;
  /** Closes what the worker left open. */
  close(): Promise<void>;
}

export function createStoreHost(stores: readonly ReadableStore[], signal: AbortSignal): StoreHost {
  const handles = new Map<number, ObjectHandle>();
  let lastHandle = 0;

  const storeOf = (at: number): ReadableStore => {
    const store = stores[at];
    if (!store) throw new ShardpactError("internal", `there is no store ${at}`);
    return store;
  };
  const handleOf = (at: number): ObjectHandle => {
    const handle = handles.get(at);
    if (!handle) throw new ShardpactError("internal", `there is no open object ${at}`);
    return handle;
  };

  async function perform(call: StoreCall): Promise<OpenedHandle | number | null> {
    switch (call.kind) {
      case "open": {
        const opening = storeOf(call.store).open(call.digest, signal);
        const opened = await untilAborted(signal, opening, (late) => late.close());
        const handle = ++lastHandle;
        handles.set(handle, opened);
        return { handle, bytes: opened.bytes };
      }
      case "fill":
        return untilAborted(signal, handleOf(call.handle).readInto(viewOf(call.target), call.position));
      case "release": {
        const opened = handleOf(call.handle);
        handles.delete(call.handle);
        await opened.close();
        return null;
      }
      case "quarantine":
        await storeOf(call.store).quarantine(call.digest, call.reason);
        return null;
    }
  }

  return {
    async answer(call) {
      try {
        return { ok: true, value: await perform(call) };
      } catch (error) {
        return { ok: false, error: toShardpactError(error, "store_failed").toJSON() };
      }
    },
    async close() {
      const open = [...handles.values()];
      handles.clear();
      await Promise.all(open.map((handle) => handle.close().catch(() => undefined)));
    },
  };
}
