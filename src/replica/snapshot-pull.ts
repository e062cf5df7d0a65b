/**
 * Owns asking for the pieces of a snapshot: a window of them, each with a deadline, written in order.
 *
 * A piece that does not come is asked for again, less and less often; pieces that come twice, late or too early are
 * dropped or wait in the window, which bounds the memory.
 */
import { ShardpactError, toShardpactError } from "../model/errors.ts";
import { LIMITS } from "../model/limits.ts";
import type { SnapshotSink } from "../storage/port.ts";
import type { Subscription, Transport } from "../transport/port.ts";
import type { BulkConnection } from "./bulk.ts";
import type { Runtime } from "./runtime.ts";
import { decodeBulk, encodeWant, type SnapshotOffer } from "./snapshot-messages.ts";

const LOOK_EVERY_MS = 100;
/** For one piece, doubled with each time that it is asked for. */
const CHUNK_MS = 1_000;
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
  asked: number;
  dueMs: number;
  bytes: Uint8Array | null;
}

export function startPull({ offer, sink, bulk, runtime, ...options }: PullOptions): Pull {
  const chunkBytes = LIMITS.snapshotChunkBytesMax;
  /** By offset: those of the window. */
  const pieces = new Map<number, Piece>();
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
    piece.dueMs = runtime.monotonicMs() + Math.min(CHUNK_MS_MAX, CHUNK_MS * 2 ** piece.asked);
    piece.asked += 1;
    transport?.publish(options.wantSubject, encodeWant({ digest: offer.digest, offset }));
  }

  function fill(): void {
    while (!over && pieces.size < LIMITS.snapshotChunksInFlightMax && next < offer.bytes) {
      const piece: Piece = { asked: 0, dueMs: 0, bytes: null };
      pieces.set(next, piece);
      ask(next, piece);
      next += chunkBytes;
    }
  }

  function look(): void {
    const nowMs = runtime.monotonicMs();
    if (nowMs - movedMs > STALL_MS_MAX)
      return end(new ShardpactError("timeout", `no piece came in ${STALL_MS_MAX} ms`), true);
    for (const [offset, piece] of pieces) if (piece.bytes === null && nowMs >= piece.dueMs) ask(offset, piece);
  }

  function received(data: Uint8Array): void {
    const message = decodeBulk(data);
    if (over || message?.kind !== "chunk" || message.digest !== offer.digest) return;
    const piece = pieces.get(message.offset);
    const expected = Math.min(chunkBytes, offer.bytes - message.offset);
    if (!piece || piece.bytes || message.bytes.byteLength !== expected) return;
    piece.bytes = message.bytes;
    movedMs = runtime.monotonicMs();
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
