/**
 * Owns the catalog in memory: rows in a map, each apply with what takes it back.
 */
import { type AppliedEntry, applyBatch, type BatchOutput, needsOfBatch } from "../../catalog/apply.ts";
import type { Need, Row, Table } from "../../catalog/rows.ts";
import { rowKey } from "../../catalog/view.ts";
import type { Entry } from "../../consensus/engine.ts";
import { answerQuery } from "../answer-query.ts";
import { fencedError } from "../log-record.ts";
import type { CatalogStore } from "../port.ts";
import { createMemorySource } from "./catalog-source.ts";
import { type MemoryDisk, type MemorySession, type MemoryUndo, rowsIn, writeMemory } from "./disk.ts";
import { exportMemorySnapshot, installMemorySnapshot } from "./snapshot.ts";

export function createMemoryCatalogStore(session: MemorySession, close: () => Promise<void>): CatalogStore {
  const { disk } = session;
  const open = () => {
    if (session.closed && session.lost) throw session.lost;
  };
  return {
    apply: (entries) => writeMemory(session, () => apply(disk, entries)),
    applied: () => disk.applied,
    query: async (query, asOf) => {
      if (session.boot === 0 || session.closed) throw session.lost ?? fencedError(session.identity, session.boot);
      if (disk.state?.boot !== session.boot) throw fencedError(session.identity, session.boot);
      return await answerQuery(createMemorySource(disk, asOf ?? disk.applied.index), query);
    },
    outcome: async (commandId) => {
      open();
      const row = disk.outcomes.get(commandId);
      if (!row) return null;
      const { index, epoch, outcome, timeMs, chain } = row;
      return { index, epoch, commandId, retry: false, firstIndex: index, outcome, timeMs, chain };
    },
    chainAt: async (index) => {
      open();
      return disk.ledger[index - 1]?.chain ?? null;
    },
    exportSnapshot: (path, options) => exportMemorySnapshot(session, path, options),
    installSnapshot: (path, options) => installMemorySnapshot(session, path, options),
    close,
    [Symbol.asyncDispose]: close,
  };
}

function apply(disk: MemoryDisk, entries: readonly Entry[]): readonly AppliedEntry[] {
  const { needs, commandIds } = needsOfBatch(entries);
  const outcomes = new Map(
    commandIds.flatMap((id) => {
      const row = disk.outcomes.get(id);
      return row?.bodyDigest ? [[id, { index: row.index, bodyDigest: row.bodyDigest, outcome: row.outcome }]] : [];
    }),
  );
  const rows = needs.flatMap((need) => rowsOf(disk, need));
  const batch = applyBatch({ entries, state: disk.applied, rows, outcomes });
  write(disk, batch);
  return batch.applied;
}

function write(disk: MemoryDisk, { changes, ledger, state }: BatchOutput): void {
  const before: MemoryUndo["rows"][number][] = [];
  for (const { row } of changes) {
    const key = rowKey(row);
    const rows = rowsIn(disk, row.table);
    const old = rows.get(key);
    before.push({ table: row.table, key, row: old ?? null });
    // Of a page put again, only the hold moves.
    rows.set(key, row.table === "page" && old?.table === "page" ? { ...old, holdUntilMs: row.holdUntilMs } : row);
  }
  disk.unflushed.push({ applied: disk.applied, rows: before });
  for (const row of ledger) {
    disk.ledger.push(row);
    if (row.commandId !== null) disk.outcomes.set(row.commandId, row);
  }
  disk.applied = state;
}

/** The rows of one need, as far as they exist. */
function rowsOf(disk: MemoryDisk, need: Need): Row[] {
  const get = (table: Table, ...key: readonly (string | number)[]): Row[] => {
    const row = rowsIn(disk, table).get([table, ...key].join("\n"));
    return row ? [row] : [];
  };
  switch (need.kind) {
    case "dataset":
      return get("dataset", need.name);
    case "version":
      return get("version", need.dataset, need.version);
    case "version_classes":
      return get("version", need.dataset, need.version).flatMap((row) =>
        row.table === "version" ? get("page", row.classes) : [],
      );
    case "head_pages":
      return [...rowsIn(disk, "version_page").values()].filter(
        (row) =>
          row.table === "version_page" &&
          row.dataset === need.dataset &&
          row.position >= need.from &&
          row.untilVersion === null,
      );
    case "page":
      return get("page", need.digest).map((row) =>
        row.table === "page" && !need.withBytes ? { ...row, bytes: new Uint8Array(0) } : row,
      );
    case "tag":
      return get("tag", need.dataset, need.tag);
    case "run":
      return get("run", need.run);
    case "run_epoch":
      return get("run_epoch", need.run, need.epoch);
    case "pin":
      // Rows are in the order in which the pin was taken.
      return [...rowsIn(disk, "pin").values()]
        .filter((row) => row.table === "pin" && row.dataset === need.dataset && row.run === need.run)
        .slice(-1);
    case "revocation":
      return get("revocation", need.subject);
    case "lease":
      return get("lease", need.dataset, need.version, need.run);
  }
}
