/**
 * Owns founding a new group over what an old one agreed on: the old snapshot, and one entry more.
 *
 * The new group's genesis is the next entry of the same ledger, on the same chain: nothing is rewritten, indexes go on,
 * and every old receipt can still be checked. But the group has another id, made from that genesis: locks and clients of
 * the old group find another group (`group_forked`), whether or not the old one comes back.
 */
import { applyBatch } from "../../catalog/apply.ts";
import { hashAs } from "../../merkle/hash.ts";
import { formatDigest } from "../../model/bytes.ts";
import type { SnapshotInfo, SnapshotOptions } from "../port.ts";
import { checkSnapshot } from "./check.ts";
import { openSnapshot, type SnapshotFile } from "./file.ts";
import { LEDGER_TABLE } from "./tables.ts";
import { writeSnapshot } from "./write.ts";

/** @throws as checking and writing a snapshot do */
export async function refoundSnapshot(
  from: string,
  to: string,
  genesis: Uint8Array,
  options: SnapshotOptions = {},
): Promise<SnapshotInfo> {
  await using file = await openSnapshot(from);
  const { info } = file;
  await checkSnapshot(file, { ...options, path: from, groupId: info.groupId, own: { index: 0, chainAt } });
  // An epoch of its own: whatever the old group still wrote or promised lies below.
  const epoch = info.epoch + 1;
  const entry = { index: info.applied.index + 1, epoch, kind: "config" as const, payload: genesis };
  const { state, ledger } = applyBatch({ entries: [entry], state: info.applied, rows: [], outcomes: new Map() });
  const content = {
    groupId: formatDigest(hashAs("genesis", genesis)),
    applied: state,
    epoch,
    configurations: [genesis],
    async *rows(table: Parameters<SnapshotFile["rows"]>[0]) {
      yield* file.rows(table);
      if (table === LEDGER_TABLE) yield ledger;
    },
  };
  return await writeSnapshot(to, content, options);
}

/** Whether the snapshot ends where its group begins: nobody of the group can have promised anything yet. */
export async function isFounding(file: SnapshotFile): Promise<boolean> {
  for await (const batch of file.rows(LEDGER_TABLE)) {
    const last = batch.at(-1);
    if (last?.["index"] !== file.info.applied.index) continue;
    return last["kind"] === "config" && Buffer.compare(last["payload"] as Uint8Array, file.info.genesis) === 0;
  }
  return false;
}

async function chainAt(): Promise<null> {
  return null;
}
