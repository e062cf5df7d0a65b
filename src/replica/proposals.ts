/**
 * Owns proposals from the door to the answer: stamped, batched, given to the engine, answered once applied.
 *
 * An answer is told by the index at which the engine accepted the command: what is applied there is either that command
 * or proof that it lost its place. The same bytes under the same id share one entry while it is on its way; a retry that
 * comes later is found by the state machine. So a lost answer never means a second effect.
 */
import { admitPayload, type AppliedEntry } from "../catalog/apply.ts";
import type { Effect, Epoch, LogIndex, Proposal, ReplicaId } from "../consensus/engine.ts";
import type { ProposeReply } from "../model/api.ts";
import { bytesEqual } from "../model/bytes.ts";
import { type Command, stampCommand } from "../model/commands.ts";
import { type ErrorCode, ShardpactError, toShardpactError } from "../model/errors.ts";
import { LIMITS } from "../model/limits.ts";

/** Bytes of commands that are accepted and not answered yet. */
const BYTES_IN_FLIGHT_MAX = 64 * 1024 * 1024;

export interface Proposals {
  /** Validates and proposes the bytes of `encodeCommand`; calls `reply` exactly once. */
  submit(encoded: Uint8Array, reply: (answer: ProposeReply) => void): void;
  accepted(effect: Extract<Effect<unknown>, { kind: "accepted" }>): void;
  rejected(effect: Extract<Effect<unknown>, { kind: "rejected" }>): void;
  applied(entries: readonly AppliedEntry[]): void;
  /** Entries from `index` on were removed from the log. */
  removed(index: LogIndex): void;
  /** Answers what is past its deadline. */
  sweep(): void;
  failAll(error: ShardpactError): void;
}

export interface ProposalsOptions {
  propose(proposals: readonly Proposal[]): void;
  /** What only this replica can tell of a valid command. @throws ShardpactError the refusal */
  admit(command: Command): void;
  isLeader(): boolean;
  leader(): ReplicaId | null;
  nowMs(): number;
  monotonicMs(): number;
}

interface InFlight {
  readonly ticket: number;
  readonly commandId: string;
  readonly encoded: Uint8Array;
  readonly deadlineMs: number;
  index: LogIndex;
  epoch: Epoch;
  readonly replies: ((answer: ProposeReply) => void)[];
}

export function createProposals(options: ProposalsOptions): Proposals {
  const byTicket = new Map<number, InFlight>();
  const byIndex = new Map<LogIndex, InFlight>();
  const byCommand = new Map<string, InFlight>();
  let waiting: Proposal[] = [];
  let bytes = 0;
  let tickets = 0;

  function refusal(code: ErrorCode, message: string, hint = ""): ProposeReply {
    const error = new ShardpactError(code, message, { hint });
    return { ok: false, error: error.toJSON(), leader: options.leader(), index: null };
  }

  function settle(item: InFlight, answer: ProposeReply): void {
    byTicket.delete(item.ticket);
    if (byIndex.get(item.index) === item) byIndex.delete(item.index);
    if (byCommand.get(item.commandId) === item) byCommand.delete(item.commandId);
    bytes -= item.encoded.byteLength;
    for (const reply of item.replies) reply(answer);
  }

  function submit(encoded: Uint8Array, reply: (answer: ProposeReply) => void): void {
    let commandId: string;
    const payload = stampCommand(encoded, options.nowMs());
    try {
      const command = admitPayload(payload);
      options.admit(command);
      commandId = command.id;
    } catch (error) {
      const { code, message, hint } = toShardpactError(error);
      return reply(refusal(code, message, hint));
    }
    if (!options.isLeader()) return reply(refusal("not_leader", "this replica does not lead the group"));
    const twin = byCommand.get(commandId);
    if (twin && bytesEqual(twin.encoded, encoded)) return void twin.replies.push(reply);
    if (byTicket.size >= LIMITS.proposalsInFlightMax || bytes + encoded.byteLength > BYTES_IN_FLIGHT_MAX) {
      return reply(
        refusal("unavailable", `${byTicket.size} commands are on their way already`, "Try again in a moment."),
      );
    }
    tickets += 1;
    const deadlineMs = options.monotonicMs() + LIMITS.proposeTimeoutMs;
    const item: InFlight = { ticket: tickets, commandId, encoded, deadlineMs, index: 0, epoch: 0, replies: [reply] };
    byTicket.set(item.ticket, item);
    if (!twin) byCommand.set(commandId, item);
    bytes += encoded.byteLength;
    if (waiting.length === 0) queueMicrotask(proposeWaiting);
    waiting.push({ ticket: item.ticket, payload });
  }

  function proposeWaiting(): void {
    const proposals = waiting;
    waiting = [];
    options.propose(proposals);
  }

  return {
    submit,
    accepted({ ticket, index, epoch }) {
      const item = byTicket.get(ticket);
      if (!item) return;
      item.index = index;
      item.epoch = epoch;
      byIndex.set(index, item);
    },
    rejected({ ticket, reason }) {
      const item = byTicket.get(ticket);
      if (!item) return;
      const code = reason === "overloaded" ? "unavailable" : "not_leader";
      settle(item, refusal(code, `the command was not taken: ${reason.replace("_", " ")}`));
    },
    applied(entries) {
      for (const entry of entries) {
        const item = byIndex.get(entry.index);
        if (!item) continue;
        const ours = entry.commandId === item.commandId || entry.epoch === item.epoch;
        settle(
          item,
          ours ? outcomeReply(entry) : refusal("not_leader", "another leader's entry took the command's place"),
        );
      }
    },
    removed(from) {
      for (const [index, item] of byIndex) {
        if (index >= from) settle(item, refusal("not_leader", "another leader's entry took the command's place"));
      }
    },
    sweep() {
      const nowMs = options.monotonicMs();
      for (const item of byTicket.values()) {
        if (item.deadlineMs > nowMs) return;
        settle(
          item,
          refusal("timeout", "the command was not applied in time; it may still be", "Retry it under the same id."),
        );
      }
    },
    failAll(error) {
      for (const item of byTicket.values()) {
        settle(item, { ok: false, error: error.toJSON(), leader: options.leader(), index: null });
      }
    },
  };
}

function outcomeReply({ outcome, firstIndex, retry }: AppliedEntry): ProposeReply {
  if (outcome.ok) return { ok: true, index: firstIndex, retry, result: { ...outcome.result } };
  return { ok: false, error: { ...outcome.error }, leader: null, index: firstIndex };
}
