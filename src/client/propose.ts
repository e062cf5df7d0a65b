/**
 * Owns proposing a command: to the leader, through hints, again and again under one command id until the deadline.
 *
 * The same id makes a retry harmless: whatever was applied first is the answer for ever. When the deadline passes
 * without one, the outcome is unknown, and the error carries the command id to ask again with.
 */
import { decodeApi, proposeReply, SUBJECTS, type ProposeReply } from "../model/api.ts";
import { utf8, toHex } from "../model/bytes.ts";
import {
  canonicalJson,
  encodeCommand,
  parseCommand,
  type Command,
  type CommandBody,
  type CommandKind,
} from "../model/commands.ts";
import { isShardpactError, ShardpactError, type ErrorCode } from "../model/errors.ts";
import { LIMITS } from "../model/limits.ts";
import { hashAs } from "../merkle/hash.ts";
import { errorOf } from "./answers.ts";
import type { CallOptions } from "./confirm.ts";
import type { Session } from "./session.ts";
import { followConfigurations } from "./trust.ts";
import { backoffMs, requestOptions, startDeadline, type Deadline } from "./timing.ts";

export interface Applied {
  /** Log index of the first effect. */
  readonly index: number;
  /** True when the command had been applied by an earlier attempt. */
  readonly retry: boolean;
  readonly result: Readonly<Record<string, unknown>>;
}

/** A command id that equal parts derive again: a program run twice is a retry. 64 hex digits. */
export function commandIdOf(...parts: readonly unknown[]): string {
  return toHex(hashAs("commandId", utf8(canonicalJson(parts))));
}

/** A validated command of this session's actor. @throws ShardpactError `invalid_argument` */
export function makeCommand<K extends CommandKind>(
  session: Session,
  id: string,
  kind: K,
  body: CommandBody<K>,
  blob?: Uint8Array,
): Command {
  const command = { id, actor: session.actor, kind, body, ...(blob === undefined ? {} : { blob }) };
  return parseCommand(command as Omit<Command, "blob">);
}

const FIRST_WAIT_MS = 1_000;
/** Of the attempts that come to nothing, one in so many looks whether there are other members now. */
const FOLLOW_EVERY = 4;

type Reached = { delivered: boolean; noLeader: boolean };

/**
 * Applied, exactly once, whatever was lost on the way.
 * @throws ShardpactError the command's own refusal; `timeout` (sent, outcome unknown), `no_quorum` (no leader),
 * `unavailable` (never sent), all retryable with `details.commandId`; `aborted`
 */
export async function propose(session: Session, command: Command, o: CallOptions = {}): Promise<Applied> {
  const bytes = encodeCommand(command);
  const deadline = startDeadline(session.timing, o.timeoutMs ?? LIMITS.proposeTimeoutMs, o.signal);
  const reached: Reached = { delivered: false, noLeader: false };
  let cause: ShardpactError | null = null;
  for (let attempt = 0; deadline.remainingMs() > 0; attempt++) {
    deadline.throwIfAborted();
    const order = session.askingOrder();
    const target = session.leader() ?? order[attempt % order.length] ?? "";
    const before = session.leader();
    try {
      const reply = await send(session, target, bytes, deadline, attempt);
      reached.delivered = true;
      if (reply.ok) {
        session.hintLeader(target);
        return { index: reply.index, retry: reply.retry, result: reply.result };
      }
      cause = errorOf(reply.error);
      if (!isWorthRetrying(cause)) throw withCommandId(cause, command);
      reached.noLeader = reply.leader === null;
      session.hintLeader(reply.leader);
      if (session.leader() !== null && session.leader() !== before && attempt % 4 !== 3) continue;
    } catch (error) {
      if (!isShardpactError(error) || !error.retryable || "commandId" in error.details) throw error;
      if (error.code === "timeout" || error.details["sent"] === true) reached.delivered = true;
      cause = error;
      session.hintLeader(null);
    }
    // Whoever leads may have joined since this client looked.
    if (attempt % FOLLOW_EVERY === 2) await followConfigurations(session, deadline);
    const pauseMs = Math.min(backoffMs(attempt, session.timing.random), deadline.remainingMs());
    await session.timing.sleep(pauseMs, deadline.signal);
  }
  deadline.throwIfAborted();
  throw unknownOutcome(session, command, deadline, reached, cause);
}

/** The first wait is short: whoever was asked may have died with the question, and asking again is harmless. */
async function send(
  session: Session,
  target: string,
  bytes: Uint8Array,
  deadline: Deadline,
  attempt: number,
): Promise<ProposeReply> {
  const subject = SUBJECTS.api(session.group, target, "propose");
  const options = requestOptions(deadline, Math.min(LIMITS.requestTimeoutMs, FIRST_WAIT_MS * 2 ** attempt));
  return decodeApi(proposeReply, await session.transport.request(subject, bytes, options));
}

const PASSING = new Set<ErrorCode>(["not_leader", "no_quorum", "timeout", "unavailable"]);

/** What the replica is (not leading, stopping, overloaded) may pass; what the catalog decided is the answer for ever. */
function isWorthRetrying(error: ShardpactError): boolean {
  return PASSING.has(error.code);
}

function withCommandId(error: ShardpactError, command: Command): ShardpactError {
  return new ShardpactError(error.code, error.message, {
    details: { ...error.details, commandId: command.id },
    hint: error.hint,
    cause: error,
  });
}

function unknownOutcome(
  session: Session,
  command: Command,
  deadline: Deadline,
  reached: Reached,
  cause: ShardpactError | null,
): ShardpactError {
  const code = !reached.delivered ? "unavailable" : reached.noLeader ? "no_quorum" : "timeout";
  const why = {
    unavailable: "no replica could be reached",
    no_quorum: "the group has no leader",
    timeout: "the leader did not answer",
  }[code];
  const outcome = code === "unavailable" ? "it was not applied by this call" : "its outcome is unknown";
  return new ShardpactError(
    code,
    `${command.kind} to group ${session.group}: ${why} within ${deadline.timeoutMs} ms; ${outcome}`,
    {
      details: { commandId: command.id, kind: command.kind },
      hint: "Run it again: a retry under the same command id has one effect.",
      ...(cause === null ? {} : { cause }),
    },
  );
}
