/**
 * Owns how a verb changes the membership: asks the leader, shows how far a learner is, and waits until the change is
 * complete, so that the next one can follow at once.
 */
import { type Command, Option } from "commander";
import { askStatus, changeMember, findLeader, settledMembership } from "../../client/admin.ts";
import type { ReplicaStatus } from "../../model/api.ts";
import { ShardpactError } from "../../model/errors.ts";
import type { MemberChange } from "../../model/group.ts";
import { type Context, parseSeconds } from "../context.ts";
import { count } from "../output.ts";
import { findSigner } from "./signer.ts";

const CATCH_UP_SECONDS = 600;
const PROGRESS_EVERY_MS = 1_000;

/** For verbs that make a voter of a learner: it may have much to read before. */
export function withWaitOption(command: Command): Command {
  return command.addOption(
    new Option("--wait <seconds>", "how long the learner may take to catch up")
      .argParser(parseSeconds)
      .default(CATCH_UP_SECONDS),
  );
}

/** Resolves with the leader's status once the change is complete. `waitSeconds`: for a learner to catch up. */
export async function change(
  context: Context,
  dir: string,
  what: MemberChange,
  waitSeconds = 0,
): Promise<ReplicaStatus> {
  const { session, out, timeoutMs, signal } = context;
  const leader = await findLeader(session, { timeoutMs, signal });
  if (leader.configuration === null) throw new ShardpactError("internal", "a leader has a configuration");
  const signer = await findSigner(dir, leader.configuration);
  const learner = what.kind === "promote" ? what.id : what.kind === "replace" ? what.by : null;
  let [shown, toldMs] = ["", 0];
  const onBehind = (): void => {
    if (learner === null || performance.now() - toldMs < PROGRESS_EVERY_MS) return;
    toldMs = performance.now();
    void progressLine(context, learner).then((line) => {
      if (line !== shown) out.line(line);
      shown = line;
    });
  };
  const { index } = await changeMember(session, what, signer, {
    timeoutMs: Math.max(timeoutMs, waitSeconds * 1000),
    signal,
    onBehind,
  });
  return await settledMembership(session, index, { timeoutMs, signal });
}

async function progressLine({ session }: Context, id: string): Promise<string> {
  const [learner, leader] = await Promise.all([
    askStatus(session, [id]),
    findLeader(session).catch(() => null), // the change itself will say so
  ]);
  const there = learner[0];
  if (leader === null) return "nobody leads at the moment";
  if (!there) return `${id} does not answer: start it, and let its key in at NATS`;
  return `${id} has ${count(there.applied)} of ${count(leader.commit)} entries`;
}

/** `voters r1 r2 r3 · learners r4`. */
export function membershipText(configuration: ReplicaStatus["configuration"]): string {
  if (configuration === null) return "no configuration";
  const ids = (members: readonly { readonly id: string }[]): string => members.map(({ id }) => id).join(" ");
  const { voters, votersOutgoing, learners, number } = configuration;
  const parts = [`configuration ${number}`, `voters ${ids(voters)}`];
  if (votersOutgoing.length > 0) parts.push(`in a change from ${ids(votersOutgoing)}`);
  if (learners.length > 0) parts.push(`learners ${ids(learners)}`);
  return parts.join(" · ");
}

export function sayMembership({ out, session }: Context, { configuration, term, replica }: ReplicaStatus): void {
  out.data({ group: session.group, groupId: session.groupId, leader: replica, term, configuration });
  out.line(membershipText(configuration));
}
