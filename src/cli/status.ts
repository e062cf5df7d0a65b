/**
 * Owns `shardpact status`: asks every replica directly, so that it also works while no majority runs.
 */
import type { Command } from "commander";
import { askGroup } from "../client/admin.ts";
import type { ReplicaStatus } from "../model/api.ts";
import { isVoterQuorum } from "../model/group.ts";
import { membershipText } from "./member/change.ts";
import { inGroup, withGroupOptions, type Context, type GroupOptions } from "./context.ts";
import { EXIT, table } from "./output.ts";

export function register(command: Command): void {
  withGroupOptions(command)
    .addHelpText(
      "after",
      "\nExits with 4 when no leader is followed by a majority of voters.\n\nExample:\n  $ shardpact status",
    )
    .action((o: GroupOptions) => inGroup(o, showStatus));
}

async function showStatus({ session, out }: Context): Promise<void> {
  const found = await askGroup(session);
  const replicas = [...found.keys()];
  const answers = [...found.values()];
  const leader = leaderOf(answers);
  out.data({ group: session.group, groupId: session.groupId, leader, replicas: byId(replicas, answers) });
  out.line(`group ${session.group} · ${session.groupId}`);
  out.line(leader === null ? "no leader that a majority follows" : `leader ${leader}`);
  const configuration = answers.find((a) => a?.replica === leader)?.configuration ?? null;
  if (configuration !== null) out.line(membershipText(configuration));
  out.line("");
  out.line(
    table(
      ["replica", "state", "member", "role", "term", "commit", "applied", "chain", "postgres", "note"],
      rowsOf(replicas, answers),
    ),
  );
  if (leader === null) process.exitCode = EXIT.unavailable;
}

/** The replica that a majority of its voters names as its leader, in the highest term. */
function leaderOf(answers: readonly (ReplicaStatus | null)[]): string | null {
  const term = Math.max(0, ...answers.map((a) => a?.term ?? 0));
  const leader = answers.find((a) => a?.role === "leader" && a.term === term);
  if (!leader?.configuration) return null;
  const follows = (id: string): boolean =>
    answers.some((a) => a?.replica === id && a.term === term && a.leader === leader.replica);
  return isVoterQuorum(leader.configuration, ({ id }) => follows(id)) ? leader.replica : null;
}

function byId(replicas: readonly string[], answers: readonly (ReplicaStatus | null)[]): readonly unknown[] {
  return replicas.map((replica, i) => answers[i] ?? { replica, state: "unreachable" });
}

function rowsOf(replicas: readonly string[], answers: readonly (ReplicaStatus | null)[]): (string | number)[][] {
  return replicas.map((id, i) => {
    const a = answers[i];
    if (!a) return [id, "unreachable", "", "", "", "", "", "", "", ""];
    const { state, member, role, term, commit, applied, chain, postgres, reason } = a;
    return [
      id,
      state,
      member,
      role,
      String(term),
      String(commit),
      String(applied),
      chain.slice(0, 12),
      postgres,
      reason ?? "",
    ];
  });
}
