/**
 * Owns a confirmed read: one nonce to the leader, signed answers of the voters, a majority in equal bytes.
 *
 * Fails closed: without a majority by the deadline there is no answer. Every attempt has a fresh nonce, so that late
 * answers to an earlier one count for nothing; leadership that moves only costs another attempt.
 */
import { z } from "zod";
import {
  decodeApi,
  encodeApi,
  errorReply,
  SUBJECTS,
  type AgreedPart,
  type CatalogQuery,
  type ConfirmRequest,
  type RevocationAnswer,
} from "../model/api.ts";
import { isShardpactError, ShardpactError } from "../model/errors.ts";
import { LIMITS } from "../model/limits.ts";
import { errorOf } from "./answers.ts";
import type { SeenPoint, Session } from "./session.ts";
import { startTally, type Agreement, type Tally } from "./tally.ts";
import { backoffMs, startDeadline, type Deadline } from "./timing.ts";
import { followConfigurations } from "./trust.ts";
import type { Confirmation } from "./types.ts";

/** After a majority, how long the rest is still listened to in the background, to name a replica that disagrees. */
const STRAGGLERS_MS = 250;
/** One attempt takes this long at first, and twice as long each time; then the next replica is asked. */
const ATTEMPT_MS = 1_000;
/** Why what is left of an attempt ends. One for all: an error with its stack costs more than a message. */
const ANSWERED = new ShardpactError("aborted", "the question has been answered");

/** Of the attempts that come to nothing, one in so many looks whether there are other members now. */
const FOLLOW_EVERY = 3;

export interface CallOptions {
  readonly timeoutMs?: number;
  readonly signal?: AbortSignal;
}

/** The answers that come after a majority's: they change nothing, but may show a replica that disagrees. */
export interface Stragglers {
  /** Resolves once every voter has answered, or after a quarter of a second. */
  readonly settled: Promise<void>;
  /** Replicas known by now to disagree with the majority. */
  diverged(): readonly string[];
}

export interface Confirmed {
  readonly confirmation: Confirmation;
  readonly stragglers: Stragglers;
  /** What the majority answered: JSON of a `CatalogAnswer`. */
  readonly answer: unknown;
  /** A revocation of what was asked for, committed after the answer's index: whoever hands out data must refuse it. */
  readonly laterRevocation: RevocationAnswer | null;
}

/** How a replica refuses a confirm request, on the request's reply subject. */
const refusal = z.object({ ok: z.literal(false), error: errorReply, leader: z.string().nullable() });

type Attempt =
  | { readonly kind: "agreed"; readonly agreement: Agreement; readonly stragglers: Stragglers }
  | { readonly kind: "refused"; readonly error: ShardpactError; readonly leader: string | null }
  | { readonly kind: "silent"; readonly tally: Tally };

/**
 * What a majority of voters answers, as of one log index at or after every write acknowledged before the call.
 * @throws ShardpactError `no_quorum`, `unavailable` (NATS), `replica_diverged` (no majority agrees), `group_forked`, `aborted`,
 * and what the leader refuses for good
 */
export async function confirm(session: Session, query: CatalogQuery, o: CallOptions = {}): Promise<Confirmed> {
  const deadline = startDeadline(session.timing, o.timeoutMs ?? LIMITS.openTimeoutMs, o.signal);
  const answered = new Set<string>();
  let ignored: Readonly<Record<string, number>> = {};
  let last: ShardpactError | null = null;
  let target = session.leader();
  const since = session.seen();
  for (let attempt = 0; deadline.remainingMs() > 0; attempt++) {
    deadline.throwIfAborted();
    target ??= nextReplica(session, attempt);
    const outcome = await askOnce(session, target, query, deadline, attempt);
    if (outcome.kind === "agreed") return conclude(session, outcome, since);
    if (outcome.kind === "refused") {
      last = outcome.error;
      if (!last.retryable) throw last;
      const moved = outcome.leader !== null && outcome.leader !== target;
      session.hintLeader(outcome.leader);
      target = moved ? session.leader() : null;
      if (moved && attempt % 4 !== 3) continue;
    } else {
      for (const replica of outcome.tally.answered()) answered.add(replica);
      ignored = outcome.tally.ignored();
      session.hintLeader(null);
      target = null;
    }
    // The members may have changed since this client looked.
    if (attempt % FOLLOW_EVERY === 1) await followConfigurations(session, deadline);
    const pauseMs = Math.min(backoffMs(attempt, session.timing.random), deadline.remainingMs());
    await session.timing.sleep(pauseMs, deadline.signal);
  }
  deadline.throwIfAborted();
  throw noQuorum(session, deadline, [...answered].sort(), ignored, last);
}

/** Round robin over all that are known, from a random one on. */
function nextReplica(session: Session, attempt: number): string {
  const voters = session.replicas();
  const replicas = [...voters, ...session.askingOrder().filter((id) => !voters.includes(id))];
  const start = attempt === 0 ? Math.floor(session.timing.random() * replicas.length) : attempt;
  return replicas[start % replicas.length] ?? "";
}

async function askOnce(
  session: Session,
  target: string,
  query: CatalogQuery,
  deadline: Deadline,
  attempt: number,
): Promise<Attempt> {
  const windowMs = Math.max(1, Math.min(deadline.remainingMs(), ATTEMPT_MS * 2 ** Math.min(attempt, 4)));
  const nonce = session.timing.uniqueHex();
  const answers = collectAnswers(session, nonce);
  const waitMs = Math.min(60_000, Math.ceil(windowMs));
  const request: ConfirmRequest = { nonce, query, answerTo: answers.subject, waitMs };
  const ended = new AbortController();
  const abort = () => ended.abort(ANSWERED);
  deadline.signal?.addEventListener("abort", abort, { once: true });
  try {
    return await Promise.race([
      answers.outcome,
      refusedOrSilent(sendRequest(session, target, request, windowMs, ended.signal)),
      session.timing.sleep(windowMs, ended.signal).then((): Attempt => ({ kind: "silent", tally: answers.tally })),
    ]);
  } finally {
    ended.abort(ANSWERED);
    deadline.signal?.removeEventListener("abort", abort);
    answers.end();
  }
}

interface Answers {
  /** Where voters are to answer. */
  readonly subject: string;
  readonly tally: Tally;
  /** A majority's answer; rejects when there can't be one any more. */
  readonly outcome: Promise<Attempt>;
  /** The call is over: listens to stragglers for a moment if there was a majority, else stops. */
  end(): void;
}

/** Counts what comes to the inbox; goes on after the majority, so that a replica that disagrees is named all the same. */
function collectAnswers(session: Session, nonce: string): Answers {
  const tally = startTally({ nonce, groupId: session.groupId, trusted: session.trusted() });
  const outcome = withResolvers<Attempt>();
  const settled = withResolvers<void>();
  let diverged: readonly string[] = [];
  let concluded = false;
  const stragglers: Stragglers = { settled: settled.promise, diverged: () => diverged };
  const stop = () => {
    subscription.close();
    settled.resolve();
  };
  const subscription = session.inbox.open((data) => {
    tally.add(data);
    const verdict = tally.verdict();
    if (verdict.kind === "diverged") outcome.reject(divergedError(session, verdict.answers));
    if (verdict.kind !== "agreed") return;
    const news = verdict.diverged.filter((replica) => !diverged.includes(replica));
    diverged = verdict.diverged;
    if (news.length > 0) noticeDiverged(session, news, verdict.agreement.agreed);
    if (!concluded) outcome.resolve({ kind: "agreed", agreement: verdict.agreement, stragglers });
    concluded = true;
    if (tally.heard() >= session.replicas().length) stop();
  });
  outcome.promise.catch(() => undefined); // the race may be over before it rejects
  return {
    subject: subscription.subject,
    tally,
    outcome: outcome.promise,
    end: () => (concluded ? session.timing.later(STRAGGLERS_MS, stop) : stop()),
  };
}

/** A refusal ends the attempt; being taken on does not: then answers come to the inbox. */
async function refusedOrSilent(sent: Promise<Attempt | null>): Promise<Attempt> {
  const refused = await sent;
  return refused ?? new Promise<never>(() => undefined);
}

/** The refusal of whoever got the request, or null when it took it on (silence is not a refusal: answers go to the inbox). */
async function sendRequest(
  session: Session,
  target: string,
  request: ConfirmRequest,
  timeoutMs: number,
  signal: AbortSignal,
): Promise<Attempt | null> {
  const subject = SUBJECTS.api(session.group, target, "confirm");
  try {
    const reply = await session.transport.request(subject, encodeApi(request), { timeoutMs, signal });
    const { error, leader } = decodeApi(refusal, reply);
    return { kind: "refused", error: errorOf(error), leader };
  } catch (error) {
    if (isShardpactError(error, "unavailable")) return { kind: "refused", error, leader: null };
    if (isShardpactError(error, "closed")) throw error;
    return null;
  }
}

function conclude(session: Session, outcome: Attempt & { kind: "agreed" }, since: SeenPoint): Confirmed {
  const { agreed, replicas, laterRevocation } = outcome.agreement;
  session.learn(agreed, since, replicas);
  return {
    answer: agreed.answer,
    laterRevocation,
    stragglers: outcome.stragglers,
    confirmation: {
      groupId: agreed.groupId,
      term: agreed.term,
      index: agreed.index,
      chain: agreed.chain,
      replicas,
      diverged: outcome.stragglers.diverged(),
      atMs: session.timing.nowMs(),
    },
  };
}

function noticeDiverged(session: Session, replicas: readonly string[], agreed: AgreedPart): void {
  session.notice({
    code: "replica_diverged",
    message: `${replicas.join(", ")} disagrees with the majority of group ${session.group} at index ${agreed.index}`,
    details: { replicas, index: agreed.index, term: agreed.term },
  });
}

function divergedError(session: Session, answers: readonly { replica: string; chain: string }[]): ShardpactError {
  const names = [...new Set(answers.map((a) => a.replica))].sort();
  return new ShardpactError(
    "replica_diverged",
    `replicas ${names.join(", ")} of group ${session.group} hold different answers for the same log index, and no majority agrees`,
    { details: { answers }, hint: "Compare the replicas' databases with `shardpact audit verify`." },
  );
}

function noQuorum(
  session: Session,
  deadline: Deadline,
  answered: readonly string[],
  ignored: Readonly<Record<string, number>>,
  cause: ShardpactError | null,
): ShardpactError {
  const silent = session.replicas().filter((id) => !answered.includes(id));
  const needed = Math.floor(session.trusted().voters.length / 2) + 1;
  const code = session.transport.connected ? "no_quorum" : "unavailable";
  const message =
    code === "unavailable"
      ? "NATS cannot be reached"
      : `${answered.length} of ${session.trusted().voters.length} voters of group ${session.group} answered within ${deadline.timeoutMs} ms, ${needed} are needed`;
  return new ShardpactError(code, message, {
    details: { answered, silent, needed, ignored },
    hint: "`shardpact status` shows which replicas run; try again when a majority does.",
    ...(cause === null ? {} : { cause }),
  });
}

/** `Promise.withResolvers` of Node 22. */
function withResolvers<T>(): {
  promise: Promise<T>;
  resolve(this: void, value: T): void;
  reject(this: void, error: unknown): void;
} {
  let resolve: (value: T) => void = () => undefined;
  let reject: (error: unknown) => void = () => undefined;
  const promise = new Promise<T>((yes, no) => {
    resolve = yes;
    reject = no;
  });
  return { promise, resolve, reject };
}
