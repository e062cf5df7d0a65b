/**
 * Owns the snapshot that a leader serves: one file, made when somebody needs one, used for all who do, kept while it can
 * be followed by the log.
 *
 * The one thing to know: what follows a snapshot must stay in the log until its receivers have it. `heldAt` says from
 * where on; compaction obeys.
 */
import type { LogIndex } from "../consensus/engine.ts";
import type { CatalogStore, SnapshotFolder, SnapshotInfo, SnapshotSource } from "../storage/port.ts";
import type { Runtime } from "./runtime.ts";

/** After a receiver has it, it still has to ask for what follows. */
const HELD_AFTER_MS = 10_000;
/** A file that nobody asked for in so long is removed. */
const KEPT_MS = 600_000;
/** Writing gives the event loop back for as long as it took it, so that commits go on beside it. */
const BREATH_MS_MIN = 1;
const NAME = /^sent-(\d+)$/;

export interface SnapshotLease {
  readonly info: SnapshotInfo;
  chunk(offset: number, bytesMax: number): Promise<Uint8Array>;
  /** `bad`: a receiver found that it is not whole; it is not served again. */
  release(bad: boolean): void;
}

export interface SnapshotSpool {
  /** A snapshot of this index or a later one: the one that is there, or a new one. @throws as `exportSnapshot` */
  acquire(indexMin: LogIndex): Promise<SnapshotLease>;
  /** Entries above this must stay in the log; Infinity: any may go. */
  heldAt(): LogIndex;
  close(): Promise<void>;
}

export interface SpoolOptions {
  readonly folder: SnapshotFolder;
  readonly groupId: string;
  readonly catalog: CatalogStore;
  readonly runtime: Runtime;
  /** Whole files that the folder held when it was opened. */
  readonly found: readonly string[];
}

interface Spooled {
  readonly name: string;
  readonly source: SnapshotSource;
  users: number;
  heldUntilMs: number;
  /** It serves nobody else any more, and goes with its last user. */
  retired: boolean;
}

export function createSnapshotSpool({ folder, groupId, catalog, runtime, found }: SpoolOptions): SnapshotSpool {
  const abort = new AbortController();
  let left = found.filter((name) => NAME.test(name));
  let current: Spooled | null = null;
  let making: { readonly promise: Promise<Spooled>; readonly index: LogIndex } | null = null;
  let cancelKept = (): void => undefined;

  function retire(spooled: Spooled): void {
    spooled.retired = true;
    if (current === spooled) current = null;
    if (spooled.users === 0) void discard(spooled);
  }

  /** A file that can't be removed now is removed at the next start. */
  async function discard({ source, name }: Spooled): Promise<void> {
    await source.close().catch(() => undefined);
    await folder.remove(name).catch(() => undefined);
  }

  async function spooledFrom(name: string): Promise<Spooled> {
    return { name, source: await folder.source(name), users: 0, heldUntilMs: 0, retired: false };
  }

  /** What an earlier process of this replica left: if it still serves, its receivers go on where they were. */
  async function find(indexMin: LogIndex): Promise<Spooled | null> {
    const names = left;
    left = [];
    let best: Spooled | null = null;
    for (const name of names) {
      const spooled = await spooledFrom(name).catch(() => null);
      const info = spooled?.source.info;
      const index = info?.applied.index ?? 0;
      const serves = info?.groupId === groupId && index >= indexMin && index <= catalog.applied().index;
      if (spooled && serves && best === null) best = spooled;
      else if (spooled) await discard(spooled);
      else await folder.remove(name);
    }
    return best;
  }

  async function make(indexMin: LogIndex): Promise<Spooled> {
    const earlier = await find(indexMin);
    if (earlier) return earlier;
    const name = `sent-${catalog.applied().index}`;
    const { files } = folder;
    const breathe = createBreath(runtime);
    await catalog.exportSnapshot(folder.pathOf(name), { files, signal: abort.signal, breathe });
    return await spooledFrom(name);
  }

  async function acquire(indexMin: LogIndex): Promise<SnapshotLease> {
    cancelKept();
    if (current && current.source.info.applied.index < indexMin) retire(current);
    if (current) return lease(current);
    making ??= { promise: make(indexMin), index: indexMin };
    const { promise } = making;
    try {
      current = await promise;
    } finally {
      if (making?.promise === promise) making = null;
    }
    return lease(current);
  }

  function lease(spooled: Spooled): SnapshotLease {
    let released = false;
    spooled.users += 1;
    return {
      info: spooled.source.info,
      chunk: (offset, bytesMax) => spooled.source.chunk(offset, bytesMax),
      release(bad) {
        if (released) return;
        released = true;
        spooled.users -= 1;
        spooled.heldUntilMs = runtime.monotonicMs() + HELD_AFTER_MS;
        if (bad || spooled.retired) return retire(spooled);
        cancelKept();
        cancelKept = runtime.after(KEPT_MS, () => {
          if (spooled.users === 0) retire(spooled);
        });
      },
    };
  }

  return {
    acquire,
    heldAt() {
      if (making) return making.index;
      if (!current) return Infinity;
      const held = current.users > 0 || runtime.monotonicMs() < current.heldUntilMs;
      return held ? current.source.info.applied.index : Infinity;
    },
    async close() {
      abort.abort();
      cancelKept();
      await making?.promise.catch(() => undefined);
      await current?.source.close();
      current = null;
    },
  };
}

/** Waits as long as was worked since the last time. */
function createBreath({ monotonicMs, after }: Runtime): () => Promise<void> {
  let sinceMs = monotonicMs();
  return async () => {
    const ms = Math.max(BREATH_MS_MIN, monotonicMs() - sinceMs);
    await new Promise<void>((resolve) => void after(ms, resolve));
    sinceMs = monotonicMs();
  };
}
