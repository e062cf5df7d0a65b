/**
 * Owns questions to a simulated disk that are about itself alone.
 */
import type { Entry } from "../../src/consensus/engine.ts";
import { isIntact } from "../../src/storage/log-record.ts";
import type { MemoryDisk } from "../../src/storage/memory/disk.ts";

/** All that it promised is there, as it was written. */
export function isWhole({ state, log }: MemoryDisk): boolean {
  if (state === null || !state.voting || state.promisedLast !== null) return false;
  for (let index = state.base.index + 1; index <= state.lastIndex; index++) {
    const record = log.get(index);
    if (!record || !isIntact(record.entry, record.checksum)) return false;
  }
  return true;
}

export function configurationsBelow({ log }: MemoryDisk, index: number): readonly Entry[] {
  const below = [...log.values()].filter(({ entry }) => entry.index < index && entry.kind === "config");
  return below.map(({ entry }) => entry).toSorted((a, b) => a.index - b.index);
}

export function plain(row: object): unknown {
  return "bytes" in row && row.bytes instanceof Uint8Array ? { ...row, bytes: row.bytes.byteLength } : row;
}
