/**
 * Owns what an operator asks a leader: to change the membership, or to hand over the lead.
 *
 * Who may ask: whoever holds the key of a voter in force; clients have none. A change names the configuration that its
 * sender saw, and a transfer the term; neither ever comes back, so a request that is replayed does nothing. A request
 * that is sent again while its own change is the newest one is answered, not repeated.
 */
import type {
  Effect,
  EngineEvent,
  EngineStatus,
  LogIndex,
  MembershipChange,
  RejectReason,
} from "../consensus/engine.ts";
import {
  adminBody,
  adminRequest,
  type AdminAction,
  type AdminBody,
  type AdminReply,
  type AdminRequest,
} from "../model/admin.ts";
import { decodeApi } from "../model/api.ts";
import { bytesEqual, utf8 } from "../model/bytes.ts";
import { ShardpactError, toShardpactError, type ErrorCode } from "../model/errors.ts";
import { type GroupConfiguration, type MemberChange, roleIn, votersOf } from "../model/group.ts";
import { canonicalJson } from "../model/json.ts";
import { verify } from "../model/keys.ts";
import { LIMITS } from "../model/limits.ts";
import { hashAs } from "../merkle/hash.ts";
import type { ApplyLoop } from "./apply-loop.ts";
import { type AppliedConfigurations, encodeChange } from "./configurations.ts";
import type { Runtime } from "./runtime.ts";

export interface Admin {
  /** Answers a signed request; never throws. */
  handle(data: Uint8Array): Promise<AdminReply>;
  /** True when the effect was of one of these requests. */
  accepted(effect: Extract<Effect<unknown>, { kind: "accepted" }>): boolean;
  rejected(effect: Extract<Effect<unknown>, { kind: "rejected" }>): boolean;
  /** Nothing is taken any more. */
  close(): void;
}

export interface AdminOptions {
  readonly replica: string;
  readonly groupId: string;
  readonly runtime: Runtime;
  readonly applied: AppliedConfigurations;
  readonly apply: Pick<ApplyLoop, "waitFor">;
  /** How long a target may take to take over. */
  readonly transferMs: number;
  feed(event: Extract<EngineEvent<never>, { kind: "configure" | "transfer" }>): void;
  /** The newest configuration of the log. */
  newest(): GroupConfiguration;
  status(): EngineStatus;
  over(): boolean;
}

/** Above whatever proposals count up to. */
const TICKETS_FROM = 2 ** 48;
const POLL_MS = 5;

type Taken = { readonly index: LogIndex } | { readonly reason: RejectReason };

export function createAdmin(options: AdminOptions): Admin {
  const { runtime, applied, groupId, replica } = options;
  const open = new Map<number, (taken: Taken) => void>();
  let tickets = TICKETS_FROM;

  /** @throws ShardpactError `unauthorized`, `invalid_argument`, `group_forked` */
  function authorize(request: AdminRequest): AdminBody {
    const signer = votersOf(options.newest()).find((member) => member.id === request.signer);
    if (!signer || !verify(signer.publicKey, hashAs("adminRequest", request.body), request.signature)) {
      throw new ShardpactError("unauthorized", `the request is not signed by the voter '${request.signer}'`, {
        hint: "Sign with the seed of a replica that votes now: <deploy>/<id>/seed.nk.",
      });
    }
    const body = readBody(request.body);
    if (body.groupId !== groupId) throw new ShardpactError("group_forked", "the request is meant for another group");
    if (body.expiresAtMs < runtime.nowMs()) {
      throw new ShardpactError("timeout", "the request has expired", {
        hint: "Ask again; if that doesn't help, compare this machine's clock with the leader's.",
      });
    }
    return body;
  }

  async function change(body: AdminBody, signer: string, action: Extract<AdminAction, { kind: "change" }>) {
    const before = options.newest();
    const again = applied.all().find(({ request }) => request?.nonce === body.nonce);
    if (again) return again.index;
    if (before.request?.nonce === body.nonce) {
      throw new ShardpactError("change_in_progress", "this change is in the log and not committed yet");
    }
    if (before.digest !== action.expected) throw moved(before, action.expected);
    checkSense(before, action.change);
    checkKey(applied.all(), action.change);
    tickets += 1;
    const record = { change: action.change, actor: body.actor, signer, nonce: body.nonce };
    const taken = await new Promise<Taken>((resolve) => {
      const ticket = tickets;
      open.set(ticket, resolve);
      options.feed({ kind: "configure", ticket, change: toEngine(action.change), payload: encodeChange(record) });
      if (options.over()) settle(ticket, { reason: "not_leader" });
    });
    if ("reason" in taken) throw refusal(taken.reason);
    const reached = await options.apply.waitFor(taken.index, LIMITS.proposeTimeoutMs);
    const chosen = applied.at(taken.index);
    if (reached && chosen.index === taken.index && chosen.request?.nonce === body.nonce) return taken.index;
    if (reached) throw new ShardpactError("not_leader", "another leader's entry took the change's place");
    throw new ShardpactError("timeout", "the change was not committed in time; it may still be", {
      hint: "Look at `shardpact member list` before you ask again.",
    });
  }

  async function transfer({ to, term }: Extract<AdminAction, { kind: "transfer" }>): Promise<LogIndex> {
    const { epoch } = options.status();
    if (term !== epoch) {
      throw new ShardpactError("configuration_moved", `the group is in term ${epoch}, not ${term}`, {
        hint: "Look who leads now (`shardpact status`), and ask again.",
      });
    }
    if (!votersOf(options.newest()).some((member) => member.id === to)) {
      throw new ShardpactError("not_found", `'${to}' is no voter`, {
        details: { nearest: votersOf(options.newest()).map((member) => member.id) },
      });
    }
    if (to === replica) return 0;
    options.feed({ kind: "transfer", to });
    const deadlineMs = runtime.monotonicMs() + options.transferMs;
    while (runtime.monotonicMs() < deadlineMs && !options.over()) {
      await new Promise<void>((resolve) => void runtime.after(POLL_MS, resolve));
      const { role, leader } = options.status();
      if (role !== "leader" && leader !== null) {
        if (leader === to) return 0;
        throw new ShardpactError("unavailable", `'${leader}' was elected instead of '${to}'`);
      }
    }
    throw new ShardpactError("unavailable", `'${to}' did not take over within ${options.transferMs} ms`, {
      hint: "It must run and have the whole log: `shardpact status` shows how far it is.",
    });
  }

  async function answer(data: Uint8Array): Promise<AdminReply> {
    const request = decodeApi(adminRequest, data);
    const body = authorize(request);
    if (options.status().role !== "leader") throw refusal("not_leader");
    const { action } = body;
    const index = action.kind === "change" ? await change(body, request.signer, action) : await transfer(action);
    return { ok: true, index };
  }

  function settle(ticket: number, taken: Taken): boolean {
    const resolve = open.get(ticket);
    open.delete(ticket);
    resolve?.(taken);
    return resolve !== undefined;
  }

  return {
    handle: (data) =>
      answer(data).catch((error: unknown): AdminReply => {
        const known = toShardpactError(error);
        return { ok: false, error: known.toJSON(), leader: options.status().leader, index: null };
      }),
    accepted: ({ ticket, index }) => settle(ticket, { index }),
    rejected: ({ ticket, reason }) => settle(ticket, { reason }),
    close() {
      for (const ticket of open.keys()) settle(ticket, { reason: "not_leader" });
    },
  };
}

function readBody(bytes: Uint8Array): AdminBody {
  let json: unknown;
  try {
    json = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
  } catch {
    json = null;
  }
  const body = adminBody.safeParse(json);
  if (body.success && bytesEqual(utf8(canonicalJson(body.data)), bytes)) return body.data;
  throw new ShardpactError("invalid_argument", "the request's body is not canonical JSON of a known request");
}

/** What the engine would refuse with one word, said in more. @throws ShardpactError */
function checkSense(before: GroupConfiguration, change: MemberChange): void {
  const role = (id: string): string => roleIn(before, id);
  const refuse = (message: string, hint = ""): never => {
    throw new ShardpactError("invalid_argument", message, { hint });
  };
  switch (change.kind) {
    case "add_learner": {
      const { id, publicKey } = change.member;
      if (role(id) !== "none") refuse(`'${id}' is a member already`, "A new machine takes a new id.");
      const twin = [...votersOf(before), ...before.learners].find((member) => member.publicKey === publicKey);
      if (twin) refuse(`'${twin.id}' has this key already`, "Every replica has a key of its own.");
      if (before.learners.length >= LIMITS.learnersMax) refuse(`there are ${before.learners.length} learners already`);
      return;
    }
    case "promote":
      if (role(change.id) !== "learner")
        refuse(`'${change.id}' is no learner`, "Add it first: `shardpact member add`.");
      if (before.voters.length >= LIMITS.votersMax) refuse(`there are ${before.voters.length} voters already`);
      return;
    case "remove":
      if (role(change.id) === "none") refuse(`'${change.id}' is no member`);
      if (before.voters.length === 1 && role(change.id) === "voter") refuse(`'${change.id}' is the only voter`);
      return;
    case "replace":
      if (role(change.id) !== "voter") refuse(`'${change.id}' is no voter`);
      if (role(change.by) !== "learner")
        refuse(`'${change.by}' is no learner`, "Add it first: `shardpact member add`.");
  }
}

/** An id stands for one machine for ever. @throws ShardpactError `invalid_argument` */
function checkKey(history: readonly GroupConfiguration[], change: MemberChange): void {
  if (change.kind !== "add_learner") return;
  const { id, publicKey } = change.member;
  const had = history.flatMap((each) => [...votersOf(each), ...each.learners]).find((member) => member.id === id);
  if (!had || had.publicKey === publicKey) return;
  throw new ShardpactError("invalid_argument", `'${id}' was a member with another key`, {
    hint: "A new machine takes a new id: what the old one promised is lost with it.",
  });
}

function toEngine(change: MemberChange): MembershipChange {
  return change.kind === "add_learner" ? { kind: "add_learner", id: change.member.id } : change;
}

function moved({ number, digest }: GroupConfiguration, expected: string): ShardpactError {
  return new ShardpactError("configuration_moved", `configuration ${number} is in force now, not the expected one`, {
    details: { expected, got: digest, number },
    hint: "Somebody else changed the membership: look at `shardpact member list`, and ask again.",
  });
}

const REFUSALS: Readonly<Record<RejectReason, readonly [ErrorCode, string, string]>> = {
  not_leader: ["not_leader", "this replica does not lead the group", ""],
  overloaded: ["unavailable", "too many commands are on their way", "Ask again in a moment."],
  transferring: ["unavailable", "the leader is handing over", "Ask again in a moment."],
  not_ready: ["unavailable", "the leader is new and has not committed in its term yet", "Ask again in a moment."],
  change_in_progress: ["change_in_progress", "the change before is not complete", "Ask again in a moment."],
  not_caught_up: [
    "not_caught_up",
    "the learner lacks too much of the log to vote",
    "It must run: `shardpact status` shows how far it is.",
  ],
  invalid_change: ["invalid_argument", "the change makes no sense for the configuration in force", ""],
};

function refusal(reason: RejectReason): ShardpactError {
  const [code, message, hint] = REFUSALS[reason];
  return new ShardpactError(code, message, { hint });
}
