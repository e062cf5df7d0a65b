/**
 * Owns who is who among replicas: which life of a peer may speak, and when a peer's database has lost promises.
 *
 * A replica is (id, incarnation, boot). A new boot is made durable before that boot's first message is processed; lower
 * boots and foreign incarnations are refused. Every message tells what its sender holds durably; a peer that comes back
 * holding less than it once told has a database that went back (a restored backup, a stale standby). That is told to it,
 * and it stops voting. Best effort: it works only while somebody who heard the earlier promise is alive.
 */
import type { PeerRecord, StoreIdentity } from "../storage/port.ts";
import type { DurablePoint, PeerHeader } from "./envelope.ts";

export type Admission =
  | { readonly kind: "process" }
  /** Remember durably, then process. */
  | { readonly kind: "record"; readonly record: PeerRecord }
  | { readonly kind: "refuse"; readonly reason: string };

/** Kept; certainly broken; or doubtful: fewer entries than before, perhaps by a legal truncation. */
export type PromiseVerdict =
  | { readonly kind: "kept" }
  | { readonly kind: "lost"; readonly reason: string }
  | { readonly kind: "doubtful"; readonly reason: string };

/** Epoch of the entry at an index when that entry is known to be chosen here, else null. */
export type ChosenEpochAt = (index: number) => number | null;

export interface PeerTable {
  /** What to do with a message of this sender. */
  admit(header: PeerHeader): Admission;
  /** The record is durable: this life is the peer's newest. */
  recorded(record: PeerRecord, life: number): void;
  /**
   * Does the sender still hold what its life before told? Looked at in the first message of a life, of whatever kind: a
   * hello may be lost, and what the message tells would overwrite the evidence. A life that lost promises has lost them
   * for good, whatever it is given back.
   */
  judge(header: PeerHeader, chosenEpochAt: ChosenEpochAt): PromiseVerdict;
  /** Remembers what an admitted message tells about its sender's disk and clock. */
  heard(header: PeerHeader, nowMs: number, monotonicMs: number): void;
  /** Empty when the peer has not been heard of. */
  incarnationOf(peer: string): string;
  /** Of these the one that was heard of last, at or after `sinceMs`. */
  lastHeard(ids: readonly string[], sinceMs: number): string | null;
  /** Wall clocks of these minus ours in ms, heard within the last `windowMs`. */
  clockOffsetsMs(ids: readonly string[], monotonicMs: number, windowMs: number): readonly number[];
}

interface Peer {
  readonly record: PeerRecord;
  /** Null until a message of this boot was heard by this process. */
  life: number | null;
  durable: DurablePoint | null;
  /** The life that told `durable`. */
  durableLife: number | null;
  lost: { readonly life: number; readonly verdict: PromiseVerdict } | null;
  clockOffsetMs: number;
  heardAtMs: number;
}

const KEPT: PromiseVerdict = { kind: "kept" };
const PROCESS: Admission = { kind: "process" };

/** `engine`: what the group runs. Under Multi-Paxos no log ever gets shorter. */
export function createPeerTable(records: readonly PeerRecord[], engine: StoreIdentity["engine"] = "raft"): PeerTable {
  const peers = new Map<string, Peer>();
  const fresh = (record: PeerRecord, life: number | null): Peer => ({
    record,
    life,
    durable: null,
    durableLife: null,
    lost: null,
    clockOffsetMs: 0,
    heardAtMs: -Infinity,
  });
  for (const record of records) peers.set(record.peer, fresh(record, null));

  return {
    admit({ from, incarnation, boot, life }) {
      const peer = peers.get(from);
      const record = { peer: from, incarnation, boot };
      if (!peer) return { kind: "record", record };
      const known = peer.record;
      if (known.incarnation !== incarnation) {
        return { kind: "refuse", reason: `'${from}' is known here with another database (${known.incarnation})` };
      }
      if (boot > known.boot) return { kind: "record", record };
      if (boot < known.boot) return { kind: "refuse", reason: `boot ${known.boot} of '${from}' was seen here` };
      if (peer.life !== null && peer.life !== life) {
        return { kind: "refuse", reason: `another process of '${from}' used boot ${boot}` };
      }
      peer.life = life;
      return PROCESS;
    },
    recorded(record, life) {
      const before = peers.get(record.peer);
      peers.set(record.peer, { ...(before ?? fresh(record, life)), record, life });
    },
    judge({ from, life, durable }, chosenEpochAt) {
      const peer = peers.get(from);
      if (peer?.lost?.life === life) return peer.lost.verdict;
      if (!peer?.durable || peer.durableLife === life) return KEPT;
      const verdict = comparePoints(from, peer.durable, durable, chosenEpochAt, engine);
      if (verdict.kind === "lost") peer.lost = { life, verdict };
      return verdict;
    },
    heard({ from, life, durable, clockMs }, nowMs, monotonicMs) {
      const peer = peers.get(from);
      if (!peer) return;
      if (peer.lost?.life !== life) {
        peer.durable = durable;
        peer.durableLife = life;
      }
      peer.clockOffsetMs = clockMs - nowMs;
      peer.heardAtMs = monotonicMs;
    },
    incarnationOf: (id) => peers.get(id)?.record.incarnation ?? "",
    lastHeard(ids, sinceMs) {
      const lately = [...peers].filter(([id, peer]) => ids.includes(id) && peer.heardAtMs >= sinceMs);
      return lately.toSorted(([, a], [, b]) => b.heardAtMs - a.heardAtMs)[0]?.[0] ?? null;
    },
    clockOffsetsMs(ids, monotonicMs, windowMs) {
      const lately = [...peers].filter(([id, peer]) => ids.includes(id) && monotonicMs - peer.heardAtMs <= windowMs);
      return lately.map(([, peer]) => peer.clockOffsetMs);
    },
  };
}

function comparePoints(
  from: string,
  before: DurablePoint,
  now: DurablePoint,
  chosenEpochAt: ChosenEpochAt,
  engine: StoreIdentity["engine"],
): PromiseVerdict {
  if (now.epoch < before.epoch) {
    return { kind: "lost", reason: `'${from}' held epoch ${before.epoch} durably and now holds ${now.epoch}` };
  }
  if (now.lastIndex >= before.lastIndex) return KEPT;
  const shorter = `'${from}' held entries up to ${before.lastIndex} durably and now ends at ${now.lastIndex}`;
  if (chosenEpochAt(before.lastIndex) === before.lastEpoch) {
    return { kind: "lost", reason: `${shorter}; the group has chosen them` };
  }
  // Only the leader of a later epoch removes entries, and a replica makes that epoch durable no later than the removal.
  if (engine === "paxos" || now.epoch <= before.lastEpoch)
    return { kind: "lost", reason: `${shorter}; nobody can have removed them` };
  return { kind: "doubtful", reason: shorter };
}
