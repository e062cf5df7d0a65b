/**
 * Owns finding a group: every replica answers a broadcast with its group's genesis, and the client chooses one group.
 *
 * Nothing in an answer is believed but the genesis, and that only because the group id is its digest: an id that the
 * caller holds (a lock file, a configuration) pins it; without one the first genesis seen is pinned (trust on first use).
 */
import { decodeApi, discoverReply, SUBJECTS, type DiscoverReply, type Genesis } from "../model/api.ts";
import { type Digest, formatDigest, utf8 } from "../model/bytes.ts";
import { canonicalJson } from "../model/commands.ts";
import { ShardpactError } from "../model/errors.ts";
import { isReplicaId } from "../model/names.ts";
import { hashAs } from "../merkle/hash.ts";
import type { Transport } from "../transport/port.ts";
import { startDeadline, type Timing } from "./timing.ts";

/** The digest of the group's first entry: its id for ever. */
export function groupIdOf(genesis: Genesis): Digest {
  return formatDigest(hashAs("genesis", utf8(canonicalJson(genesis))));
}

export interface DiscoverOptions {
  /** Only the group of this name; needed when several answer. */
  readonly group?: string;
  /** Only the group with this id; anything else is `group_forked`. */
  readonly groupId?: string;
  readonly timeoutMs: number;
  readonly signal?: AbortSignal;
}

/** How long further replies are waited for after the first, and how often the question is repeated before it. */
const GATHER_MS = 250;
/** The same, once every group that was heard of is complete: then only unheard-of groups are waited for. */
const GATHER_COMPLETE_MS = 40;
const POLL_MS = 10;
const REPLIES_MAX = 256;

export interface Discovered extends Pick<DiscoverReply, "group" | "groupId" | "genesis" | "leader" | "stores"> {
  /** Ids of those that answered. */
  readonly answered: readonly string[];
  /** The highest number of a configuration that anybody named; 0: the genesis. */
  readonly newestConfiguration: number;
}

/**
 * The one group that answers, or the one asked for.
 * @throws ShardpactError `unavailable` (nobody answers), `not_found` (no group of that name), `config_invalid` (several
 * groups and no name), `group_forked` (the name answers with another id), `aborted`
 */
export async function discover(transport: Transport, timing: Timing, o: DiscoverOptions): Promise<Discovered> {
  const replies = await gatherReplies(transport, timing, o);
  return chooseGroup(replies, o);
}

/** All valid replies, once the wanted group is complete, or `GATHER_MS` after the first. */
async function gatherReplies(transport: Transport, timing: Timing, o: DiscoverOptions): Promise<DiscoverReply[]> {
  const deadline = startDeadline(timing, o.timeoutMs, o.signal);
  const replies: DiscoverReply[] = [];
  const inbox = transport.inbox();
  const subscription = transport.subscribe(inbox, ({ data }) => {
    if (replies.length < REPLIES_MAX) pushValid(replies, data);
  });
  try {
    let askedMs = -Infinity;
    let firstMs: number | null = null;
    for (;;) {
      deadline.throwIfAborted();
      const nowMs = timing.nowMs();
      if (replies.length > 0) firstMs ??= nowMs;
      if (firstMs !== null && nowMs - firstMs >= gatherMs(replies, o)) return replies;
      if (deadline.remainingMs() === 0) return replies;
      if (nowMs - askedMs >= GATHER_MS) {
        askedMs = nowMs;
        transport.publish(SUBJECTS.discover, new Uint8Array(0), inbox);
      }
      await timing.sleep(Math.min(POLL_MS, deadline.remainingMs()), o.signal);
    }
  } finally {
    subscription.close();
  }
}

function pushValid(replies: DiscoverReply[], data: Uint8Array): void {
  let reply: DiscoverReply;
  try {
    reply = decodeApi(discoverReply, data);
  } catch {
    return;
  }
  if (groupIdOf(reply.genesis) !== reply.groupId || reply.genesis.name !== reply.group) return;
  if (!replies.some((r) => r.replica === reply.replica && r.groupId === reply.groupId)) replies.push(reply);
}

/** How long after the first reply others are waited for. */
function gatherMs(replies: readonly DiscoverReply[], o: DiscoverOptions): number {
  const isComplete = (reply: DiscoverReply) =>
    replies.filter((r) => r.groupId === reply.groupId).length >=
    (reply.configuration?.voters ?? reply.genesis.voters.length);
  const wanted = replies.filter((reply) => isWanted(reply, o));
  if (wanted.length === 0 || !wanted.every(isComplete)) return GATHER_MS;
  return o.group === undefined && o.groupId === undefined ? GATHER_COMPLETE_MS : 0;
}

function isWanted(reply: DiscoverReply, o: DiscoverOptions): boolean {
  return (o.group === undefined || reply.group === o.group) && (o.groupId === undefined || reply.groupId === o.groupId);
}

function chooseGroup(replies: readonly DiscoverReply[], o: DiscoverOptions): Discovered {
  const names = [...new Set(replies.map((r) => r.group))].sort();
  if (replies.length === 0) {
    throw new ShardpactError("unavailable", `no replica answered within ${o.timeoutMs} ms`, {
      hint: "Are the replicas running, on this NATS server? `shardpact up` starts a group on this machine.",
    });
  }
  const wanted = replies.filter((r) => isWanted(r, o));
  const ids = [...new Set(wanted.map((r) => r.groupId))];
  if (ids.length === 0) {
    const sameName = replies.find((r) => r.group === o.group);
    if (o.groupId !== undefined && sameName) {
      throw new ShardpactError("group_forked", `group ${sameName.group} is ${sameName.groupId}, not ${o.groupId}`, {
        details: { expected: o.groupId, got: sameName.groupId },
        hint: "It is another group under the same name: connect to the right NATS server, or start from a new lock file.",
      });
    }
    throw new ShardpactError("not_found", `no group ${o.group ?? o.groupId ?? ""} answers here`, {
      details: { nearest: names },
      hint: `Groups that answer: ${names.join(", ")}.`,
    });
  }
  if (ids.length > 1) {
    throw new ShardpactError(
      "config_invalid",
      `${ids.length} groups answer (${names.join(", ")}) and none was chosen`,
      {
        details: { groups: names, ids },
        hint:
          names.length > 1
            ? "Name one: connect({ group }), or `--group NAME`."
            : "They share one name: choose by connect({ groupId }).",
      },
    );
  }
  const [first] = wanted;
  if (!first) throw new ShardpactError("internal", "a chosen group has no reply");
  return {
    group: first.group,
    groupId: first.groupId,
    genesis: first.genesis,
    leader: mostNamed(wanted.map((r) => r.leader)),
    answered: [...new Set(wanted.map((r) => r.replica))].filter(isReplicaId),
    newestConfiguration: Math.max(...wanted.map((r) => r.configuration?.number ?? 0)),
    stores: [...new Set(wanted.flatMap((r) => r.stores))].sort(),
  };
}

function mostNamed(leaders: readonly (string | null)[]): string | null {
  const counts = new Map<string, number>();
  for (const leader of leaders) if (leader !== null) counts.set(leader, (counts.get(leader) ?? 0) + 1);
  return [...counts].sort((a, b) => b[1] - a[1])[0]?.[0] ?? null;
}
