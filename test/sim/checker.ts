/**
 * Owns the invariants of whole clusters (docs/spec.md, same numbers), checked after every durable write and every message
 * of a replica, from the outside: from disks, from what leaves, never from a replica's own word for it.
 *
 * The chosen log is learned from the first replica that applies an index. It is recounted on durable disks at that moment
 * (I5), and applied, one entry at a time, to a catalog of the checker's own: what every replica must come to (I10, I13, I18).
 */
import { APPLIED_ZERO, type AppliedEntry, type LedgerRow } from "../../src/catalog/apply.ts";
import { chainNext } from "../../src/catalog/chain.ts";
import type { Entry, Role } from "../../src/consensus/engine.ts";
import { bytesEqual } from "../../src/model/bytes.ts";
import { decodeCommand, readStamp } from "../../src/model/commands.ts";
import { canonicalJson } from "../../src/model/json.ts";
import { createMemoryDisk, type MemoryDisk, type MemoryState } from "../../src/storage/memory/disk.ts";
import { openMemoryStores } from "../../src/storage/memory/open.ts";
import { isIntact } from "../../src/storage/log-record.ts";

export interface Append {
  readonly replica: string;
  readonly disk: MemoryDisk;
  readonly before: MemoryState | null;
  /** The first index that the write touched. */
  readonly from: number;
  /** What stood there and after it before the write. */
  readonly replaced: readonly Entry[];
}

export interface Checker {
  appended(append: Append): void;
  /** A batch was applied; `before` was the applied index. */
  applied(replica: string, disk: MemoryDisk, before: number): void;
  /** A crash of the database took applies back. */
  rolledBack(replica: string, disk: MemoryDisk): void;
  role(replica: string, role: Role, term: number, commit: number): void;
  /** A damaged or set back replica is not healthy: it may halt, and it need not keep up. */
  damaged(replica: string): void;
  healthy(replica: string): boolean;
  halted(replica: string, reason: string): void;
  /** A vote was given up durably. */
  lostVote(replica: string, reason: string): void;
  check(condition: boolean, message: string): asserts condition;
  chosenCount(): number;
  elections(): number;
  ledgerAt(index: number): LedgerRow | undefined;
  /** The checker's own catalog: what the chosen log comes to. */
  readonly oracle: MemoryDisk;
  /** All tables of every healthy replica against the oracle's. */
  compareTables(replica: string, disk: MemoryDisk): void;
}

/** Thrown for a violation: ends the run. */
export class Violation extends Error {}

interface Leader {
  readonly replica: string;
  /** What it knew to be committed when it won. */
  readonly commit: number;
  /** True from its first sight as leader until it shows another role. */
  leads: boolean;
}

export function createChecker(replicas: readonly string[], fail: (error: Error) => void): Checker {
  const chosen: Entry[] = [];
  const digests: string[] = [];
  const written = new Map<number, Map<number, { readonly entry: Entry; readonly previous: number }>>();
  /** By index: the replicas whose disks hold it durably, by epoch. Damage later takes nothing back. */
  const holders = new Map<number, Map<number, Set<string>>>();
  const leaders = new Map<number, Leader>();
  const unhealthy = new Set<string>();
  const firstIndexOf = new Map<string, { readonly index: number; readonly encoded: Uint8Array }>();
  const oracle = createMemoryDisk("oracle");
  const oracleStores = openMemoryStores(oracle, { groupId: "oracle", replica: "oracle", engine: "raft" });
  void oracleStores.log.boot();

  function check(condition: boolean, message: string): asserts condition {
    if (condition) return;
    const violation = new Violation(message);
    fail(violation);
    throw violation;
  }

  function appended({ replica, disk, before, from, replaced }: Append): void {
    const { hardState: now, lastIndex } = disk.state as MemoryState;
    const old = before?.hardState ?? { epoch: 0, votedFor: null };
    check(now.epoch >= old.epoch, `I2 ${replica}: the durable epoch falls from ${old.epoch} to ${now.epoch}`);
    const kept = now.epoch > old.epoch || old.votedFor === null || old.votedFor === now.votedFor;
    check(kept, `I2 ${replica}: the vote of epoch ${now.epoch} changes from ${old.votedFor} to ${now.votedFor}`);
    for (const entry of replaced) {
      const stays = disk.log.get(entry.index)?.entry.epoch === entry.epoch;
      if (stays) continue;
      const lost = chosen[entry.index - 1]?.epoch === entry.epoch;
      check(!lost, `I6 ${replica} removes the committed entry ${entry.index} of epoch ${entry.epoch}`);
      holders.get(entry.index)?.get(entry.epoch)?.delete(replica);
    }
    for (let index = from; index <= lastIndex; index++) noteHeld(replica, disk, index);
  }

  /** I3, and who holds what. */
  function noteHeld(replica: string, disk: MemoryDisk, index: number): void {
    const entry = disk.log.get(index)?.entry;
    check(entry !== undefined, `I3 ${replica}: the log has a hole at ${index}`);
    const previous = disk.log.get(index - 1)?.entry.epoch ?? 0;
    const ofEpoch = mapIn(written, entry.epoch, () => new Map());
    const known = ofEpoch.get(index);
    if (!known) ofEpoch.set(index, { entry, previous });
    else {
      const same = known.entry.kind === entry.kind && bytesEqual(known.entry.payload, entry.payload);
      check(same, `I3 ${replica} holds another entry ${index} of epoch ${entry.epoch}`);
      // What was damaged before it is the predecessor's matter.
      const damagedBefore = unhealthy.has(replica) || previous === known.previous;
      check(damagedBefore, `I3 ${replica} holds another entry before ${index} of epoch ${entry.epoch}`);
    }
    mapIn(
      mapIn(holders, index, () => new Map<number, Set<string>>()),
      entry.epoch,
      () => new Set<string>(),
    ).add(replica);
  }

  const isQuorum = (index: number, epoch: number): boolean =>
    (holders.get(index)?.get(epoch)?.size ?? 0) * 2 > replicas.length;

  /** Index `index` is applied for the first time anywhere: it must be committed. */
  function choose(replica: string, disk: MemoryDisk, index: number): void {
    const entry = disk.log.get(index)?.entry;
    check(entry !== undefined, `I15 ${replica} applied ${index}, which its log does not hold`);
    check(isQuorum(index, entry.epoch), `I5 ${replica} applied ${index}, which no quorum holds durably`);
    const leader = leaders.get(disk.state?.hardState.epoch ?? 0);
    if (leader?.replica === replica && leader.leads && index > leader.commit) {
      // Figure 8: a leader commits what is older only underneath an entry of its own epoch.
      const epoch = disk.state?.hardState.epoch ?? 0;
      // Not the leader's own disk counts: that may be the slowest.
      const covered = [...holders.keys()].some((at) => at >= index && isQuorum(at, epoch));
      check(
        covered,
        `I5 ${replica} leads epoch ${epoch} and committed ${index} without an entry of its own on a quorum`,
      );
    }
    chosen.push(entry);
    void oracleStores.catalog.apply([entry]).then(
      ([applied]) => checkOnce(applied, entry),
      (error: unknown) => fail(error as Error),
    );
    digests.push(oracle.applied.stateDigest);
  }

  /** I12, independent of the catalog's own bookkeeping: the first entry of an id has the effect, later ones are retries. */
  function checkOnce(applied: AppliedEntry | undefined, { index, kind, payload }: Entry): void {
    const row = oracle.ledger[index - 1];
    if (kind !== "command" || !row || !applied || row.kind === "invalid") return;
    const { encoded } = readStamp(payload);
    const { id } = decodeCommand(encoded);
    const first = firstIndexOf.get(id);
    if (!first) {
      firstIndexOf.set(id, { index, encoded });
      return check(row.commandId === id && !applied.retry, `I12 ${index} is the first entry of ${id}, and a retry`);
    }
    const retried = bytesEqual(first.encoded, encoded);
    check(row.commandId === null, `I12 command ${id} took effect at ${first.index} and at ${index}`);
    check(!retried || applied.firstIndex === first.index, `I12 the retry ${index} of ${id} got another answer`);
  }

  function compareApplied(replica: string, disk: MemoryDisk, index: number): void {
    const row = disk.ledger[index - 1];
    const wanted = oracle.ledger[index - 1];
    const entry = chosen[index - 1];
    check(
      row !== undefined && wanted !== undefined && entry !== undefined,
      `I30 ${replica} has no ledger row ${index}`,
    );
    check(row.index === index, `I30 ${replica}: the ledger holds ${row.index} at ${index}`);
    const before = disk.ledger[index - 2]?.chain ?? APPLIED_ZERO.chain;
    check(
      chainNext(before, entry) === row.chain,
      `I17 ${replica}: the chain at ${index} does not follow from its ledger`,
    );
    check(row.chain === wanted.chain, `I10 ${replica} has another chain at ${index}`);
    const equal = row.epoch === wanted.epoch && row.commandId === wanted.commandId && row.timeMs === wanted.timeMs;
    check(
      equal && canonicalJson(row.outcome) === canonicalJson(wanted.outcome),
      `I13 ${replica} has another row ${index}`,
    );
  }

  function compareState(replica: string, disk: MemoryDisk): void {
    const { index, chain, stateDigest } = disk.applied;
    check(
      disk.ledger.length === index,
      `I15 ${replica}: applied is ${index}, the ledger ends at ${disk.ledger.length}`,
    );
    if (index === 0) return;
    check(chain === oracle.ledger[index - 1]?.chain, `I10 ${replica} stands at another chain than ${index}'s`);
    check(stateDigest === digests[index - 1], `I18 ${replica} came to other tables at ${index}`);
  }

  return {
    oracle,
    check,
    appended,
    applied(replica, disk, before) {
      for (let index = before + 1; index <= disk.applied.index; index++) {
        if (index > chosen.length) choose(replica, disk, index);
        compareApplied(replica, disk, index);
      }
      compareState(replica, disk);
    },
    rolledBack: compareState,
    role(replica, role, term, commit) {
      for (const leader of leaders.values()) if (leader.replica === replica) leader.leads = false;
      if (role !== "leader") return;
      const known = leaders.get(term);
      check(known === undefined || known.replica === replica, `I1 ${known?.replica} and ${replica} lead epoch ${term}`);
      leaders.set(term, { replica, commit: known?.commit ?? commit, leads: true });
    },
    damaged: (replica) => void unhealthy.add(replica),
    healthy: (replica) => !unhealthy.has(replica),
    halted(replica, reason) {
      check(unhealthy.has(replica), `I11 ${replica} halted: ${reason}`);
    },
    lostVote(replica, reason) {
      check(unhealthy.has(replica), `I11 ${replica} lost its vote: ${reason}`);
    },
    chosenCount: () => chosen.length,
    elections: () => leaders.size,
    ledgerAt: (index) => oracle.ledger[index - 1],
    compareTables(replica, disk) {
      check(
        disk.applied.index === oracle.applied.index,
        `${replica} applied ${disk.applied.index} of ${chosen.length}`,
      );
      for (const [table, rows] of oracle.rows) {
        const mine = [...(disk.rows.get(table) ?? [])].map(([key, row]) => `${key} ${canonicalJson(plain(row))}`);
        const wanted = [...rows].map(([key, row]) => `${key} ${canonicalJson(plain(row))}`);
        check(mine.sort().join("\n") === wanted.sort().join("\n"), `I18 ${replica}: table ${table} differs`);
      }
      for (const [index, { entry, checksum }] of disk.log) {
        const same = entry.epoch === chosen[index - 1]?.epoch || index > chosen.length;
        check(same && isIntact(entry, checksum), `I6 ${replica}: log entry ${index} is not the committed one`);
      }
    },
  };
}

function plain(row: object): unknown {
  return "bytes" in row && row.bytes instanceof Uint8Array ? { ...row, bytes: row.bytes.byteLength } : row;
}

function mapIn<K, V>(map: Map<K, V>, key: K, make: () => V): V {
  const known = map.get(key);
  if (known !== undefined) return known;
  const made = make();
  map.set(key, made);
  return made;
}
