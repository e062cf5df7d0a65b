/**
 * Owns how an operator changes a group: signed requests to whoever leads, again and again until one is answered.
 *
 * A request keeps its nonce and what it expects, so sending it again is harmless (docs/spec.md): it is either the same
 * request, or the configuration that it expects is in force no more.
 */
import { adminReply, type AdminAction, type AdminBody, type AdminRequest } from "../model/admin.ts";
import { decodeApi, encodeApi, replicaStatus, SUBJECTS, type ReplicaStatus } from "../model/api.ts";
import { utf8 } from "../model/bytes.ts";
import { isShardpactError, ShardpactError, type ErrorCode } from "../model/errors.ts";
import type { MemberChange } from "../model/group.ts";
import { canonicalJson } from "../model/json.ts";
import { sign } from "../model/keys.ts";
import { LIMITS } from "../model/limits.ts";
import { hashAs } from "../merkle/hash.ts";
import { errorOf } from "./answers.ts";
import type { CallOptions } from "./confirm.ts";
import type { Session } from "./session.ts";
import { backoffMs, requestOptions, startDeadline, type Deadline } from "./timing.ts";
import { whoAnswers } from "./trust.ts";

/** The voter in whose name an operator asks. */
export interface Signer {
  readonly id: string;
  readonly seed: string;
}

export interface AdminOptions extends CallOptions {
  /** The learner that is to vote lacks too much of the log; called before each new attempt. */
  readonly onBehind?: () => void;
}

const STATUS_MS = 1_000;
/** A request may be sent again for this long; long enough for clocks that are a little off. */
const VALID_MS = 600_000;

/** What each of them says of itself; null for one that doesn't answer. */
export async function askStatus(session: Session, ids: readonly string[]): Promise<readonly (ReplicaStatus | null)[]> {
  return Promise.all(
    ids.map(async (id) => {
      try {
        const subject = SUBJECTS.api(session.group, id, "status");
        const reply = await session.transport.request(subject, new Uint8Array(0), { timeoutMs: STATUS_MS });
        return decodeApi(replicaStatus, reply);
      } catch {
        return null; // not there: told as such
      }
    }),
  );
}

/**
 * Everybody that is known to belong to the group: whom this client trusts, and whom those that answer name. Unsigned:
 * for people, and to know whom to ask.
 */
export async function askGroup(session: Session): Promise<ReadonlyMap<string, ReplicaStatus | null>> {
  const found = new Map<string, ReplicaStatus | null>();
  for (let ids = [...new Set([...session.replicas(), ...session.askingOrder()])]; ids.length > 0;) {
    const answers = await askStatus(session, ids);
    for (const [i, id] of ids.entries()) found.set(id, answers[i] ?? null);
    const named = answers.flatMap((answer) => {
      const { voters = [], votersOutgoing = [], learners = [] } = answer?.configuration ?? {};
      return [...voters, ...votersOutgoing, ...learners].map((member) => member.id);
    });
    ids = [...new Set(named)].filter((id) => !found.has(id)).slice(0, 2 * LIMITS.votersMax);
  }
  return found;
}

/** The status of the leader in the highest term. @throws ShardpactError `no_quorum`, `aborted` */
export async function findLeader(session: Session, o: CallOptions = {}): Promise<ReplicaStatus> {
  return leaderBy(session, startDeadline(session.timing, o.timeoutMs ?? LIMITS.proposeTimeoutMs, o.signal));
}

async function leaderBy(session: Session, deadline: Deadline): Promise<ReplicaStatus> {
  for (let attempt = 0; ; attempt++) {
    deadline.throwIfAborted();
    const statuses = [...(await askGroup(session)).values()].filter((status) => status !== null);
    const leaders = statuses.filter((status) => status.role === "leader" && status.configuration !== null);
    const leader = leaders.toSorted((a, b) => b.term - a.term)[0];
    if (leader) return leader;
    if (deadline.remainingMs() === 0) throw noLeader(session, deadline);
    await whoAnswers(session, deadline); // those that this client knows may all be gone
    const pauseMs = Math.min(backoffMs(attempt, session.timing.random), deadline.remainingMs());
    await session.timing.sleep(pauseMs, deadline.signal);
  }
}

/**
 * Changes the membership by one member; resolves once the change's first configuration is committed, with its index.
 * @throws ShardpactError `unauthorized`, `configuration_moved`, `invalid_argument`, `not_caught_up`, `timeout`, `no_quorum`, `aborted`
 */
export async function changeMember(
  session: Session,
  change: MemberChange,
  signer: Signer,
  o: AdminOptions = {},
): Promise<{ readonly index: number }> {
  const deadline = startDeadline(session.timing, o.timeoutMs ?? LIMITS.proposeTimeoutMs, o.signal);
  const { configuration, replica } = await leaderBy(session, deadline);
  if (configuration === null) throw new ShardpactError("internal", "a leader has a configuration");
  return send(session, { kind: "change", change, expected: configuration.digest }, signer, replica, deadline, o);
}

/**
 * The leader's status once the configuration of `index`, or a later one, is in force there alone: no joint change is under way.
 * @throws ShardpactError `timeout`, `no_quorum`, `aborted`
 */
export async function settledMembership(session: Session, index: number, o: CallOptions = {}): Promise<ReplicaStatus> {
  const deadline = startDeadline(session.timing, o.timeoutMs ?? LIMITS.proposeTimeoutMs, o.signal);
  for (let attempt = 0; ; attempt++) {
    const status = await leaderBy(session, deadline);
    const { applied = false, votersOutgoing = [] } = status.configuration ?? {};
    if (status.applied >= index && applied && votersOutgoing.length === 0) return status;
    if (deadline.remainingMs() === 0) {
      throw new ShardpactError("timeout", `the change of index ${index} is committed, but not complete yet`, {
        hint: "It goes on by itself: look at `shardpact member list`.",
      });
    }
    const pauseMs = Math.min(backoffMs(attempt, session.timing.random), deadline.remainingMs());
    await session.timing.sleep(pauseMs, deadline.signal);
  }
}

/**
 * Hands the lead over; resolves once `to` leads.
 * @throws ShardpactError `unauthorized`, `not_found` (no voter), `unavailable` (it did not take over), `no_quorum`, `aborted`
 */
export async function transferLead(session: Session, to: string, signer: Signer, o: AdminOptions = {}): Promise<void> {
  const deadline = startDeadline(session.timing, o.timeoutMs ?? LIMITS.proposeTimeoutMs, o.signal);
  for (;;) {
    const { term, replica } = await leaderBy(session, deadline);
    if (replica === to) return;
    try {
      await send(session, { kind: "transfer", to, term }, signer, replica, deadline, o);
    } catch (error) {
      // Somebody else was elected meanwhile: the request is for a term that is over.
      if (!isShardpactError(error, "configuration_moved")) throw error;
    }
  }
}

const PASSING = new Set<ErrorCode>(["not_leader", "no_quorum", "timeout", "unavailable", "change_in_progress"]);

async function send(
  session: Session,
  action: AdminAction,
  signer: Signer,
  first: string,
  deadline: Deadline,
  o: AdminOptions,
): Promise<{ readonly index: number }> {
  const request = encodeAdmin(bodyOf(session, action), signer);
  let target = first;
  let last: ShardpactError | null = null;
  for (let attempt = 0; deadline.remainingMs() > 0; attempt++) {
    deadline.throwIfAborted();
    try {
      const subject = SUBJECTS.api(session.group, target, "admin");
      // Whoever was asked may have died with the question: asking again is harmless.
      const options = requestOptions(deadline, LIMITS.requestTimeoutMs);
      const reply = decodeApi(adminReply, await session.transport.request(subject, request, options));
      if (reply.ok) return { index: reply.index };
      last = errorOf(reply.error);
      if (last.code === "not_caught_up") o.onBehind?.();
      else if (!PASSING.has(last.code)) throw last;
    } catch (error) {
      if (!isShardpactError(error) || !PASSING.has(error.code)) throw error;
      last = error;
    }
    const pauseMs = Math.min(backoffMs(attempt, session.timing.random), deadline.remainingMs());
    await session.timing.sleep(pauseMs, deadline.signal);
    if (deadline.remainingMs() > 0) target = (await leaderBy(session, deadline)).replica;
  }
  deadline.throwIfAborted();
  throw last ?? noLeader(session, deadline);
}

/** Bytes of a signed request: what the verb `admin` takes. Pure. */
export function encodeAdmin(body: AdminBody, { id, seed }: Signer): Uint8Array {
  const bytes = utf8(canonicalJson(body));
  const signature = sign(seed, hashAs("adminRequest", bytes));
  return encodeApi({ body: bytes, signer: id, signature } satisfies Record<keyof AdminRequest, unknown>);
}

function bodyOf(session: Session, action: AdminAction): AdminBody {
  const groupId = session.groupId as AdminBody["groupId"];
  const nonce = session.timing.uniqueHex();
  return { groupId, nonce, expiresAtMs: session.timing.wallMs() + VALID_MS, actor: session.actor, action };
}

function noLeader(session: Session, deadline: Deadline): ShardpactError {
  return new ShardpactError(
    "no_quorum",
    `group ${session.group} has no leader that answers within ${deadline.timeoutMs} ms`,
    {
      hint: "`shardpact status` shows which replicas run; try again when a majority does.",
    },
  );
}
