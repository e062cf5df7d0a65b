/**
 * Owns writing a snapshot file: streams first, then the header in the room left for it, then the file's real name.
 *
 * A file under its name is whole: it is written beside it and renamed when it is on the disk.
 */
import { dirname } from "node:path";
import type { AppliedState } from "../../catalog/apply.ts";
import type { Epoch } from "../../consensus/engine.ts";
import { Hasher, hashAs } from "../../merkle/hash.ts";
import { formatDigest } from "../../model/bytes.ts";
import { isShardpactError, ShardpactError } from "../../model/errors.ts";
import type { OpenFile, SnapshotInfo, SnapshotOptions, SnapshotTableInfo } from "../port.ts";
import { createTableEncoder } from "./encode.ts";
import { nodeFiles } from "./files.ts";
import { encodeHeader, headerBytes, infoOf, trailerOf } from "./header.ts";
import { CATALOG_LEVEL, SNAPSHOT_TABLES, type SnapshotTable } from "./tables.ts";

/** One moment of a catalog, as a store gives it. */
export interface SnapshotContent {
  readonly groupId: string;
  readonly applied: AppliedState;
  readonly epoch: Epoch;
  /** Payloads of the ledger's `config` entries, oldest first. */
  readonly configurations: readonly Uint8Array[];
  /** All rows of a table in the order of their keys, in pieces of any size. */
  rows(table: SnapshotTable): AsyncIterable<readonly object[]>;
}

/** @throws `invalid_argument` (nothing is applied), `damaged` (no genesis of this group), `store_failed`, `aborted` */
export async function writeSnapshot(
  path: string,
  content: SnapshotContent,
  options: SnapshotOptions = {},
): Promise<SnapshotInfo> {
  const { groupId, applied, epoch } = content;
  const head = { groupId, genesis: genesisOf(content), catalogLevel: CATALOG_LEVEL, applied, epoch };
  const { files = nodeFiles } = options;
  const partial = `${path}.partial`;
  let file: OpenFile | null = null;
  try {
    file = await files.open(partial, "w");
    const tables: SnapshotTableInfo[] = [];
    let offset = headerBytes(head);
    for (const table of SNAPSHOT_TABLES) {
      const written = await writeTable(file, offset, table, content, options);
      tables.push(written);
      offset += written.bytes;
    }
    const encoded = encodeHeader({ ...head, tables });
    await file.write(encoded, 0);
    await file.write(trailerOf(encoded), offset);
    await file.sync();
    await file.close();
    await files.rename(partial, path);
    await files.syncFolder(dirname(path));
    return infoOf({ ...head, tables }, encoded);
  } catch (error) {
    await file?.close().catch(() => undefined);
    await files.remove(partial);
    throw asFileError(error, path, "writing");
  }
}

/** Streams of the tables as digests only: what a file of this content would say. */
export async function digestTables(
  content: SnapshotContent,
  tables: readonly SnapshotTable[],
  options: SnapshotOptions,
): Promise<readonly SnapshotTableInfo[]> {
  const found: SnapshotTableInfo[] = [];
  for (const table of tables) found.push(await writeTable(null, 0, table, content, options));
  return found;
}

async function writeTable(
  file: OpenFile | null,
  offset: number,
  table: SnapshotTable,
  content: SnapshotContent,
  { signal, onProgress, breathe }: SnapshotOptions,
): Promise<SnapshotTableInfo> {
  const encoder = createTableEncoder(table);
  const hasher = new Hasher();
  let bytes = 0;
  let rows = 0;
  const put = async (part: Uint8Array): Promise<void> => {
    hasher.update(part);
    await file?.write(part, offset + bytes);
    bytes += part.byteLength;
  };
  await put(encoder.head);
  for await (const piece of content.rows(table)) {
    if (signal?.aborted) throw new ShardpactError("aborted", "the snapshot was aborted", { cause: signal.reason });
    for (const row of piece) {
      const batch = encoder.add(row);
      if (batch) await put(batch);
    }
    await breathe?.();
    rows += piece.length;
    onProgress?.({ step: "write", table: table.name, rows, rowsTotal: null });
  }
  await put(encoder.finish());
  return { name: table.name, rows, bytes, digest: formatDigest(hasher.digest()) };
}

function genesisOf({ groupId, applied, configurations }: SnapshotContent): Uint8Array {
  if (applied.index === 0)
    throw new ShardpactError("invalid_argument", "nothing is applied yet: there is nothing to take a snapshot of");
  const genesis = configurations.find((payload) => formatDigest(hashAs("genesis", payload)) === groupId);
  if (genesis) return genesis;
  throw new ShardpactError("damaged", `the ledger does not hold the first entry of its group ${groupId}`, {
    hint: "Run `shardpact audit verify` on this replica's database.",
  });
}

/** Our own errors pass; what the file system says is `store_failed`. */
export function asFileError(error: unknown, path: string, doing: string): ShardpactError {
  if (isShardpactError(error)) return error;
  const { code, message } = error as { code?: string; message?: string };
  return new ShardpactError("store_failed", `${doing} the snapshot ${path} failed: ${message ?? String(error)}`, {
    cause: error,
    details: { path, code: code ?? null },
    hint: "Check the path, its rights, and the room on its disk.",
  });
}
