/**
 * Owns the invariants of configurations and snapshots (numbers go on from invariants.ts).
 *
 *  I35 a quorum of a configuration and one of its neighbour in the log always meet
 *  I36 at most one configuration of a log is not committed
 *  I34 purged ≤ snapshot ≤ applied ≤ commit ≤ last; the log has no hole, and what it begins after is what was chosen
 *  I37 the configuration in force is the newest in the log, committed or not; under Multi-Paxos the newest that is α
 *      slots below the last chosen one
 */
import type { Configuration, Entry, LogIndex, ReplicaId } from "../../src/consensus/engine.ts";
import { check, type Ledger } from "./ledger.ts";
import { appliedOf, type Disk, decodeConfiguration, type SimNode } from "./node.ts";

/** The configuration of the newest `config` entry at or below `upTo`, and where it is. */
export function configurationIn(
  disk: Disk,
  entries: readonly (Entry | undefined)[],
  first: Configuration,
  upTo: LogIndex = Infinity,
): { readonly index: LogIndex; readonly configuration: Configuration } {
  const { base, baseConfigurations } = disk;
  for (let index = Math.min(entries.length, upTo); index > base.index; index -= 1) {
    const entry = entries[index - 1];
    if (entry?.kind === "config") return { index, configuration: decodeConfiguration(entry.payload) };
  }
  return baseConfigurations.findLast(({ index }) => index <= upTo) ?? { index: 0, configuration: first };
}

/** I37 */
export function checkInForce(ledger: Ledger, node: SimNode, upTo: LogIndex = Infinity): void {
  const inForce = node.engine?.status().configuration;
  const { configuration, index } = configurationIn(node.disk, node.view, ledger.configuration, upTo);
  const same = JSON.stringify(inForce) === JSON.stringify(configuration);
  check(same, `I37 ${node.id}: ${JSON.stringify(inForce)} is in force, not that of ${index}`);
}

/** I35 and I36, before a write changes the log that the engine sees. */
export function checkConfigurations(
  ledger: Ledger,
  node: SimNode,
  removeFrom: LogIndex | null,
  put: readonly Entry[],
): void {
  const configs = put.filter((entry) => entry.kind === "config");
  if (configs.length === 0) return;
  const kept = node.view.slice(0, (removeFrom ?? Infinity) - 1);
  let { configuration } = configurationIn(node.disk, kept, ledger.configuration);
  for (const { index, payload } of configs) {
    const next = decodeConfiguration(payload);
    check(quorumsMeet(configuration, next), `I35 ${node.id}: quorums before and after ${index} can miss each other`);
    configuration = next;
  }
  noteConfigurations(ledger, configs);
  // What commits in the same step is told after the write.
  const committed = Math.max(ledger.chosen.length, node.engine?.status().commit ?? 0);
  const open = [...kept, ...put].filter((entry) => entry?.kind === "config" && entry.index > committed);
  check(open.length <= 1, `I36 ${node.id}: ${open.length} configurations are not committed`);
}

/** Whoever breaks machines has to know which configurations may decide. */
export function noteConfigurations({ configurations }: Ledger, put: readonly Entry[]): void {
  for (const { index, kind, payload } of put) {
    if (kind !== "config") continue;
    const configuration = decodeConfiguration(payload);
    const isKnown = configurations.some(
      (known) => known.index === index && sameNames(known.configuration, configuration),
    );
    if (!isKnown) configurations.push({ index, configuration });
  }
}

/** I34, after the log or the applied state moved. */
export function checkBase(node: SimNode): void {
  const { disk, id } = node;
  const { base, entries } = disk;
  const applied = appliedOf(node).index;
  check(base.index <= applied, `I34 ${id} purged ${base.index}, applied ${applied}`);
  // Writes are contiguous (I3), so a hole could only be where the snapshot meets the log.
  for (let i = base.index; i < Math.min(entries.length, base.index + 8); i += 1) {
    check(entries[i]?.index === i + 1, `I34 ${id} has a hole at ${i + 1}`);
  }
  const status = node.engine?.status();
  if (status === undefined) return;
  check(applied <= status.commit, `I34 ${id} applied ${applied}, committed ${status.commit}`);
  check(status.commit <= status.lastIndex, `I34 ${id} committed ${status.commit} of ${status.lastIndex}`);
}

/** I34 where an entry keeps its epoch: the base is the one that was chosen. */
export function checkBaseEpoch(ledger: Ledger, { disk, id }: SimNode): void {
  const { index, epoch } = disk.base;
  const chosen = ledger.chosen[index - 1]?.entry.epoch ?? 0;
  check(epoch === chosen, `I34 ${id} begins after ${index}@${epoch}, chosen is epoch ${chosen}`);
}

/** Whether a majority, in a joint configuration of both halves, is in `ids`. */
export function isQuorum({ voters, votersOutgoing }: Configuration, ids: (id: ReplicaId) => boolean): boolean {
  return [voters, votersOutgoing].every((half) => half.length === 0 || half.filter(ids).length * 2 > half.length);
}

function quorumsMeet(a: Configuration, b: Configuration): boolean {
  const ids = [...new Set([...a.voters, ...a.votersOutgoing, ...b.voters, ...b.votersOutgoing])];
  for (let subset = 0; subset < 2 ** ids.length; subset += 1) {
    const inside = (id: ReplicaId): boolean => ((subset >> ids.indexOf(id)) & 1) === 1;
    if (isQuorum(a, inside) && isQuorum(b, (id) => !inside(id))) return false;
  }
  return true;
}

function sameNames(a: Configuration, b: Configuration): boolean {
  return JSON.stringify([a.voters, a.votersOutgoing]) === JSON.stringify([b.voters, b.votersOutgoing]);
}
