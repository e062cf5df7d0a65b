/**
 * Owns the invariants of whole clusters (docs/spec.md, same numbers), checked after every durable write and every message
 * of a replica, from the outside: from disks, from what leaves, never from a replica's own word for it.
 *
 * The chosen log is learned from the first replica that applies an index. It is recounted on durable disks at that moment
 * (I5), and applied, one entry at a time, to a catalog of the checker's own: what every replica must come to (I10, I13, I18).
 */
import { APPLIED_ZERO, type AppliedEntry } from "../../src/catalog/apply.ts";
import { chainNext } from "../../src/catalog/chain.ts";
import type { Configuration, Entry } from "../../src/consensus/engine.ts";
import { isMember } from "../../src/consensus/shared/configuration.ts";
import { bytesEqual } from "../../src/model/bytes.ts";
import { decodeCommand, readStamp } from "../../src/model/commands.ts";
import { canonicalJson } from "../../src/model/json.ts";
import { createMemoryDisk, type MemoryDisk } from "../../src/storage/memory/disk.ts";
import { openMemoryStores } from "../../src/storage/memory/open.ts";
import { isIntact } from "../../src/storage/log-record.ts";
import { createConfigurations, hasQuorum } from "./configurations.ts";
import { configurationsBelow, isWhole, plain } from "./disks.ts";
import type { SimEngine } from "./engines.ts";
import type { Checker } from "./checker-port.ts";
import type { LogRules } from "./log-rules.ts";

/** Thrown for a violation: ends the run. */
export class Violation extends Error {}

interface Leader {
  readonly replica: string;
  /** What it knew to be committed when it won. */
  readonly commit: number;
  /** True from its first sight as leader until it shows another role. */
  leads: boolean;
}

export interface CheckerOptions<M> {
  /** The group's first configuration. */
  readonly first: Configuration;
  readonly engine: SimEngine<M>;
  fail(error: Error): void;
}

export function createChecker<M>({ first, engine, fail }: CheckerOptions<M>): Checker {
  const chosen: Entry[] = [];
  const digests: string[] = [];
  /** What each index had become durable below, at most, when it was first applied: the epoch that committed it or a later one. */
  const chosenBy: number[] = [];
  const disks = new Map<string, MemoryDisk>();
  const counts = { compactions: 0, installs: 0, repairs: 0 };
  let listeners: ((replica: string) => void)[] = [];
  const leaders = new Map<number, Leader>();
  const unhealthy = new Set<string>();
  const forgetful = new Set<string>();
  /** Where the log of a damaged replica ended. */
  const endedAt = new Map<string, number>();
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

  const configurations = createConfigurations(engine.kind.name, first);
  const rules: LogRules<M> = engine.createRules({
    check,
    isQuorum: configurations.isQuorum,
    chosenAt: (index) => chosen[index - 1],
    healthy: (replica) => !unhealthy.has(replica),
  });

  /** Index `index` is applied for the first time anywhere: it must be committed. */
  function choose(replica: string, disk: MemoryDisk, index: number): void {
    const entry = disk.log.get(index)?.entry;
    check(entry !== undefined, `I15 ${replica} applied ${index}, which its log does not hold`);
    const epoch = disk.state?.hardState.epoch ?? 0;
    const leader = leaders.get(epoch);
    const leads = leader?.replica === replica && leader.leads;
    rules.choose(replica, entry, leads ? { epoch, commit: leader.commit } : null);
    chosen.push(entry);
    configurations.chosen(entry);
    chosenBy.push(Math.max(...[...disks.values()].map(({ state }) => state?.hardState.epoch ?? 0)));
    void oracleStores.catalog.apply([entry]).then(
      ([applied]) => checkOnce(applied, entry),
      (error: unknown) => fail(error as Error),
    );
    digests.push(oracle.applied.stateDigest);
    const told = listeners;
    listeners = [];
    for (const listener of told) listener(replica);
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
    // Under Multi-Paxos two replicas may have accepted the same value in different ballots.
    const sameEpoch = engine.kind.name === "paxos" || row.epoch === wanted.epoch;
    const equal = sameEpoch && row.commandId === wanted.commandId && row.timeMs === wanted.timeMs;
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

  /** I34: base ≤ applied ≤ end, and in between every entry, those that are chosen as they were chosen. */
  function compareLog(replica: string, { state, applied, log }: MemoryDisk): void {
    const { base, lastIndex } = state ?? { base: { index: 0, epoch: 0 }, lastIndex: 0 };
    const where = `base ${base.index}, applied ${applied.index}, end ${lastIndex}`;
    check(base.index <= applied.index && applied.index <= lastIndex, `I34 ${replica}: ${where}`);
    check(log.size === lastIndex - base.index || unhealthy.has(replica), `I34 ${replica}: the log has holes; ${where}`);
    const last = chosen[base.index - 1];
    const isKnown = base.index === 0 || engine.kind.name === "paxos" || last?.epoch === base.epoch;
    check(isKnown, `I34 ${replica}: the base ${base.index} is of epoch ${base.epoch}, not ${last?.epoch}`);
    for (let index = base.index + 1; index <= applied.index; index++) {
      const held = log.get(index)?.entry;
      const wanted = chosen[index - 1];
      const fine = unhealthy.has(replica) || (held !== undefined && wanted !== undefined && rules.isSame(held, wanted));
      check(fine, `I34 ${replica}: entry ${index} of the log is not what was applied`);
    }
  }

  /** I62: what was chosen and is damaged is not taken for something that was never there. */
  function checkNotAbsent(replica: string, { state, applied, log }: MemoryDisk): void {
    if (state === null || !state.voting || state.promisedLast !== null) return;
    const end = Math.min(endedAt.get(replica) ?? 0, chosen.length);
    for (let index = Math.max(state.base.index, applied.index) + 1; index <= end; index++) {
      const held = log.get(index)?.entry;
      const wanted = chosen[index - 1];
      const isThere = held !== undefined && wanted !== undefined && index <= state.lastIndex;
      check(isThere, `I62 ${replica} may vote, and has forgotten the chosen entry ${index}`);
    }
  }

  /** I4: a leader holds whatever earlier epochs committed. A new leader of Multi-Paxos may still be writing it (P4). */
  function checkComplete(replica: string, epoch: number): void {
    const disk = disks.get(replica);
    if (engine.kind.name === "paxos" || !disk) return;
    for (const [i, entry] of chosen.entries()) {
      const held = disk.log.get(i + 1)?.entry;
      const fine = (chosenBy[i] ?? 0) >= epoch || i < (disk.state?.base.index ?? 0) || held?.epoch === entry.epoch;
      check(fine, `I4 ${replica} leads epoch ${epoch} without the committed entry ${i + 1}`);
    }
  }

  return {
    oracle,
    check,
    appended(append) {
      disks.set(append.replica, append.disk);
      for (const { entry } of append.disk.log.values()) {
        if (entry.kind !== "config" || entry.index < append.from) continue;
        const wrong = configurations.written(entry, configurationsBelow(append.disk, entry.index));
        check(wrong === null, `I35 ${append.replica}: ${wrong}`);
      }
      rules.appended(append);
    },
    leaves: (from, to, disk, body) => rules.leaves(from, to, disk, engine.kind.decodeMessage(body)),
    applied(replica, disk, before) {
      for (let index = before + 1; index <= disk.applied.index; index++) {
        if (index > chosen.length) choose(replica, disk, index);
        compareApplied(replica, disk, index);
      }
      compareState(replica, disk);
    },
    counts,
    compacted(replica, disk) {
      counts.compactions += 1;
      compareLog(replica, disk);
    },
    installed(replica, disk, before) {
      counts.installs += 1;
      const { index } = disk.applied;
      check(index <= chosen.length, `I32 ${replica} installed ${index}; ${chosen.length} are chosen`);
      for (let at = before + 1; at <= index; at++) compareApplied(replica, disk, at);
      compareState(replica, disk);
      compareLog(replica, disk);
    },
    rolledBack(replica, disk) {
      compareState(replica, disk);
      compareLog(replica, disk);
    },
    role(replica, role, term, commit) {
      for (const leader of leaders.values()) if (leader.replica === replica) leader.leads = false;
      if (role !== "leader") return;
      const known = leaders.get(term);
      check(known === undefined || known.replica === replica, `I1 ${known?.replica} and ${replica} lead epoch ${term}`);
      if (known === undefined) checkComplete(replica, term);
      leaders.set(term, { replica, commit: known?.commit ?? commit, leads: true });
    },
    damaged(replica, forGood) {
      unhealthy.add(replica);
      if (forGood) forgetful.add(replica);
      endedAt.set(replica, disks.get(replica)?.state?.lastIndex ?? 0);
    },
    lookAgain(replica, disk) {
      if (!unhealthy.has(replica)) return;
      checkNotAbsent(replica, disk);
      if (forgetful.has(replica) || !isWhole(disk)) return;
      unhealthy.delete(replica);
      counts.repairs += 1;
      compareState(replica, disk);
      compareLog(replica, disk);
    },
    startedOver: (replica) => check(unhealthy.has(replica), `I11 ${replica} drops all that it has applied`),
    healthy: (replica) => !unhealthy.has(replica),
    tolerates: (replica) =>
      configurations.open().every((open) => hasQuorum(open, (id) => id !== replica && !unhealthy.has(id))),
    isMember: (replica) => isMember(configurations.newest().configuration, replica),
    halted(replica, reason) {
      check(unhealthy.has(replica), `I11 ${replica} halted: ${reason}`);
    },
    lostVote(replica, reason) {
      check(unhealthy.has(replica), `I11 ${replica} lost its vote: ${reason}`);
    },
    chosenCount: () => chosen.length,
    whenChosen: (listener) => void listeners.push(listener),
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
        const wanted: Entry | undefined = chosen[index - 1];
        const same = wanted === undefined || rules.isSame(entry, wanted);
        check(same && isIntact(entry, checksum), `I6 ${replica}: log entry ${index} is not the committed one`);
      }
    },
  };
}
