/**
 * Owns `shardpact status`: asks every replica directly, so that it also works while no majority runs.
 */
import type { Command } from "commander";
import { decodeApi, replicaStatus, SUBJECTS, type ReplicaStatus } from "../model/api.ts";
import { inGroup, withGroupOptions, type Context, type GroupOptions } from "./context.ts";
import { EXIT, table } from "./output.ts";

const ANSWER_MS = 1_000;

export function register(command: Command): void {
  withGroupOptions(command)
    .addHelpText(
      "after",
      "\nExits with 4 when no leader is followed by a majority of voters.\n\nExample:\n  $ shardpact status",
    )
    .action((o: GroupOptions) => inGroup(o, showStatus));
}

async function showStatus({ session, out }: Context): Promise<void> {
  const replicas = session.replicas();
  const answers = await Promise.all(
    replicas.map(async (id) => {
      const subject = SUBJECTS.api(session.group, id, "status");
      try {
        const reply = await session.transport.request(subject, new Uint8Array(0), { timeoutMs: ANSWER_MS });
        return decodeApi(replicaStatus, reply);
      } catch {
        return null; // not there: shown as such
      }
    }),
  );
  const leader = leaderOf(answers, replicas.length);
  out.data({ group: session.group, groupId: session.groupId, leader, replicas: byId(replicas, answers) });
  out.line(`group ${session.group} · ${session.groupId}`);
  out.line(leader === null ? "no leader that a majority follows" : `leader ${leader}`);
  out.line("");
  out.line(
    table(
      ["replica", "state", "role", "term", "commit", "applied", "chain", "postgres", "note"],
      rowsOf(replicas, answers),
    ),
  );
  if (leader === null) process.exitCode = EXIT.unavailable;
}

/** The replica that a majority names as its leader, in the highest term. */
function leaderOf(answers: readonly (ReplicaStatus | null)[], voters: number): string | null {
  const term = Math.max(0, ...answers.map((a) => a?.term ?? 0));
  const named = answers.filter((a) => a !== null && a.term === term && a.leader !== null);
  return named.length > voters / 2 ? (named[0]?.leader ?? null) : null;
}

function byId(replicas: readonly string[], answers: readonly (ReplicaStatus | null)[]): readonly unknown[] {
  return replicas.map((replica, i) => answers[i] ?? { replica, state: "unreachable" });
}

function rowsOf(replicas: readonly string[], answers: readonly (ReplicaStatus | null)[]): (string | number)[][] {
  return replicas.map((id, i) => {
    const a = answers[i];
    if (!a) return [id, "unreachable", "", "", "", "", "", "", ""];
    const { state, role, term, commit, applied, chain, postgres, reason } = a;
    return [id, state, role, String(term), String(commit), String(applied), chain.slice(0, 12), postgres, reason ?? ""];
  });
}
