/**
 * Owns what the checker knows of the membership: which configurations were written, which are chosen, and who decides over
 * an index; read from entries on disks, by force (docs/spec.md: I35).
 */
import { ALPHA } from "../../src/consensus/paxos/quorums.ts";
import type { Configuration, Entry, LogIndex, ReplicaId } from "../../src/consensus/engine.ts";
import { membersOf } from "../../src/consensus/shared/configuration.ts";
import { bytesEqual } from "../../src/model/bytes.ts";
import { decodeConfiguration } from "../../src/replica/configurations.ts";
import type { EngineName } from "./engines.ts";

interface Placed {
  readonly index: LogIndex;
  readonly payload: Uint8Array;
  readonly configuration: Configuration;
}

export interface Configurations {
  /** An entry is on some disk. Answers what is wrong with it, null for nothing. */
  written(entry: Entry, before: readonly Entry[]): string | null;
  /** The entry is chosen: every later one of its index is void. */
  chosen(entry: Entry): void;
  /** Do these replicas decide over the index? */
  isQuorum(index: LogIndex, replicas: ReadonlySet<string> | undefined): boolean;
  /** Those that decide now or may decide soon: the newest chosen one, and what is written after it. */
  open(): readonly Configuration[];
  /** The newest chosen one, and the index of its entry. */
  newest(): { readonly index: LogIndex; readonly configuration: Configuration };
}

export function createConfigurations(engine: EngineName, first: Configuration): Configurations {
  const genesis: Placed = { index: 0, payload: new Uint8Array(0), configuration: first };
  const chosen: Placed[] = [genesis];
  let written: Placed[] = [];
  const newest = (): Placed => chosen.at(-1) ?? genesis;
  const place = ({ index, payload }: Entry): Placed => ({
    index,
    payload,
    configuration: decodeConfiguration(payload),
  });

  /** Under Raft whoever leads counts by the newest configuration of its log, which may lie above the index. */
  function decidingUnderRaft(index: LogIndex): readonly Placed[] {
    const below = chosen.findLast((placed) => placed.index <= index) ?? genesis;
    // What is written and not chosen yet may be in force in the leader's log, on either side of the index.
    return [...chosen.filter((placed) => placed.index > index), ...written, below];
  }

  return {
    written(entry, before) {
      const { index, payload } = entry;
      if (entry.kind !== "config" || index <= newest().index) return null;
      if (written.some((placed) => placed.index === index && bytesEqual(placed.payload, payload))) return null;
      const placed = place(entry);
      written.push(placed);
      if (engine === "paxos") return null;
      const last = before.findLast(({ kind }) => kind === "config");
      const previous = last
        ? place(last).configuration
        : (chosen.findLast((c) => c.index < index) ?? genesis).configuration;
      return quorumsMeet(previous, placed.configuration)
        ? null
        : `quorums before and after ${index} can miss each other`;
    },
    chosen(entry) {
      if (entry.kind !== "config") return void (written = written.filter(({ index }) => index !== entry.index));
      chosen.push(place(entry));
      written = written.filter(({ index }) => index > entry.index);
    },
    isQuorum(index, replicas) {
      const counts = (id: ReplicaId): boolean => replicas?.has(id) === true;
      if (engine === "raft") return decidingUnderRaft(index).some((placed) => hasQuorum(placed.configuration, counts));
      const decides = chosen.findLast((placed) => placed.index === 0 || placed.index + ALPHA <= index) ?? genesis;
      return hasQuorum(decides.configuration, counts);
    },
    open() {
      const decides = engine === "raft" ? newest() : (chosen.at(-2) ?? genesis);
      return [decides, newest(), ...written].map(({ configuration }) => configuration);
    },
    newest,
  };
}

/** Counted here once more, by force: what the engines count with may be what is wrong. */
export function hasQuorum({ voters, votersOutgoing }: Configuration, counts: (id: ReplicaId) => boolean): boolean {
  return [voters, votersOutgoing].every((half) => half.length === 0 || half.filter(counts).length * 2 > half.length);
}

/** By force: no set of replicas is a quorum of the one while the rest is one of the other. */
export function quorumsMeet(a: Configuration, b: Configuration): boolean {
  const ids = [...new Set([...membersOf(a), ...membersOf(b)])];
  for (let subset = 0; subset < 2 ** ids.length; subset++) {
    const inside = (id: ReplicaId): boolean => ((subset >> ids.indexOf(id)) & 1) === 1;
    if (hasQuorum(a, inside) && hasQuorum(b, (id) => !inside(id))) return false;
  }
  return true;
}
