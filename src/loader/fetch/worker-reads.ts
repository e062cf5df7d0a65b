/**
 * Owns reading in threads of their own: which of them is asked, and reading in the caller's where a host has none.
 *
 * Reads of one shard may go to several threads, each with files and digests of its own: a shard is large, and rows are often
 * wanted in the order of its bytes.
 */
import { isShardpactError, ShardpactError } from "../../model/errors.ts";
import { createInlineReads } from "./inline-reads.ts";
import { NoWorker, type ReadingThread, type ReadingThreadOptions, startReadingThread } from "./reading-thread.ts";
import type { ShardMap, ShardReads } from "./reads.ts";
import { shareBytes, type WorkerCall } from "./worker-protocol.ts";

/**
 * Calls from which on a thread is behind, and not just at work: others then go to the next one. Sharing them evenly would wake both
 * all the time (measured on two processors: a fifth slower).
 */
const BEHIND_CALLS = 3;
/** What is verified before another thread is started, which costs as much as half of it: a first batch should not wait for that. */
const ALONE_BYTES = 32 * 1024 * 1024;

export interface WorkerReadsOptions extends ReadingThreadOptions {
  /** Threads at most. */
  readonly threads: number;
  /** Bytes that are verified before there is more than one. */
  readonly aloneBytes?: number;
  /** Told when there is no worker and reads go on inline. */
  readonly warn: (message: string) => void;
}

/** Targets of `read` must be views of shared memory. */
export function createWorkerReads(options: WorkerReadsOptions): ShardReads {
  const { aloneBytes = ALONE_BYTES } = options;
  const threads = new Array<ReadingThread | null>(options.threads).fill(null);
  let inline: ShardReads | null = null;
  let verifiedBytes = 0;
  let closed = false;

  function start(at: number): number {
    threads[at] = startReadingThread(options, {
      onVerified: (bytes) => (verifiedBytes += bytes),
      onExit: () => (threads[at] = null),
    });
    return at;
  }

  /** The first thread that is not behind, started if need be; where all that there may be are, the one with the fewest calls. */
  function nextThread(): number {
    let best = 0;
    for (const [at, thread] of threads.entries()) {
      if (!thread) return at === 0 || verifiedBytes >= aloneBytes ? start(at) : best;
      if (thread.calls < BEHIND_CALLS) return at;
      if (thread.calls < (threads[best]?.calls ?? 0)) best = at;
    }
    return best;
  }

  async function via(call: WorkerCall, otherwise: (reads: ShardReads) => Promise<ShardMap | void>) {
    if (closed) throw new ShardpactError("closed", "the loader is closed");
    if (inline) return otherwise(inline);
    const at = nextThread();
    try {
      return await callThread(at, call);
    } catch (error) {
      if (!(error instanceof NoWorker)) throw error;
      if (at > 0) {
        threads.length = Math.min(threads.length, at);
        return via(call, otherwise);
      }
      if (!inline) options.warn(`shards are read and hashed in the main thread: ${error.message}`);
      inline ??= createInlineReads(options);
      return otherwise(inline);
    }
  }

  /** What one thread does not find another may have put aside a moment ago: then that one knows why. */
  async function callThread(at: number, call: WorkerCall): Promise<ShardMap | null> {
    try {
      return await (threads[at] as ReadingThread).call(call);
    } catch (error) {
      if (!isShardpactError(error, "not_found")) throw error;
      const other = threads.find((thread, i) => thread && i !== at);
      if (!other) throw error;
      return other.call(call).catch((again: unknown) => {
        throw again instanceof NoWorker ? error : again;
      });
    }
  }

  return {
    map: async (shard) => (await via({ kind: "map", shard }, (reads) => reads.map(shard))) as ShardMap,
    async read(shard, segment, parts, target) {
      const call = { kind: "read", shard, segment, parts, target: shareBytes(target) } as const;
      await via(call, (reads) => reads.read(shard, segment, parts, target));
    },
    takeAnswers() {
      for (const thread of threads) thread?.takeAnswers();
    },
    get verifiedBytes() {
      return inline ? inline.verifiedBytes : verifiedBytes;
    },
    async forget() {
      const forgetting = threads.map(async (thread) => thread?.call({ kind: "forget" }));
      await Promise.allSettled(forgetting); // what has ended meanwhile remembers nothing
      await inline?.forget();
    },
    async close() {
      closed = true;
      await Promise.all(threads.map(async (thread) => thread?.close()));
      await inline?.close();
    },
  };
}
