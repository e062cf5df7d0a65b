/**
 * Owns the check of a whole snapshot before anything of it is used: bytes, rows, and the chain through its ledger.
 *
 * What it cannot check is that the other tables are what the ledger leads to: `shardpact audit verify` does.
 */
import { chainNext, CHAIN_ZERO } from "../../catalog/chain.ts";
import type { LogIndex } from "../../consensus/engine.ts";
import { hashAs } from "../../merkle/hash.ts";
import { bytesEqual, formatDigest } from "../../model/bytes.ts";
import { ShardpactError } from "../../model/errors.ts";
import type { InstallOptions } from "../port.ts";
import { type SnapshotFile, throwIfAborted } from "./file.ts";
import { damagedSnapshot } from "./header.ts";
import { LEDGER_TABLE, SNAPSHOT_TABLES } from "./tables.ts";

export interface CheckOptions extends InstallOptions {
  readonly path: string;
  readonly groupId: string;
  /** Where the store stands, or stood: the snapshot must hold that history, or be part of it. */
  readonly own: { readonly index: LogIndex; chainAt(index: LogIndex): Promise<string | null> };
}

/** @throws `damaged`, `group_forked`, `upgrade_required`, `aborted` */
export async function checkSnapshot(file: SnapshotFile, options: CheckOptions): Promise<void> {
  const { path, groupId, own, digest, signal } = options;
  const { info } = file;
  if (digest !== undefined && digest !== info.digest)
    throw new ShardpactError("damaged", `snapshot ${path} is ${info.digest}, not ${digest}`, {
      details: { path, expected: digest, got: info.digest },
    });
  if (info.groupId !== groupId) throw forked(path, `it is of group ${info.groupId}, the store of ${groupId}`);
  if (formatDigest(hashAs("genesis", info.genesis)) !== groupId)
    throw damagedSnapshot(path, "header", 0, "its genesis is not its group's");
  await file.checkBytes(signal);
  const meet = Math.min(own.index, info.applied.index);
  const chain = await checkLedger(file, options, meet);
  const mine = meet === 0 ? CHAIN_ZERO : await own.chainAt(meet);
  if (chain !== mine) throw forked(path, `its history up to ${meet} is another than the store's`);
  for (const [i, table] of SNAPSHOT_TABLES.entries()) {
    if (table === LEDGER_TABLE) continue;
    let rows = 0;
    for await (const batch of file.rows(table)) {
      throwIfAborted(signal);
      rows += batch.length;
    }
    if (rows !== info.tables[i]?.rows) throw damagedSnapshot(path, table.name, 0, `it holds ${rows} rows`);
  }
}

/** Walks the ledger; answers with its chain at `meet`. */
async function checkLedger(
  file: SnapshotFile,
  { path, signal, onProgress }: CheckOptions,
  meet: LogIndex,
): Promise<string> {
  const { applied, genesis, epoch, tables } = file.info;
  const bad = (index: number, what: string) => damagedSnapshot(path, "ledger", 0, `entry ${index}: ${what}`);
  let chain = CHAIN_ZERO;
  let met = CHAIN_ZERO;
  let rows = 0;
  let hasGenesis = false;
  let last: { epoch: number; timeMs: number } = { epoch: 0, timeMs: 0 };
  for await (const batch of file.rows(LEDGER_TABLE)) {
    throwIfAborted(signal);
    for (const row of batch) {
      rows += 1;
      const { index, kind, payload } = row as { index: number; kind: string; payload: Uint8Array };
      if (index !== rows) throw bad(index, `follows ${rows - 1}`);
      const plain = kind === "noop" || kind === "config";
      chain = chainNext(chain, { index, kind: plain ? kind : "command", payload });
      if (chain !== row["chain"]) throw bad(index, "its chain value does not follow from its payload");
      if (kind === "config") hasGenesis ||= bytesEqual(payload, genesis);
      if (index === meet) met = chain;
      last = row as unknown as typeof last;
    }
    onProgress?.({ step: "check", table: "ledger", rows, rowsTotal: tables[0]?.rows ?? null });
  }
  if (rows !== applied.index || rows !== tables[0]?.rows) throw bad(rows, `is the last of ${applied.index}`);
  if (chain !== applied.chain || last.epoch !== epoch || last.timeMs !== applied.timeMs)
    throw bad(rows, "does not end where the header says");
  if (!hasGenesis) throw bad(1, "the group's first entry is not there");
  return met;
}

function forked(path: string, what: string): ShardpactError {
  return new ShardpactError("group_forked", `snapshot ${path}: ${what}`, {
    hint: "Use a snapshot of this very group; a store of another goes into a database of its own.",
  });
}
