/**
 * Owns linearizable reads of a replica: from the leader it gets an index that covers all that was acknowledged before.
 *
 * A leader asks its own engine (ReadIndex, thesis §6.4: a round of heartbeats proves that it still leads); a follower asks
 * the leader to. Whoever reads waits until that index is applied here. One question is out at a time; reads that come
 * meanwhile share the next one: a round answers for every read that was there when it began, for none that came later.
 *
 * How old an answer may be follows from the same questions, by this replica's own monotonic clock alone: all that was
 * acknowledged before a question is in the tables once the answer's index is applied. No clock of another machine and no
 * message's travelling time is trusted.
 */
import { z } from "zod";
import type { EngineStatus, Epoch, LogIndex, ReplicaId } from "../consensus/engine.ts";
import { decodeApi, encodeApi } from "../model/api.ts";
import { ShardpactError } from "../model/errors.ts";
import type { Runtime } from "./runtime.ts";

/** After a failed question, or without a leader, the next try comes this much later. */
const RETRY_MS = 20;

/** A follower's question and the leader's answer; `nonce` names the question and is never used twice. */
const askBody = z.object({ nonce: z.string() });
const count = z.number().int().nonnegative();
const atBody = z.object({ nonce: z.string(), index: count, epoch: count, lastIndex: count });

/** Everything acknowledged before `askedMs` (this replica's monotonic clock) stands at or below `index`. */
export interface ReadPoint {
  readonly index: LogIndex;
  readonly askedMs: number;
  /** When the leader answered: its epoch, and where its log ended. */
  readonly epoch: Epoch;
  readonly lastIndex: LogIndex;
}

export interface ReadIndex {
  /** A point asked for after the call. @throws ShardpactError `unavailable` when no leader confirms one in time */
  fetch(waitMs: number): Promise<ReadPoint>;
  /** The latest point that is applied here, if there was one. */
  newest(applied: LogIndex): ReadPoint | null;
  /** The engine's answers. */
  ready(ticket: number, index: LogIndex): void;
  failed(ticket: number): void;
  /** A follower asks; the leader of this replica has answered. */
  receive(kind: "read_index" | "read_at", from: ReplicaId, body: Uint8Array): void;
  stop(): void;
}

export interface ReadIndexOptions {
  readonly runtime: Pick<Runtime, "after" | "monotonicMs" | "randomU32">;
  /** A question that is not answered within this is sent again. */
  readonly resendMs: number;
  status(): Pick<EngineStatus, "role" | "leader" | "epoch" | "lastIndex">;
  /** Feeds `read` to the engine; `ready` or `failed` follows, perhaps within the call. */
  read(ticket: number): void;
  send(kind: "read_index" | "read_at", to: ReplicaId, body: Uint8Array): void;
}

interface Waiter {
  done(point: ReadPoint | null): void;
}

interface Question {
  readonly nonce: string;
  readonly askedMs: number;
  readonly waiters: Set<Waiter>;
  /** The engine's ticket, when the leader is this replica. */
  ticket: number | null;
  cancel: () => void;
}

export function createReadIndex(options: ReadIndexOptions): ReadIndex {
  const { runtime } = options;
  const life = runtime.randomU32();
  let waiting = new Set<Waiter>();
  let out: Question | null = null;
  let count = 0;
  let tickets = 0;
  let stopped = false;
  let applied: ReadPoint | null = null;
  let latest: ReadPoint | null = null;
  /** By the engine's ticket: whose question it answers. One a follower: a new one takes the place of the old. */
  const asked = new Map<number, { readonly from: ReplicaId; readonly nonce: string }>();

  function start(): void {
    if (out !== null || waiting.size === 0 || stopped) return;
    count += 1;
    const askedMs = runtime.monotonicMs();
    out = { nonce: `${life}.${count}`, askedMs, waiters: waiting, ticket: null, cancel: () => undefined };
    waiting = new Set();
    ask(out);
  }

  /** Again and again until it is answered or nobody waits: a message or a leader may be lost. */
  function ask(question: Question): void {
    if (out !== question) return;
    if (question.waiters.size === 0) return conclude(question);
    const { role, leader } = options.status();
    const lead = role === "leader";
    question.cancel = runtime.after(lead || leader !== null ? options.resendMs : RETRY_MS, () => ask(question));
    if (!lead) {
      question.ticket = null;
      if (leader !== null) options.send("read_index", leader, encodeApi({ nonce: question.nonce }));
      return;
    }
    if (question.ticket !== null) return;
    tickets += 1;
    question.ticket = tickets;
    options.read(tickets);
  }

  function conclude(question: Question): void {
    question.cancel();
    out = null;
    start();
  }

  function answered(question: Question, point: Omit<ReadPoint, "askedMs">): void {
    latest = { ...point, askedMs: question.askedMs };
    for (const waiter of question.waiters) waiter.done(latest);
    conclude(question);
  }

  /** A follower's question goes to the engine: it answers only while it leads, and after a quorum has said so. */
  function askedBy(from: ReplicaId, nonce: string): void {
    for (const [ticket, question] of asked) if (question.from === from) asked.delete(ticket);
    tickets += 1;
    asked.set(tickets, { from, nonce });
    options.read(tickets);
  }

  return {
    fetch(waitMs) {
      return new Promise((resolve, reject) => {
        const cancel = runtime.after(waitMs, () => waiter.done(null));
        const waiter: Waiter = {
          done(point) {
            cancel();
            waiting.delete(waiter);
            out?.waiters.delete(waiter);
            if (point !== null) return resolve(point);
            reject(notConfirmed(options.status().leader, waitMs));
          },
        };
        if (stopped) return waiter.done(null);
        waiting.add(waiter);
        start();
      });
    },
    newest(index) {
      if (latest !== null && latest.index <= index) applied = latest;
      return applied;
    },
    ready(ticket, index) {
      const question = asked.get(ticket);
      asked.delete(ticket);
      const { role, epoch, lastIndex } = options.status();
      if (role !== "leader") return;
      const point = { index, epoch, lastIndex };
      if (question) options.send("read_at", question.from, encodeApi({ nonce: question.nonce, ...point }));
      else if (out?.ticket === ticket) answered(out, point);
    },
    failed(ticket) {
      // A follower asks again by itself.
      if (asked.delete(ticket) || out?.ticket !== ticket) return;
      const question = out;
      question.ticket = null;
      question.cancel();
      question.cancel = runtime.after(RETRY_MS, () => ask(question));
    },
    receive(kind, from, body) {
      try {
        if (kind === "read_index") return askedBy(from, decodeApi(askBody, body).nonce);
        const { nonce, ...point } = decodeApi(atBody, body);
        if (out?.nonce === nonce) answered(out, point);
      } catch {
        // Malformed: lost, as on any bad link.
      }
    },
    stop() {
      stopped = true;
      out?.cancel();
      for (const waiter of [...waiting, ...(out?.waiters ?? [])]) waiter.done(null);
      out = null;
    },
  };
}

function notConfirmed(leader: ReplicaId | null, waitMs: number): ShardpactError {
  const who = leader === null ? "there is no leader" : `${leader} leads as far as is known here`;
  return new ShardpactError("unavailable", `no leader confirmed how far the group is within ${waitMs} ms; ${who}`, {
    details: { leader },
    hint: "Ask again or another replica; a read with consistency `any` is answered without the group.",
  });
}
