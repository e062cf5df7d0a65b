/**
 * Owns what both log stores must do alike: the checksum of a log record, and how a list of writes folds into one.
 *
 * The checksum finds damage at rest. It covers the index and the epoch too, so a record that was copied to another
 * place does not pass.
 */
import type { Entry, EntryKind, HardState, LogBase, LogIndex } from "../consensus/engine.ts";
import { hashAs, hashBytes } from "../merkle/hash.ts";
import { bytesEqual, concatBytes, formatDigest, u64le } from "../model/bytes.ts";
import { invariant, ShardpactError } from "../model/errors.ts";
import type { LogWrite, StoreIdentity } from "./port.ts";

export const CHECKSUM_BYTES = 16;
const KIND_BYTE = { noop: 0, config: 1, command: 2 } as const satisfies Record<EntryKind, number>;

/** BLAKE3(u64le index ‖ u64le epoch ‖ u8 kind ‖ payload), its first 16 bytes. */
export function checksumOf(entry: Entry): Uint8Array {
  const kind = new Uint8Array([KIND_BYTE[entry.kind]]);
  return hashBytes(concatBytes([u64le(entry.index), u64le(entry.epoch), kind, entry.payload])).subarray(
    0,
    CHECKSUM_BYTES,
  );
}

export function isIntact(entry: Entry, checksum: Uint8Array): boolean {
  return entry.kind in KIND_BYTE && bytesEqual(checksumOf(entry), checksum);
}

/** Several writes as one: what to remove first, then what to put, ascending; and where the log then ends. */
export interface FoldedWrite {
  readonly hardState: HardState | null;
  readonly removeFrom: LogIndex | null;
  readonly put: readonly Entry[];
  readonly lastIndex: LogIndex;
}

/** Folds writes that follow each other onto a log that ends at `lastIndex`. */
export function foldWrites(writes: readonly LogWrite[], lastIndex: LogIndex): FoldedWrite {
  let hardState: HardState | null = null;
  let removeFrom: LogIndex | null = null;
  let last = lastIndex;
  let put: Entry[] = [];
  for (const write of writes) {
    hardState = write.hardState ?? hardState;
    if (write.removeFrom !== null) {
      const from = write.removeFrom;
      removeFrom = Math.min(removeFrom ?? from, from);
      put = put.filter((entry) => entry.index < from);
      last = Math.min(last, from - 1);
    }
    for (const entry of write.put) {
      invariant(entry.index <= last + 1, `entry ${entry.index} leaves a hole after ${last}`);
      last = Math.max(last, entry.index);
    }
    put.push(...write.put);
  }
  // A later write of the same index wins; a statement may touch a row only once.
  const byIndex = new Map(put.map((entry) => [entry.index, entry]));
  const unique = byIndex.size === put.length ? put : [...byIndex.values()];
  return { hardState, removeFrom, put: unique.toSorted((a, b) => a.index - b.index), lastIndex: last };
}

/** Configurations from the group's first entry on: what came before, in a recovered group, was another's. */
export function configurationsOf<T extends { readonly payload: Uint8Array }>(
  { groupId }: StoreIdentity,
  configurations: readonly T[],
): readonly T[] {
  const first = configurations.findIndex(({ payload }) => formatDigest(hashAs("genesis", payload)) === groupId);
  return first > 0 ? configurations.slice(first) : configurations;
}

/** Nobody writes into what was compacted: it is chosen. */
export function assertAfter(compacted: LogIndex, removeFrom: LogIndex | null, put: readonly Entry[]): void {
  const lowest = Math.min(removeFrom ?? Infinity, put[0]?.index ?? Infinity);
  invariant(lowest > compacted, `a write at ${lowest} of a log that starts after ${compacted}`);
}

/** @throws `invalid_argument` when the rows of `index` are not made yet */
export function assertCompactable({ replica }: StoreIdentity, index: LogIndex, applied: LogIndex): void {
  if (Number.isSafeInteger(index) && index <= applied) return;
  throw new ShardpactError("invalid_argument", `replica ${replica}: compacting to ${index}, applied is ${applied}`);
}

/** @throws `invalid_argument` when the log would not go on after what is applied */
export function assertResettable({ replica }: StoreIdentity, { index }: LogBase, applied: LogIndex): void {
  if (index === applied) return;
  throw new ShardpactError("invalid_argument", `replica ${replica}: resetting to ${index}, applied is ${applied}`);
}

/** What `read` throws for entries that were compacted: a snapshot holds what they led to. */
export function compactedEntries(replica: string, from: LogIndex, compacted: LogIndex): ShardpactError {
  return new ShardpactError("not_found", `log of replica ${replica}: entry ${from} is compacted`, {
    details: { replica, from, compacted },
    hint: "Whoever needs it takes a snapshot.",
  });
}

/** What `read` throws for entries that should be there and are not, or are not what was written. */
export function damagedEntries(replica: string, indexes: readonly LogIndex[]): ShardpactError {
  return new ShardpactError("damaged", `log of replica ${replica}: entry ${indexes.join(", ")} is damaged or missing`, {
    details: { replica, indexes },
    hint: "The replica repairs it from its peers; until then it does not vote.",
  });
}

/** Refuses to open a store that belongs to somebody else. @throws `config_invalid` */
export function assertIdentity(stored: StoreIdentity, wanted: StoreIdentity): void {
  for (const field of ["groupId", "replica", "engine"] as const) {
    if (stored[field] === wanted[field]) continue;
    throw new ShardpactError(
      "config_invalid",
      `the database belongs to ${field} '${stored[field]}', not '${wanted[field]}'`,
      {
        details: { stored, wanted },
        hint: "Give each replica of each group a database of its own.",
      },
    );
  }
}

/** What every write of a store throws after another boot took it over. */
export function fencedError(identity: StoreIdentity, boot: number): ShardpactError {
  return new ShardpactError(
    "fenced",
    `replica ${identity.replica}: its database was taken over by a boot above ${boot}`,
    {
      details: { replica: identity.replica, boot },
      hint: "Another process runs with this replica's name and database: stop one of them.",
    },
  );
}
