/**
 * Owns what a leader knows of one follower, within its own epoch only.
 *
 *            accepted                     rejected
 *   probe ─────────────► replicate ─────────────────► probe
 *   one append at a time   a window of appends, `next` runs ahead
 *
 *   probe, replicate ── needs what the log no longer holds ──► snapshot ── sent, failed, or it got there otherwise ──► probe
 *                                                              nothing is sent
 *
 * The one thing to know: `match` steers replication, `votingMatch` alone counts towards commit. A replica that lost
 * its promises still gets the log, and nothing it says is counted.
 */
import type { AppliedPoint, LogIndex } from "../engine.ts";

/** Bytes in flight to one follower, in full appends. */
const INFLIGHT_FULL_APPENDS_MAX = 8;

export interface Progress {
  /** Highest index that the follower said is durable and equal to ours. */
  match: LogIndex;
  /** The same, from replies that may be counted. */
  votingMatch: LogIndex;
  next: LogIndex;
  /** Highest index that any append of this epoch covered: no honest reply can match more. */
  sentMax: LogIndex;
  mode: "probe" | "replicate" | "snapshot";
  /** A probe is out; the next one waits for its reply or for a heartbeat's. */
  probing: boolean;
  readonly inflight: { readonly last: LogIndex; readonly bytes: number }[];
  inflightBytes: number;
  /** A `load` for this follower is out. */
  loadToken: number | null;
  /** Highest commit index that a message to it has carried. */
  commitTold: LogIndex;
  /** Heard in this check-quorum period, by a reply that may be counted. */
  heard: boolean;
  /** Highest heartbeat round answered by a reply that may be counted. */
  ackedRound: number;
  /** Highest index at which its chain was seen equal to ours, and the first point at which it was not. */
  agreedIndex: LogIndex;
  differs: AppliedPoint | null;
  /** The configuration at this index left it out: it gets the log until it knows. */
  leavingAt: LogIndex | null;
}

export function createProgress(lastIndex: LogIndex): Progress {
  return {
    match: 0,
    votingMatch: 0,
    next: lastIndex + 1,
    sentMax: 0,
    mode: "probe",
    probing: false,
    inflight: [],
    inflightBytes: 0,
    loadToken: null,
    commitTold: 0,
    heard: false,
    ackedRound: 0,
    agreedIndex: 0,
    differs: null,
    leavingAt: null,
  };
}

export function canSend(progress: Progress, bounds: { appendsMax: number; appendBytesMax: number }): boolean {
  if (progress.loadToken !== null || progress.mode === "snapshot") return false;
  if (progress.mode === "probe") return !progress.probing;
  return (
    progress.inflight.length < bounds.appendsMax &&
    progress.inflightBytes < INFLIGHT_FULL_APPENDS_MAX * bounds.appendBytesMax
  );
}

/** An append of `count` entries from `next` on leaves now. */
export function noteSent(progress: Progress, count: number, bytes: number): void {
  const last = progress.next - 1 + count;
  progress.sentMax = Math.max(progress.sentMax, last);
  if (progress.mode === "probe") {
    progress.probing = true;
    return;
  }
  if (count === 0) return;
  progress.next = last + 1;
  progress.inflight.push({ last, bytes });
  progress.inflightBytes += bytes;
}

/** The follower holds our log up to `match`. Returns whether that, or that it may be counted, is news. */
export function noteAccepted(progress: Progress, match: LogIndex, voting: boolean): boolean {
  let news = false;
  if (voting && match > progress.votingMatch) {
    progress.votingMatch = match;
    news = true;
  }
  if (match > progress.match) {
    progress.match = match;
    news = true;
  }
  progress.next = Math.max(progress.next, progress.match + 1);
  while ((progress.inflight[0]?.last ?? Infinity) <= progress.match) {
    progress.inflightBytes -= progress.inflight.shift()?.bytes ?? 0;
  }
  if (progress.mode === "probe" && match >= progress.match) {
    progress.mode = "replicate";
    progress.probing = false;
    progress.next = progress.match + 1;
  }
  return news;
}

/** The follower says that it must not be counted: what it promised before may be lost too. */
export function noteUncounted(progress: Progress): void {
  progress.votingMatch = 0;
  progress.heard = false;
}

/** Appends cannot bring it on: nothing is sent until a snapshot did. */
export function awaitSnapshot(progress: Progress): void {
  backOff(progress, progress.next);
  progress.mode = "snapshot";
}

/** The attempt is over; `next` is where to go on, or null to ask again when it is heard. */
export function endSnapshot(progress: Progress, next: LogIndex | null): void {
  backOff(progress, next ?? progress.next);
  progress.probing = next === null;
}

/** Goes back to one append at a time from `next` on (never below what the follower already holds). */
export function backOff(progress: Progress, next: LogIndex): void {
  progress.mode = "probe";
  progress.probing = false;
  progress.next = Math.max(next, progress.match + 1);
  progress.inflight.length = 0;
  progress.inflightBytes = 0;
  progress.loadToken = null;
}
