/**
 * Owns what one client knows about one group: its identity, the configuration it trusts, who leads, how far it has seen.
 *
 * Trust moves only forward: the first configuration is pinned by the group id (it is in the genesis entry, whose digest
 * the id is); a later one is trusted once a majority of a trusted one has signed an answer that names it (`confirm.ts`),
 * once it is proven by the chain from there (`trust.ts`), or because a lock file of the caller's names it.
 */
import type { AgreedPart, DiscoverReply, Genesis, MemberInfo } from "../model/api.ts";
import type { Digest } from "../model/bytes.ts";
import { ShardpactError } from "../model/errors.ts";
import { isReplicaId } from "../model/names.ts";
import type { Transport } from "../transport/port.ts";
import { createInbox, type Inbox } from "./inbox.ts";
import { createObjectCache, type ObjectCache } from "./object-cache.ts";
import type { Timing } from "./timing.ts";

/** Something the caller should hear of although the call succeeded: a diverged replica, an unpinned reference, a bad copy of a shard. */
export interface Notice {
  readonly code:
    | "replica_diverged"
    | "replica_bad_bytes"
    | "resolved"
    | "store_skipped"
    | "one_replica"
    | "bad_copy"
    | "store_failed";
  readonly message: string;
  readonly details: Readonly<Record<string, unknown>>;
}

/** Voters in force from `index` on; `votersOutgoing` is non-empty during a joint change. */
export interface TrustedConfiguration {
  readonly index: number;
  /** How many came before it; 0 is the genesis, whose digest is the group id. */
  readonly number: number;
  readonly digest: Digest;
  readonly voters: readonly MemberInfo[];
  readonly votersOutgoing: readonly MemberInfo[];
}

/** A log index and the hex chain value after it. */
export interface SeenPoint {
  readonly index: number;
  readonly chain: string;
}

export interface Session {
  readonly transport: Transport;
  /** Where voters answer this client. */
  readonly inbox: Inbox;
  /** Objects that were proven by their digest. */
  readonly objects: ObjectCache;
  readonly timing: Timing;
  readonly group: string;
  readonly groupId: string;
  readonly genesis: Genesis;
  /** Who this client says it is, in every command. */
  readonly actor: string;
  /** Where replicas say that shard bytes may be found. */
  readonly storeHints: readonly string[];
  notice(notice: Notice): void;
  trusted(): TrustedConfiguration;
  /**
   * Trusts a later configuration, which the caller has proven or was given. `chain`: the hex chain after its entry, when
   * that is proven with it; an earlier one must be one of those that led here. @throws ShardpactError `group_forked` when it contradicts what is trusted
   */
  trust(configuration: TrustedConfiguration, chain: string | null): void;
  /** Ids of all replicas in the trusted configuration. */
  replicas(): readonly string[];
  /** More places to ask: they belong to the group by their own word. */
  heardOf(ids: readonly string[]): void;
  /**
   * All of them in the order in which to ask: those that answered last time first, then the other voters, then who else was
   * heard of, each part from a random one on.
   */
  askingOrder(): readonly string[];
  leader(): string | null;
  /** A hint, from anybody: whom to ask next. It may be one that this client doesn't know yet. */
  hintLeader(replica: string | null): void;
  /** Highest index and its chain that a majority has shown this client. */
  seen(): SeenPoint;
  /**
   * Takes in a confirmed answer. `since` is what had been seen when the question was asked: answers to questions asked
   * side by side may come in any order. @throws ShardpactError `group_forked` when it contradicts what was seen by then.
   */
  learn(agreed: AgreedPart, since: SeenPoint, answered: readonly string[]): void;
}

export interface SessionOptions {
  readonly transport: Transport;
  readonly timing: Timing;
  readonly discovered: Pick<DiscoverReply, "group" | "groupId" | "genesis" | "leader" | "stores"> & {
    /** Ids of those that answered. */
    readonly answered?: readonly string[];
  };
  readonly actor: string;
  readonly onNotice: (notice: Notice) => void;
}

/** Places to ask beside the voters. */
const OTHERS_MAX = 32;

export function createSession(o: SessionOptions): Session {
  const digest = o.discovered.groupId as Digest;
  const { voters } = o.discovered.genesis;
  let trusted: TrustedConfiguration = { index: 0, number: 0, digest, voters, votersOutgoing: [] };
  /** Of every configuration that was trusted, by number: there is one of each. */
  const digests = new Map([[0, digest]]);
  let others: readonly string[] = o.discovered.answered ?? [];
  let leader: string | null = null;
  let seen = { index: 0, chain: "0".repeat(64) };

  let awake: readonly string[] = [];

  function trust(next: TrustedConfiguration, chain: string | null): void {
    if ((digests.get(next.number) ?? next.digest) !== next.digest) {
      throw new ShardpactError("group_forked", `group ${o.discovered.group} has two configurations ${next.number}`, {
        details: { trusted: digests.get(next.number), got: next.digest },
        hint: "Another group runs under this id, or keys of voters were stolen. Stop, and ask whoever runs the group.",
      });
    }
    digests.set(next.number, next.digest);
    if (next.number > trusted.number) trusted = next;
    if (chain !== null && next.index > seen.index) seen = { index: next.index, chain };
  }

  const rotated = (ids: readonly string[]) => {
    const start = Math.floor(o.timing.random() * ids.length);
    return [...ids.slice(start), ...ids.slice(0, start)];
  };
  const replicas = () => [...new Set([...trusted.voters, ...trusted.votersOutgoing].map((m) => m.id))];
  const session: Session = {
    transport: o.transport,
    inbox: createInbox(o.transport),
    objects: createObjectCache(),
    timing: o.timing,
    group: o.discovered.group,
    groupId: o.discovered.groupId,
    genesis: o.discovered.genesis,
    actor: o.actor,
    storeHints: o.discovered.stores,
    notice: o.onNotice,
    trusted: () => trusted,
    replicas,
    askingOrder: () => {
      const all = replicas();
      const asleep = all.filter((id) => !awake.includes(id));
      const unknown = others.filter((id) => !all.includes(id));
      return [...rotated(all.filter((id) => awake.includes(id))), ...rotated(asleep), ...rotated(unknown)];
    },
    heardOf: (ids) => {
      others = [...new Set([...ids, ...others])].slice(0, OTHERS_MAX);
    },
    trust,
    leader: () => leader,
    hintLeader: (replica) => {
      leader = replica !== null && isReplicaId(replica) ? replica : null;
    },
    seen: () => seen,
    learn: (agreed, since, answered) => {
      const forked = [since, seen].some((point) => agreed.index === point.index && agreed.chain !== point.chain);
      if (agreed.index < since.index || forked) {
        throw new ShardpactError(
          "group_forked",
          `group ${o.discovered.group} answered at index ${agreed.index}, but had shown this client index ${since.index} with another history before`,
          {
            details: { seen: since, answered: { index: agreed.index, chain: agreed.chain } },
            hint: "A majority of replicas lost history, or another group runs under this id. Stop and compare the replicas with `shardpact audit verify`.",
          },
        );
      }
      awake = answered;
      if (agreed.index < seen.index) return;
      seen = { index: agreed.index, chain: agreed.chain };
      trust({ ...agreed.configuration, voters: agreed.voters, votersOutgoing: agreed.votersOutgoing }, null);
    },
  };
  session.hintLeader(o.discovered.leader);
  return session;
}
