/**
 * Owns snapshots of the in-memory stores: the same files, and the same refusals, as those in Postgres.
 */
import type { LedgerRow } from "../../catalog/apply.ts";
import { PRIMARY_KEYS, type Row, type Table } from "../../catalog/rows.ts";
import { rowKey } from "../../catalog/view.ts";
import { invariant } from "../../model/errors.ts";
import { isIntact } from "../log-record.ts";
import type { InstallOptions, SnapshotInfo, SnapshotInstalled, SnapshotOptions } from "../port.ts";
import { checkSnapshot } from "../snapshot/check.ts";
import { compareKeys, type DecodedRow } from "../snapshot/decode.ts";
import { assertSameTables } from "../snapshot/diverged.ts";
import { openSnapshot, type SnapshotFile } from "../snapshot/file.ts";
import { LEDGER_TABLE, SNAPSHOT_TABLES, type SnapshotTable } from "../snapshot/tables.ts";
import { type SnapshotContent, writeSnapshot } from "../snapshot/write.ts";
import { type MemoryDisk, type MemorySession, type MemoryState, rowsIn, sealed, writeMemory } from "./disk.ts";

type Rows = ReadonlyMap<Table, ReadonlyMap<string, Row>>;

export async function exportMemorySnapshot(
  { disk, identity, closed, lost }: MemorySession,
  path: string,
  options?: SnapshotOptions,
): Promise<SnapshotInfo> {
  if (closed && lost) throw lost;
  // Copies: applies go on while the file is written.
  const rows = new Map([...disk.rows].map(([table, byKey]) => [table, new Map(byKey)]));
  return await writeSnapshot(path, contentOf(identity.groupId, { ...disk, rows, ledger: [...disk.ledger] }), options);
}

export async function installMemorySnapshot(
  session: MemorySession,
  path: string,
  options: InstallOptions = {},
): Promise<SnapshotInstalled> {
  if (session.lost) throw session.lost;
  const { disk, identity } = session;
  const before = disk.applied;
  await using file = await openSnapshot(path, options.files);
  const own = { index: before.index, chainAt: async (at: number) => disk.ledger[at - 1]?.chain ?? null };
  await checkSnapshot(file, { ...options, path, groupId: identity.groupId, own });
  const { info } = file;
  if (info.applied.index <= before.index) return installed(info, false, session);
  const { rows, ledger } = await readAll(file, disk);
  if (before.index > 0) await assertSameTables(info, contentOf(identity.groupId, { ...disk, rows, ledger }), options);
  return await writeMemory(session, (state) => {
    invariant(disk.applied === before, "nothing is applied while a snapshot is installed");
    for (const table of Object.keys(PRIMARY_KEYS) as Table[])
      for (const [key, row] of rows.get(table) ?? []) rowsIn(disk, table).set(key, row);
    for (const row of ledger.slice(before.index)) {
      disk.ledger.push(row);
      if (row.commandId !== null) disk.outcomes.set(row.commandId, row);
    }
    disk.applied = info.applied;
    disk.unflushed.length = 0;
    moveLog(disk, state, info);
    session.hardState = disk.state?.hardState ?? session.hardState;
    return installed(info, true, session);
  });
}

function installed(info: SnapshotInfo, done: boolean, { disk }: MemorySession): SnapshotInstalled {
  invariant(disk.state, "a booted disk has its state");
  return { info, installed: done, base: disk.state.base, lastIndex: disk.state.lastIndex };
}

/** The log keeps what agrees with the snapshot. */
function moveLog(disk: MemoryDisk, state: MemoryState, { applied: { index }, epoch }: SnapshotInfo): void {
  const { hardState } = state;
  const raised = hardState.epoch < epoch ? { epoch, votedFor: null } : hardState;
  if (state.identity.engine === "paxos") {
    // Nothing above may go: it was accepted, and may be chosen.
    for (const at of disk.log.keys()) if (at <= index) disk.log.delete(at);
    const lastIndex = Math.max(state.lastIndex, index);
    disk.state = sealed({ ...state, hardState: raised, lastIndex, base: { index, epoch } });
    return;
  }
  const record = disk.log.get(index);
  const isWhole = record !== undefined && isIntact(record.entry, record.checksum);
  if (isWhole && record.entry.epoch === epoch) {
    disk.state = sealed({ ...state, hardState: raised });
    return;
  }
  // Damaged is not absent: what follows may have been promised, and can't be told from what contradicts the snapshot.
  const isLost = !isWhole && state.lastIndex > index;
  const reason = `entry ${index}, where an installed snapshot ends, was damaged`;
  const vote = isLost ? { voting: false, lostReason: state.lostReason ?? reason } : {};
  disk.log.clear();
  disk.state = sealed({ ...state, hardState: raised, lastIndex: index, base: { index, epoch }, ...vote });
}

/** What is there, and over it what the snapshot holds, as Postgres would put it. */
async function readAll(file: SnapshotFile, disk: MemoryDisk): Promise<{ rows: Rows; ledger: LedgerRow[] }> {
  const ledger = [...disk.ledger];
  for await (const batch of file.rows(LEDGER_TABLE))
    for (const row of batch as unknown as readonly LedgerRow[]) if (row.index > ledger.length) ledger.push(row);
  const rows = new Map<Table, Map<string, Row>>();
  for (const table of SNAPSHOT_TABLES) {
    if (table.table === "ledger") continue;
    const byKey = new Map(rowsIn(disk, table.table));
    for await (const batch of file.rows(table))
      for (const row of batch as unknown as readonly Row[]) putOver(byKey, row);
    rows.set(table.table, byKey);
  }
  return { rows, ledger };
}

const HISTORY: ReadonlySet<Table> = new Set(["version", "shard", "tag_move", "receipt", "revocation"]);

function putOver(rows: Map<string, Row>, row: Row): void {
  const key = rowKey(row);
  const old = rows.get(key);
  if (old && HISTORY.has(row.table)) return;
  if (row.table === "page" && old?.table === "page") rows.set(key, { ...old, holdUntilMs: row.holdUntilMs });
  else if (row.table === "pin" && old?.table === "pin") rows.set(key, { ...old, releasedIndex: row.releasedIndex });
  else rows.set(key, row);
}

interface Held {
  readonly applied: MemoryDisk["applied"];
  readonly rows: Rows;
  readonly ledger: readonly LedgerRow[];
}

function contentOf(groupId: string, { applied, rows, ledger }: Held): SnapshotContent {
  return {
    groupId,
    applied,
    epoch: ledger[applied.index - 1]?.epoch ?? 0,
    configurations: ledger.filter(({ kind }) => kind === "config").map(({ payload }) => payload),
    async *rows(table: SnapshotTable) {
      if (table.table === "ledger") return yield ledger;
      const all = [...(rows.get(table.table)?.values() ?? [])] as unknown as DecodedRow[];
      yield all.sort((a, b) => compareKeys(table.key, a, b));
    },
  };
}
