/**
 * Owns whom a replica takes for whom: the members of the configuration in force, and strangers.
 *
 * A stranger is not shut out: a replica that lagged must follow a leader that it does not know yet (docs/engine.md). What
 * proves that it belongs to the group is its subject, on which the servers let only its own key publish. It gets no vote
 * by being heard: the engine counts members only. What is remembered of strangers is in memory and bounded.
 */
import type { Configuration } from "../consensus/engine.ts";
import { isMember, isVoter, membersOf } from "../consensus/shared/configuration.ts";
import type { PeerRecord, StoreIdentity } from "../storage/port.ts";
import type { PeerHeader } from "./envelope.ts";
import { createPeerTable, type PeerTable } from "./identity.ts";

const STRANGERS_MAX = 32;

export interface PeerSet {
  /** Another configuration is in force. */
  follow(configuration: Configuration): void;
  /** The other voters, and the other members. */
  voters(): readonly string[];
  members(): readonly string[];
  isVoter(id: string): boolean;
  /** Where a sender's life is looked up. `durable`: a new boot of it is recorded before it is heard. */
  tableOf(header: PeerHeader): { readonly table: PeerTable; readonly durable: boolean };
  incarnationOf(id: string): string;
  readonly known: PeerTable;
}

export function createPeerSet(
  replica: string,
  configuration: Configuration,
  records: readonly PeerRecord[],
  engine: StoreIdentity["engine"],
): PeerSet {
  let current = configuration;
  const known = createPeerTable(records, engine);
  let strangers = createPeerTable([], engine);
  let strangerIds = new Set<string>();
  const others = (ids: readonly string[]): readonly string[] => ids.filter((id) => id !== replica);

  return {
    known,
    follow(next) {
      current = next;
    },
    voters: () => others(membersOf(current).filter((id) => isVoter(current, id))),
    members: () => others(membersOf(current)),
    isVoter: (id) => isVoter(current, id),
    tableOf({ from }) {
      if (isMember(current, from) || known.incarnationOf(from) !== "") return { table: known, durable: true };
      if (!strangerIds.has(from) && strangerIds.size >= STRANGERS_MAX) {
        strangers = createPeerTable([], engine);
        strangerIds = new Set();
      }
      strangerIds.add(from);
      return { table: strangers, durable: false };
    },
    incarnationOf: (id) => known.incarnationOf(id) || strangers.incarnationOf(id),
  };
}
