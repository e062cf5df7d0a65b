/**
 * Owns asking a local group who leads it.
 */
import { setTimeout as sleep } from "node:timers/promises";
import { type ReplicaStatus, SUBJECTS, decodeApi, replicaStatus } from "../../model/api.ts";
import { ShardpactError } from "../../model/errors.ts";
import { isVoterQuorum } from "../../model/group.ts";
import type { Transport } from "../../transport/port.ts";
import type { LocalReplica } from "./local-replica.ts";

const STATUS_TIMEOUT_MS = 500;
const LEADER_POLL_MS = 50;

/** Resolves with the id of the replica that leads and that a majority follows. @throws ShardpactError `timeout` */
export async function waitForLeader(
  client: Transport,
  group: string,
  replicas: readonly LocalReplica[],
  timeoutMs: number,
): Promise<string> {
  const deadline = performance.now() + timeoutMs;
  for (;;) {
    const asked = await Promise.all(replicas.map((replica) => askStatus(client, group, replica.id)));
    const heard = asked.filter((status) => status !== null);
    const leader = electedLeader(heard);
    if (leader !== null) return leader;
    if (performance.now() > deadline) {
      const said =
        heard.map((s) => `${s.replica}: ${s.state}, ${s.role}, term ${s.term}`).join("; ") || "nobody answers";
      throw new ShardpactError("timeout", `no leader within ${timeoutMs} ms (${said})`, {
        details: { heard },
        hint: `Logs: ${replicas.map((replica) => replica.logFile).join(", ")}.`,
      });
    }
    await sleep(LEADER_POLL_MS);
  }
}

/** One that says itself that it leads, and that a majority of its voters (of both halves) names in the same term. */
function electedLeader(heard: readonly ReplicaStatus[]): string | null {
  for (const { replica, role, term, configuration } of heard) {
    if (role !== "leader" || configuration === null) continue;
    const follows = (id: string): boolean =>
      heard.some((status) => status.replica === id && status.leader === replica && status.term === term);
    if (isVoterQuorum(configuration, ({ id }) => follows(id))) return replica;
  }
  return null;
}

export async function askStatus(client: Transport, group: string, id: string): Promise<ReplicaStatus | null> {
  try {
    const subject = SUBJECTS.api(group, id, "status");
    return decodeApi(replicaStatus, await client.request(subject, new Uint8Array(0), { timeoutMs: STATUS_TIMEOUT_MS }));
  } catch {
    return null;
  }
}
