/**
 * Owns asking for the pieces of a snapshot: a window of them, each with a deadline, written in order.
 *
 * A piece that does not come is asked for again after as long as pieces take here (RFC 6298), and less and less often
 * while none comes at all; pieces that come twice, late or too early are dropped or wait in the window, which bounds the
 * memory.
 */
import { ShardpactError, toShardpactError } from "../model/errors.ts";
import { LIMITS } from "../model/limits.ts";
import type { SnapshotSink } from "../storage/port.ts";
import type { Subscription, Transport } from "../transport/port.ts";
import type { BulkConnection } from "./bulk.ts";
import type { Runtime } from "./runtime.ts";
import { decodeBulk, encodeWant, type SnapshotOffer } from "./snapshot-messages.ts";

const LOOK_EVERY_MS = 100;
/** For a piece before the first one has come, and at the least and most after it. */
const CHUNK_MS_FIRST = 1_000;
const CHUNK_MS_MIN = 200;
const CHUNK_MS_MAX = 8_000;
/** Without any piece: the attempt ends with `timeout`. */
const STALL_MS_MAX = 30_000;

export interface Pull {
  /** Resolves when nothing is written any more. `onEnd` is not called after it. */
  stop(): Promise<void>;
}

export interface PullOptions {
  readonly offer: SnapshotOffer;
  readonly sink: SnapshotSink;
  readonly bulk: BulkConnection;
  readonly runtime: Runtime;
  readonly wantSubject: string;
  readonly chunkSubject: string;
  /** Null: all bytes are in the sink. `unavailable`, `timeout`: try again later; else the sink is of no use any more. */
  onEnd(error: ShardpactError | null): void;
}

interface Piece {
  readonly firstMs: number;
  askedMs: number;
  dueMs: number;
  bytes: Uint8Array | null;
}

export function startPull({ offer, sink, bulk, runtime, ...options }: PullOptions): Pull {
  const chunkBytes = LIMITS.snapshotChunkBytesMax;
  /** By offset: those of the window. */
  const pieces = new Map<number, Piece>();
  const patience = createPatience();
  let next = sink.offset;
  let movedMs = runtime.monotonicMs();
  let transport: Transport | null = null;
  let chunks: Subscription | null = null;
  let writing: Promise<void> | null = null;
  let over = false;
  let cancelLook = (): void => undefined;

  function end(error: ShardpactError | null, tell: boolean): void {
    if (over) return;
    over = true;
    cancelLook();
    chunks?.close();
    if (transport) bulk.release();
    if (tell) options.onEnd(error);
  }

  function ask(offset: number, piece: Piece): void {
    piece.askedMs = runtime.monotonicMs();
    piece.dueMs = piece.askedMs + patience.waitMs();
    transport?.publish(options.wantSubject, encodeWant({ digest: offer.digest, offset }));
  }

  function fill(): void {
    while (!over && pieces.size < LIMITS.snapshotChunksInFlightMax && next < offer.bytes) {
      const piece: Piece = { firstMs: runtime.monotonicMs(), askedMs: 0, dueMs: 0, bytes: null };
      pieces.set(next, piece);
      ask(next, piece);
      next += chunkBytes;
    }
  }

  function look(): void {
    const nowMs = runtime.monotonicMs();
    if (nowMs - movedMs > STALL_MS_MAX)
      return end(new ShardpactError("timeout", `no piece came in ${STALL_MS_MAX} ms`), true);
    const late = [...pieces].filter(([, piece]) => piece.bytes === null && nowMs >= piece.dueMs);
    if (late.length === 0) return;
    patience.none();
    for (const [offset, piece] of late) ask(offset, piece);
  }

  function received(data: Uint8Array): void {
    const message = decodeBulk(data);
    if (over || message?.kind !== "chunk" || message.digest !== offer.digest) return;
    const piece = pieces.get(message.offset);
    const expected = Math.min(chunkBytes, offer.bytes - message.offset);
    if (!piece || piece.bytes || message.bytes.byteLength !== expected) return;
    piece.bytes = message.bytes;
    movedMs = runtime.monotonicMs();
    patience.came(movedMs - piece.firstMs, movedMs - piece.askedMs);
    writing ??= write().finally(() => {
      writing = null;
    });
  }

  /** What is there, in order. */
  async function write(): Promise<void> {
    try {
      for (;;) {
        const { offset } = sink;
        const bytes = pieces.get(offset)?.bytes;
        if (!bytes || over) break;
        await sink.write(offset, bytes);
        pieces.delete(offset);
        fill();
      }
    } catch (error) {
      return end(toShardpactError(error), true);
    }
    if (sink.offset === offer.bytes) end(null, true);
  }

  async function open(): Promise<void> {
    try {
      const connection = await bulk.acquire();
      if (over) return bulk.release();
      transport = connection;
      chunks = connection.subscribe(options.chunkSubject, ({ data }) => received(data));
      cancelLook = runtime.every(LOOK_EVERY_MS, look);
      fill();
    } catch (error) {
      end(toShardpactError(error), true);
    }
  }
  void open();

  return {
    async stop() {
      end(null, false);
      await writing;
    },
  };
}

/** How long to wait for a piece: RFC 6298, section 2, with pieces for segments. */
function createPatience(): { waitMs(): number; came(sinceFirstMs: number, sinceLastMs: number): void; none(): void } {
  let smoothedMs: number | null = null;
  let deviationMs = 0;
  let doubled = 0;
  return {
    waitMs() {
      const usualMs = smoothedMs === null ? CHUNK_MS_FIRST : Math.max(CHUNK_MS_MIN, smoothedMs + 4 * deviationMs);
      return Math.min(CHUNK_MS_MAX, usualMs * 2 ** doubled);
    },
    came(sinceFirstMs, sinceLastMs) {
      doubled = 0;
      // Which asking it answers is not known: the first one as long as the link is not known either (it may be slow).
      const tookMs = smoothedMs === null ? sinceFirstMs : sinceLastMs;
      deviationMs = smoothedMs === null ? tookMs / 2 : (3 * deviationMs + Math.abs(smoothedMs - tookMs)) / 4;
      smoothedMs = smoothedMs === null ? tookMs : (7 * smoothedMs + tookMs) / 8;
    },
    none() {
      doubled += 1;
    },
  };
}
