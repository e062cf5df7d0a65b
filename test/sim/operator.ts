/**
 * Owns the simulated operator: real admin code (`changeMember`, `transferLead`) that adds, promotes, replaces and removes
 * members and moves the lead, at any time, whatever else goes wrong.
 *
 * The one thing to know: it never breaks the group by itself. A change after which the healthy voters would be no majority
 * is not asked for; what the group makes of the others is the group's matter.
 */
import { changeMember, findLeader, transferLead } from "../../src/client/admin.ts";
import { createSession } from "../../src/client/session.ts";
import { type ErrorCode, isShardpactError } from "../../src/model/errors.ts";
import type { MemberChange } from "../../src/model/group.ts";
import { type Cluster, fork } from "./cluster.ts";
import { createProcess } from "./process.ts";
import { between, chance, pick, type Random, type Scheduler } from "./scheduler.ts";

export type Deed = MemberChange["kind"] | "transfer";

export interface Operator {
  /** What the group answered with yes. */
  readonly counts: Readonly<Record<Deed, number>>;
  readonly name: string;
  stop(): void;
  idle(): boolean;
}

export interface OperatorOptions {
  readonly scheduler: Scheduler;
  readonly random: Random;
  readonly cluster: Cluster;
}

const EVERY_MS: readonly [number, number] = [200, 2_500];
const TIMEOUT_MS: readonly [number, number] = [500, 4_000];
const VOTERS_MAX = 7;
const MEMBERS_MAX = 9;
const JOINERS_MAX = 4;

/** What an operator may be told without a violation: no quorum, or somebody, itself too, was faster. */
const PASSING = new Set<ErrorCode>([
  ...(["no_quorum", "timeout", "unavailable", "not_leader", "change_in_progress", "configuration_moved"] as const),
  ...(["not_caught_up", "invalid_argument", "unauthorized", "not_found"] as const),
]);

export function startOperator({ scheduler, random, cluster }: OperatorOptions): Operator {
  const { checker, genesis, groupId, network } = cluster;
  const counts = { add_learner: 0, promote: 0, remove: 0, replace: 0, transfer: 0 };
  const process = createProcess("operator", scheduler, fork(random), { offsetMs: 0, rate: 1 });
  const session = createSession({
    transport: network.connect(process),
    timing: process.timing,
    discovered: { group: genesis.name, groupId, genesis, leader: null, stores: [] },
    actor: "operator",
    onNotice: () => undefined,
  });
  let stopped = false;
  let busy = false;
  let joiners = 0;

  function next(): void {
    process.runtime.after(between(random, ...EVERY_MS), () => {
      if (stopped) return;
      busy = true;
      void act()
        .catch((error: unknown) => {
          if (isShardpactError(error) && PASSING.has(error.code)) return;
          scheduler.fail(error as Error);
        })
        .finally(() => {
          busy = false;
          next();
        });
    });
  }

  async function act(): Promise<void> {
    const o = { timeoutMs: Math.ceil(between(random, ...TIMEOUT_MS)) };
    const { configuration } = await findLeader(session, o);
    if (configuration === null) return;
    const voters = configuration.voters.map(({ id }) => id);
    const learners = configuration.learners.map(({ id }) => id);
    const signing = pick(random, voters);
    const signer = { id: signing, seed: cluster.seedOf(signing) };
    if (chance(random, 0.25)) {
      await transferLead(session, pick(random, voters), signer, o);
      counts.transfer += 1;
      return;
    }
    const change = draw(voters, learners);
    if (change === null) return;
    if (change.kind === "add_learner") cluster.start(change.member.id);
    await changeMember(session, change, signer, o);
    counts[change.kind] += 1;
  }

  function draw(voters: readonly string[], learners: readonly string[]): MemberChange | null {
    const members = [...voters, ...learners];
    const [learner] = learners;
    const kind = pick(random, ["add_learner", "promote", "remove", "replace"] as const);
    switch (kind) {
      case "add_learner": {
        if (members.length >= MEMBERS_MAX || joiners >= JOINERS_MAX || learners.length > 1) return null;
        joiners += 1;
        return { kind, member: cluster.join() };
      }
      case "promote":
        if (learner === undefined || voters.length >= VOTERS_MAX) return null;
        return isSound([...voters, learner]) ? { kind, id: learner } : null;
      case "replace": {
        if (learner === undefined) return null;
        const id = pick(random, voters);
        return isSound([...voters.filter((voter) => voter !== id), learner]) ? { kind, id, by: learner } : null;
      }
      case "remove": {
        const id = pick(random, members);
        const rest = voters.filter((voter) => voter !== id);
        return rest.length > 0 && isSound(rest) ? { kind, id } : null;
      }
    }
  }

  /** The healthy ones are a majority. */
  function isSound(voters: readonly string[]): boolean {
    return voters.filter((id) => checker.healthy(id)).length * 2 > voters.length;
  }

  next();
  return {
    counts,
    name: process.name,
    stop() {
      stopped = true;
    },
    idle: () => !busy,
  };
}
