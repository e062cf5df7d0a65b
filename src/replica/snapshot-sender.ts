/**
 * Owns a leader's snapshots on their way: one transfer for each follower that needs one, each with its deadlines, and a
 * report to the engine for every one of them.
 *
 *   asked ──pause after a failure──► spooled ──► offered ⇄ receiving, installing ──► installed (snapshot_sent)
 *                                       └──────────────┴── silent, stalled, failed ──► snapshot_failed
 *
 * A transfer belongs to one leadership: it ends without a report when that ends.
 */
import type { LogIndex, ReplicaId } from "../consensus/engine.ts";
import { encodeApi, SUBJECTS } from "../model/api.ts";
import { toShardpactError } from "../model/errors.ts";
import { LIMITS } from "../model/limits.ts";
import type { SnapshotInfo } from "../storage/port.ts";
import type { Subscription, Transport } from "../transport/port.ts";
import type { BulkConnection } from "./bulk.ts";
import type { Runtime } from "./runtime.ts";
import {
  decodeBulk,
  decodeSnapshotMessage,
  encodeChunk,
  type SnapshotAnswer,
  type SnapshotOffer,
} from "./snapshot-messages.ts";
import type { SnapshotLease, SnapshotSpool } from "./snapshot-spool.ts";

const OFFER_EVERY_MS = 1_000;
/** Without any word from the receiver. */
const SILENCE_MS_MAX = 10_000;
/** Without a further byte there, while it says that it receives. */
const STALL_MS_MAX = 60_000;
const TOTAL_MS_MAX = 3_600_000;
/** Before the next attempt after a failed one, doubled each time. */
const PAUSE_MS_MIN = 500;
const PAUSE_MS_MAX = 30_000;

export type SendStep = "sending" | "sent" | "send_failed";

export interface SnapshotSender {
  /** The engine's `send_snapshot`: one of `onSent`, `onFailed` follows, unless `endAll` comes first. */
  start(to: ReplicaId, indexMin: LogIndex): void;
  /** This replica leads no more. */
  endAll(): void;
  stop(): void;
}

export interface SenderOptions {
  readonly group: string;
  readonly groupId: string;
  readonly replica: ReplicaId;
  readonly transport: Transport;
  readonly bulk: BulkConnection;
  readonly spool: SnapshotSpool;
  readonly runtime: Runtime;
  onSent(to: ReplicaId, index: LogIndex): void;
  onFailed(to: ReplicaId): void;
  onStep(step: SendStep, to: ReplicaId, index: LogIndex, reason: string | null): void;
}

interface Transfer {
  readonly to: ReplicaId;
  readonly startedMs: number;
  lease: SnapshotLease | null;
  bulk: Transport | null;
  wants: Subscription | null;
  heardMs: number;
  offset: number;
  movedMs: number;
  /** Chunks that are being read or wait for their turn. */
  serving: number;
  over: boolean;
  cancelTimer: () => void;
}

export function createSnapshotSender(options: SenderOptions): SnapshotSender {
  const { group, groupId, replica, transport, bulk, spool, runtime } = options;
  const transfers = new Map<ReplicaId, Transfer>();
  const failures = new Map<ReplicaId, { readonly count: number; readonly untilMs: number }>();
  const turn = createPace(runtime);

  function start(to: ReplicaId, indexMin: LogIndex): void {
    const before = transfers.get(to);
    // The one on its way will do.
    if (before?.lease && before.lease.info.applied.index >= indexMin) return;
    if (before) end(before);
    const nowMs = runtime.monotonicMs();
    const transfer: Transfer = {
      ...{ to, startedMs: nowMs, lease: null, bulk: null, wants: null, heardMs: nowMs, offset: 0, movedMs: nowMs },
      ...{ serving: 0, over: false, cancelTimer: () => undefined },
    };
    transfers.set(to, transfer);
    const waitMs = (failures.get(to)?.untilMs ?? 0) - nowMs;
    if (waitMs <= 0) return void begin(transfer, indexMin);
    transfer.cancelTimer = runtime.after(waitMs, () => void begin(transfer, indexMin));
  }

  async function begin(transfer: Transfer, indexMin: LogIndex): Promise<void> {
    const { to } = transfer;
    try {
      const lease = await spool.acquire(indexMin);
      if (transfer.over) return lease.release(false);
      transfer.lease = lease;
      const connection = await bulk.acquire();
      if (transfer.over) return bulk.release();
      transfer.bulk = connection;
      transfer.wants = connection.subscribe(SUBJECTS.bulk(group, replica, to), ({ data }) => wanted(transfer, data));
    } catch (error) {
      return fail(transfer, toShardpactError(error).message, false);
    }
    transfer.heardMs = transfer.movedMs = runtime.monotonicMs();
    options.onStep("sending", to, transfer.lease.info.applied.index, null);
    offer(transfer, transfer.lease.info);
  }

  function offer(transfer: Transfer, info: SnapshotInfo): void {
    const { to } = transfer;
    const nowMs = runtime.monotonicMs();
    if (nowMs - transfer.heardMs > SILENCE_MS_MAX) return fail(transfer, "it does not answer", false);
    if (nowMs - transfer.movedMs > STALL_MS_MAX) return fail(transfer, `it stays at byte ${transfer.offset}`, false);
    if (nowMs - transfer.startedMs > TOTAL_MS_MAX) return fail(transfer, "it takes too long", false);
    const { digest, bytes, applied } = info;
    const said: SnapshotOffer = { kind: "offer", groupId, index: applied.index, digest, bytes };
    try {
      transport.publish(SUBJECTS.snapshot(group, to, replica), encodeApi(said));
    } catch (error) {
      return fail(transfer, toShardpactError(error).message, false); // Closed under it.
    }
    transfer.cancelTimer = runtime.after(OFFER_EVERY_MS, () => offer(transfer, info));
  }

  function wanted(transfer: Transfer, data: Uint8Array): void {
    const message = decodeBulk(data);
    const { lease, bulk: connection } = transfer;
    if (message?.kind !== "want" || transfer.over || !lease || !connection || message.digest !== lease.info.digest)
      return;
    transfer.heardMs = runtime.monotonicMs();
    // It asks again for what is lost.
    if (transfer.serving >= LIMITS.snapshotChunksInFlightMax || message.offset >= lease.info.bytes) return;
    transfer.serving += 1;
    void serve(transfer, lease, connection, message.offset).finally(() => {
      transfer.serving -= 1;
    });
  }

  async function serve(transfer: Transfer, lease: SnapshotLease, connection: Transport, offset: number): Promise<void> {
    try {
      await turn(LIMITS.snapshotChunkBytesMax);
      if (transfer.over) return;
      const bytes = await lease.chunk(offset, LIMITS.snapshotChunkBytesMax);
      if (transfer.over) return;
      const { digest } = lease.info;
      connection.publish(SUBJECTS.bulk(group, transfer.to, replica), encodeChunk({ digest, offset, bytes }));
    } catch (error) {
      fail(transfer, toShardpactError(error).message, true);
    }
  }

  function answered(from: ReplicaId, answer: SnapshotAnswer): void {
    const transfer = transfers.get(from);
    const info = transfer?.lease?.info;
    if (!transfer || !info || answer.groupId !== groupId || answer.digest !== info.digest) return;
    transfer.heardMs = runtime.monotonicMs();
    if (answer.state === "failed") return fail(transfer, answer.reason ?? "it failed", answer.code === "damaged");
    if (answer.state === "installing" || answer.offset > transfer.offset) transfer.movedMs = transfer.heardMs;
    transfer.offset = answer.offset;
    if (answer.state !== "installed") return;
    end(transfer);
    failures.delete(from);
    options.onStep("sent", from, info.applied.index, null);
    options.onSent(from, info.applied.index);
  }

  function fail(transfer: Transfer, reason: string, bad: boolean): void {
    if (transfer.over) return;
    const { to, lease } = transfer;
    end(transfer, bad);
    const count = (failures.get(to)?.count ?? 0) + 1;
    const pauseMs = Math.min(PAUSE_MS_MAX, PAUSE_MS_MIN * 2 ** (count - 1));
    failures.set(to, { count, untilMs: runtime.monotonicMs() + pauseMs });
    options.onStep("send_failed", to, lease?.info.applied.index ?? 0, reason);
    options.onFailed(to);
  }

  function end(transfer: Transfer, bad = false): void {
    transfer.over = true;
    transfer.cancelTimer();
    transfer.wants?.close();
    transfer.lease?.release(bad);
    if (transfer.bulk) bulk.release();
    if (transfers.get(transfer.to) === transfer) transfers.delete(transfer.to);
  }

  function endAll(): void {
    for (const transfer of transfers.values()) end(transfer);
    failures.clear();
  }

  const answers = transport.subscribe(SUBJECTS.snapshot(group, replica, "*"), ({ subject, data }) => {
    if (transfers.size === 0) return;
    const from = subject.slice(subject.lastIndexOf(".") + 1);
    const message = decodeSnapshotMessage(data);
    if (message?.kind === "answer") answered(from, message);
  });

  return {
    start,
    endAll,
    stop() {
      answers.close();
      endAll();
    },
  };
}

/** Resolves when so many more bytes may leave. */
function createPace({ monotonicMs, after }: Runtime): (bytes: number) => Promise<void> {
  let freeAtMs = 0;
  return (bytes) => {
    const nowMs = monotonicMs();
    const waitMs = Math.max(0, freeAtMs - nowMs);
    freeAtMs = Math.max(freeAtMs, nowMs) + (bytes * 1_000) / LIMITS.snapshotBytesPerSecondMax;
    return waitMs === 0 ? Promise.resolve() : new Promise((resolve) => void after(waitMs, resolve));
  };
}
